# SPDX-License-Identifier: Apache-2.0
"""One image on its way through the tracker, and what a later correction of it needs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lazyxmem_ros.xmem.gating import Place
from lazyxmem_ros.xmem.inputs import outputs
from lazyxmem_ros.xmem.network import STRIDE, KeyFeatures, aggregate
from lazyxmem_ros.xmem.storage import lasting_copies

WRONG_IOU = 0.5
"""IoU with what is known to be right below which a prediction was of something else."""


@dataclass
class Frame:
    """One image on its way through the tracker, and what a later correction of it needs."""

    index: int
    """Counts the images since the start or the last reset."""
    stamp: int
    """Nanoseconds since the epoch, as given to `segment`."""
    size: tuple[int, int]
    """Height and width of the image as given, pixels."""
    object_ids: tuple[int, ...]
    """The objects, in the order of `probabilities`."""
    image: Tensor | None
    """Normalised, scaled and padded image [1, 3, H', W']; None when it was let go: what needs it
    computes it again from `pixels`."""
    pixels: Tensor | None
    """The image as given, RGB uint8 [H, W, 3] on the CPU; None where `image` is smaller, which
    stays then."""
    features: KeyFeatures | None
    """The key encoder's features; None while there has been nothing to track, and when they were
    let go: what needs them computes them again."""
    distribution: Tensor
    """Probabilities [K + 1, H', W'] at the padded internal size; [0, H', W'] when the prediction
    was let go."""
    hidden: dict[int, Tensor]
    """Hidden state [C_h, h, w] of each object after this frame's decoding; a deep update when it
    enters memory is the tracker's. Empty when the prediction was let go."""
    clock: int
    """The memory clock's reading that this frame has if it is not held."""
    deep_update: bool
    """Whether the frame is due for a deep update of the hidden state."""
    inner_size: tuple[int, int]
    """Height and width of the scaled image, without its padding."""
    places: dict[int, Place] = field(default_factory=dict)
    """Where each object is, where there is a gate around it (see `gating`)."""
    ungated: Tensor | None = None
    """The distribution with what was found outside of the gates, for memory, until there is a newer
    frame."""
    given: dict[int, Tensor] = field(default_factory=dict)
    """Masks given on this frame, float [H', W'] in 0..1."""
    opening: Mapping[int, Tensor] = field(default_factory=dict)
    """Those with which it was opened, whatever became of their objects."""
    open: bool = True
    """Whether it has not been memorized, held or corrected yet."""
    _probabilities: Tensor | None = None
    _settled: tuple[Tensor, ...] = ()  # what lies in memory for what stays

    @property
    def predicted(self) -> bool:
        """Whether its prediction is there: it goes with what `release` lets go."""
        return len(self.distribution) > 0

    def kept(self) -> Iterator[Tensor]:
        """The tensors kept for corrections, the image in the smaller of its forms first."""
        for together in self._parts():
            yield from together

    def _parts(self) -> tuple[Collection[Tensor], ...]:
        """The tensors that are kept, parted by what comes and goes together."""
        source = self.image if self.pixels is None else self.pixels
        assert source is not None
        return (
            (source,),
            self.features or (),
            (self.distribution,),
            () if self.ungated is None else (self.ungated,),
            {id(mask): mask for mask in (*self.given.values(), *self.opening.values())}.values(),
            self.hidden.values(),
        )

    # ---- its life

    def copy(self) -> Frame:
        """The same frame, with a life of its own; tensors are shared, nothing writes into them.

        The scaled image is let go where there are `pixels`.
        """
        image = self.image if self.pixels is None else None
        return replace(
            self,
            image=image,
            hidden=dict(self.hidden),
            places=dict(self.places),
            given=dict(self.given),
        )

    def reopened(
        self,
        object_ids: tuple[int, ...],
        *,
        hidden: Mapping[int, Tensor],
        places: Mapping[int, Place],
        clock: int,
        deep_update: bool,
    ) -> Frame:
        """The same image and features as an open frame of these objects, on which nothing has been
        predicted or given yet.
        """
        return replace(
            self,
            object_ids=object_ids,
            distribution=self.distribution.new_ones(1, *self.distribution.shape[-2:]),
            hidden=dict(hidden),
            places=dict(places),
            ungated=None,
            clock=clock,
            deep_update=deep_update,
            given={},
            open=True,
            _probabilities=None,
        )

    def settle(self) -> None:
        """Move what is kept to memory for what stays (see `storage`); all values stay the same.

        What is replaced later moves with the next call. On a GPU nothing needs to move. What
        `probabilities` computed at the image's size is let go; they can be had again. So is, once
        the frame is closed, the scaled image where there are `pixels`.
        """
        self._probabilities = None
        if self.pixels is not None and not self.open:
            self.image = None
        if self.distribution.device.type != "cpu":
            return
        settled = {id(t) for t in self._settled}
        moved: dict[int, Tensor] = {}
        for together in self._parts():  # any may go before the others, and its pages then
            moving = [t for t in together if id(t) not in settled]
            moved |= dict(zip(map(id, moving), lasting_copies(moving), strict=True))
        self.image = moved.get(id(self.image), self.image)
        self.pixels = moved.get(id(self.pixels), self.pixels)
        if self.features is not None:
            self.features = KeyFeatures(*(moved.get(id(t), t) for t in self.features))
        self.distribution = moved.get(id(self.distribution), self.distribution)
        self.ungated = moved.get(id(self.ungated), self.ungated)
        self.hidden = {i: moved.get(id(t), t) for i, t in self.hidden.items()}
        self.given = {i: moved.get(id(t), t) for i, t in self.given.items()}
        self.opening = {i: moved.get(id(t), t) for i, t in self.opening.items()}
        self._settled = tuple(self.kept())

    def release(self, *, prediction: bool = True) -> None:
        """Let go of what is computed again, to the same bits, when the closed frame is gone through
        again: features and, unless it is to stay, the prediction.
        """
        self.features = None
        if prediction:
            self.set_distribution(self.distribution.new_empty(0, *self.distribution.shape[-2:]))
            self.hidden, self.places = {}, {}
        self.settle()

    def set_distribution(self, distribution: Tensor, *, ungated: Tensor | None = None) -> None:
        """Replace the probabilities [K + 1, H', W'], and those that memory takes in."""
        self.distribution, self.ungated = distribution, ungated
        self._probabilities = None

    def remove_objects(self, object_ids: Collection[int]) -> None:
        """Take objects, shown on it or not, off the frame; the background gets their pixels."""
        keep = [n for n, i in enumerate(self.object_ids) if i not in object_ids]
        if self.predicted:
            ungated = None if self.ungated is None else _only(self.ungated, keep)
            self.set_distribution(_only(self.distribution, keep), ungated=ungated)
        self.object_ids = tuple(self.object_ids[n] for n in keep)
        for object_id in object_ids:
            self.hidden.pop(object_id, None)
            self.places.pop(object_id, None)
            self.given.pop(object_id, None)

    # ---- what it shows

    @property
    def probabilities(self) -> Tensor:
        """Float tensor [K + 1, H, W] on the device: background, then the objects in order."""
        if self._probabilities is None:
            self._probabilities = self.at_output_size(self.distribution)
        return self._probabilities

    def at_output_size(self, distribution: Tensor) -> Tensor:
        """[K, H', W'] -> [K, H, W]."""
        return outputs(distribution, self.inner_size, self.size)

    def labels(self) -> NDArray[np.uint16]:
        """Label map [H, W]: the most probable object's id, 0 for background."""
        return self._ids()[self.probabilities.max(0).indices].cpu().numpy().astype(np.uint16)

    def token_labels(self) -> Tensor:
        """The id of the object that each memory token [hw] shows, 0 for background; int64."""
        share = F.avg_pool2d(self.distribution[None], STRIDE)[0]
        return self._ids()[share.max(0).indices].flatten()

    def overlay(self, masks: Mapping[int, Tensor]) -> None:
        """Replace the probabilities by those `with_masks`."""
        ungated = None if self.ungated is None else self.with_masks(masks, self.ungated)
        self.set_distribution(self.with_masks(masks, self.distribution), ungated=ungated)

    def with_masks(self, masks: Mapping[int, Tensor], distribution: Tensor) -> Tensor:
        """A distribution [K + 1, H', W'] with masks [H', W'], 0..1, of some of its objects, or of
        new ones, which come last.

        Where a mask covers a pixel the other objects' predictions are zero; elsewhere they stay.
        """
        covered = torch.stack(list(masks.values())).sum(0) > 0.5
        before = dict(zip(self.object_ids, distribution[1:], strict=True))
        ids = dict.fromkeys((*self.object_ids, *masks))
        objects = [
            masks[i] if i in masks else before[i].expand_as(covered).masked_fill(covered, 0)
            for i in ids
        ]
        return aggregate(torch.stack(objects))

    def is_wrong(self, object_id: int, mask: Tensor) -> bool:
        """Whether the prediction of an object is of something else than the mask [H', W'] is."""
        position = self.object_ids.index(object_id) + 1
        predicted, truth = self.distribution.argmax(0) == position, mask > 0.5
        both, either = (predicted & truth).sum(), (predicted | truth).sum()
        return bool(both < WRONG_IOU * either)

    def _ids(self) -> Tensor:
        """The ids [K + 1] of the distribution's classes, 0 for background."""
        return torch.tensor([0, *self.object_ids], device=self.distribution.device)


def _only(distribution: Tensor, positions: list[int]) -> Tensor:
    """Probabilities [K + 1, H, W] with some of the K objects alone; the background gets what the
    others had of a pixel.
    """
    objects = distribution[1:][positions]
    return torch.cat([1 - objects.sum(0, keepdim=True), objects])

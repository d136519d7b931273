# SPDX-License-Identifier: Apache-2.0
"""One image on its way through the tracker."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lazyxmem_ros.xmem.inputs import outputs
from lazyxmem_ros.xmem.network import KeyFeatures
from lazyxmem_ros.xmem.storage import lasting_copies


class Closing(enum.Enum):
    """How a frame was closed."""

    MEMORIZED = "memorized"
    HELD = "held"
    CORRECTED = "corrected"


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
    image: Tensor
    """Normalised, scaled and padded image [1, 3, H', W']."""
    features: KeyFeatures | None
    """The key encoder's features; None while there has been nothing to track."""
    distribution: Tensor
    """Probabilities [K + 1, H', W'] at the padded internal size."""
    hidden: dict[int, Tensor]
    """Hidden state [C_h, h, w] of each object after this frame's decoding; a deep update when it
    enters memory is the tracker's."""
    clock: int
    """The memory clock's reading that this frame has if it is not held."""
    deep_update: bool
    """Whether the frame is due for a deep update of the hidden state."""
    inner_size: tuple[int, int]
    """Height and width of the scaled image, without its padding."""
    given: dict[int, Tensor] = field(default_factory=dict)
    """Masks given on this frame, float [H', W'] in 0..1."""
    closing: Closing | None = None
    """How it was closed; None while it is open."""
    _probabilities: Tensor | None = None
    _settled: tuple[Tensor, ...] = ()  # what lies in memory for what stays

    @property
    def open(self) -> bool:
        """Not yet memorized, held or corrected."""
        return self.closing is None

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that it keeps for corrections."""
        return sum(t.nbytes for t in self._kept())

    @property
    def made_bytes(self) -> int:
        """Of these, bytes of what is made anew when it is gone through again."""
        return self.distribution.nbytes + sum(h.nbytes for h in self.hidden.values())

    def _kept(self) -> Iterator[Tensor]:
        yield from (self.image, *(self.features or ()), self.distribution)
        yield from self.given.values()
        yield from self.hidden.values()

    @property
    def probabilities(self) -> Tensor:
        """Float tensor [K + 1, H, W] on the device: background, then the objects in order."""
        if self._probabilities is None:
            self._probabilities = self.at_output_size(self.distribution)
        return self._probabilities

    def copy(self) -> Frame:
        """The same frame, with a life of its own; tensors are shared, nothing writes into them."""
        return replace(self, hidden=dict(self.hidden), given=dict(self.given))

    def settle(self) -> None:
        """Move what is kept to memory for what stays (see `storage`); all values stay the same.

        What is replaced later moves with the next call. On a GPU nothing needs to move. What
        `probabilities` computed at the image's size is let go; they can be had again.
        """
        self._probabilities = None
        if self.image.device.type != "cpu":
            return
        settled = {id(t) for t in self._settled}
        moving = [t for t in self._kept() if id(t) not in settled]
        moved = dict(zip(map(id, moving), lasting_copies(moving), strict=True))
        self.image = moved.get(id(self.image), self.image)
        if self.features is not None:
            self.features = KeyFeatures(*(moved.get(id(t), t) for t in self.features))
        if id(self.distribution) in moved:
            self.set_distribution(moved[id(self.distribution)])
        self.hidden = {i: moved.get(id(t), t) for i, t in self.hidden.items()}
        self.given = {i: moved.get(id(t), t) for i, t in self.given.items()}
        self._settled = tuple(self._kept())

    def labels(self) -> NDArray[np.uint16]:
        """Label map [H, W]: the most probable object's id, 0 for background."""
        ids = torch.tensor([0, *self.object_ids], device=self.distribution.device)
        return ids[self.probabilities.max(0).indices].cpu().numpy().astype(np.uint16)

    def at_output_size(self, distribution: Tensor) -> Tensor:
        """[K, H', W'] -> [K, H, W]."""
        return outputs(distribution, self.inner_size, self.size)

    def set_distribution(self, distribution: Tensor) -> None:
        """Replace the probabilities [K + 1, H', W']."""
        self.distribution = distribution
        self._probabilities = None

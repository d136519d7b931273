# SPDX-License-Identifier: Apache-2.0
"""How well an object is probably tracked: its predicted IoU, from what the tracker itself can see.

Entropy alone is honest about doubt, but not about mistakes made with confidence: a tracker that
sits on a look-alike is often sure of itself. So six things are weighed: how sharp the mask is,
whether it is in one piece, the masked entropy, how much the object still looks like its portraits
(its mean key where a person showed or corrected it, twice: by direction and by distance), and how
suddenly its area changed.
A logistic function of them gives the IoU with the truth to be expected; its weights belong to one
network's weights and lie beside them (`calibration`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lazyxmem_ros.lazy.uncertainty import ObjectUncertainty, winning_class
from lazyxmem_ros.xmem import Frame
from lazyxmem_ros.xmem.network import STRIDE

MAX_PORTRAITS = 8
"""Portraits of one object; the first is kept for good, of the others the newest."""
BEFORE = -1
"""A stamp before all others, nanoseconds."""
AREA_MEMORY = 0.1
"""Share of the newest frame in an object's usual area (a running mean of its logarithm)."""
_EPSILON = 1e-3
_CRUMBS = 1e-2
"""Share of a mask outside its largest piece that is not told from none."""


@dataclass(frozen=True)
class Evidence:
    """What speaks for and against one object's mask on one frame, each about linear in the logit.

    Attributes:
        sharpness: logit of the soft IoU of mask and probabilities: that which the tracker would
            expect if its probabilities were right.
        wholeness: logit of the share of the mask that its largest piece has.
        doubt: logarithm of the masked entropy.
        likeness: cosine of the mean key under the mask and the portrait nearest to it, -1..1.
        strangeness: logarithm of the distance between the two.
        growth: logarithm of the area relative to the usual one.
        change: its size, whichever the direction.
    """

    sharpness: float
    wholeness: float
    doubt: float
    likeness: float
    strangeness: float
    growth: float
    change: float


class Looks:
    """What one object has looked like: portraits, and its usual area."""

    def __init__(
        self,
        portraits: Tensor | None = None,
        usual_area: float | None = None,
        portrayed: int | None = None,
        told: int | None = None,
    ) -> None:
        """portraits: float [P, C_k], the first one oldest; usual_area: log of pixels.

        portrayed: stamp of the newest frame of which a portrait was taken, nanoseconds; told: that
        of the newest one on which a person has shown the object and memory has learnt it.
        """
        self.portraits = portraits
        self.usual_area = usual_area
        self.portrayed = portrayed
        self.told = told
        self.share: float | None = None
        """Its area on the newest frame relative to the usual one; None before the first."""

    def copy(self) -> Looks:
        """Another one; tensors are replaced, never written into."""
        other = Looks(self.portraits, self.usual_area, self.portrayed, self.told)
        other.share = self.share
        return other

    def begun_again(self) -> Looks:
        """A copy for when any stamp may come next, which is later than all that it knows."""
        other = self.copy()
        due = self.portrayed is not None and self._told_since()
        other.told = BEFORE + 1 if due else None
        other.portrayed = None if self.portrayed is None else BEFORE
        return other

    def see(self, area: int, portrait: Tensor, stamp: int, *, all_known: bool = True) -> float:
        """Notes the object on a frame; returns the growth of its area [pixels, > 0], see `grow`.

        The portrait, float [C_k], is kept where one is due: on the first frame, and on the first
        after a person's correction has taken effect: what a person has just said is what the object
        looks like. all_known: whether every correction has taken effect by now.
        """
        growth = self.grow(area)
        self.share = math.exp(growth)
        if self.portrayed is None or (all_known and self._told_since()):
            self.remember(portrait.clone())
            self.portrayed = stamp
        return growth

    def _told_since(self) -> bool:
        assert self.portrayed is not None
        return self.told is not None and self.told > self.portrayed

    def remember(self, portrait: Tensor) -> None:
        """Adds a portrait, float [C_k]."""
        new = portrait[None]
        if self.portraits is None:
            self.portraits = new
            return
        later = torch.cat([self.portraits[1:], new])[-(MAX_PORTRAITS - 1) :]
        self.portraits = torch.cat([self.portraits[:1], later])

    def grow(self, area: int) -> float:
        """Logarithm of the area [pixels, > 0] relative to the usual one, which follows it."""
        now = math.log(area)
        if self.usual_area is None:
            self.usual_area = now
        change = now - self.usual_area
        self.usual_area += AREA_MEMORY * change
        return change


def portraits_of(frame: Frame) -> Tensor:
    """Mean key under each object's soft mask, float [K, C_k] on the CPU; there is an object."""
    assert frame.features is not None  # the objects were found by them, or given with them
    key = frame.features.key[0].float()
    weights = F.avg_pool2d(frame.distribution[None, 1:].float(), STRIDE)[0].flatten(1)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=_EPSILON)
    return (weights @ key.flatten(1).T).cpu()


class Shape(NamedTuple):
    """What one object's mask and probabilities at the internal size tell by themselves.

    Attributes:
        soft_iou: of the mask and the probabilities, 0..1.
        largest_piece: share of the mask's pixels in its largest 8-connected piece, 0..1.
    """

    soft_iou: float
    largest_piece: float


def shapes_of(frame: Frame) -> list[Shape]:
    """The shape of each of the frame's objects, in their order."""
    distribution = frame.distribution.float()
    winner = winning_class(distribution)
    classes = torch.arange(1, len(distribution), device=winner.device)
    masks = winner == classes[:, None, None]
    objects = distribution[1:]
    inside = (objects * masks).sum((1, 2))
    either = masks.sum((1, 2)) + objects.sum((1, 2)) - inside
    soft_ious = (inside / either.clamp(min=_EPSILON)).tolist()
    pieces = map(_largest_piece, masks.to(torch.uint8).cpu().numpy())
    return [Shape(*values) for values in zip(soft_ious, pieces, strict=True)]


def _largest_piece(mask: NDArray[np.uint8]) -> float:
    """Share of the mask in its largest piece; 1 of an empty mask."""
    stats = cv2.connectedComponentsWithStats(mask)[2]
    areas = stats[1:, cv2.CC_STAT_AREA]
    return float(areas.max() / areas.sum()) if len(areas) else 1.0


def weigh(shape: Shape, entropy: float, key: Tensor, looks: Looks, growth: float) -> Evidence:
    """The evidence on one object; `looks` must hold a portrait. key: float [C_k]."""
    assert looks.portraits is not None
    distances = (looks.portraits - key).norm(dim=1)
    nearest = int(distances.argmin())
    return Evidence(
        sharpness=_logit(shape.soft_iou, _EPSILON),
        wholeness=_logit(shape.largest_piece, _CRUMBS),
        doubt=math.log(entropy + _EPSILON),
        likeness=float(F.cosine_similarity(looks.portraits[nearest], key, dim=0)),
        strangeness=math.log(float(distances[nearest]) + _EPSILON),
        growth=growth,
        change=abs(growth),
    )


def _logit(share: float, margin: float) -> float:
    """Logit of 0..1, kept finite by the margin."""
    return math.log((share + margin) / (1 - share + margin))


@dataclass(frozen=True)
class IouPredictor:
    """Evidence -> predicted IoU: sigmoid(bias + sum of weight * (value - mean) / scale)."""

    mean: Evidence
    scale: Evidence
    weight: Evidence
    bias: float

    def predict(self, evidence: Evidence) -> float:
        """The IoU with the truth to be expected, 0..1."""
        values, weights = asdict(evidence), asdict(self.weight)
        means, scales = asdict(self.mean), asdict(self.scale)
        logit = self.bias
        for name, value in values.items():
            logit += weights[name] * (value - means[name]) / scales[name]
        return 1 / (1 + math.exp(-min(max(logit, -30.0), 30.0)))

    def of_frame(
        self,
        frame: Frame,
        measured: Sequence[ObjectUncertainty],
        looks: Mapping[int, Looks],
        *,
        all_known: bool = True,
    ) -> dict[int, float]:
        """The predicted IoUs of the objects that have `looks`, which see the frame; 0 for an empty
        mask.

        measured: of each of the frame's objects, in their order. all_known: see `Looks.see`.
        """
        out: dict[int, float] = {}
        if not looks:
            return out
        portraits, shapes = portraits_of(frame), shapes_of(frame)
        for position, (object_id, seen) in enumerate(zip(frame.object_ids, measured, strict=True)):
            if object_id not in looks:
                continue
            if seen.area == 0:
                out[object_id] = looks[object_id].share = 0.0
                continue
            portrait, mine = portraits[position], looks[object_id]
            growth = mine.see(seen.area, portrait, frame.stamp, all_known=all_known)
            evidence = weigh(shapes[position], seen.entropy, portrait, mine, growth)
            out[object_id] = self.predict(evidence)
        return out

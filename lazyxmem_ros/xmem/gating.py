# SPDX-License-Identifier: Apache-2.0
"""Gating: a piece of an object's mask counts where the object can have come to since last frame.

Memory finds whatever looks like the object, a twin as well as the object itself. What tells the two
apart is where they were. So while an object is still there, what looks like it too far away is a
rival's, as a measurement outside a track's validation gate is (Bar-Shalom and Fortmann, Tracking
and Data Association, 1988). The rival is followed, too. While the two touch both count, for they
may be parts of one object; where they come apart, each piece goes to the nearer one.

Masks here have every STEP-th pixel of the internal size, and lengths and areas are in such pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STEP = 4
"""Pixels of the internal size: the network's masks have no finer detail."""
ALIVE = 0.3
"""Share of its usual area that an object has near its place while it is still there."""
RIVAL = 0.2
"""Share of the object's usual area from which something far away is a rival."""
ALIKE = 0.5
"""Share of its usual area that each of two pieces has where an object came apart from a twin."""
SWOLLEN = 1.4
"""Times its usual area from which an object's mask may show another one as well."""
TWOFOLD = 2.5
"""Times its usual area up to which that may be so."""
WHOLE = 0.8
"""Share of a mask in its largest piece from which it is in one piece."""
AREA_MEMORY = 0.2
"""Share that the newest frame has in the running mean of an object's area."""
SWOLLEN_AREA_MEMORY = 0.02
"""Its share in that mean while the mask may show another object as well."""
SPEED_MEMORY = 0.2
"""Share that the newest frame has in the running mean of an object's speed."""
MEETING = 45
"""Frames after which two that touch count as one."""
PATIENCE = 15
"""Frames after which a rival that is not seen any more is forgotten, and where an object was."""
DILATED = 32
"""Pixels up to which a mask grows by dilation, whose cost rises with their square; beyond, the
distance of every pixel from the mask is measured, to about a hundredth of it."""
LEAST_REACH = 2
"""Pixels that a gate reaches at least beyond the object, however small that is."""

Mask = NDArray[np.uint8]
"""0 or 1, [h, w]."""
Vector = tuple[float, float]
"""x and y."""


@dataclass(frozen=True, eq=False)
class Blob:
    """Something that moves.

    Attributes:
        mask: as it was last seen, [h, w].
        speed: of its centre, in a running mean, per frame.
        drift: how far it should have moved since the mask was seen.
    """

    mask: Mask
    speed: Vector = (0.0, 0.0)
    drift: Vector = (0.0, 0.0)

    def ahead(self) -> Blob:
        """Where it should be a frame later."""
        return self.moved(self.speed)

    def moved(self, by: Vector) -> Blob:
        """The same, elsewhere."""
        return replace(self, drift=(self.drift[0] + by[0], self.drift[1] + by[1]))

    def shown(self) -> Mask:
        """Its mask [h, w] where it should be."""
        if self.drift == (0.0, 0.0):
            return self.mask
        height, width = self.mask.shape
        shift = np.array([[1, 0, self.drift[0]], [0, 1, self.drift[1]]], np.float32)
        moved = cv2.warpAffine(self.mask, shift, (width, height), flags=cv2.INTER_NEAREST)
        return np.asarray(moved, np.uint8)

    def seen(self, mask: Mask) -> Blob:
        """As it is a frame later, where its mask is this one [h, w]."""
        before, now = _centre(self.shown()), _centre(mask)
        if before is None or now is None:
            return Blob(mask, self.speed)
        x, y = (
            speed + SPEED_MEMORY * (b - a - speed)
            for speed, a, b in zip(self.speed, before, now, strict=True)
        )
        return Blob(mask, (x, y))


@dataclass(frozen=True, eq=False)
class Place:
    """Where an object was on a frame.

    Attributes:
        target: the object; while it is hidden for a moment or meets its rival, what it was before
            (there, moved on).
        usual_area: its area in a running mean; 0 until it is seen.
        rival: what looks like it elsewhere, if anything does.
        unseen: frames in a row without a trace of the rival, or, while it is hidden, of the object.
        slim: the object before it became so large that it may be two, moved on; None: it is not.
        jumped: it was hidden, and came back elsewhere.
        mistakable: it may be the wrong one of two: it came apart from the rival, which is still
            there and of its size, or has one and had jumped.
    """

    target: Blob
    usual_area: float
    rival: Blob | None = None
    unseen: int = 0
    slim: Blob | None = None
    jumped: bool = False
    mistakable: bool = False

    @classmethod
    def of(cls, mask: Mask) -> Place:
        """Of an object that is shown: mask [h, w]."""
        return cls(Blob(mask), float(mask.sum()))

    @property
    def masks(self) -> list[Mask]:
        """The masks that it keeps."""
        return [blob.mask for blob in (self.target, self.rival, self.slim) if blob is not None]

    def follow(self, mask: Mask, radius: float) -> tuple[Place, Mask]:
        """The object's place on the next frame, on which all of `mask` [h, w] looks like it, and
        what of the mask is the object.

        radius: of the gate around the object, as a share of the root of its area.
        """
        reach = max(LEAST_REACH, round(radius * float(np.sqrt(self.target.mask.sum()))))
        within = _grown(self.target.shown() | self.target.ahead().shown(), reach)
        near = _pieces_in(mask, within)
        if near.sum() < max(1.0, ALIVE * self.usual_area):
            return self._search(mask, near), mask
        if self.rival is not None:
            rival = self.rival.ahead()
            if (near & rival.shown()).sum() > RIVAL * rival.mask.sum():
                return self._meet(near, rival)
        return self._pass(mask, near, reach)

    def _search(self, mask: Mask, near: Mask) -> Place:
        """The object, which is hidden or comes back: wherever that is."""
        if not mask.any():
            unseen = self.unseen + 1 if self.rival is None else 1
            last = self.target if unseen <= PATIENCE else Blob(mask)
            return Place(last, self.usual_area, unseen=unseen, jumped=self.jumped)
        jumped = self.jumped or not near.any()
        return Place(Blob(mask), self._area_after(mask, AREA_MEMORY), jumped=jumped)

    def _pass(self, mask: Mask, near: Mask, reach: int) -> tuple[Place, Mask]:
        """The object, which is all that is near, unless that has just come apart."""
        swollen = SWOLLEN * self.usual_area < near.sum() <= TWOFOLD * self.usual_area
        slim = self._slim_before() if swollen else None
        halves = _large_pieces(near, ALIKE * self.usual_area) if slim is not None else []
        parted = len(halves) > 1
        if slim is not None and parted:
            before, slim = slim.shown(), None
            near = min(halves, key=lambda half: _distance_between(half, before))
        target = Blob(near, self.target.speed) if swollen else self.target.seen(near)
        area = self._area_after(near, SWOLLEN_AREA_MEMORY if swollen else AREA_MEMORY)
        rival, unseen = self._rival_in(mask - near, reach)
        alike = rival is not None and rival.mask.sum() >= ALIKE * self.usual_area
        mistakable = bool(alike) and (parted or self.jumped or self.mistakable)
        return Place(target, area, rival, unseen, slim, self.jumped, mistakable), near

    def _meet(self, near: Mask, rival: Blob) -> tuple[Place, Mask]:
        """The object and its rival, which touch or cover each other: both go on as they went, and
        with what moves them both.
        """
        target = self.target.ahead()
        found, expected = _centre(near), _centre(target.shown() | rival.shown())
        if found is not None and expected is not None:
            both = (found[0] - expected[0], found[1] - expected[1])
            target, rival = target.moved(both), rival.moved(both)
        nearer = _distance_to(target.shown()) <= _distance_to(rival.shown())
        mine, theirs = _assigned(near, nearer)
        now = Place(target, self.usual_area, rival, jumped=self.jumped)
        if min(mine.sum(), theirs.sum()) >= ALIVE * self.usual_area:
            target, rival = Blob(mine, self.target.speed), Blob(theirs, rival.speed)
            return replace(now, target=target, rival=rival, mistakable=True), mine
        if self.unseen >= MEETING:
            return Place(Blob(near, self.target.speed), float(near.sum()), jumped=self.jumped), near
        return replace(now, unseen=self.unseen + 1), near

    def _slim_before(self) -> Blob | None:
        """What the object was before it became so large, if it was in one piece."""
        if self.slim is not None:
            return self.slim.ahead()
        whole = _large_pieces(self.target.mask, WHOLE * float(self.target.mask.sum()))
        return self.target.ahead() if whole else None

    def _area_after(self, mask: Mask, memory: float) -> float:
        area = float(mask.sum())
        if not self.usual_area:  # it has not been seen before
            return area
        return self.usual_area + memory * (area - self.usual_area)

    def _rival_in(self, far: Mask, reach: int) -> tuple[Blob | None, int]:
        """The rival as the far pieces [h, w] show it, and for how many frames nothing did."""
        pieces = _large_pieces(far, RIVAL * self.usual_area)
        largest = max(pieces, key=lambda piece: int(piece.sum()), default=None)
        if self.rival is None:
            return (None if largest is None else Blob(largest)), 0
        expected = self.rival.ahead()
        if largest is None:
            return (expected, self.unseen + 1) if self.unseen < PATIENCE else (None, 0)
        if (_grown(expected.shown(), reach) & largest).any():
            return self.rival.seen(largest), 0  # it has moved from where it was to there
        return Blob(largest), 0


def gate(
    distribution: Tensor,
    alone: Tensor,
    object_ids: tuple[int, ...],
    places: dict[int, Place],
    *,
    radius: float,
) -> tuple[Tensor, dict[int, Place]]:
    """Gives the background what lies outside of the objects' gates.

    Args:
        distribution: probabilities [K + 1, H, W]; stays as it is.
        alone: each object's probabilities [K, H, W] as if there were no other: what looks like one
            of them does not depend on who else is tracked.
        object_ids: the K objects.
        places: where they were on the frame before, as far as that is known.
        radius: see `Place.follow`.

    Returns:
        The probabilities, the same tensor where nothing changed, and where the objects are now.
    """
    masks = (alone[:, ::STEP, ::STEP] > 0.5).to(torch.uint8).cpu().numpy()
    now: dict[int, Place] = {}
    for position, (object_id, mask) in enumerate(zip(object_ids, masks, strict=True), start=1):
        before = places.get(object_id)
        if before is None:
            now[object_id] = Place.of(mask)
            continue
        now[object_id], mine = before.follow(mask, radius)
        if mine.sum() < mask.sum():
            distribution = _without(distribution, position, mask - mine, mine)
    return distribution, now


def place_of(mask: Tensor) -> Place:
    """The place of an object whose mask [H, W], 0..1, is known."""
    return Place.of((mask[::STEP, ::STEP] > 0.5).to(torch.uint8).cpu().numpy())


def _without(distribution: Tensor, position: int, theirs: Mask, mine: Mask) -> Tensor:
    """Gives the background what the object at a position of the distribution [K + 1, H, W] has of
    the pixels of `theirs` [h, w] and of their soft edge, but not of its own.
    """
    edge = _grown(theirs, 1) & (1 - _grown(mine, 1))
    height, width = distribution.shape[1:]
    gone = cv2.resize(theirs | edge, (width, height), interpolation=cv2.INTER_NEAREST) > 0
    where = torch.from_numpy(gone).to(distribution.device)
    changed = distribution.clone()
    changed[0] += torch.where(where, changed[position], 0)
    changed[position].masked_fill_(where, 0)
    return changed


def _centre(mask: Mask) -> Vector | None:
    moments = cv2.moments(mask, binaryImage=True)
    if not moments["m00"]:
        return None
    return moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]


def _distance_between(one: Mask, other: Mask) -> float:
    """How far the centres of two masks lie apart; it is infinite where one of them is empty."""
    a, b = _centre(one), _centre(other)
    if a is None or b is None:
        return float("inf")
    return float(np.hypot(a[0] - b[0], a[1] - b[1]))


def _distance_to(mask: Mask) -> NDArray[np.float32]:
    """How far every pixel, [h, w], is from a mask; that is infinite where the mask is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return np.asarray(cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_5), np.float32)


def _grown(mask: Mask, by: int) -> Mask:
    """A mask with all that is at most so far away."""
    if by > DILATED:
        return (_distance_to(mask) <= by).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * by + 1, 2 * by + 1))
    return np.asarray(cv2.dilate(mask, kernel), np.uint8)


def _pieces_in(mask: Mask, region: Mask) -> Mask:
    """The pieces of a mask that reach into a region."""
    pieces = cv2.connectedComponents(mask)[1]
    inside = np.unique(pieces[region > 0])
    return np.isin(pieces, inside[inside > 0]).astype(np.uint8)


def _large_pieces(mask: Mask, least: float) -> list[Mask]:
    """The pieces of a mask with an area of at least `least`."""
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask)
    large = (n for n in range(1, count) if stats[n, cv2.CC_STAT_AREA] >= least)
    return [(pieces == n).astype(np.uint8) for n in large]


def _assigned(mask: Mask, first: NDArray[np.bool_]) -> tuple[Mask, Mask]:
    """The pieces of a mask that lie mostly where `first` [h, w] is true, and the others."""
    count, pieces = cv2.connectedComponents(mask)
    areas = np.bincount(pieces.ravel(), minlength=count)
    inside = np.bincount(pieces[first], minlength=count)
    chosen = np.flatnonzero(2 * inside > areas)
    mine = np.isin(pieces, chosen[chosen > 0]).astype(np.uint8)
    return mine, mask - mine

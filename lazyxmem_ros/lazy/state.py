# SPDX-License-Identifier: Apache-2.0
"""What lazy tracking remembers between calls."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lazyxmem_ros.correction.base import BoolMask
from lazyxmem_ros.lazy.history import RecentFrames
from lazyxmem_ros.lazy.late import CatchUp, Timeline
from lazyxmem_ros.lazy.policy import HoldRule, LazyConfig, ObjectHistory, RequestKind, TrackState
from lazyxmem_ros.lazy.types import Labels, Source
from lazyxmem_ros.lazy.uncertainty import measure, winning_class
from lazyxmem_ros.xmem import Frame, XMemTracker


@dataclass
class FollowedObject:
    """What is known of an object besides its memory.

    Attributes:
        label: its name.
        born: index of the frame that introduced it.
        history: for the policy.
        published: its state in the last result; None before the first.
        rate: its entropy's change on the last frame that was decided upon, or None.
        corrected: source -> stamp of the newest frame of which a correction was applied.
    """

    label: str
    born: int
    history: ObjectHistory = field(default_factory=ObjectHistory)
    published: TrackState | None = None
    rate: float | None = None
    corrected: dict[Source, int] = field(default_factory=dict)


@dataclass
class NewestFrame:
    """The newest frame and the corrections made to it.

    Attributes:
        frame: the tracker's.
        image: uint8 [H, W, 3].
        open: whether it can still be kept out of memory.
        given: whether masks were given on it; such a frame is always learnt.
        held: whether it stays out of memory.
        masks: source -> object id -> corrected mask bool [H, W], none overlapping another.
    """

    frame: Frame
    image: NDArray[np.uint8]
    open: bool
    given: bool
    held: bool
    masks: dict[Source, dict[int, BoolMask]] = field(
        default_factory=lambda: {source: {} for source in Source}
    )

    def left_over(self, mask: BoolMask, source: Source) -> BoolMask:
        """The mask, less what a person gave to objects if it is not a person's itself."""
        if source is Source.PSEUDO:
            for theirs in self.masks[Source.OPERATOR].values():
                mask = mask & ~theirs
        return mask

    def correct(self, object_id: int, mask: BoolMask, source: Source) -> BoolMask:
        """Notes a corrected mask and returns what of it stands.

        A later mask takes pixels from earlier ones, but the tracker's own none from a person's.
        """
        mask = self.left_over(mask, source)
        for masks in self.masks.values():
            masks.pop(object_id, None)
            for other in masks:
                masks[other] = masks[other] & ~mask
        self.masks[source][object_id] = mask
        return mask

    def all_masks(self) -> dict[int, BoolMask]:
        """The corrected masks of all sources."""
        return {i: mask for masks in self.masks.values() for i, mask in masks.items()}


@dataclass
class LazyState:
    """All of it.

    Attributes:
        tracker: XMem, with its memory.
        config: the settings.
        recent: the last seconds' masks.
        objects: by id.
        removed: ids of objects that were removed and are not followed now.
        newest: the newest frame; None before the first.
        timeline: the last seconds' frames, with what a late correction needs.
        catch_up: the going through them again that is under way.
    """

    tracker: XMemTracker
    config: LazyConfig
    recent: RecentFrames
    timeline: Timeline
    objects: dict[int, FollowedObject] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    newest: NewestFrame | None = None
    catch_up: CatchUp | None = None

    def open_requests(self) -> list[tuple[int, RequestKind]]:
        """Requests that wait for an answer: (object id, kind)."""
        return [(i, kind) for i, item in self.objects.items() for kind, _ in item.history.open]

    def dismiss(self, object_id: int, kind: RequestKind) -> None:
        """Counts a request as not open any more; unknown objects and kinds are ignored."""
        item = self.objects.get(object_id)
        if item is not None:
            item.history = item.history.closed(kind)

    def paused_ids(self) -> frozenset[int]:
        """The objects that are paused."""
        paused = TrackState.PAUSED
        return frozenset(i for i, item in self.objects.items() if item.history.state is paused)

    def to_learn(self) -> dict[int, BoolMask]:
        """The corrected masks of the newest frame that memory takes in."""
        learnt: dict[int, BoolMask] = {}
        if self.newest is None:
            return learnt
        if self.config.update_from_pseudo:
            learnt |= self.newest.masks[Source.PSEUDO]
        if self.config.update_from_user:
            learnt |= self.newest.masks[Source.OPERATOR]
        return learnt

    def go_back(self, stamp: int) -> int | None:
        """Starts to go through the frames again from the one of a stamp, or from an earlier one
        where that is under way; returns how many there are, None if they are not kept.
        """
        start = stamp if self.catch_up is None else min(stamp, self.catch_up.start)
        moments = self.timeline.rewind(start)
        if moments is None:
            return None
        self.catch_up = CatchUp(self.tracker, moments, self._hold_again)
        return len(moments)

    def catch_up_a_little(self) -> int:
        """Goes on with that within its budget; returns the frames once all are done, else 0.

        Every frame must be closed.
        """
        if self.catch_up is None or not self.catch_up.run(self.config.catch_up_budget):
            return 0
        frames = self.catch_up.take_over(self.tracker, self.timeline)
        self.catch_up = None
        return frames

    def _hold_again(self, frame: Frame, paused: frozenset[int]) -> bool:
        """The uncertainty-driven update of a frame that is gone through again."""
        if math.isinf(self.config.hold_entropy):
            return False
        measured = zip(frame.object_ids, measure(frame.probabilities).objects, strict=True)
        seen = [o for object_id, o in measured if o.area > 0 and object_id not in paused]
        doubtful = [o.entropy > self.config.hold_entropy for o in seen]
        return any(doubtful) if self.config.hold_rule is HoldRule.ANY else all(doubtful or [False])

    def corrected_labels(self, newest: NewestFrame) -> Labels:
        """The newest frame's label map with its corrections."""
        probabilities = self.tracker.preview(newest.frame, newest.all_masks())
        return label_map(winning_class(probabilities), newest.frame.object_ids)


def label_map(winner: Tensor, object_ids: tuple[int, ...]) -> Labels:
    """Classes [H, W] on the device (0 = background) -> label map uint16 [H, W] of object ids."""
    ids = np.array([0, *object_ids], np.uint16)
    # There are far fewer classes than 2^15, and fewer bytes leave the device.
    return ids[winner.short().cpu().numpy()]

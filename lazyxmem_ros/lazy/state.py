# SPDX-License-Identifier: Apache-2.0
"""What lazy tracking remembers between calls."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lazyxmem_ros.correction.base import BoolMask
from lazyxmem_ros.lazy.hindsight import adopted
from lazyxmem_ros.lazy.history import RecentFrames
from lazyxmem_ros.lazy.late import CatchUp, Moment, Timeline
from lazyxmem_ros.lazy.policy import LazyConfig, ObjectHistory, Source, TrackState
from lazyxmem_ros.lazy.predicted_iou import IouPredictor, Looks
from lazyxmem_ros.lazy.types import Labels
from lazyxmem_ros.lazy.uncertainty import winning_class
from lazyxmem_ros.xmem import Frame, TrackerError, TrackerState, XMemTracker

ATTEMPTS = 3
"""Times that going through the past may fail (the device's memory is full) until it is given up."""


@dataclass
class FollowedObject:
    """What is known of an object besides its memory.

    Attributes:
        label: its name.
        born: index of the frame that introduced it.
        history: for the policy.
        published: its state in the last result; None before the first.
        rate: its entropy's change on the last frame that was decided upon, or None.
        predicted_iou: its predicted IoU on that frame, or None.
        looks: what it has looked like.
        corrected: source -> stamp of the newest frame of which a correction was applied.
        arriving: it was shown on a past frame, before it was known, and the frames since are still
            being gone through.
    """

    label: str
    born: int
    history: ObjectHistory = field(default_factory=ObjectHistory)
    published: TrackState | None = None
    rate: float | None = None
    predicted_iou: float | None = None
    looks: Looks = field(default_factory=Looks)
    corrected: dict[Source, int] = field(default_factory=dict)
    arriving: bool = False

    def copy(self) -> FollowedObject:
        """The same, with a life of its own."""
        return replace(self, looks=self.looks.copy(), corrected=dict(self.corrected))


@dataclass
class NewestFrame:
    """The newest frame and the corrections made to it.

    Attributes:
        frame: the tracker's.
        image: uint8 [H, W, 3].
        open: whether it can still be kept out of memory.
        given: whether masks were given on it; such a frame is always learnt.
        held: whether it stays out of memory.
        moment: what going through it again needs, whether or not the timeline keeps it.
        masks: source -> object id -> corrected mask bool [H, W], none overlapping another.
    """

    frame: Frame
    image: NDArray[np.uint8]
    open: bool
    given: bool
    held: bool
    moment: Moment
    masks: dict[Source, dict[int, BoolMask]] = field(
        default_factory=lambda: {source: {} for source in Source}
    )

    def correct(self, object_id: int, mask: BoolMask, source: Source) -> None:
        """Notes a corrected mask, which takes its pixels from earlier ones."""
        for masks in self.masks.values():
            masks.pop(object_id, None)
            for other in masks:
                masks[other] = masks[other] & ~mask
        self.masks[source][object_id] = mask

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
        iou_predictor: the calibration of the tracker's weights; None: it has none.
        catch_up: the going through them again that is under way.
    """

    tracker: XMemTracker
    config: LazyConfig
    recent: RecentFrames
    timeline: Timeline
    iou_predictor: IouPredictor | None = None
    objects: dict[int, FollowedObject] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    newest: NewestFrame | None = None
    catch_up: CatchUp | None = None

    def open_requests(self) -> list[tuple[int, Source]]:
        """Requests that wait for an answer: (object id, source)."""
        return [(i, source) for i, item in self.objects.items() for source, _ in item.history.open]

    def dismiss(self, object_id: int, source: Source) -> None:
        """Counts a request as not open any more; unknown objects and sources are ignored."""
        item = self.objects.get(object_id)
        if item is not None:
            item.history = item.history.closed(source)

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
        if self.config.update_from_operator:
            learnt |= self.newest.masks[Source.OPERATOR]
        return learnt

    # ---- the past

    def arriving_ids(self) -> set[int]:
        """The objects shown on a past frame that has not been caught up with."""
        return {i for i, item in self.objects.items() if item.arriving}

    def moments(self, stamp: int) -> list[Moment]:
        """What is kept of the closed frame of a stamp and can be gone through again: as it was,
        and as it is on the way of a catch-up; empty where it is not kept.
        """
        found = [m for m in self.timeline.rewind(stamp) or () if m.stamp == stamp]
        if self.catch_up is not None:
            again = (m for m in self.catch_up.moments if m.stamp == stamp)
            found += [m for m in again if m not in found]
        return found

    def go_back(self, stamp: int, *, at_once: bool = False) -> int:
        """Goes through the frames again from the one of a stamp on, which `moments` has found, or
        from an earlier one where that is under way; returns how many there are.

        at_once: also where that has been sent back before (see `CatchUp.revisit`).
        """
        if self.catch_up is not None and stamp >= self.catch_up.start:
            self.catch_up.revisit(stamp, at_once=at_once)
        else:
            moments = self.timeline.rewind(stamp)
            assert moments
            self.catch_up = CatchUp(
                self.tracker,
                moments,
                config=lambda: self.config,
                arriving=self.arriving_ids,
                iou_predictor=self.iou_predictor,
            )
        return self.catch_up.frames_left

    def catch_up_a_little(self, budget: float) -> int:
        """Goes on with that for `budget` seconds; returns the frames once all are done, else 0.

        Every frame must be closed. What goes wrong on a frame is raised, and the next time it is
        gone through once more; the `ATTEMPTS`-th time the past is given up.
        """
        catch_up = self.catch_up
        if catch_up is None:
            return 0
        try:
            caught_up = catch_up.run(budget)
        except Exception as error:
            if catch_up.failures < ATTEMPTS:
                raise
            self.forget_past()
            raise TrackerError(
                "the frames since a late correction cannot be gone through again; the correction "
                f"is not learnt, and tracking goes on without it: {error}"
            ) from error
        if (oldest := self.timeline.oldest) is not None:
            catch_up.trim(oldest.stamp)
        if not caught_up:
            return 0
        frames = catch_up.take_over(self.tracker, self.timeline, self.objects)
        for object_id, history in catch_up.histories.items():
            item = self.objects.get(object_id)
            if item is not None:
                item.history = adopted(item.history, history, arriving=item.arriving)
                item.looks = catch_up.looks.get(object_id, item.looks)
        for item in self.objects.values():
            item.arriving = False
        if self.newest is not None and self.tracker.frame is not None:
            self.newest.frame = self.tracker.frame
            self.newest.moment = catch_up.moments[-1]
        if not catch_up.go_on():
            self.catch_up = None
        return frames

    def forget_past(self) -> None:
        """No frame before the next can be corrected; objects that have not arrived go with it."""
        for object_id in self.arriving_ids() - set(self.tracker.object_ids):
            del self.objects[object_id]
            self.removed.add(object_id)
        for item in self.objects.values():
            item.arriving = False
        self.catch_up = None
        self.timeline.clear()

    def remembered(self) -> tuple[TrackerState, dict[int, FollowedObject]]:
        """A copy of the tracker's memory and of what is known of its objects, for a snapshot.

        While objects are arriving it is a copy of the corrected past, as far as that has been gone
        through and at least to where they all are known: the frames since are lost with the
        process, the objects are not.
        """
        now = self.tracker.state()
        if self.catch_up is None or not self.arriving_ids():
            return now, {i: self.objects[i].copy() for i in self.tracker.object_ids}
        known = set(self.catch_up.moments[-1].frame.object_ids) | self.arriving_ids()
        self.catch_up.reach(known & self.objects.keys())
        state = self.catch_up.state(self.objects)
        objects = {i: self.objects[i].copy() for i in state.births}
        for object_id, item in objects.items():
            past = self.catch_up.histories.get(object_id, item.history)
            item.history = adopted(item.history, past, arriving=item.arriving)
            item.looks = self.catch_up.looks.get(object_id, item.looks).copy()
            item.arriving = False
        # Cool-downs count frames, those that are lost included.
        return replace(state, frames=now.frames), objects

    def forget(self, object_id: int) -> None:
        """The object was removed while the newest frame was the newest."""
        item = self.objects.pop(object_id)
        self.removed.add(object_id)
        if self.newest is not None:
            for masks in self.newest.masks.values():
                masks.pop(object_id, None)
            self.newest.moment.forget(object_id)
            if not item.arriving:
                self.newest.moment.removed.add(object_id)
        if item.arriving:
            self._unsay(object_id)

    def _unsay(self, object_id: int) -> None:
        """An object that never arrived: the past is gone through as if nobody had shown it."""
        past = [*self.timeline.moments, *(self.catch_up.moments if self.catch_up else ())]
        past += [self.newest.moment] if self.newest else []
        shown = [moment for moment in past if moment.shows(object_id)]
        for moment in shown:
            moment.forget(object_id)
            moment.frame.given.pop(object_id, None)  # where the frame has been gone through again
        if self.catch_up is not None and shown:
            first = min(m.stamp for m in shown)
            self.catch_up.revisit(max(first, self.catch_up.start), at_once=True)

    def corrected_labels(self, newest: NewestFrame) -> Labels:
        """The newest frame's label map with its corrections."""
        probabilities = self.tracker.preview(newest.frame, newest.all_masks())
        return label_map(winning_class(probabilities), newest.frame.object_ids)


def label_map(winner: Tensor, object_ids: tuple[int, ...]) -> Labels:
    """Classes [H, W] on the device (0 = background) -> label map uint16 [H, W] of object ids."""
    ids = np.array([0, *object_ids], np.uint16)
    # There are far fewer classes than 2^15, and fewer bytes leave the device.
    return ids[winner.short().cpu().numpy()]

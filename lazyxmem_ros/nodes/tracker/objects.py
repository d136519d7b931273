# SPDX-License-Identifier: Apache-2.0
"""How objects come and go, in the worker's thread: `object_input` reads what is said of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np

from lazyxmem_ros.basics import SECOND, without
from lazyxmem_ros.data.label_maps import MAX_OBJECTS
from lazyxmem_ros.images import ImageError
from lazyxmem_ros.lazy import LazyTracker
from lazyxmem_ros.nodes.conversions import masks_of_labels
from lazyxmem_ros.nodes.diagnostics import InputRefusedError, fault_kind
from lazyxmem_ros.nodes.tracker.corrections import Corrections
from lazyxmem_ros.nodes.tracker.diagnostics import TrackerMeasures
from lazyxmem_ros.nodes.tracker.images import BEGAN_AGAIN
from lazyxmem_ros.nodes.tracker.received_frames import ReceivedFrame, ReceivedFrames, forgotten
from lazyxmem_ros.nodes.tracker.reservations import Reservation, Reservations
from lazyxmem_ros.nodes.tracker.session import GivenMasks, TrackingSession
from lazyxmem_ros.nodes.tracker.stamp_order import MAX_STEP_S
from lazyxmem_ros.xmem import TrackerError, XMemTracker

MAX_EARLY_MASKS = 8
"""Masks that may wait for their frames."""
WAS_RESET = "the tracker was reset"
WAS_REMOVED = "the object was removed"
WAS_DEACTIVATED = "the node was deactivated"


class EarlyMasks:
    """Masks that were shown on frames which have yet to arrive: the newest MAX_EARLY_MASKS."""

    def __init__(self, refuse: Callable[[str, str, str], None]) -> None:
        """refuse(topic, kind, fault): counts and reports masks that are dropped."""
        self._refuse = refuse
        self._early: list[GivenMasks] = []

    def __bool__(self) -> bool:
        return bool(self._early)

    def keep(self, given: GivenMasks) -> None:
        """Keep masks; newer ones of the same objects and frame take the place of older ones, and
        the oldest are dropped where there are too many.
        """
        same = (given.stamp, given.masks.keys())
        self._early = [kept for kept in self._early if (kept.stamp, kept.masks.keys()) != same]
        if len(self._early) >= MAX_EARLY_MASKS:
            self.drop(self._early.pop(0))
        self._early.append(given)

    def next_due(self, stamp: int) -> list[GivenMasks]:
        """Takes those of one frame, the oldest up to `stamp` (ns); empty: there are none."""
        oldest = min((given.stamp for given in self._early), default=stamp + 1)
        if oldest > stamp:
            return []
        due = [given for given in self._early if given.stamp == oldest]
        self._early = [given for given in self._early if given.stamp != oldest]
        return due

    def drop(self, given: GivenMasks) -> None:
        """Report masks as dropped for want of their frame."""
        self._refuse(
            given.topic,
            "frame never came",
            f"the frame of stamp {given.stamp} ns did not arrive in time; its masks are dropped",
        )

    def overtake(self, reason: str, object_ids: Collection[int] | None = None) -> None:
        """Drop those of these objects, None: of all, and report why."""
        kept, self._early = self._early, []
        for given in kept:
            if object_ids is None or not given.masks.keys().isdisjoint(object_ids):
                self._refuse(given.topic, "overtaken", f"{reason} before the masks' frame came")
            else:
                self._early.append(given)

    @property
    def ids(self) -> set[int]:
        """All objects that they show."""
        return {object_id for given in self._early for object_id in given.masks}


class Objects:
    """How objects come and go, in the worker's thread, and the frames with those shown on them."""

    def __init__(
        self,
        lazy: LazyTracker,
        received: ReceivedFrames,
        session: TrackingSession,
        corrections: Corrections,
        measures: TrackerMeasures,
        *,
        make_tracker: Callable[[], XMemTracker],
        max_objects: int = MAX_OBJECTS,
        may_work: Callable[[], bool] = lambda: True,
    ) -> None:
        """make_tracker: makes an empty tracker with the same network.

        max_objects: that are followed; masks that would make them more are refused.

        may_work(): whether masks that came before their frame may make it dearer (see Worker).
        """
        self._lazy = lazy
        self._received = received
        self._session = session
        self._corrections = corrections
        self._measures = measures
        self._make_tracker = make_tracker
        self._max_objects = max_objects
        self._may_work = may_work
        self._early = EarlyMasks(measures.refuse)
        self._reservations = Reservations()

    # ---- frames

    def process(self, frame: ReceivedFrame) -> bool:
        """Track one frame and publish it; the frames that early masks were waiting for go first.

        Returns False where it was dropped: a newer one was tracked before it, or everything was
        forgotten meanwhile.
        """
        started = time.monotonic()
        tracked = self._process(frame)
        if not tracked:
            self._measures.count("dropped")
        self._measures.tracking.add(time.monotonic() - started)
        return tracked

    def _process(self, frame: ReceivedFrame) -> bool:
        resets, beginnings = self._session.resets, self._session.beginnings
        # One after the other: while a frame waits, what is left of them may be overtaken.
        while self._session.beginnings == beginnings and (
            masks := self._early.next_due(frame.stamp)
        ):
            stamp = masks[0].stamp
            self._show_early(frame if stamp == frame.stamp else self._received.find(stamp), masks)
        if self._session.beginnings == beginnings and frame.stamp > self._session.processed:
            self._session.track(frame)
            return self._session.resets == resets
        return frame.is_tracked

    def _show_early(self, frame: ReceivedFrame | None, early: Sequence[GivenMasks]) -> None:
        """Show masks that came before a frame; None: it is not there."""
        if frame is None:
            for given in early:
                self._early.drop(given)
        elif self._lazy.followed_ids and not self._may_work():
            for given in early:
                self._measures.refuse(
                    given.topic,
                    "too busy",
                    f"the tracker is busy; masks of the frame of {given.stamp} ns are left out",
                )
        elif frame.stamp > self._session.processed:
            fitting: list[GivenMasks] = []
            for given in early:
                if self._done(given, self._check_given, frame, fitting):
                    fitting.append(given)
            if fitting:
                self._session.track(frame, fitting)
        else:  # other masks were shown on it before
            for given in early:
                self._done(given, self.give_masks)

    def _done(self, given: GivenMasks, do: Callable[..., object], *arguments: object) -> bool:
        """Whether `do(given, ...)` went well; what it refuses is reported."""
        try:
            do(given, *arguments)
        except (InputRefusedError, ImageError, TrackerError) as error:
            self._measures.refuse(given.topic, fault_kind(error), str(error))
            return False
        return True

    # ---- objects

    @property
    def are_expected(self) -> bool:
        """Whether objects are being shown that are not followed yet; any thread may ask."""
        return bool(self._early) or bool(self._reservations)

    def give_masks(self, given: GivenMasks) -> str:
        """Show objects on a frame: now, or when the frame of that stamp arrives.

        Objects that are tracked already get the mask as the truth of that frame. Returns how it
        was done if that was not simply as asked, else "". Raises InputRefusedError or a
        TrackerError, with nothing changed: for an id that is reserved, too.
        """
        if not given.masks:
            raise InputRefusedError("no object", "the label map names no object: every value is 0")
        self._check_ids(given.masks)
        newest = self._received.tracked
        stamp = given.stamp or self.find_frame(0).stamp
        given = replace(given, stamp=stamp)
        if stamp > self._session.processed and self._received.find(stamp) is None:
            self._check_soon(stamp)
            self._early.keep(given)
            return f"the frame of stamp {stamp} ns has not come yet: shown when it does"
        frame = self.find_frame(stamp)
        self._check_sizes(given, frame)
        note = ""
        if stamp > self._session.processed:
            self._session.track(frame, [given])
        elif newest is not None and stamp == newest.stamp and self._lazy.followed_ids:
            self._session.add_to_newest(given)
        elif not self._lazy.followed_ids:
            self._session.begin_at(frame, [given])
        else:
            assert newest is not None
            note = self._add_to_past(given, frame, newest)
        self._session.see_objects()
        if not set(given.masks) <= set(self._session.object_ids):
            raise InputRefusedError(
                "not added", f"the objects could not be added at stamp {stamp} ns"
            )
        return note

    def reserve(self, wanted: Sequence[int], stamp: int) -> Reservation:
        """Reserves an id for each new object, on the frame of a stamp (ns; 0: the newest tracked).

        wanted: their ids; 0: the lowest free one. Raises InputRefusedError.
        """
        frame = self.find_frame(stamp)
        followed = self._lazy.followed_ids
        taken = {*followed, *self._early.ids, *self._lazy.ids_since(frame.stamp)}
        ids = self._reservations.choose(wanted, followed=followed, taken=taken)
        self._check_ids(ids)
        reservation = Reservation(ids, frame)
        self._reservations.keep(reservation)
        return reservation

    def add_reserved(self, reservation: Reservation, given: GivenMasks) -> str:
        """As `give_masks`, of the objects for which the ids are reserved."""
        reservation.check()
        self._reservations.release(reservation)
        return self.give_masks(given)

    def release(self, reservation: Reservation) -> None:
        """Whatever has become of them, the ids are reserved no more."""
        self._reservations.release(reservation)

    def remove(self, object_ids: Sequence[int]) -> tuple[int, ...]:
        """Forget objects (all where none is named), also those whose masks are being made.

        Raises a TrackerError for an unknown one, with nothing changed.
        """
        followed, reserved = self._lazy.followed_ids, self._reservations.ids
        ids = tuple(object_ids) or (*followed, *sorted(reserved))
        self._lazy.remove_objects([i for i in ids if i in followed or i not in reserved])
        self.overtake(WAS_REMOVED, object_ids or None)
        self._session.see_objects()
        return ids

    def pause_objects(self, object_ids: Sequence[int], *, pause: bool) -> tuple[int, ...]:
        """Pause objects or resume them (all where none is named); returns which were meant.

        Raises a TrackerError for an unknown one, with nothing changed.
        """
        ids = tuple(dict.fromkeys(object_ids)) or self._lazy.followed_ids
        if pause:
            self._lazy.pause_objects(ids)
            self._corrections.stop_waiting(ids)
        else:
            self._lazy.resume_objects(ids)
        return ids

    def reset(self) -> None:
        """Forget every object, early mask and frame; any stamp and size may follow."""
        self.overtake(WAS_RESET)
        self._session.reset()

    def begin_again(self) -> None:
        """Stamps begin again: go on with the objects that there are, and forget past frames.

        Recent images are the caller's to forget: newer ones may have come.
        """
        self.overtake(BEGAN_AGAIN)
        if self._lazy.followed_ids:
            self._session.change_clock()
        else:
            self._session.reset(images=False)

    def deactivate(self) -> None:
        """Close the newest frame and expect nothing: no more frames are coming for now."""
        self.overtake(WAS_DEACTIVATED)
        self._session.pause()

    def overtake(self, reason: str, object_ids: Collection[int] | None = None) -> None:
        """Ends all that is under way for these objects; None: all that is."""
        self._early.overtake(reason, object_ids)
        self._reservations.overtake(reason, object_ids)
        self._corrections.overtake(reason, object_ids)

    # ---- how

    def find_frame(self, stamp: int) -> ReceivedFrame:
        """The frame of this stamp, or for 0 the newest one of which a mask is out; raises
        InputRefusedError.
        """
        if stamp == 0:
            newest = self._received.newest_shown() or self._received.newest()
            if newest is None:
                raise InputRefusedError("no frame", "no frame has been received yet")
            return newest
        frame = self._received.find(stamp)
        if frame is None:
            raise forgotten(stamp)
        return frame

    def _add_to_past(self, given: GivenMasks, frame: ReceivedFrame, newest: ReceivedFrame) -> str:
        """Shows objects on a frame that has passed; returns how."""
        if not self._lazy.keeps(frame.stamp):
            tracked = frame.is_tracked
            self._session.add_to_newest(self._carried_forward(given, frame, newest))
            why = "'s features are not kept" if tracked else " was never tracked"
            return (
                f"that frame{why}: the objects were found again in the newest one, and begin there"
            )
        outcome = self._lazy.add_to_past(given.masks, frame.stamp, dict(given.labels))
        if outcome.labels is not None:
            frame.correct(outcome.labels, given.masks)
        self._session.see_upkeep()
        return outcome.reason

    def _carried_forward(
        self, given: GivenMasks, frame: ReceivedFrame, newest: ReceivedFrame
    ) -> GivenMasks:
        """The masks of an older frame as the network finds them in the newest one.

        A tracker of its own segments the older frame with the masks and then the newest: other
        objects keep their memory, at the price of two more frames' work.
        """
        tracker = self._make_tracker()
        # What else was there keeps the new objects from spreading over it.
        taken = np.logical_or.reduce(list(given.masks.values()))
        labels = frame.labels
        seen = np.zeros_like(taken, np.uint16) if labels is None else labels
        others = masks_of_labels(np.where(taken, np.uint16(0), without(seen, given.masks)))
        tracker.memorize(tracker.segment(frame.rgb(), {**others, **given.masks}, stamp=frame.stamp))
        found = tracker.segment(newest.rgb(), stamp=newest.stamp).labels()
        masks = {object_id: found == object_id for object_id in given.masks}
        gone = [str(object_id) for object_id, mask in masks.items() if not mask.any()]
        if gone:
            raise InputRefusedError(
                "gone", f"object {', '.join(gone)} was not found again in the newest frame"
            )
        return replace(given, stamp=newest.stamp, masks=masks)

    def _check_ids(self, object_ids: Collection[int]) -> None:
        """Raises InputRefusedError where an id is reserved, or there is no room for all of them."""
        self._reservations.check(object_ids)
        number = len({*self._lazy.followed_ids, *self._reservations.ids, *object_ids})
        if number > self._max_objects:
            raise InputRefusedError(
                "too many objects",
                f"there would be {number} objects; up to {self._max_objects} are followed "
                "(max_objects)",
            )

    def _check_given(
        self, given: GivenMasks, frame: ReceivedFrame, beside: Sequence[GivenMasks]
    ) -> None:
        """beside: others that are shown on the frame with them."""
        self._check_ids({i for each in (*beside, given) for i in each.masks})
        self._check_sizes(given, frame)

    def _check_soon(self, stamp: int) -> None:
        """Raises InputRefusedError where a frame of this stamp (ns) would be of another clock."""
        newest = self._received.newest()
        ahead = 0.0 if newest is None else (stamp - newest.stamp) / SECOND
        if ahead > MAX_STEP_S:
            raise InputRefusedError(
                "stamp far ahead",
                f"the stamp is {ahead:.3f} s after the newest image's: show the object on an image "
                "that has come, or on one of the next minute",
            )

    def _check_sizes(self, given: GivenMasks, frame: ReceivedFrame) -> None:
        size = frame.size
        for object_id, mask in given.masks.items():
            if mask.shape != size:
                raise InputRefusedError(
                    "size",
                    f"the mask of object {object_id} is {mask.shape[1]}x{mask.shape[0]}, "
                    f"the frame {size[1]}x{size[0]} pixels",
                )

# SPDX-License-Identifier: Apache-2.0
"""Goes through past frames again, for what comes late.

A person answers after seconds, and the camera does not wait. What is said of a past frame enters
memory as that frame's: a fork of the tracker starts from the last copy of memory before it and goes
through the frames since from their features, a few with every new one, until it has caught up; then
it takes the tracker's place.

The same rules decide about a frame as the first time, with each object's history as it is in the
corrected past: who is LOST there has no say in whether memory learns the frame. What an object has
looked like is followed through the corrected past too, so that its predicted IoU is then what it
would be had the answer been instant. Nobody is asked anything: that moment has passed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from lazyxmem_ros.lazy.config import LazyConfig
from lazyxmem_ros.lazy.events import Corrected, Removed, Resumed, Shown
from lazyxmem_ros.lazy.history import History, last_copy
from lazyxmem_ros.lazy.learning import close_frame
from lazyxmem_ros.lazy.policy import (
    Decision,
    ObjectHistory,
    Observation,
    TrackState,
    decide,
    hold_frame,
)
from lazyxmem_ros.lazy.predicted_iou import IouPredictor, Looks
from lazyxmem_ros.lazy.record import AllLooks, FrameRecord, Histories, copy_looks
from lazyxmem_ros.lazy.uncertainty import measure
from lazyxmem_ros.xmem import Frame, TrackerState, XMemTracker

FRAMES_AT_LEAST = 2
"""Frames that a replay goes through with every new one, whatever its budget: one new frame comes
with each step, so with fewer it would never arrive."""
SPARING_RATE = 1.5
"""The same where new frames are pressed for time: it still arrives, in twice as many of them."""
RETURNS = 2
"""Times that corrections send a replay back before it takes over first and goes back then: those
who answer all the time would keep it from ever arriving."""


class Replay:
    """Goes through past frames again, from the first one's copy of the tracker's memory on."""

    def __init__(
        self,
        tracker: XMemTracker,
        records: list[FrameRecord],
        *,
        config: Callable[[], LazyConfig],
        iou_predictor: IouPredictor | None,
    ) -> None:
        """A replay that has gone through no frame yet.

        Args:
            tracker: the fork has its network and settings, and takes its place in the end.
            records: the frames, oldest first; the first one has a copy of memory.
            config: returns the settings as they are now.
            iou_predictor: predicts IoUs of the past frames.
        """
        self._iou_predictor = iou_predictor
        self._tracker = tracker
        self._config = config
        self._pending = deque(records)
        self._done: list[FrameRecord] = []
        self._fork: XMemTracker | None = None  # until the first frame is gone through
        self._returns = 0
        self._left: int | None = None  # stamp from which to go on after taking over
        self.failures = 0
        """How often a frame could not be gone through."""
        self.histories: Histories = {}
        self.looks: AllLooks = {}

    @property
    def start(self) -> int:
        """Stamp of the first frame, nanoseconds."""
        return (self._done[0] if self._done else self._pending[0]).stamp

    @property
    def frames_left(self) -> int:
        """Frames still to go through."""
        return len(self._pending)

    @property
    def fork_bytes(self) -> int:
        """Bytes of the fork, if there is one."""
        return self._fork.nbytes if self._fork else 0

    @property
    def records(self) -> list[FrameRecord]:
        """All frames, oldest first; those gone through are what they are now."""
        return [*self._done, *self._pending]

    def follow(self, record: FrameRecord) -> None:
        """Appends a new frame that was closed."""
        self._pending.append(record)

    def revisit(self, stamp: int, *, at_once: bool) -> None:
        """Goes back to the frame of a stamp, of which something new was said, if it is done.

        After `RETURNS` returns it goes back only once it has taken over, unless `at_once`. The
        stamp must not lie before `start`.
        """
        if not self._done or self._done[-1].stamp < stamp:
            return
        if self._left is not None:
            stamp = min(stamp, self._left)
        if self._returns == RETURNS and not at_once:
            self._left = stamp
            return
        self._returns += not at_once
        self._return_to(stamp)

    def _return_to(self, stamp: int) -> None:
        """Puts the frames from the last copy at or before a stamp on before the pending ones."""
        start = last_copy(self._done, stamp)
        assert start is not None  # the first one has a copy
        self._pending.extendleft(reversed(self._done[start:]))
        del self._done[start:]
        self._fork = None
        if self._left is not None and self._left >= self._pending[0].stamp:
            self._left = None

    def run(self, until: float, at_least: int) -> bool:
        """Goes on until a time of the monotonic clock, s, but `at_least` so many frames.

        Returns whether it has caught up.
        """
        frames = 0
        while self._pending and (frames < at_least or time.monotonic() < until):
            self._advance()
            frames += 1
        return not self._pending

    def reach(self, births: Mapping[int, int]) -> None:
        """Goes on until the fork knows these objects, id -> index of the first frame, or all frames
        are done.
        """
        while self._pending and not (self._fork and births.items() <= self._fork.births.items()):
            self._advance()

    def trim(self, oldest: int) -> None:
        """Lets go of what only a return to before a stamp would need."""
        if self._left is not None:
            oldest = min(oldest, self._left)
        del self._done[: last_copy(self._done, oldest) or 0]

    def state(self, births: Mapping[int, int]) -> TrackerState:
        """Returns a copy of the fork's memory of these objects (see `reach`) after `reach`."""
        assert self._fork is not None
        fork = self._fork
        gone = [i for i, birth in fork.births.items() if births.get(i) != birth]
        if gone:
            fork = self._tracker.fork(fork.state())
            fork.remove_objects(gone)
        return fork.state()

    def take_over(self, tracker: XMemTracker, history: History, followed: Iterable[int]) -> int:
        """Makes the fork the tracker and the replayed frames the history; returns their number.

        followed: the objects to go on with; others have been removed since.
        """
        self._hand_over(tracker, followed)
        history.rewrite(self._done)
        return len(self._done)

    def _hand_over(self, tracker: XMemTracker, followed: Iterable[int]) -> None:
        """Makes the fork the tracker, with the followed objects alone."""
        assert self._fork is not None
        self._fork.remove_objects(set(self._fork.object_ids) - set(followed))
        tracker.adopt(self._fork)

    def go_on(self) -> bool:
        """Goes back, after taking over, for what could not wait for it; False: there is nothing."""
        if self._left is None:
            return False
        self._returns = self.failures = 0
        self._return_to(self._left)
        return True

    def _advance(self) -> None:
        """Goes through the next frame; where that fails, from the last copy on the next time."""
        record = self._pending[0]
        try:
            self._done.append(self._again(record))
        except BaseException:
            self.failures += 1
            if last_copy(self._done, record.stamp) is not None:  # a short way may have none
                self._return_to(record.stamp)
            self._fork = None  # half of the frame was done
            raise
        self._pending.popleft()

    def _again(self, record: FrameRecord) -> FrameRecord:
        """Goes through a frame; returns its record as it is now."""
        fresh = self._fork is None
        if self._fork is None:
            assert record.state is not None
            self._fork = self._tracker.fork(record.state)
            self.histories, self.looks = dict(record.histories), copy_looks(record.looks)
        fork = self._fork
        fork.gate_radius = self._tracker.gate_radius  # settings hold at once
        if fresh:
            assert fork.frame is not None  # the copy was made while its frame was open
            frame, held = fork.frame, record.held
        else:
            frame = self._resegment(fork, record)
            self.histories = {
                i: _rested(history, i in record.paused) for i, history in self.histories.items()
            }
            held = self._decide(frame, record, frame.object_ids, set(frame.given))
        frame.settle()
        again = replace(
            record,
            features=frame,
            histories=self.histories,
            looks=self.looks,
            held=held,
            state=record.state if fresh or record.state is None else self._copy(fork, record.state),
        ).copy()
        gone = self._retell(fork, frame, again)
        learnt = {i: mask for i, mask in again.learnt.items() if i in fork.object_ids}
        held = held or record.never_learnt
        close_frame(fork, self._config(), again, self.looks, learnt, held=held)
        self._remove(fork, gone)
        frame.settle()
        if not record.frame.predicted:
            again.release()
        return again

    def _copy(self, fork: XMemTracker, old: TrackerState) -> TrackerState | None:
        """A copy of the fork's memory in the place of an old one; it shares if that did. None where
        nothing would start from it.
        """
        copies = [record.state for record in self._done if record.state is not None]
        shared = copies and old.memory is not None and old.memory.before is not None
        return fork.state(before=copies[-1] if shared else None)

    def _resegment(self, fork: XMemTracker, record: FrameRecord) -> Frame:
        """The next frame, segmented with the fork's memory."""
        return fork.resegment(record.frame)

    def _retell(self, fork: XMemTracker, frame: Frame, record: FrameRecord) -> set[int]:
        """Lets happen on a frame that is open again what happened on it, in turn, but for learning;
        returns the objects that are to be removed once it is closed.
        """
        gone: set[int] = set()
        for event in record.in_turn():
            if isinstance(event, Shown):
                self._remove(fork, gone & event.masks.keys())
                gone -= event.masks.keys()
                fork.add_objects(frame, event.masks)
                self._decide(frame, record, event.masks, event.masks)
            elif isinstance(event, Removed) and event.closed:
                gone.add(event.object_id)
            elif isinstance(event, Removed):
                self._remove(fork, {event.object_id})
            elif event.object_id in frame.object_ids:
                history = self.histories.get(event.object_id, ObjectHistory())
                self.histories[event.object_id] = self._with_event(history, frame, event)
        return gone

    def _with_event(
        self, history: ObjectHistory, frame: Frame, event: Corrected | Resumed
    ) -> ObjectHistory:
        """An object's history after what happened to it on a frame, learnt or not."""
        if isinstance(event, Resumed):
            return history.resumed()
        in_view = self._config().is_in_view(event.mask)
        return history.corrected(
            event.source, index=frame.index, stamp=frame.stamp, in_view=in_view
        )

    def _remove(self, fork: XMemTracker, object_ids: Collection[int]) -> None:
        """The fork, `histories` and `looks` forget objects, as far as they know them."""
        fork.remove_objects([i for i in fork.object_ids if i in object_ids])
        for object_id in object_ids:
            self.histories.pop(object_id, None)
            self.looks.pop(object_id, None)

    def _decide(
        self, frame: Frame, record: FrameRecord, chosen: Collection[int], given: Collection[int]
    ) -> bool:
        """Decides about the `chosen` objects of a frame that is open again, and notes it in
        `histories` and `looks`; the other objects' stay. given: those whose mask was given on it.

        Returns whether the frame stays out of memory as far as the chosen objects go.
        """
        config = self._config()
        histories = {i: self.histories[i] for i in frame.object_ids if i in self.histories}
        measured = measure(frame.probabilities).objects
        predicted: dict[int, float] = {}
        if self._iou_predictor is not None:
            looks = {i: self.looks.setdefault(i, Looks()) for i in frame.object_ids if i in chosen}
            predicted = self._iou_predictor.of_frame(frame, measured, looks)
        decisions: list[Decision] = []
        for object_id, seen in zip(frame.object_ids, measured, strict=True):
            if object_id not in chosen:
                continue
            before = histories.get(object_id, ObjectHistory())
            observation = Observation(
                index=frame.index,
                stamp=frame.stamp,
                area=seen.area,
                entropy=seen.entropy,
                given=object_id in given,
                predicted_iou=predicted.get(object_id),
                mistakable=object_id in frame.places and frame.places[object_id].mistakable,
            )
            decision, histories[object_id] = decide(config, before, observation, ask=False)
            decisions.append(decision)
        self.histories = histories
        return hold_frame(config, decisions)


def _rested(history: ObjectHistory, paused: bool) -> ObjectHistory:
    """Returns the history with a pause that begins or ends on this frame."""
    if paused:
        return history.paused()
    return history.resumed() if history.state is TrackState.PAUSED else history

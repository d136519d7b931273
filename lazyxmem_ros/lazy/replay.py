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
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from lazyxmem_ros.lazy.config import LazyConfig, Source
from lazyxmem_ros.lazy.history import History, last_copy
from lazyxmem_ros.lazy.policy import (
    Decision,
    ObjectHistory,
    Observation,
    TrackState,
    decide,
    doubted_since,
    hold_frame,
)
from lazyxmem_ros.lazy.predicted_iou import IouPredictor, Looks
from lazyxmem_ros.lazy.record import AllLooks, FrameRecord, Histories, copy_looks
from lazyxmem_ros.lazy.state import FollowedObject, LazyState
from lazyxmem_ros.lazy.uncertainty import measure, winning_class
from lazyxmem_ros.xmem import Frame, TrackerError, TrackerState, XMemTracker
from lazyxmem_ros.xmem.tracker import WRONG_IOU

ATTEMPTS = 3
"""Times that a replay may fail (the device's memory is full) until it is given up."""
FRAMES_AT_LEAST = 2
"""Frames that a replay goes through with every new one, whatever its budget: one new frame comes
with each step, so with fewer it would never arrive."""
STATIONS = 2 * FRAMES_AT_LEAST
"""Frames of a short way, where nothing more was said meanwhile: it arrives with the second frame
after the answer, whatever the budget."""
SHORT_WAYS = 2
"""Short ways to the present until a replay takes over, which they keep waiting."""
RETURNS = 2
"""Times that corrections send a replay back before it takes over first and goes back then: those
who answer all the time would keep it from ever arriving."""


class Past:
    """The closed frames of a state, and the replay of them that is under way, if there is one.

    Attributes:
        replay: it; None: memory is what everything said so far makes it.
    """

    def __init__(self, state: LazyState) -> None:
        self._state = state
        self.replay: Replay | None = None
        self._short: ShortWay | None = None
        self._hurry = False  # something was said since the last short way was chosen

    @property
    def nbytes(self) -> int:
        """Bytes of the ways to the present that are being gone."""
        return sum(way.nbytes for way in (self.replay, self._short) if way is not None)

    def replayable(self, stamp: int) -> list[FrameRecord]:
        """The records of the closed frame of a stamp: as it was, and as a replay has made it.

        Empty where it is not replayable.
        """
        found = [r for r in self._state.history.replay_for(stamp) if r.stamp == stamp]
        if self.replay is not None:
            again = (r for r in self.replay.records if r.stamp == stamp)
            found += [r for r in again if r not in found]
        return found

    def records(self, stamp: int) -> set[FrameRecord]:
        """All that is known of the frame of a stamp: of the newest one, and for replay."""
        newest = self._state.newest
        records = set(self.replayable(stamp))
        return records | {newest} if newest is not None and newest.stamp == stamp else records

    def schedule(self, stamp: int, *, at_once: bool = False) -> int:
        """Schedules replay from `stamp`, which is `replayable`; returns the frames queued.

        A replay that is under way from an earlier frame goes back to `stamp`. at_once: also where
        corrections have sent it back too often (see `Replay.revisit`).
        """
        if self.replay is not None and stamp >= self.replay.start:
            self.replay.revisit(stamp, at_once=at_once)
        else:
            records = self._state.history.replay_for(stamp)
            assert records
            self.replay = Replay(
                self._state.tracker,
                records,
                config=lambda: self._state.config,
                arriving=self._state.arriving_ids,
                iou_predictor=self._state.iou_predictor,
            )
        self._hurry |= not at_once  # what is added does not show before it is exact
        return self.replay.frames_left

    def follow(self, record: FrameRecord) -> None:
        """Takes in a new frame that was closed."""
        if self.replay is not None:
            self.replay.follow(record)

    def advance(self, budget: float) -> int:
        """Goes on with the replay for `budget` seconds; returns its frames once it has caught up,
        else 0.

        Every frame must be closed. What goes wrong on a frame is raised, and the next time it is
        gone through once more; the `ATTEMPTS`-th time the past is given up.
        """
        replay, state = self.replay, self._state
        if replay is None:
            return 0
        until, at_least = time.monotonic() + budget, FRAMES_AT_LEAST
        if self._has_short_way():
            left = self._go_short_way(until)
            if left is None:
                return 0
            at_least = left
        try:
            caught_up = replay.run(until, at_least)
        except Exception as error:
            if replay.failures < ATTEMPTS:
                raise
            self.forget_features()
            raise TrackerError(
                "the frames since a late correction cannot be gone through again; the correction "
                f"is not learnt, and tracking goes on without it: {error}"
            ) from error
        if kept := state.history.replayable():
            replay.trim(kept[0].stamp)
        if not caught_up:
            return 0
        frames = replay.take_over(state.tracker, state.history, state.objects)
        self._take_over_objects(replay)
        for item in state.objects.values():
            item.arriving = False
        state.newest = replay.records[-1]
        self._short, self._hurry = None, replay.go_on()
        if not self._hurry:
            self.replay = None
        return frames

    def _has_short_way(self) -> bool:
        """Whether there is a short way to go; chooses one where something was said."""
        if self._hurry and self.replay is not None and not self._state.arriving_ids():
            self._short = self.replay.short_way(every=self._state.tracker.config.memory_every)
        self._hurry = False
        return self._short is not None

    def _go_short_way(self, until: float) -> int | None:
        """Goes on with the short way; where it arrives, the tracker goes on from there until the
        replay takes over.

        Returns how many frames the replay has to go through at least, now that this is over; None
        where it is not.
        """
        short, newest = self._short, self._state.newest
        assert short is not None
        assert newest is not None
        self._short = None
        short.aim(newest)
        try:
            arrived = short.run(until, FRAMES_AT_LEAST)
        except RuntimeError:  # the replay comes to the same frames, and says what is wrong
            return FRAMES_AT_LEAST
        if not arrived:
            self._short = short
            return None
        newest.features = short.arrive(self._state.tracker, self._state.objects)
        self._take_over_objects(short)
        return 0

    def _take_over_objects(self, replay: Replay) -> None:
        """What has been followed of the objects in the corrected past holds."""
        for object_id, history in replay.histories.items():
            item = self._state.objects.get(object_id)
            if item is not None:
                item.history = adopted(item.history, history, arriving=item.arriving)
                item.looks = replay.looks.get(object_id, item.looks)

    def forget_features(self) -> None:
        """No frame before the next is replayable; objects that have not arrived go with it."""
        for object_id in self._state.arriving_ids() - set(self._state.tracker.object_ids):
            del self._state.objects[object_id]
            self._state.removed.add(object_id)
        for item in self._state.objects.values():
            item.arriving = False
        self.stop()
        self._state.history.forget_features()

    def stop(self) -> None:
        """Gives up the replay that is under way."""
        self.replay = self._short = None
        self._hurry = False

    def remembered(self) -> tuple[TrackerState, dict[int, FollowedObject]]:
        """Returns a copy of the tracker's memory and of what is known of its objects.

        While objects are arriving it is a copy of the corrected past, as far as that has been
        replayed and at least to where they all are known: the frames since are lost with the
        process, the objects are not.
        """
        followed, arriving = self._state.objects, self._state.arriving_ids()
        now = self._state.tracker.state()
        if self.replay is None or not arriving:
            return now, {i: followed[i].copy() for i in self._state.tracker.object_ids}
        known = set(self.replay.records[-1].frame.object_ids) | arriving
        self.replay.reach(known & followed.keys())
        memory = self.replay.state(followed)
        objects = {i: followed[i].copy() for i in memory.births}
        for object_id, item in objects.items():
            past = self.replay.histories.get(object_id, item.history)
            item.history = adopted(item.history, past, arriving=item.arriving)
            item.looks = self.replay.looks.get(object_id, item.looks).copy()
            item.arriving = False
        # Cool-downs count frames, those that are lost included.
        return replace(memory, frames=now.frames), objects

    def unsay(self, object_id: int) -> None:
        """Replays the past as if nobody had shown an object that never arrived."""
        past = [*self._state.history.replayable(), *(self.replay.records if self.replay else ())]
        past += [self._state.newest] if self._state.newest else []
        shown = [record for record in past if record.shows(object_id)]
        for record in shown:
            record.forget(object_id)
            record.frame.given.pop(object_id, None)  # where the frame has been replayed
        if self.replay is not None and shown:
            first = min(record.stamp for record in shown)
            self.replay.revisit(max(first, self.replay.start), at_once=True)


class Replay:
    """Goes through past frames again, from the first one's copy of the tracker's memory on."""

    def __init__(
        self,
        tracker: XMemTracker,
        records: list[FrameRecord],
        *,
        config: Callable[[], LazyConfig],
        arriving: Callable[[], set[int]],
        iou_predictor: IouPredictor | None,
    ) -> None:
        """Args:
        records: the frames, oldest first; the first one has a copy of memory.
        config: returns the settings as they are now.
        arriving: returns the objects that the tracker does not know yet on some of the frames.
        iou_predictor: predicts IoUs of the past frames.
        """
        self._iou_predictor = iou_predictor
        self._tracker = tracker
        self._config = config
        self._arriving = arriving
        self._pending = deque(records)
        self._done: list[FrameRecord] = []
        self._fork: XMemTracker | None = None  # until the first frame is gone through
        self._returns = 0
        self._short_ways = 0
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
    def nbytes(self) -> int:
        """Bytes of what was made on the way and of the fork; the features are the history's."""
        made = (r.frame.made_bytes + (r.state.nbytes if r.state else 0) for r in self._done)
        return sum(made) + (self._fork.nbytes if self._fork else 0)

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
        self._fork = self._left = None

    def run(self, until: float, at_least: int) -> bool:
        """Goes on until a time of the monotonic clock, s, but `at_least` so many frames.

        Returns whether it has caught up.
        """
        frames = 0
        while self._pending and (frames < at_least or time.monotonic() < until):
            self._advance()
            frames += 1
        return not self._pending

    def reach(self, object_ids: set[int]) -> None:
        """Goes on until the fork knows these objects, or all frames are done."""
        while self._pending and not (self._fork and object_ids <= set(self._fork.object_ids)):
            self._advance()

    def trim(self, oldest: int) -> None:
        """Lets go of what only a return to before a stamp would need."""
        if self._left is not None:
            oldest = min(oldest, self._left)
        del self._done[: last_copy(self._done, oldest) or 0]

    def state(self, followed: Collection[int]) -> TrackerState:
        """Returns a copy of the fork's memory of the `followed` objects, after `reach`."""
        assert self._fork is not None
        fork, gone = self._fork, set(self._fork.object_ids) - set(followed)
        if gone:
            fork = self._tracker.fork(fork.state())
            fork.remove_objects(gone)
        return fork.state()

    def short_way(self, every: int) -> ShortWay | None:
        """A short way from where the replay is to the newest frame; see `ShortWay`. None where it
        would not be shorter by half, or after `SHORT_WAYS`. every: frames from one of memory to
        the next.
        """
        chosen = stations([*self._pending], every)
        if 2 * (len(chosen) + 1) > len(self._pending) or self._short_ways == SHORT_WAYS:
            return None
        self._short_ways += 1
        short = ShortWay(
            self._tracker,
            chosen,
            config=self._config,
            arriving=self._arriving,
            iou_predictor=self._iou_predictor,
        )
        if self._fork is not None:
            short._done = self._done[-1:]
            short._fork = self._tracker.fork(self._fork.state())
            short.histories, short.looks = dict(self.histories), copy_looks(self.looks)
        return short

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
        self._returns = self._short_ways = self.failures = 0
        self._return_to(self._left)
        return True

    def _advance(self) -> None:
        """Goes through the next frame; where that fails, from the last copy on the next time."""
        record = self._pending[0]
        try:
            self._done.append(self._again(record))
        except BaseException:
            self.failures += 1
            if self._done:
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
        fork, arriving = self._fork, self._arriving()
        went = (set(fork.object_ids) - set(record.frame.object_ids) - arriving) | record.removed
        fork.remove_objects([i for i in fork.object_ids if i in went])
        self.looks = {i: looks for i, looks in self.looks.items() if i not in went}
        if fresh:
            assert fork.frame is not None  # the copy was made while its frame was open
            frame, held = fork.frame, record.held
        else:
            frame = self._resegment(fork, record)
            held = self._decide(frame, record, frame.object_ids, set(frame.given))
        frame.settle()
        again = replace(
            record,
            features=frame,
            histories=self.histories,
            looks=self.looks,
            held=held,
            state=fork.state() if record.state else None,
        ).copy()
        for added in again.additions:
            fork.add_objects(frame, added)
            self._decide(frame, record, added, added)
        self._close(fork, frame, record, held=held or record.never_learnt)
        for object_id in record.told & self.looks.keys():
            self.looks[object_id].told = frame.stamp
        frame.settle()
        return again

    def _resegment(self, fork: XMemTracker, record: FrameRecord) -> Frame:
        """The next frame, segmented with the fork's memory."""
        return fork.resegment(record.opening())

    def _close(self, fork: XMemTracker, frame: Frame, record: FrameRecord, *, held: bool) -> None:
        learnt = {i: m for i, m in record.learnt.items() if i in fork.object_ids}
        if learnt:
            told = record.told & learnt.keys()
            doubted = doubted_since(self._config(), self.histories, told)
            fork.correct(frame, learnt, told=told, doubted_since=doubted)
            for object_id, mask in learnt.items():
                in_view = int(np.count_nonzero(mask)) > self._config().lost_area
                history = self.histories.get(object_id, ObjectHistory())
                self.histories[object_id] = history.corrected(
                    Source.OPERATOR, index=frame.index, stamp=frame.stamp, in_view=in_view
                )
        elif held and not frame.given:
            fork.hold(frame)
        else:
            fork.memorize(frame)

    def _decide(
        self, frame: Frame, record: FrameRecord, chosen: Collection[int], given: Collection[int]
    ) -> bool:
        """Decides about the `chosen` objects of a frame that is open again, and notes it in
        `histories` and `looks`; the other objects' stay. given: those whose mask was given on it.

        Returns whether the frame stays out of memory as far as the chosen objects go.
        """
        quiet = replace(self._config(), operator_corrections=False, pseudo_corrections=False)
        histories = {i: self.histories[i] for i in frame.object_ids if i in self.histories}
        measured = measure(frame.probabilities).objects
        predicted: dict[int, float | None] = {}
        if self._iou_predictor is not None:
            looks = {i: self.looks.setdefault(i, Looks()) for i in frame.object_ids if i in chosen}
            predicted = self._iou_predictor.of_frame(frame, measured, looks)
        decisions: list[Decision] = []
        for object_id, seen in zip(frame.object_ids, measured, strict=True):
            if object_id not in chosen:
                continue
            before = _rested(histories.get(object_id, ObjectHistory()), object_id in record.paused)
            observation = Observation(
                index=frame.index,
                stamp=frame.stamp,
                area=seen.area,
                entropy=seen.entropy,
                given=object_id in given,
                predicted_iou=predicted.get(object_id),
            )
            decision, histories[object_id] = decide(quiet, before, observation, waiting=0)
            decisions.append(decision)
        self.histories = histories
        return hold_frame(quiet, decisions)


class ShortWay(Replay):
    """Goes from what was said late to the newest frame by a few `stations`, so that it shows soon.

    What comes out is near to what the replay will make of it, which takes its place in the end.
    Where all objects are found in the same place as the first time, what was found then holds: it
    is the better mask, for it was made with every frame before it.
    """

    _aim: FrameRecord | None = None

    def aim(self, newest: FrameRecord) -> None:
        """Lets the way end on this frame, which is closed, instead of an older one; that stays a
        station if something was said of it.
        """
        if self._aim is newest:
            return
        if self._aim is not None and not self._aim.eventful:
            self._pending.pop()
        self._aim = newest
        self._pending.append(newest)

    def arrive(self, tracker: XMemTracker, followed: Iterable[int]) -> Frame:
        """Makes the fork the tracker; returns the newest frame as it has made it.

        followed: the objects to go on with.
        """
        self._hand_over(tracker, followed)
        assert tracker.frame is not None
        return tracker.frame

    def _resegment(self, fork: XMemTracker, record: FrameRecord) -> Frame:
        fork.skip(record.index - self._done[-1].index - 1)
        frame = super()._resegment(fork, record)
        if overlap(frame, record.frame) > WRONG_IOU:
            fork.recall(frame, record.frame)
        return frame


def overlap(frame: Frame, before: Frame) -> float:
    """The least IoU of an object's masks in two predictions of one image, at the internal size; 0
    where they are not of the same objects, 1 of empty masks.
    """
    if frame.object_ids != before.object_ids:
        return 0.0
    now, then = winning_class(frame.distribution), winning_class(before.distribution)
    ious = [1.0]
    for position in range(1, len(frame.distribution)):
        mine, theirs = now == position, then == position
        both, either = mine & theirs, mine | theirs
        area = int(either.sum())
        ious.append(int(both.sum()) / area if area else 1.0)
    return min(ious)


def stations(records: Sequence[FrameRecord], every: int) -> list[FrameRecord]:
    """The frames of a short way through closed frames, oldest first, but the last one of them all.

    That are the first one, those on which masks were given, corrected or removed, and after these,
    evenly spread, as many as make `STATIONS` with the last one. every: frames that two of those
    lie apart at least.
    """
    between = records[:-1]
    chosen = [n for n, record in enumerate(between) if n == 0 or record.eventful]
    left, last = max(STATIONS - 1 - len(chosen), 0), chosen[-1]
    gap = max(every, (len(records) - 1 - last) / (left + 1))
    spread = (last + round(gap * (step + 1)) for step in range(left))
    chosen += [n for n in spread if n + every < len(records)]
    return [records[n] for n in chosen]


def adopted(now: ObjectHistory, past: ObjectHistory, *, arriving: bool) -> ObjectHistory:
    """Returns an object's history once the corrected past has caught up with the present.

    What was seen of it comes from the past; who was asked for help, and when, from the present.
    Where a pause began or ended since, the present holds. arriving: the object was not tracked in
    the present.
    """
    if TrackState.PAUSED in (now.state, past.state):
        return now
    if arriving:
        return replace(past, open=now.open)
    return replace(
        now,
        state=past.state,
        entropy=past.entropy,
        seen_stamp=past.seen_stamp,
        found_streak=past.found_streak,
        trusted_index=past.trusted_index,
    )


def _rested(history: ObjectHistory, paused: bool) -> ObjectHistory:
    """Returns the history with a pause that begins or ends on this frame."""
    if paused:
        return history.paused()
    return ObjectHistory() if history.state is TrackState.PAUSED else history

# SPDX-License-Identifier: Apache-2.0
"""The frames that can be gone through again, for what comes late, and how the present learns of it.

A replay goes through them with all that was said, a few with every new frame, and takes the
tracker's place once it has caught up. Until then, a short way to the newest frame lets what was
said show soon. What all of this keeps counts in the history, whose bounds hold for both.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace

from lazyxmem_ros.lazy.policy import ObjectHistory, TrackState
from lazyxmem_ros.lazy.record import FrameRecord
from lazyxmem_ros.lazy.replay import FRAMES_AT_LEAST, SPARING_RATE, Replay
from lazyxmem_ros.lazy.short_way import ShortWay
from lazyxmem_ros.lazy.state import FollowedObject, LazyState
from lazyxmem_ros.xmem import TrackerError, TrackerState

ATTEMPTS = 3
"""Times that a replay may fail (the device's memory is full) until it is given up."""
NO_MEMORY = (RuntimeError, MemoryError, OSError)
"""What is raised where the device's or the computer's memory is full."""
SHORT_WAYS = 2
"""Short ways to the present until a replay takes over, which they keep waiting."""


class Past:
    """The closed frames of a state, and the replay of them that is under way, if there is one.

    Attributes:
        replay: it; None: memory is what everything said so far makes it.
    """

    def __init__(self, state: LazyState) -> None:
        self._state = state
        self.replay: Replay | None = None
        self._short: ShortWay | None = None
        self._short_ways = 0  # chosen since the replay began or took over
        self._hurry = False  # something was said since the last short way was chosen
        self._owed = 0.0  # frames that the replay has gone through too few; below 0: ahead
        self._ahead_s = 0.0  # how long those took that it has gone through since `advance`
        self._may_go_ahead = True

    @property
    def nbytes(self) -> int:
        """Bytes of the ways to the present that are being gone, beside what is the history's. The
        first fork counts before there is one.
        """
        ways = [way for way in (self.replay, self._short) if way is not None]
        if not ways:
            return 0
        kept = {i: size for way in ways for r in way.records for i, size in r.tensors.items()}
        for record in self._state.history.replayable():
            for shared in record.tensors:
                kept.pop(shared, None)
        forks = sum(way.fork_bytes for way in ways)
        return sum(kept.values()) + (forks or self._state.tracker.nbytes)

    @property
    def told_ids(self) -> set[int]:
        """The objects of which a person has said something on the frames that are being gone
        through again.
        """
        records = self.replay.records if self.replay is not None else []
        return {object_id for record in records for object_id in record.told}

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
                iou_predictor=self._state.iou_predictor,
            )
            self._short, self._short_ways = None, 0
        self._hurry |= not at_once  # what is added does not show before it is exact
        self.make_room()
        return self.replay.frames_left

    def follow(self, record: FrameRecord) -> None:
        """Takes in a new frame that was closed."""
        if self.replay is not None:
            self.replay.follow(record)

    def make_room(self) -> None:
        """Lets the history count what the ways to the present take, so that all of it stays within
        `correction_bytes`. What the history has let go is let go on the ways, too.
        """
        replay, history = self.replay, self._state.history
        if replay is None:
            history.make_room(0)
            return
        if kept := history.replayable():
            replay.trim(kept[0].stamp)
        for record in replay.records:
            history.share(record)
        history.make_room(self.nbytes, replay.records)

    def advance(self, budget: float, *, sparing: bool = False) -> int:
        """Goes on with the replay for `budget` seconds; returns its frames once it has caught up,
        else 0.

        sparing: without the budget, and with fewer frames at least.

        Every frame must be closed. What goes wrong on a frame is raised, and the next time it is
        gone through once more; the `ATTEMPTS`-th time the past is given up.
        """
        replay, state = self.replay, self._state
        if replay is None:
            return 0
        until = time.monotonic() + (0.0 if sparing else budget) - self._ahead_s
        self._owed += SPARING_RATE if sparing else FRAMES_AT_LEAST
        at_least = max(math.floor(self._owed), 0)
        if replay.frames_left == 1:
            at_least = 1  # the newest: nothing else is left
        self._ahead_s, self._may_go_ahead = 0.0, True
        if self._has_short_way():
            self._owed = 0.0
            rest = self._go_short_way(until)
            if rest is None:
                return 0
            at_least = rest
        left = replay.frames_left
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
        self._owed = max(self._owed - (left - replay.frames_left), 0.0)
        if not caught_up:
            return 0
        frames = replay.take_over(state.tracker, state.history, state.objects)
        state.newest = replay.records[-1]
        self._short, self._short_ways, self._hurry = None, 0, replay.go_on()
        if not self._hurry:
            self.replay = None
        self._take_over_objects(replay)
        for item in state.objects.values():
            item.arriving = False
        return frames

    def go_ahead(self) -> bool:
        """Lets the replay go through one frame more before its time; returns whether it did.

        What is done so, while there is nothing else to do, the next `advance` is spared; it alone
        takes over. What goes wrong is raised, once until then.
        """
        replay = self.replay
        if replay is None or not replay.frames_left or self._hurry or self._short is not None:
            return False
        if not self._may_go_ahead:
            return False
        began = time.monotonic()
        self._may_go_ahead = False
        replay.run(began, 1)
        self._may_go_ahead = True
        self._owed -= 1
        self._ahead_s += time.monotonic() - began
        self.make_room()
        return True

    def _has_short_way(self) -> bool:
        """Whether there is a short way to go; chooses one where something was said. None is gone on
        with where an object is arriving, for it would show too early.
        """
        replay = self.replay
        if self._state.arriving_ids():
            self._short = None
        elif self._hurry and replay and self._has_room():
            self._short = self._choose_short_way(replay)
        self._hurry = False
        return self._short is not None

    def _choose_short_way(self, replay: Replay) -> ShortWay | None:
        """A short way to the newest frame; None where there is none, or after `SHORT_WAYS`."""
        if self._short_ways == SHORT_WAYS:
            return None
        every = self._state.tracker.config.memory_every
        try:
            short = ShortWay.from_replay(replay, every=every)
        except NO_MEMORY:  # the replay needs no second fork
            return None
        if short is not None:
            self._short_ways += 1
        return short

    def _has_room(self) -> bool:
        """Whether a second fork, where there is one, would fit into `correction_bytes`."""
        assert self.replay is not None
        second = self._state.tracker.nbytes if self.replay.fork_bytes else 0
        kept = self._state.history.feature_bytes + self.nbytes
        return not second or kept + second <= self._state.config.correction_bytes

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
        except NO_MEMORY:  # the replay comes to the same frames, and says what is wrong
            return FRAMES_AT_LEAST
        if not arrived:
            self._short = short
            return None
        newest.features = short.arrive(self._state.tracker, self._state.objects)
        self._take_over_objects(short)
        return 0

    def _take_over_objects(self, replay: Replay) -> None:
        """What has been followed of the objects in the corrected past holds."""
        told = self.told_ids
        for object_id, history in replay.histories.items():
            item = self._state.objects.get(object_id)
            if item is not None:
                item.history = adopted(
                    item.history, history, arriving=item.arriving, told=object_id in told
                )
                item.looks = replay.looks.get(object_id, item.looks)

    def forget_features(self) -> None:
        """No frame before the next is replayable; objects that have not arrived go with it."""
        for object_id in self._state.arriving_ids() - set(self._state.tracker.object_ids):
            del self._state.objects[object_id]
            self._state.removed.add(object_id)
        births = self._state.tracker.births
        for object_id, item in self._state.objects.items():
            item.arriving, item.born = False, births[object_id]
        self.stop()
        self._state.history.forget_features()

    def stop(self) -> None:
        """Gives up the replay that is under way."""
        self.replay = self._short = None
        self._hurry = False
        self._owed = self._ahead_s = 0.0

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
        births = {object_id: item.born for object_id, item in followed.items()}
        self.replay.reach({i: birth for i, birth in births.items() if i in known})
        memory, told = self.replay.state(births), self.told_ids
        objects = {i: followed[i].copy() for i in memory.births}
        for object_id, item in objects.items():
            past = self.replay.histories.get(object_id, item.history)
            item.history = adopted(
                item.history, past, arriving=item.arriving, told=object_id in told
            )
            item.looks = self.replay.looks.get(object_id, item.looks).copy()
            item.arriving = False
        # Cool-downs count frames, those that are lost included.
        return replace(memory, frames=now.frames), objects

    def unsay(self, object_id: int, *, since: int) -> None:
        """Replays the past as if nobody had shown an object that never arrived, on the frame of
        index `since` or later. Before that, another one may have had its id.
        """
        past = [*self._state.history.replayable(), *(self.replay.records if self.replay else ())]
        past += [self._state.newest] if self._state.newest else []
        shown = [r for r in past if r.index >= since and r.shows(object_id)]
        for record in shown:
            record.forget(object_id)
            record.retell()
        if self.replay is not None and shown:
            first = min(record.stamp for record in shown)
            self.replay.revisit(max(first, self.replay.start), at_once=True)


def adopted(
    now: ObjectHistory, past: ObjectHistory, *, arriving: bool, told: bool
) -> ObjectHistory:
    """Returns an object's history once the corrected past has caught up with the present.

    What was seen of it comes from the past; who was asked for help, and when, from the present.
    Whether it is paused the present says. arriving: the object was not tracked in the present.
    told: what a person has said of it is still being gone through (`Past.told_ids`), so that the
    past may not count yet how often they said that it is not there.
    """
    if now.state is TrackState.PAUSED:
        return replace(now, entropy=past.entropy, trusted_index=past.trusted_index)
    if past.state is TrackState.PAUSED:
        return replace(now, trusted_index=past.trusted_index)
    absences = max(now.absences, past.absences) if told else past.absences
    if arriving:
        return replace(past, open=now.open, absences=absences)
    return replace(
        now,
        state=past.state,
        entropy=past.entropy,
        seen_stamp=past.seen_stamp,
        found_streak=past.found_streak,
        trusted_index=past.trusted_index,
        absences=absences,
    )

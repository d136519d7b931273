# SPDX-License-Identifier: Apache-2.0
"""Corrections of past frames, exactly: the recent past is kept, and gone through again.

A person answers after seconds, and the camera does not wait. So the last seconds stay at hand:
each frame's features (nothing is encoded twice) and, every now and then and wherever somebody was
asked, a copy of what the tracker remembered. A late correction enters memory as its own frame's.
A fork of the tracker starts from the copy before it and goes through the frames since, as they
would have gone had the answer been instant, a few frames with every new one, until it has caught
up; then it takes the tracker's place.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lazyxmem_ros.correction.base import BoolMask
from lazyxmem_ros.xmem import Frame, TrackerState, XMemTracker

FRAMES_AT_LEAST = 2
"""Frames that a catch-up goes through with every new one, whatever its budget: one new frame
comes with each step, so with fewer it would never arrive."""

HoldRule = Callable[[Frame, frozenset[int]], bool]
"""Whether an uncorrected frame, on which these objects were paused, stays out of memory."""


@dataclass(eq=False)
class Moment:
    """A past frame, with what going through it again needs.

    Attributes:
        frame: the tracker's, with its features.
        paused: ids of the objects that were paused on it.
        learnt: corrected masks that memory took in on it, object id -> bool [H, W].
        state: what the tracker remembered while the frame was open; None: no copy was made.
    """

    frame: Frame
    paused: frozenset[int] = frozenset()
    learnt: dict[int, BoolMask] = field(default_factory=dict)
    state: TrackerState | None = None

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return self.frame.nbytes + (self.state.nbytes if self.state else 0)

    def learn(self, masks: dict[int, BoolMask]) -> None:
        """Notes corrected masks; they take their pixels from earlier ones."""
        taken = np.logical_or.reduce(list(masks.values()))
        self.learnt = {i: mask & ~taken for i, mask in self.learnt.items()} | masks


class Timeline:
    """The moments of the last seconds, oldest first, bounded in time and bytes."""

    def __init__(self, *, max_time: int, max_bytes: int, state_period: int) -> None:
        """Nanoseconds, bytes, and nanoseconds between copies of the tracker's memory.

        `max_time` 0 keeps nothing.
        """
        self._moments: deque[Moment] = deque()
        self._bytes = 0
        self.evicted = 0
        self.set_bounds(max_time=max_time, max_bytes=max_bytes, state_period=state_period)

    def set_bounds(self, *, max_time: int, max_bytes: int, state_period: int) -> None:
        """Changes the bounds and forgets what lies beyond them."""
        self._max_time, self._max_bytes = max_time, max_bytes
        self._state_period = state_period
        self._trim()

    def __len__(self) -> int:
        return len(self._moments)

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return self._bytes

    @property
    def newest(self) -> Moment | None:
        """The moment added last."""
        return self._moments[-1] if self._moments else None

    def add(
        self,
        tracker: XMemTracker,
        frame: Frame,
        *,
        asked: bool,
        paused: frozenset[int] = frozenset(),
    ) -> None:
        """Keeps the open frame, and a copy of the tracker's memory if one is due or `asked` for.

        paused: ids of the objects that are paused on it.
        """
        if not self._max_time:
            return
        copies = (m.frame.stamp for m in reversed(self._moments) if m.state is not None)
        last = next(copies, None)
        due = last is None or frame.stamp - last >= self._state_period
        moment = Moment(frame, paused, state=tracker.state() if due or asked else None)
        self._moments.append(moment)
        self._bytes += moment.nbytes
        self._trim()

    def rewind(self, stamp: int) -> list[Moment] | None:
        """The closed moments from the last copy at or before a stamp on; None: not kept so long.

        A frame that is still open follows when it is closed.
        """
        start = None
        for position, moment in enumerate(self._moments):
            if moment.frame.stamp > stamp:
                break
            if moment.state is not None:
                start = position
        if start is None:
            return None
        return [m for m in list(self._moments)[start:] if not m.frame.open]

    def find(self, stamp: int) -> Moment | None:
        """The moment of that stamp, if it is kept."""
        return next((m for m in reversed(self._moments) if m.frame.stamp == stamp), None)

    def rewrite(self, moments: list[Moment]) -> None:
        """Puts moments in the place of those of the same stamps."""
        new = {m.frame.stamp: m for m in moments}
        self._moments = deque(new.get(m.frame.stamp, m) for m in self._moments)
        self._bytes = sum(m.nbytes for m in self._moments)
        self._trim()

    def clear(self) -> None:
        """Forgets everything."""
        self._moments.clear()
        self._bytes = 0

    def _trim(self) -> None:
        while self._moments:
            age = self._moments[-1].frame.stamp - self._moments[0].frame.stamp
            if age <= self._max_time and self._bytes <= self._max_bytes:
                return
            if age <= self._max_time:
                self.evicted += 1
            self._bytes -= self._moments.popleft().nbytes


class CatchUp:
    """Goes through moments again, from the first one's copy of the tracker's memory on."""

    def __init__(self, tracker: XMemTracker, moments: list[Moment], hold: HoldRule) -> None:
        first = moments[0]
        assert first.state is not None
        self._fork = tracker.fork(first.state)
        self._hold = hold
        self._pending = deque(moments)
        self._done: list[Moment] = []

    @property
    def start(self) -> int:
        """Stamp of the first moment, nanoseconds."""
        return (self._done[0] if self._done else self._pending[0]).frame.stamp

    @property
    def frames_left(self) -> int:
        """Frames still to go through."""
        return len(self._pending)

    def follow(self, moment: Moment) -> None:
        """A new frame was closed: it is gone through again as well."""
        self._pending.append(moment)

    def run(self, budget: float) -> bool:
        """Goes on for `budget` seconds, `FRAMES_AT_LEAST` frames in any case; True: caught up."""
        until, frames = time.monotonic() + budget, 0
        while self._pending and (frames < FRAMES_AT_LEAST or time.monotonic() < until):
            self._done.append(self._again(self._pending.popleft()))
            frames += 1
        return not self._pending

    def take_over(self, tracker: XMemTracker, timeline: Timeline) -> int:
        """The tracker becomes the fork, the timeline what was gone through; returns the frames."""
        gone = set(self._fork.object_ids) - set(tracker.object_ids)
        self._fork.remove_objects(gone)
        tracker.adopt(self._fork)
        timeline.rewrite(self._done)
        return len(self._done)

    def _again(self, moment: Moment) -> Moment:
        fork = self._fork
        if self._done:
            fork.remove_objects(set(fork.object_ids) - set(moment.frame.object_ids))
            frame = fork.resegment(moment.frame)
        else:
            assert fork.frame is not None  # the copy was made while its frame was open
            frame = fork.frame
            fork.give_again(moment.frame)
        state = fork.state() if moment.state else None
        again = Moment(frame, moment.paused, dict(moment.learnt), state)
        learnt = {i: mask for i, mask in moment.learnt.items() if i in fork.object_ids}
        if learnt:
            fork.correct(frame, learnt)
        elif not frame.given and self._hold(frame, moment.paused):
            fork.hold(frame)
        else:
            fork.memorize(frame)
        return again

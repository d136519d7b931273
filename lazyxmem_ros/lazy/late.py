# SPDX-License-Identifier: Apache-2.0
"""Corrections of past frames, exactly: the recent past is kept, and gone through again.

A person answers after seconds, and the camera does not wait. So the last seconds stay at hand:
each frame's features (nothing is encoded twice) and, every now and then and wherever somebody was
asked, a copy of what the tracker remembered. A late correction, or an object shown late, enters
memory as its own frame's. A fork of the tracker starts from the copy before it and goes through
the frames since, as they would have gone had the answer been instant, a few frames with every new
one, until it has caught up; then it takes the tracker's place.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from lazyxmem_ros.correction.base import BoolMask
from lazyxmem_ros.lazy.hindsight import AllLooks, Histories, copied, judge_again
from lazyxmem_ros.lazy.policy import LazyConfig, ObjectHistory, Source
from lazyxmem_ros.lazy.predicted_iou import IouPredictor
from lazyxmem_ros.xmem import Frame, TrackerState, XMemTracker

FRAMES_AT_LEAST = 2
"""Frames that a catch-up goes through with every new one, whatever its budget: one new frame
comes with each step, so with fewer it would never arrive."""
RETURNS = 2
"""Times that corrections send a catch-up back before it takes over first and goes back then: those
who answer all the time would keep it from ever arriving."""


@dataclass(eq=False)
class Moment:
    """A past frame, with what going through it again needs.

    Attributes:
        frame: the tracker's, with its features.
        paused: ids of the objects that were paused on it.
        histories: its objects', as of its prediction: before masks were added or corrected.
        looks: what they had looked like, as of then.
        held: whether its prediction was to stay out of memory.
        barred: whether it stays out of memory whatever is predicted when it is gone through again:
            the tracker asked to correct itself on it, or a correction of it is not to be learnt.
        additions: masks given after it was opened, in that order, object id -> bool [H, W].
        removed: ids of the objects that went while it was the newest frame.
        learnt: corrected masks that memory took in on it, object id -> bool [H, W].
        told: ids of the objects that a person corrected on it.
        state: what the tracker remembered while the frame was open, before its additions; None:
            no copy was made.
    """

    frame: Frame
    paused: frozenset[int] = frozenset()
    histories: Histories = field(default_factory=dict)
    looks: AllLooks = field(default_factory=dict)
    held: bool = False
    barred: bool = False
    additions: list[dict[int, BoolMask]] = field(default_factory=list)
    removed: set[int] = field(default_factory=set)
    learnt: dict[int, BoolMask] = field(default_factory=dict)
    told: set[int] = field(default_factory=set)
    state: TrackerState | None = None

    @property
    def stamp(self) -> int:
        """Of its frame, nanoseconds."""
        return self.frame.stamp

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        masks = [*self.learnt.values(), *(m for added in self.additions for m in added.values())]
        states = self.state.nbytes if self.state else 0
        return self.frame.nbytes + states + sum(mask.nbytes for mask in masks)

    def copy(self) -> Moment:
        """The same, with a life of its own but for its frame and state."""
        return replace(
            self,
            histories=dict(self.histories),
            looks=copied(self.looks),
            additions=[dict(added) for added in self.additions],
            removed=set(self.removed),
            learnt=dict(self.learnt),
            told=set(self.told),
        )

    def learn(self, masks: dict[int, BoolMask]) -> None:
        """Notes corrected masks, none overlapping another; they take their pixels from earlier
        ones.
        """
        taken = np.logical_or.reduce(list(masks.values()))
        self.learnt = {i: mask & ~taken for i, mask in self.learnt.items()} | masks

    def told_masks(self) -> list[BoolMask]:
        """What memory learnt on it from a person."""
        return [self.learnt[i] for i in self.told & self.learnt.keys()]

    def shows(self, object_id: int) -> bool:
        """Whether masks of the object were added on it."""
        return any(object_id in added for added in self.additions)

    def forget(self, object_id: int) -> None:
        """As if nothing had been said of the object after the frame was opened."""
        for added in self.additions:
            added.pop(object_id, None)
        self.additions = [added for added in self.additions if added]
        self.learnt.pop(object_id, None)
        self.told.discard(object_id)

    def opening(self) -> Frame:
        """Its frame with only those given masks with which it was opened."""
        given = {i: mask for i, mask in self.frame.given.items() if not self.shows(i)}
        return replace(self.frame, given=given)


class Timeline:
    """The moments of the last seconds, oldest first, bounded in time and bytes."""

    def __init__(self, *, max_time: int, max_bytes: int, state_period: int) -> None:
        """Nanoseconds, bytes, and nanoseconds between copies of the tracker's memory.

        `max_time` 0 keeps nothing.
        """
        self._moments: deque[Moment] = deque()
        self._counted: deque[int] = deque()  # bytes of each, as they were when it was added
        self._bytes = 0
        self.evicted = 0
        self.set_bounds(max_time=max_time, max_bytes=max_bytes, state_period=state_period)

    def set_bounds(self, *, max_time: int, max_bytes: int, state_period: int) -> None:
        """Changes the bounds and forgets what lies beyond them."""
        self._max_time, self._max_bytes = max_time, max_bytes
        self._state_period = state_period
        if not max_time:
            self.clear()
        self._trim()

    def __len__(self) -> int:
        return len(self._moments)

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return self._bytes

    @property
    def moments(self) -> list[Moment]:
        """All of them, oldest first."""
        return list(self._moments)

    @property
    def oldest(self) -> Moment | None:
        """The first one; None where nothing is kept."""
        return self._moments[0] if self._moments else None

    def add(self, tracker: XMemTracker, moment: Moment, *, asked: bool) -> None:
        """Keeps the open frame, and a copy of the tracker's memory if one is due or `asked` for."""
        if not self._max_time:
            return
        if self._moments:
            self._moments[-1].frame.settle()  # a correction may have replaced its masks
        moment.frame.settle()
        copies = (m.stamp for m in reversed(self._moments) if m.state is not None)
        last = next(copies, None)
        if asked or last is None or moment.stamp - last >= self._state_period:
            moment.state = tracker.state()
        self._moments.append(moment)
        self._counted.append(moment.nbytes)
        self._bytes += self._counted[-1]
        self._trim()

    def rewind(self, stamp: int) -> list[Moment] | None:
        """The closed moments from the last copy at or before a stamp on; None: not kept so long.

        A frame that is still open follows when it is closed.
        """
        start = _last_copy(self._moments, stamp)
        if start is None:
            return None
        return [m for m in list(self._moments)[start:] if not m.frame.open]

    def find(self, stamp: int) -> Moment | None:
        """The moment of that stamp, if it is kept."""
        return next((m for m in reversed(self._moments) if m.stamp == stamp), None)

    def rewrite(self, moments: list[Moment]) -> None:
        """Puts moments in the place of those of the same stamps."""
        new = {m.stamp: m for m in moments}
        self._moments = deque(new.get(m.stamp, m) for m in self._moments)
        self._counted = deque(m.nbytes for m in self._moments)
        self._bytes = sum(self._counted)
        self._trim()

    def clear(self) -> None:
        """Forgets everything."""
        self._moments.clear()
        self._counted.clear()
        self._bytes = 0

    def _trim(self) -> None:
        while self._moments:
            age = self._moments[-1].stamp - self._moments[0].stamp
            if age <= self._max_time and self._bytes <= self._max_bytes:
                return
            if age <= self._max_time:
                self.evicted += 1
            self._moments.popleft()
            self._bytes -= self._counted.popleft()


def _last_copy(moments: Iterable[Moment], stamp: int) -> int | None:
    """The place of the last moment at or before a stamp that has a copy; oldest first."""
    places = (n for n, m in enumerate(moments) if m.state is not None and m.stamp <= stamp)
    return max(places, default=None)


class CatchUp:
    """Goes through moments again, from the first one's copy of the tracker's memory on."""

    def __init__(
        self,
        tracker: XMemTracker,
        moments: list[Moment],
        *,
        config: Callable[[], LazyConfig],
        arriving: Callable[[], set[int]],
        iou_predictor: IouPredictor | None,
    ) -> None:
        """moments: the first one has a copy. config: the settings as they are now.

        arriving: the objects that the tracker does not know yet on some of these frames.
        iou_predictor: for the predicted IoUs of the past frames.
        """
        self._iou_predictor = iou_predictor
        self._tracker = tracker
        self._config = config
        self._arriving = arriving
        self._pending = deque(moments)
        self._done: list[Moment] = []
        self._fork: XMemTracker | None = None  # until the first frame is gone through
        self._returns = 0
        self._left: int | None = None  # stamp from which to go on after taking over
        self.failures = 0
        """How often a frame could not be gone through."""
        self.histories: Histories = {}
        self.looks: AllLooks = {}

    @property
    def start(self) -> int:
        """Stamp of the first moment, nanoseconds."""
        return (self._done[0] if self._done else self._pending[0]).stamp

    @property
    def frames_left(self) -> int:
        """Frames still to go through."""
        return len(self._pending)

    @property
    def nbytes(self) -> int:
        """Bytes of what was made on the way; the features are the timeline's."""
        made = (m.frame.made_bytes + (m.state.nbytes if m.state else 0) for m in self._done)
        return sum(made)

    @property
    def moments(self) -> list[Moment]:
        """All of them, oldest first; those gone through are what they are now."""
        return [*self._done, *self._pending]

    def follow(self, moment: Moment) -> None:
        """A new frame was closed: it is gone through again as well."""
        self._pending.append(moment)

    def revisit(self, stamp: int, *, at_once: bool) -> None:
        """What is said of the frame of a stamp has changed: where that was gone through already,
        the last copy at or before it is where things go on from; after the taking over, where
        corrections have sent it back often enough and it need not be `at_once`.

        The stamp must not lie before `start`.
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
        """Makes the last copy at or before a stamp where things go on from."""
        start = _last_copy(self._done, stamp)
        assert start is not None  # the first one has a copy
        self._pending.extendleft(reversed(self._done[start:]))
        del self._done[start:]
        self._fork = self._left = None

    def run(self, budget: float) -> bool:
        """Goes on for `budget` seconds, `FRAMES_AT_LEAST` frames in any case; True: caught up."""
        until, frames = time.monotonic() + budget, 0
        while self._pending and (frames < FRAMES_AT_LEAST or time.monotonic() < until):
            self._advance()
            frames += 1
        return not self._pending

    def reach(self, object_ids: set[int]) -> None:
        """Goes on until these objects are known where it has come to, or all is gone through."""
        while self._pending and not (self._fork and object_ids <= set(self._fork.object_ids)):
            self._advance()

    def trim(self, oldest: int) -> None:
        """Lets go of what only a return to before a stamp would need."""
        if self._left is not None:
            oldest = min(oldest, self._left)
        del self._done[: _last_copy(self._done, oldest) or 0]

    def state(self, followed: Collection[int]) -> TrackerState:
        """A copy of what is remembered of the `followed` objects where `reach` has come to."""
        assert self._fork is not None
        fork, gone = self._fork, set(self._fork.object_ids) - set(followed)
        if gone:
            fork = self._tracker.fork(fork.state())
            fork.remove_objects(gone)
        return fork.state()

    def take_over(self, tracker: XMemTracker, timeline: Timeline, followed: Iterable[int]) -> int:
        """The tracker becomes the fork, the timeline what was gone through; returns the frames.

        followed: the objects to go on with; others have been removed since.
        """
        assert self._fork is not None
        self._fork.remove_objects(set(self._fork.object_ids) - set(followed))
        tracker.adopt(self._fork)
        timeline.rewrite(self._done)
        return len(self._done)

    def go_on(self) -> bool:
        """After taking over: whether there is something to go back for, as this now does."""
        if self._left is None:
            return False
        self._returns = self.failures = 0
        self._return_to(self._left)
        return True

    def _advance(self) -> None:
        """Goes through the next frame; where that fails, from the last copy on the next time."""
        moment = self._pending[0]
        try:
            self._done.append(self._again(moment))
        except BaseException:
            self.failures += 1
            if self._done:
                self._return_to(moment.stamp)
            self._fork = None  # half of the frame was done
            raise
        self._pending.popleft()

    def _again(self, moment: Moment) -> Moment:
        """Goes through a frame; returns what it is now."""
        fresh = self._fork is None
        if self._fork is None:
            assert moment.state is not None
            self._fork = self._tracker.fork(moment.state)
            self.histories, self.looks = dict(moment.histories), copied(moment.looks)
        fork, arriving = self._fork, self._arriving()
        went = (set(fork.object_ids) - set(moment.frame.object_ids) - arriving) | moment.removed
        fork.remove_objects([i for i in fork.object_ids if i in went])
        self.looks = {i: looks for i, looks in self.looks.items() if i not in went}
        if fresh:
            assert fork.frame is not None  # the copy was made while its frame was open
            frame, held = fork.frame, moment.held
        else:
            frame = fork.resegment(moment.opening())
            held = self._decide(frame, moment, frame.object_ids, set(frame.given))
        frame.settle()
        again = replace(
            moment,
            frame=frame,
            histories=self.histories,
            looks=self.looks,
            held=held,
            state=fork.state() if moment.state else None,
        ).copy()
        for added in again.additions:
            fork.add_objects(frame, added)
            self._decide(frame, moment, added, added)
        self._close(fork, frame, moment, held=held or moment.barred)
        for object_id in moment.told & self.looks.keys():
            self.looks[object_id].told = frame.stamp
        frame.settle()
        return again

    def _close(self, fork: XMemTracker, frame: Frame, moment: Moment, *, held: bool) -> None:
        learnt = {i: m for i, m in moment.learnt.items() if i in fork.object_ids}
        if learnt:
            fork.correct(frame, learnt)
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
        self, frame: Frame, moment: Moment, chosen: Collection[int], given: Collection[int]
    ) -> bool:
        self.histories, held = judge_again(
            self._config(),
            frame,
            self.histories,
            chosen=chosen,
            given=given,
            paused=moment.paused,
            looks=self.looks,
            iou_predictor=self._iou_predictor,
        )
        return held

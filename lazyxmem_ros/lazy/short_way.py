# SPDX-License-Identifier: Apache-2.0
"""A short way to the newest frame for what was said late, so that it shows before it is exact."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lazyxmem_ros.lazy.record import FrameRecord, copy_looks
from lazyxmem_ros.lazy.replay import FRAMES_AT_LEAST, Replay
from lazyxmem_ros.lazy.uncertainty import winning_class
from lazyxmem_ros.xmem import Frame, TrackerState, XMemTracker
from lazyxmem_ros.xmem.frame import WRONG_IOU

STATIONS = 2 * FRAMES_AT_LEAST
"""Frames of a short way, where nothing more was said meanwhile: it arrives with the second frame
after the answer, whatever the budget."""


class ShortWay(Replay):
    """Goes from what was said late to the newest frame by a few `stations`, so that it shows soon.

    What comes out is near to what the replay will make of it, which takes its place in the end.
    Where all objects are found in the same place as the first time, what was found then holds: it
    is the better mask, for it was made with every frame before it.
    """

    _aim: FrameRecord | None = None

    @classmethod
    def from_replay(cls, replay: Replay, *, every: int) -> ShortWay | None:
        """A short way from where a replay is to the newest frame; None where it would not be
        shorter by half. every: frames from one of memory to the next.
        """
        chosen = stations([*replay._pending], every)
        if 2 * (len(chosen) + 1) > len(replay._pending):
            return None
        short = cls(
            replay._tracker,
            chosen,
            config=replay._config,
            iou_predictor=replay._iou_predictor,
        )
        if replay._fork is not None:
            short._done = replay._done[-1:]
            short._fork = replay._tracker.fork(replay._fork.state())
            short.histories, short.looks = dict(replay.histories), copy_looks(replay.looks)
        return short

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

    def _copy(self, fork: XMemTracker, old: TrackerState) -> None:
        """None: a way is gone once, and what fails on it is left to the replay."""

    def _resegment(self, fork: XMemTracker, record: FrameRecord) -> Frame:
        fork.skip(record.index - self._done[-1].index - 1)
        frame = super()._resegment(fork, record)
        if overlap(frame, record.frame) > WRONG_IOU:
            fork.recall(frame, record.frame)
        return frame


def overlap(frame: Frame, before: Frame) -> float:
    """The least IoU of an object's masks in two predictions of one image, at the internal size; 0
    where they are not of the same objects or one was let go, 1 of empty masks.
    """
    if frame.object_ids != before.object_ids or not before.predicted:
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
    if not between:
        return []
    chosen = [n for n, record in enumerate(between) if n == 0 or record.eventful]
    left, last = max(STATIONS - 1 - len(chosen), 0), chosen[-1]
    gap = max(every, (len(records) - 1 - last) / (left + 1))
    spread = (last + round(gap * (step + 1)) for step in range(left))
    chosen += [n for n in spread if n + every < len(records)]
    return [records[n] for n in chosen]

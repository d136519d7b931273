# SPDX-License-Identifier: Apache-2.0
"""How times and stamps go on rising where a recording is played again and again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.nodes.bags.source import SerializedMessage
from lazyxmem_ros.nodes.bags.stamped import Stamps

DEFAULT_PAUSE = SECOND // 30
"""Nanoseconds between two rounds where the recording has too few messages to say."""
FAR = 60 * SECOND
"""Nanoseconds that a stamp is off those of its topic at least to be of another time than they."""
MOST_PACE = 10
"""Times the round that it is off at least, too: a simulator may run faster than it is recorded."""


class Rounds:
    """What the present round adds to the recording's times and stamps, in nanoseconds.

    Stamps need not keep the pace of the times at which they were recorded: a simulator may run
    faster. They have a shift of their own, no smaller than that of the times.
    """

    def __init__(self, beat: str, stamps: Mapping[str, Stamps]) -> None:
        """beat: the topic whose rhythm goes on from one round to the next.

        stamps: of every topic's messages.
        """
        self._beat = beat
        self._stamps = stamps
        self._time_shift = 0
        self._stamp_shift = 0
        self._beats: list[int] = []
        # By topic, the stamps of the first round and when each was recorded.
        self._first: dict[str, list[tuple[int, int]]] | None = defaultdict(list)
        self._span = 0

    def due(self, message: SerializedMessage) -> int:
        """When the message is due, in the time of the recording and its repetitions."""
        return message.recorded_at + self._time_shift

    def shifted(self, message: SerializedMessage) -> bytes:
        """The message with its stamps in this round; those that are not valid stay as they are.

        Raises StampRangeError where the repetitions have come to a time that no message holds, and
        BagError for what is no message of its topic's type.
        """
        if message.topic == self._beat:
            self._beats.append(message.recorded_at)
        data, found = self._stamps[message.topic].moved(message.data, self._stamp_shift)
        if self._first is not None:
            self._first[message.topic] += [(stamp, message.recorded_at) for stamp in found]
        return data

    def next(self, length: int) -> None:
        """Begin another round after one of `length` nanoseconds of recorded time."""
        # The pause between rounds is that between two messages, so that the rate stays.
        beats = self._beats
        pause = int(np.median(np.diff(beats))) if len(beats) > 1 else DEFAULT_PAUSE
        if self._first is not None:
            spans = (_span_of(np.array(each), length) for each in self._first.values() if each)
            self._span, self._first = max(spans, default=0), None
        self._time_shift += length + pause
        self._stamp_shift += length + pause if self._span < length + pause else self._span + pause
        self._beats = []


def _span_of(stamped: NDArray[np.int64], length: int) -> int:
    """From the first to the last stamp, ns, of [N, 2] stamps and times of recording, but for those
    that are of another time than most: of a camera before its clock was set, or of a map.

    length: of the round, nanoseconds.
    """
    stamps, ahead = stamped[:, 0], stamped[:, 0] - stamped[:, 1]
    usual = np.abs(ahead - int(np.median(ahead))) <= max(FAR, MOST_PACE * length)
    return int(np.ptp(stamps[usual])) if usual.any() else 0

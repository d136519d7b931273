# SPDX-License-Identifier: Apache-2.0
"""How times and stamps go on rising where a recording is played again and again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.nodes.bags.source import SerializedMessage
from lazyxmem_ros.nodes.bags.stamped import Stamps

DEFAULT_PAUSE = SECOND // 30
"""Nanoseconds between two rounds where the recording has too few messages to say."""


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
        self._spans: dict[str, tuple[int, int]] = {}

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
        if found:
            found += self._spans.get(message.topic, ())
            self._spans[message.topic] = (min(found), max(found))
        return data

    def next(self, length: int) -> None:
        """Begin another round after one of `length` nanoseconds of recorded time."""
        # The pause between rounds is that between two messages, so that the rate stays.
        beats = self._beats
        pause = int(np.median(np.diff(beats))) if len(beats) > 1 else DEFAULT_PAUSE
        longest = max((last - first for first, last in self._spans.values()), default=0)
        self._time_shift += length + pause
        self._stamp_shift += length + pause if longest < length + pause else longest + pause
        self._beats = []

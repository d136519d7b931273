# SPDX-License-Identifier: Apache-2.0
"""When a recorded moment is due."""

from __future__ import annotations

import time

from lazyxmem_ros.basics import SECOND


class Pacer:
    """Maps the recording's time to steady time."""

    def __init__(self, rate: float, start: int) -> None:
        """rate: recorded seconds per second, 0 = no waiting; start: recorded time (ns) of now."""
        self._rate = rate
        self._start = start
        self._began = time.monotonic()

    def remaining(self, moment: int) -> float:
        """Seconds of steady time until the recorded time `moment` (ns)."""
        if self._rate == 0:
            return 0.0
        due = (moment - self._start) / SECOND / self._rate
        return self._began + due - time.monotonic()

    def now(self) -> int:
        """The recorded time (ns) of this moment."""
        elapsed = (time.monotonic() - self._began) * self._rate
        return self._start + round(elapsed * SECOND)

    def skip(self, recorded: int) -> None:
        """Leave out `recorded` nanoseconds of the recording: what follows is due sooner."""
        if self._rate:
            self._began -= recorded / SECOND / self._rate

    def postpone(self, seconds: float) -> None:
        """Take `seconds` of waiting out of the count, so that no burst follows."""
        self._began += seconds

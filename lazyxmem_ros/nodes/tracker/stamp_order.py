# SPDX-License-Identifier: Apache-2.0
"""Which stamps of images are taken, and when another clock is followed. Knows nothing of ROS."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass

from lazyxmem_ros.basics import SECOND

AGREEING_STAMPS = 3
"""So many images in a row whose stamps agree with one another, but not with those before, show
that the clock is another; fewer are stray."""
MAX_STEP_S = 60.0
"""Seconds from one image's stamp to the next one's, beyond the steady time between them, that are
still the same clock."""
USUAL_STEPS = 10
"""Steps may be longer where the images come that slowly: up to so many times the last step."""


class Order(enum.Enum):
    """What becomes of an image by its stamp."""

    TAKEN = "taken"
    REFUSED = "refused"
    GONE_BACK = "taken; the stamps begin again at an earlier time"
    GONE_AHEAD = "taken; the stamps go on at a much later time"


@dataclass(frozen=True)
class Judgement:
    """order; where it is not TAKEN: `kind` names what is odd for the counters, `text` explains."""

    order: Order
    kind: str = ""
    text: str = ""


class StampOrder:
    """Remembers the last stamps that were taken, and those that are odd so far."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: steady time in seconds."""
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Take whatever stamp comes next."""
        self._last: int | None = None
        self._step = 0
        self._received = 0.0
        self._odd: list[int] = []

    def judge(self, stamp: int, *, tracking: bool) -> Judgement:
        """Judge the stamp (ns) of the image that has just come.

        tracking: whether there are objects; without, nothing is lost by following any clock.
        """
        now, last = self._clock(), self._last
        if last is None:
            return self._take(stamp, now)
        if stamp in (last, *self._odd[-1:]):
            return Judgement(Order.REFUSED, "same stamp", f"a second image of stamp {stamp} ns")
        if stamp > last and (not tracking or stamp - last <= self._longest_step(now)):
            return self._take(stamp, now)
        back = stamp < last
        jump = abs(stamp - last) / SECOND
        kind = "stamp runs backwards" if back else "stamp far ahead"
        where = f"{jump:.3f} s {'before' if back else 'after'} the newest one"
        if tracking and not self._agreed(stamp):
            return Judgement(
                Order.REFUSED,
                kind,
                f"the stamp is {where}; {AGREEING_STAMPS} in a row that agree are followed, and "
                "~/reset takes any",
            )
        # Where two of the other clock's were seen, they tell how fast images come.
        step = stamp - self._odd[-2] if len(self._odd) > 1 else 0
        self._take(stamp, now)
        self._step = step
        return Judgement(Order.GONE_BACK if back else Order.GONE_AHEAD, kind, where)

    def _longest_step(self, now: float) -> int:
        if not self._step:
            return 2**63  # only one was seen: nothing tells how slowly they come
        elapsed = now - self._received
        longest = round((MAX_STEP_S + elapsed) * SECOND)
        return max(longest, USUAL_STEPS * self._step)

    def _agreed(self, stamp: int) -> bool:
        """Whether this odd stamp and those just before make up another clock."""
        longest = max(round(MAX_STEP_S * SECOND), USUAL_STEPS * self._step)
        if self._odd and not 0 < stamp - self._odd[-1] <= longest:
            self._odd.clear()
        self._odd.append(stamp)
        return len(self._odd) >= AGREEING_STAMPS

    def _take(self, stamp: int, now: float) -> Judgement:
        self._step = 0 if self._last is None else stamp - self._last
        self._last, self._received = stamp, now
        self._odd.clear()
        return Judgement(Order.TAKEN)

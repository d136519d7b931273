# SPDX-License-Identifier: Apache-2.0
"""Says how far something is that may take seconds or hours, once it does take long."""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_S, PERIOD_S = 3.0, 10.0
"""Seconds until the first word, and between two."""
Tell = Callable[[str], None]
"""Is told a sentence for people."""


def silent(sentence: str) -> None:
    """The `Tell` of who does not want to know."""


class TellSlowness:
    """Called again and again with the share that is done, 0 to 1."""

    def __init__(self, tell: Tell, what: str) -> None:
        self._tell = tell
        self._what = what
        self._due = time.monotonic() + FIRST_S

    def __call__(self, share: float) -> None:
        """Note how far it is."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + PERIOD_S
            self._tell(f"{self._what}: {share:.0%}")

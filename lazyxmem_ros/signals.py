# SPDX-License-Identifier: Apache-2.0
"""The signals that ask a program to end, and what they must not break off."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within, signals that ask for the end are put off until the block is done or has failed.

    Blocking them for this thread alone would not do: another thread may receive them, and Python
    then runs the handler here, in the middle of a fork, where an exception would lose the child.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread only
        return
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: received.append(number))
        for number in (*ENDING_SIGNALS, signal.SIGALRM)  # SIGALRM is a node's patience
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])

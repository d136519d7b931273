# SPDX-License-Identifier: Apache-2.0
"""Work that must not hold up masks, such as drawing: in a thread of its own, the newest alone."""

from __future__ import annotations

import threading
from collections.abc import Callable


class NewestOnly:
    """Does one piece of work at a time; a newer piece takes the place of one that waits."""

    def __init__(self, name: str, on_failure: Callable[[BaseException], object]) -> None:
        """on_failure(error): gets what a piece raises, in the thread, which goes on."""
        self._on_failure = on_failure
        self._changed = threading.Condition()
        self._waiting: Callable[[], object] | None = None
        self._stopping = False
        self._name = name
        self._thread: threading.Thread | None = None

    def offer(self, work: Callable[[], object]) -> None:
        """Leave work for the thread, which begins with the first piece; returns at once."""
        with self._changed:
            if self._stopping:
                return
            self._waiting = work
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self, timeout: float = 10.0) -> None:
        """End after the piece in hand, waiting at most `timeout` seconds for it."""
        with self._changed:
            self._stopping, self._waiting = True, None
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._waiting is None:
                    if self._stopping:
                        return
                    self._changed.wait()
                work, self._waiting = self._waiting, None
            try:
                work()
            except Exception as error:  # noqa: BLE001 - the thread outlives a picture
                self._on_failure(error)

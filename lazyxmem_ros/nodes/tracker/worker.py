# SPDX-License-Identifier: Apache-2.0
"""One thread that owns the tracker: commands in the order given, and the newest frame only."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, Generic, TypeVar

FrameT = TypeVar("FrameT")
ResultT = TypeVar("ResultT")


class Worker(Generic[FrameT]):
    """Runs frames and commands in one thread, so that what they touch needs no lock.

    A frame waits in a slot of one: a newer frame replaces it. Commands wait in a queue and go
    before frames, because each of them is cheap beside a frame and may change how it comes out.
    """

    def __init__(
        self,
        *,
        on_failure: Callable[[BaseException], None],
        name: str = "tracker-worker",
    ) -> None:
        """on_failure(error): gets what a frame raises, or a command that nobody waits for."""
        self._on_failure = on_failure
        self._changed = threading.Condition()
        self._commands: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._slot: FrameT | None = None
        self._stopping = False
        self._busy = False
        self._name = name
        self._thread: threading.Thread | None = None

    def start(self, handle_frame: Callable[[FrameT], object]) -> None:
        """Start the thread, in which handle_frame(frame) runs; once only."""
        self._thread = threading.Thread(
            target=self._run, args=(handle_frame,), name=self._name, daemon=True
        )
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> bool:
        """End after the frame or command in hand; what waits is cancelled.

        Returns whether the thread ended within `timeout` seconds.
        """
        with self._changed:
            self._stopping = True
            self._slot = None
            abandoned = [future for future, _ in self._commands]
            self._commands.clear()
            self._changed.notify_all()
        for future in abandoned:
            future.cancel()
        thread = self._thread
        if thread is None:
            return True
        if threading.current_thread() is not thread:
            thread.join(timeout)
        return not thread.is_alive()

    def offer(self, frame: FrameT) -> bool:
        """Leave a frame for the thread; returns whether an older one was dropped for it."""
        with self._changed:
            if self._stopping:
                return False
            dropped = self._slot is not None
            self._slot = frame
            self._changed.notify_all()
            return dropped

    def submit(self, command: Callable[[], ResultT]) -> Future[ResultT]:
        """Queue a command; the future gets its result or what it raised.

        After `stop` the future is cancelled.
        """
        future: Future[ResultT] = Future()
        with self._changed:
            if not self._stopping:
                self._commands.append((future, command))
                self._changed.notify_all()
                return future
        future.cancel()
        return future

    def post(self, command: Callable[[], object]) -> None:
        """Queue a command whose result nobody waits for; what it raises goes to on_failure."""
        self.submit(command).add_done_callback(self._after_post)

    def _after_post(self, future: Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            self._on_failure(error)

    def clear_frame(self) -> bool:
        """Forget the frame that waits; returns whether there was one."""
        with self._changed:
            dropped = self._slot is not None
            self._slot = None
            return dropped

    def is_idle(self) -> bool:
        """Whether neither a frame nor a command is in hand or waiting."""
        with self._changed:
            return not (self._busy or self._commands or self._slot is not None)

    def has_ended(self) -> bool:
        """Whether nothing runs in the thread any more, or it was never started."""
        return self._thread is None or not self._thread.is_alive()

    def serve_commands_until(self, done: Callable[[], bool], deadline: float) -> None:
        """Run commands, but no frame, until done() or time.monotonic() passes `deadline`.

        Only for use from inside handle_frame: this is how a frame waits for its corrections.
        """
        if threading.current_thread() is not self._thread:
            raise RuntimeError("serve_commands_until belongs to the worker's own thread")
        while not done():
            with self._changed:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or self._stopping:
                    return
                if not self._commands:
                    self._changed.wait(remaining)
                    continue
                future, command = self._commands.popleft()
            _run_command(future, command)

    def _run(self, handle_frame: Callable[[FrameT], object]) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.wait_for(
                    lambda: self._stopping or self._commands or self._slot is not None
                )
                if self._stopping:
                    return
                self._busy = True
                if self._commands:
                    job: tuple[Future[Any], Callable[[], Any]] | None = self._commands.popleft()
                    frame = None
                else:
                    job, frame, self._slot = None, self._slot, None
            if job is not None:
                _run_command(*job)
            elif frame is not None:
                try:
                    handle_frame(frame)
                except Exception as error:  # noqa: BLE001 - the thread outlives whatever a frame does
                    self._on_failure(error)


def _run_command(future: Future[Any], command: Callable[[], Any]) -> None:
    try:
        if not future.set_running_or_notify_cancel():
            return
    except CancelledError:
        return
    try:
        future.set_result(command())
    except Exception as error:  # noqa: BLE001 - whoever holds the future gets it
        future.set_exception(error)

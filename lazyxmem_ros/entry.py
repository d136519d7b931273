# SPDX-License-Identifier: Apache-2.0
"""How the package's programs begin, and how a signal ends them.

One rule: as long as there is nothing to put in order, SIGINT and SIGTERM end the process as if it
knew nothing of them. Later a program first puts things in order and then ends by that very signal;
a node ends with 0 (`nodes/running.py`).
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import NoReturn

from lazyxmem_ros.extras import missing_extras_explained
from lazyxmem_ros.signals import ENDING_SIGNALS

EXIT_FAULT = 1


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Within, Ctrl-C ends the process in silence, where it is not handled.

    A KeyboardInterrupt inside NumPy's import may come out as a RecursionError, so catching it would
    not do.
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def load(module: str) -> ModuleType:
    """Import a module, which may take seconds (PyTorch, rclpy), within `ending_at_once`.

    Raises MissingExtraError where a library of an extra is not installed.
    """
    with ending_at_once(), missing_extras_explained():
        return importlib.import_module(module)


@dataclass
class Interruption:
    """The signal that has asked for the end, None until one does."""

    number: int | None = None


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Within, SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt; an ignored one stays ignored."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption  # handlers run in the main thread only
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        interruption.number = number
        raise KeyboardInterrupt

    handlers = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    before = {n: handler for n, handler in handlers.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_to_the_end(program: Callable[[], int | None], name: str, kept: str) -> int:
    """Run a command's program; a fault of the user's input is one sentence and EXIT_FAULT.

    A program that returns no status has succeeded.

    A signal that asks for the end raises KeyboardInterrupt in the program. Once that is through,
    `kept` says what was kept, and the process ends by the signal.
    """
    status = EXIT_FAULT
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As stderr does: names of files, which are any bytes, shall not end what is done with them.
        sys.stdout.reconfigure(errors="backslashreplace")
    with interruptible() as interruption:
        try:
            status = program() or 0
        except BaseException as error:
            # What is raised after a signal is its doing: inside of an import it may be anything.
            if interruption.number is None:
                if not isinstance(error, (ValueError, RuntimeError, OSError)):
                    raise
                print(f"{name}: {_in_words(error)}", file=sys.stderr)
    if interruption.number is not None:
        print(f"interrupted; {kept}", file=sys.stderr)
        _end_by(interruption.number)
    return status


def _in_words(error: BaseException) -> str:
    """What an error says, and that it was about standard output, which has no file name."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
        try:
            os.write(sys.stdout.fileno(), b"\n")
        except OSError:
            return f"standard output cannot be written to: {error.strerror}"
    return str(error)


def _end_by(number: int) -> NoReturn:
    """End this process by a signal, which tells shells and launchers why."""
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise AssertionError("a process outlives no such signal")

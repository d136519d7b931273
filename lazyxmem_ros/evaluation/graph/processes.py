# SPDX-License-Identifier: Apache-2.0
"""Runs child processes that end together, whatever happens to their parent.

Every child leads a process group of its own, so that Ctrl-C in the terminal reaches the parent
alone, which then ends the children in order; and the kernel ends them should the parent die.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lazyxmem_ros.evaluation.errors import EvaluationError
from lazyxmem_ros.signals import ENDING_SIGNALS, undisturbed

if sys.version_info >= (3, 11):
    from typing import Self
else:
    from typing_extensions import Self

GRACE_S = 8.0
"""Time that a process has to end after SIGINT before it is killed."""
POLL_S = 0.05
LOG_TAIL_LINES = 12
"""Lines of a process's output that an error quotes."""
_PR_SET_PDEATHSIG = 1


class ProcessError(EvaluationError):
    """A process could not be started, or ended when it should not have."""


@dataclass(frozen=True)
class Child:
    """A running process: its name, where its output goes, and the process itself."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]

    def log_tail(self) -> str:
        """The last lines of its output."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])


class ProcessSet:
    """Starts processes and ends them all when the context is left."""

    def __init__(self, log_folder: Path) -> None:
        self._log_folder = log_folder
        self._children: list[Child] = []
        self._stopped: list[Child] = []

    def __enter__(self) -> Self:
        self._log_folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        with undisturbed():
            # The last started depends on the others: end it first.
            for child in reversed(self._children):
                _end(child.process)

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start a process with its output in a log file; raises ProcessError."""
        log = self._log_folder / f"{name}.log"
        try:
            # A Ctrl-C between the fork and the entry into the list would lose the child.
            with undisturbed(), log.open("wb") as output:
                process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(environment) if environment is not None else None,
                    start_new_session=True,
                    preexec_fn=_die_with_parent if sys.platform == "linux" else None,
                )
                child = Child(name, log, process)
                self._children.append(child)
        except OSError as error:
            raise ProcessError(f"{name} could not be started: {error}") from error
        return child

    def check(self, awaited: Child | None = None) -> None:
        """Raise ProcessError naming a child that has ended, and its last words: none may but with
        status 0 the awaited one, and those that were stopped.
        """
        for child in self._children:
            status = child.process.poll()
            if status is not None and not (status == 0 and child in (awaited, *self._stopped)):
                raise ProcessError(
                    f"{child.name} ended with status {status}; {child.log} says:\n"
                    f"{child.log_tail()}"
                )

    def wait_for(self, child: Child, timeout: float) -> Iterator[float]:
        """Yield the seconds passed until `child` has ended well; raises ProcessError if not."""
        started = time.monotonic()
        while child.process.poll() is None:
            self.check(child)
            passed = time.monotonic() - started
            if passed > timeout:
                raise ProcessError(f"{child.name} did not end within {timeout:.0f} s")
            yield passed
            time.sleep(POLL_S)
        self.check(child)
        self._stopped.append(child)

    def stop(self, child: Child) -> None:
        """End one child and wait for it."""
        self._stopped.append(child)
        with undisturbed():
            _end(child.process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Send SIGINT, and after GRACE_S SIGKILL, to the whole group."""
    for number, patience in ((signal.SIGINT, GRACE_S), (signal.SIGKILL, GRACE_S)):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    # What a child has left behind in its group goes too.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _die_with_parent() -> None:
    """Prepare a child: the kernel kills it when the parent dies; its signals act as usual.

    A Ctrl-C between fork and exec reaches the child too, as a member of the parent's group: it is
    dropped here, for the parent has got it as well.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
        signal.signal(number, signal.SIG_DFL)

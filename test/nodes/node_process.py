# SPDX-License-Identifier: Apache-2.0
"""The package's nodes in processes of their own, which start at once."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from lazyxmem_ros.nodes import EXECUTABLES
from lazyxmem_ros.nodes.__main__ import main

WAIT_S = 60.0


class NodeProcess:
    """One of the package's nodes in a process of its own.

    Most of a node's start is the import of PyTorch and rclpy. A `fresh` node is started as a user
    starts it. The others are forked from a process that has imported everything and done nothing
    else.
    """

    def __init__(
        self,
        name: str,
        parameters: Mapping[str, Any],
        arguments: Sequence[str],
        log: Path,
        *,
        fresh: bool = False,
    ) -> None:
        pairs = [part for k, v in parameters.items() for part in ("-p", f"{k}:={yaml_text(v)}")]
        told = [name, "--ros-args", *pairs, *arguments]
        self.name = name
        self._log = log
        log.touch()
        self._process = _Fresh(told, log) if fresh else _Forked(told, log)
        self.pid = self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text()

    def exit_code(self) -> int | None:
        """None as long as it runs."""
        return self._process.exit_code(0.0)

    def wait(self, timeout: float = WAIT_S) -> int:
        """The exit code, once it has ended by itself."""
        code = self._process.exit_code(timeout)
        if code is None:
            raise AssertionError(f"{self.name} did not end within {timeout:g} s")
        return code

    def send(self, signal_number: int) -> None:
        os.kill(self.pid, signal_number)

    def stop(self, signal_number: int = signal.SIGINT) -> int:
        """End it as Ctrl-C does; returns the exit code."""
        self.send(signal_number)
        return self.wait()

    def kill(self) -> None:
        if self.exit_code() is None:
            self.send(signal.SIGKILL)
            self.wait()


class _Fresh:
    def __init__(self, told: Sequence[str], log: Path) -> None:
        command = [sys.executable, "-m", "lazyxmem_ros.nodes", *told]
        with log.open("w") as file:
            self._process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        self.pid = self._process.pid

    def exit_code(self, timeout: float) -> int | None:
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None


class _Forked:
    def __init__(self, told: Sequence[str], log: Path) -> None:
        self._process = _starter().Process(
            target=_run, args=(told, log, dict(os.environ), Path.cwd()), daemon=True
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def exit_code(self, timeout: float) -> int | None:
        self._process.join(timeout)
        return self._process.exitcode


@functools.cache
def _starter() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *EXECUTABLES.values()])
    return context


def _run(told: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path) -> None:
    """In the new process: what `python -m lazyxmem_ros.nodes` does with these arguments."""
    with log.open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["lazyxmem_ros.nodes", *told]
    sys.exit(main())


def yaml_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value == float("inf"):
        return ".inf"
    return repr(value) if isinstance(value, (float, list)) else str(value)

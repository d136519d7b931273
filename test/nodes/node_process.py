# SPDX-License-Identifier: Apache-2.0
"""The package's nodes in processes of their own, which start at once."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from node_graph import WAIT_S


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
        self._end = log.with_suffix(".exit")
        self.pid = _starter().start(told, log, self._end)

    def exit_code(self, timeout: float) -> int | None:
        deadline = time.monotonic() + timeout
        while not (code := self._end.read_text()) and time.monotonic() < deadline:
            time.sleep(0.005)
        return int(code) if code else None


class _Starter:
    """A process of `node_starter.py`; it ends with this one."""

    def __init__(self) -> None:
        program = [sys.executable, str(Path(__file__).with_name("node_starter.py"))]
        self._process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def start(self, told: Sequence[str], log: Path, end: Path) -> int:
        """Start a node that writes to `log`, and its exit code to `end`; returns its process id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        end.write_text("")
        order = {
            "told": list(told),
            "log": str(log),
            "end": str(end),
            "environment": dict(os.environ),
            "folder": str(Path.cwd()),
        }
        print(json.dumps(order), file=self._process.stdin)
        return int(self._process.stdout.readline())


@functools.cache
def _starter() -> _Starter:
    return _Starter()


def yaml_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value == float("inf"):
        return ".inf"
    return repr(value) if isinstance(value, (float, list)) else str(value)

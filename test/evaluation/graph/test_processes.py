# SPDX-License-Identifier: Apache-2.0
"""Whatever ends the parent, no process is left. The children here are real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lazyxmem_ros.evaluation.graph.processes import ProcessError, ProcessSet

# Starts a grandchild, ignores SIGINT if told, and writes both process ids.
CHILD = """
import os, pathlib, signal, subprocess, sys, time
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1]).write_text(f"{os.getpid()} {grandchild.pid}")
time.sleep(600)
"""

PARENT = """
import pathlib, signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and would stay so
from lazyxmem_ros.entry import interruptible
from lazyxmem_ros.evaluation.graph.processes import ProcessSet
folder = pathlib.Path(sys.argv[1])
child = [sys.executable, "-c", sys.argv[2], str(folder / "ids"), "willing"]
try:
    with interruptible(), ProcessSet(folder / "logs") as processes:
        processes.start("child", child)
        time.sleep(600)
except KeyboardInterrupt:
    sys.exit(130)
"""


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def ids_in(file: Path) -> list[int]:
    assert wait_for(lambda: file.is_file() and len(file.read_text().split()) == 2)
    return [int(word) for word in file.read_text().split()]


def alive(process: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def child_command(file: Path, manner: str) -> list[str]:
    return [sys.executable, "-c", CHILD, str(file), manner]


@pytest.mark.parametrize("manner", ["willing", "stubborn"])
def test_leaving_ends_children_and_grandchildren(
    tmp_path: Path, manner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lazyxmem_ros.evaluation.graph.processes.GRACE_S", 0.5)
    with ProcessSet(tmp_path / "logs") as processes:
        processes.start("child", child_command(tmp_path / "ids", manner))
        ids = ids_in(tmp_path / "ids")
        assert all(alive(entry) for entry in ids)
    assert wait_for(
        lambda: not any(alive(entry) for entry in ids),
    )


def test_an_error_ends_them_too(tmp_path: Path) -> None:
    ids: list[int] = []

    def fail() -> None:
        with ProcessSet(tmp_path / "logs") as processes:
            processes.start("child", child_command(tmp_path / "ids", "willing"))
            ids.extend(ids_in(tmp_path / "ids"))
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        fail()
    assert wait_for(
        lambda: not any(alive(entry) for entry in ids),
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_to_the_parent_ends_them(tmp_path: Path, number: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), CHILD])
    child, grandchild = ids_in(tmp_path / "ids")
    parent.send_signal(number)
    status = parent.wait(timeout=60)
    assert status == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert wait_for(
        lambda: not alive(child),
    )
    if number == signal.SIGKILL:
        os.kill(grandchild, signal.SIGKILL)  # nobody was left who knew of it
    else:
        assert wait_for(
            lambda: not alive(grandchild),
        )


def test_a_failing_process_is_reported_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('the disk is full')"]
    with ProcessSet(tmp_path / "logs") as processes:
        child = processes.start("writer", command)
        with pytest.raises(ProcessError, match=r"(?s)writer ended with status 1.*the disk is full"):
            list(processes.wait_for(child, timeout=60))


def test_a_child_that_ends_well_too_early_is_named(tmp_path: Path) -> None:
    """Nodes end with status 0 where somebody ends them; what follows would be half a run's."""
    with ProcessSet(tmp_path) as processes:
        ending = processes.start("recorder", [sys.executable, "-c", "print('bye')"])
        awaited = processes.start("replay", [sys.executable, "-c", "import time; time.sleep(600)"])
        with pytest.raises(ProcessError, match=r"recorder ended with status 0; .*says:\nbye"):
            for _ in processes.wait_for(awaited, 60):
                pass
        assert ending.process.returncode == 0


def test_what_is_stopped_and_what_was_awaited_may_end(tmp_path: Path) -> None:
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    with ProcessSet(tmp_path) as processes:
        first = processes.start("first", [sys.executable, "-c", ""])
        for _ in processes.wait_for(first, 60):
            pass
        second = processes.start("second", [sys.executable, "-c", "import time; time.sleep(0.3)"])
        for _ in processes.wait_for(second, 60):
            pass
        third = processes.start("third", sleeping)
        processes.check()
        processes.stop(third)
        assert third.process.returncode is not None


def test_waiting_has_an_end(tmp_path: Path) -> None:
    with ProcessSet(tmp_path / "logs") as processes:
        child = processes.start("sleeper", [sys.executable, "-c", "import time; time.sleep(60)"])
        with pytest.raises(ProcessError, match="sleeper did not end within 0 s"):
            list(processes.wait_for(child, timeout=0.2))
        with pytest.raises(ProcessError, match="could not be started"):
            processes.start("nobody", ["/no/such/program"])

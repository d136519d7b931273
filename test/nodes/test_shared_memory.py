# SPDX-License-Identifier: Apache-2.0
"""What killed processes leave in shared memory is removed; what is in use stays."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lazyxmem_ros.nodes.shared_memory import SHARED_MEMORY, remove_leftovers

SEGMENT, PORT = "fastdds_0123456789abcdef", "fastdds_port7413"
OLD_S = 60.0
LIVES = """
import time, rclpy
rclpy.init()
node = rclpy.create_node("lives_for_a_while")
print("ready", flush=True)
time.sleep(60)
"""


def make(folder: Path, *names: str, age: float = OLD_S) -> None:
    for name in names:
        (folder / name).write_bytes(b"x" * 8192)
        os.utime(folder / name, times=(time.time() - age,) * 2)


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_what_nobody_owns_goes_and_nothing_else(tmp_path: Path) -> None:
    make(tmp_path, SEGMENT, f"{SEGMENT}_el", PORT, f"{PORT}_el", f"{PORT}_sl")
    make(tmp_path, f"sem.{PORT}_mutex", "fastrtps_0123456789abcdef_el")
    others = {"fastdds_0123", "fastdds_0123_el", "somebody.else_el", "fastdds_port99999"}
    make(tmp_path, *others)
    assert remove_leftovers(tmp_path) == 2 * 8192
    assert names(tmp_path) == others


@pytest.mark.parametrize("suffix", ["_el", "_sl"])
def test_what_is_locked_stays(suffix: str, tmp_path: Path) -> None:
    files = (PORT, f"{PORT}_el", f"{PORT}_sl", f"sem.{PORT}_mutex")
    make(tmp_path, *files)
    with (tmp_path / (PORT + suffix)).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH if suffix == "_sl" else fcntl.LOCK_EX)
        assert remove_leftovers(tmp_path) == 0
        assert names(tmp_path) == set(files)
    assert remove_leftovers(tmp_path) == 8192
    assert names(tmp_path) == set()


def test_what_is_just_being_made_stays(tmp_path: Path) -> None:
    make(tmp_path, SEGMENT, f"{SEGMENT}_el", age=0.0)
    assert remove_leftovers(tmp_path) == 0
    assert len(names(tmp_path)) == 2


def test_without_such_a_folder_nothing_happens(tmp_path: Path) -> None:
    assert remove_leftovers(tmp_path / "nowhere") == 0


def started() -> subprocess.Popen[str]:
    """A process with a participant."""
    process = subprocess.Popen([sys.executable, "-c", LIVES], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def lock_files(process: subprocess.Popen[str]) -> set[Path]:
    """Of the segments that a living process owns."""
    opened = {file.readlink() for file in Path(f"/proc/{process.pid}/fd").iterdir()}
    return {
        file
        for file in opened
        if file.parent == SHARED_MEMORY and re.fullmatch(r"fast\w+_[0-9a-f]{16}_el", file.name)
    }


def test_a_killed_process_leaves_nothing_for_long_and_a_living_one_keeps_its_own() -> None:
    if not os.access(SHARED_MEMORY, os.W_OK):
        pytest.skip("there is no shared memory (/dev/shm) that may be written to")
    killed, living = started(), started()
    try:
        dead, alive = lock_files(killed), lock_files(living)
        if not dead:
            pytest.skip("Fast DDS does not use shared memory here")
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        for file in dead | alive:
            os.utime(file, times=(time.time() - OLD_S,) * 2)
        assert remove_leftovers() > 0
        assert not any(file.exists() for file in dead)
        assert all(file.exists() for file in alive)
    finally:
        for process in (killed, living):
            process.kill()
            process.wait()

# SPDX-License-Identifier: Apache-2.0
"""What a benchmark starts ends with it, and is where ROS_DOMAIN_ID says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import pytest

from bench import floods, transport

BENCH = Path(__file__).parents[2] / "bench"
PATIENCE_S = 120


def commands_of(group: int) -> list[bytes]:
    """The command lines of a process group's processes; one that is only waited for has none."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getpgid(int(process.name)) == group:
                found.append((process / "cmdline").read_bytes())
    return [command for command in found if command]


@pytest.mark.parametrize("domain", ["", "7"])
def test_a_domain_that_is_named_is_kept(domain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    if not domain:
        monkeypatch.delenv("ROS_DOMAIN_ID")
    chosen = transport.environment(None)["ROS_DOMAIN_ID"]
    assert chosen == domain if domain else int(chosen) > 0
    monkeypatch.setattr(floods, "tracker", Mock(side_effect=AssertionError("it begins")))
    monkeypatch.setattr(sys, "argv", ["floods"])
    with pytest.raises(AssertionError, match="it begins"):
        floods.main()
    chosen = os.environ["ROS_DOMAIN_ID"]
    assert chosen == domain if domain else int(chosen) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "arguments", "innermost"),
    [
        ("transport", ["--frames", "10000"], b"--role\0publish"),
        ("start", ["--repeat", "100"], b"lazyxmem_ros.cli"),
    ],
)
def test_a_benchmark_that_is_ended_leaves_no_process(
    program: str, arguments: list[str], innermost: bytes
) -> None:
    command = [sys.executable, str(BENCH / f"{program}.py"), *arguments]
    bench = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not any(innermost in each for each in commands_of(bench.pid)):
            assert bench.poll() is None
            assert time.monotonic() < deadline, "it does not begin"
            time.sleep(0.01)
        bench.send_signal(signal.SIGTERM)
        bench.wait(PATIENCE_S)
        assert commands_of(bench.pid) == []
    finally:
        with suppress(ProcessLookupError):
            os.killpg(bench.pid, signal.SIGKILL)

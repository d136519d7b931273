# SPDX-License-Identifier: Apache-2.0
"""Benchmarks one after the other."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bench import all as every

PATIENCE_S = 60
PROGRAM = """
import pathlib, subprocess, sys
left = subprocess.Popen(["sleep", "1000"])
pathlib.Path("left").write_text(str(left.pid))
print("measured")
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize(("status", "ended"), [("0", "well"), ("3", "badly: fake ended with")])
def test_nothing_of_a_benchmark_is_left(
    status: str, ended: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(every, "HERE", tmp_path)
    (tmp_path / "fake.py").write_text(PROGRAM)
    bench = every.Bench("fake", (status,))
    row = every.run(bench, quick=False)
    assert row["ended"].startswith(ended)
    assert "measured" in every.section(bench, row["began"])
    left = Path("/proc") / (tmp_path / "left").read_text() / "cmdline"
    deadline = time.monotonic() + PATIENCE_S
    while left.exists() and left.read_bytes():  # a zombie has no command line
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.02)

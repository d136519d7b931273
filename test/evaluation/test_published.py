# SPDX-License-Identifier: Apache-2.0
"""Published figures stand beside one's own where both are about the same sequences."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from lazyxmem_ros.cli import main
from lazyxmem_ros.evaluation import published
from lazyxmem_ros.evaluation.job import JobReport
from lazyxmem_ros.evaluation.published import PUBLISHED, VALIDATION, compared

pytestmark = pytest.mark.usefixtures("undrawn")

DATASET = pd.DataFrame({"method": ["xmem"], "jf": [0.6543], "j_mean": [0.7], "f_mean": [0.6086]})


def frames_of(*methods: list[str]) -> pd.DataFrame:
    rows = [
        {"method": f"m{number}", "sequence": name, "scored": scored}
        for number, names in enumerate(methods)
        for name in names
        for scored in (False, True)
    ]
    return pd.DataFrame(rows, columns=["method", "sequence", "scored"])


def report() -> JobReport:
    """Of a run of which nothing is missing."""
    counts = {"frames": 10, "asked": 10, "read": 10, "scored": 9}
    return JobReport(name="goat/xmem", seconds=1.0, faults=(), error=None, **counts)


def text_of(shown: object) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(shown)
    return console.export_text()


def test_all_twenty_are_compared() -> None:
    assert len(VALIDATION) == 20
    names = sorted(VALIDATION)
    lines = text_of(compared(DATASET, frames_of(names, names), [report()])).splitlines()
    assert any(line.split()[:4] == ["xmem", "65.4", "70.0", "60.9"] for line in lines)
    assert any(line.split()[:4] == ["XMem", "91.5", "90.4", "92.7"] for line in lines)
    assert any(line.split()[:4] == ["STM", "89.3", "88.7", "89.9"] for line in lines)
    assert any(line.split()[:4] == ["OSVOS", "80.2", "79.8", "80.6"] for line in lines)
    assert any(line.split()[:4] == ["Cutie", "-", "-", "-"] for line in lines)
    for entry in PUBLISHED:
        if entry.jf is not None:
            assert entry.j is not None and entry.f is not None  # noqa: PT018
            assert entry.jf == pytest.approx((entry.j + entry.f) / 2, abs=0.06)
        assert entry.source in " ".join(lines)


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ([sorted(VALIDATION)[:10]], "10 of 20 validation sequences of DAVIS 2016: "),
        ([sorted(VALIDATION), sorted(VALIDATION)[1:]], "19 of 20 validation sequences"),
        ([[*VALIDATION, "pond"]], "20 of 20 validation sequences of DAVIS 2016 and 1 others: "),
        ([], "0 of 20 validation sequences"),
    ],
)
def test_others_are_not(methods: list[list[str]], said: str) -> None:
    shown = compared(DATASET, frames_of(*methods), [])
    assert isinstance(shown, str)
    assert shown.startswith(said)


@pytest.mark.parametrize(
    ("incomplete", "said"),
    [
        ({"error": "no memory left", "scored": 5}, "goat/xmem ended early: the published"),
        ({"scored": 8}, "of goat/xmem 8 of 9 frames are scored: the published"),
    ],
)
def test_runs_that_are_incomplete_are_not(incomplete: dict[str, Any], said: str) -> None:
    """A mean over the easy begin of a sequence is not one over all of it."""
    reports = [report(), replace(report(), **incomplete)]
    shown = compared(DATASET, frames_of(sorted(VALIDATION)), reports)
    assert isinstance(shown, str)
    assert shown.startswith(said)


def test_the_command_says_it(
    make_tree: Callable[..., Path],
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("camel", "goat"):
        root = make_tree(name, 3, {index: (1,) for index in range(3)})
    options = [
        "--methods",
        "xmem",
        "--workers",
        "1",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "o"),
    ]
    call = ["evaluate", str(root), "--weights", str(tiny_weights), *options]
    assert main([*call, "--layout", "davis2016"]) == 0
    assert "2 of 20 validation sequences of DAVIS 2016" in capsys.readouterr().out
    assert main(call) == 0
    assert "validation sequences" not in capsys.readouterr().out


def test_a_view_of_all_is_not_compared(
    make_tree: Callable[..., Path],
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(published, "VALIDATION", frozenset(("camel",)))
    root = make_tree("camel", 4, {index: (1,) for index in range(4)}, binary=True)
    call = ["evaluate", str(root), "--weights", str(tiny_weights), "--layout", "davis2016"]
    call += ["--methods", "xmem", "--workers", "1", "--device", "cpu", "--out", str(tmp_path)]
    for options in (["--every-nth-frame", "2"], ["--twin"], ["--passes", "2"]):
        assert main([*call, *options]) == 0
        said = capsys.readouterr().out
        assert "Caelles" not in said
        assert f"with {' '.join(options)} the published figures are not comparable" in said
    assert main(call) == 0
    assert "Caelles" in capsys.readouterr().out

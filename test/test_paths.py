# SPDX-License-Identifier: Apache-2.0
"""Paths as people give them: not every shell expands `--out=~/x`."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from lazyxmem_ros.basics import path_argument
from lazyxmem_ros.cli import main


def test_the_home_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_argument("~/x") == tmp_path / "x"
    assert path_argument("x/~") == Path("x/~")
    with pytest.raises(argparse.ArgumentTypeError, match="there is no such home directory"):
        path_argument("~nobody-of-that-name/x")


@pytest.mark.parametrize(
    "command",
    [
        ["track", "video.mp4", "--mask", "first.png", "--out"],
        ["evaluate", "data", "--out"],
        ["export", "records", "--out"],
    ],
    ids=lambda command: command[0],
)
def test_the_home_of_nobody_is_refused(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "~nobody-of-that-name/x"])
    assert ended.value.code == 2
    assert (
        "--out: ~nobody-of-that-name/x: there is no such home directory" in capsys.readouterr().err
    )

# SPDX-License-Identifier: Apache-2.0
"""Which folders a program takes for its results, and what it replaces there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lazyxmem_ros.data.errors import OutputError
from lazyxmem_ros.data.outputs import MARKER, alone_in, claim

NAMES = ("table.csv", "pictures")


def test_a_program_replaces_what_its_own_runs_have_made(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    for _ in range(2):
        claim(out, "first", NAMES)
        (out / "table.csv").write_text("made")
    claim(out, "first", (*NAMES, "more"))


@pytest.mark.parametrize("name", NAMES)
def test_what_others_have_made_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(OutputError, match=f"{name}: is there already.*choose another folder"):
        claim(tmp_path, "first", NAMES)
    assert [file.name for file in tmp_path.iterdir()] == [name], "nothing was touched"


def test_two_programs_share_a_folder_but_no_name(tmp_path: Path) -> None:
    claim(tmp_path, "first", NAMES)
    claim(tmp_path, "second", ("table.csv",))
    (tmp_path / "table.csv").write_text("the second's")
    (tmp_path / "pictures").mkdir()
    claim(tmp_path, "second", ("table.csv",))
    with pytest.raises(OutputError, match="a run of first would replace it"):
        claim(tmp_path, "first", NAMES)


@pytest.mark.parametrize("content", ["", "[]", '{"table.csv": 3}', "\xff"])
def test_of_a_damaged_marker_nothing_is_known(content: str, tmp_path: Path) -> None:
    (tmp_path / MARKER).write_bytes(content.encode("latin1"))
    claim(tmp_path, "first", ("pictures",))
    (tmp_path / "table.csv").write_text("mine")
    with pytest.raises(OutputError, match="is there already"):
        claim(tmp_path, "first", NAMES)


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(OutputError, match=f"{out} cannot be written to: "):
            claim(out, "first", NAMES)


def test_one_run_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    """Its end gives the folder free, however it comes about."""
    out = tmp_path / "new" / "out"
    program = (
        "import sys; from pathlib import Path; from lazyxmem_ros.data.outputs import alone_in\n"
        "with alone_in(Path(sys.argv[1])):\n    print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        refused = pytest.raises(OutputError, match=f"{out}: another run is writing there")
        with refused, alone_in(out):
            pass
        other.kill()
    with alone_in(out):
        pass

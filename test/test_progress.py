# SPDX-License-Identifier: Apache-2.0
"""Long commands say how far they are, also where nobody sees a bar."""

import io
import re

import pytest
from rich.console import Console

from lazyxmem_ros import progress as module
from lazyxmem_ros.progress import Progress, track


@pytest.fixture
def log() -> Console:
    """A console whose output is not a terminal."""
    return Console(file=io.StringIO(), force_terminal=False)


def lines(console: Console) -> list[str]:
    return console.file.getvalue().splitlines()


def test_a_line_is_printed_now_and_then(log, monkeypatch):
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    with Progress(log, line_period=30) as progress:
        task = progress.add_task("[bold]all frames", total=100)
        for now in range(0, 100, 10):
            progress.update(task, completed=now)
    assert len(lines(log)) == 3
    assert all(re.match(r"all frames: \d+ of 100", line) for line in lines(log))


def test_the_first_task_that_is_not_done_is_told_of(log):
    with Progress(log, line_period=0) as progress:
        first = progress.add_task("first", total=2)
        second = progress.add_task("[red]second[/]", total=None)
        progress.advance(second)
        progress.update(first, completed=2)
        progress.advance(second)
    assert [line.partition(", ")[0] for line in lines(log)] == [
        "first: 0 of 2",
        "first: 2 of 2",
        "second: 2",
    ]
    assert lines(log)[1].endswith("done in 0:00:00")


def test_each_task_is_done_once(log):
    with Progress(log, line_period=1000) as progress:
        task = progress.add_task("frames", total=2)
        for _ in range(3):
            progress.advance(task)
    assert len(lines(log)) == 1


def test_a_sequence_is_gone_through(log):
    assert list(track("abc", "letters", console=log)) == ["a", "b", "c"]
    assert [line.partition(",")[0] for line in lines(log)] == ["letters: 3 of 3"]


def test_a_terminal_shows_bars_alone():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Progress(console, line_period=0) as progress:
        task = progress.add_task("frames", total=2)
        progress.advance(task, 2)
    text = console.file.getvalue()
    assert "2/2" in text
    assert "of 2" not in text

# SPDX-License-Identifier: Apache-2.0
"""Progress of long commands: bars at a terminal, a line now and then in a log or a pipe."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

T = TypeVar("T")

LINE_PERIOD_S = 30.0
"""Between the lines of a task that goes on, where the output is not a terminal."""


class Progress(RichProgress):
    """rich's Progress, which also says how far it is where the output is not a terminal.

    There it prints one line every `line_period` seconds about the first task that is not done, and
    one when a task is done.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        transient: bool = False,
        line_period: float = LINE_PERIOD_S,
    ) -> None:
        """transient: leave no bar behind when all is done."""
        console = console or Console()
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=transient,
            disable=not console.is_terminal,
        )
        self._line_period = line_period
        self._last_line = time.monotonic()
        self._announced: set[TaskID] = set()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """See rich."""
        super().update(task_id, **changes)
        self._print_lines(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """See rich."""
        super().advance(task_id, advance)
        self._print_lines(task_id)

    def _print_lines(self, changed: TaskID) -> None:
        if not self.disable:
            return
        task = self._tasks[changed]
        if task.finished and changed not in self._announced:
            self._announced.add(changed)
            self._print(task, f"done in {_clock(task.elapsed)}")
        elif time.monotonic() - self._last_line >= self._line_period:
            going_on = next((task for task in self.tasks if not task.finished), None)
            if going_on is not None:
                remaining = going_on.time_remaining
                self._print(going_on, "" if remaining is None else f"{_clock(remaining)} to go")

    def _print(self, task: Task, when: str) -> None:
        total = "" if task.total is None else f" of {task.total:.0f}"
        text = f"{Text.from_markup(task.description).plain}: {task.completed:.0f}{total}"
        self.console.print(f"{text}, {when}" if when else text, markup=False, soft_wrap=True)
        self._last_line = time.monotonic()


def track(
    sequence: Sequence[T], description: str = "working", *, console: Console | None = None
) -> Iterator[T]:
    """Go through a sequence, showing how far; the bar disappears at the end."""
    with Progress(console, transient=True) as progress:
        yield from progress.track(sequence, description=description)


def _clock(seconds: float | None) -> str:
    return str(timedelta(seconds=round(seconds or 0)))

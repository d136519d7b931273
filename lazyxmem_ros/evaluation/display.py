# SPDX-License-Identifier: Apache-2.0
"""Shows an evaluation's progress to a person, at a terminal or in a log."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import TaskID

from lazyxmem_ros.evaluation.job import JobReport
from lazyxmem_ros.progress import Progress


class Display:
    """An Observer that draws a bar per running job, and one for all of them."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(console)
        self._tasks: dict[str, TaskID] = {}
        self._frames: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._ended: set[str] = set()
        self._total: TaskID | None = None

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def planned(self, names: Sequence[str], frames: Sequence[int]) -> None:
        """See Observer."""
        self._frames = dict(zip(names, frames, strict=True))
        self._total = self._progress.add_task("[bold]all frames", total=sum(frames))

    def progressed(self, name: str, frames: int) -> None:
        """See Observer."""
        if name in self._ended:  # its last word comes after its end
            return
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(escape(name), total=self._frames.get(name))
        self._progress.update(self._tasks[name], completed=frames)
        self._done[name] = frames
        self._update_total()

    def finished(self, report: JobReport, *, kept: bool) -> None:
        """See Observer."""
        self._ended.add(report.name)
        task = self._tasks.pop(report.name, None)
        if task is not None:
            self._progress.remove_task(task)
        self._done[report.name] = self._frames.get(report.name, 0)
        self._update_total()
        if report.error:
            self._progress.console.print(f"[red]{escape(report.name)}:[/] {escape(report.error)}")
        elif kept:
            self._progress.console.print(f"[dim]{escape(report.name)}: kept from an earlier run[/]")

    def _update_total(self) -> None:
        if self._total is not None:
            self._progress.update(self._total, completed=sum(self._done.values()))

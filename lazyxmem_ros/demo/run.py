# SPDX-License-Identifier: Apache-2.0
"""The demonstration: a bag through the real ROS graph, with a simulated operator who helps.

    python -m lazyxmem_ros.demo [--sequence camel --data DIR] [--rate 1.0] [--out out/demo]

It makes a bag of the generated pond, or of a real sequence, and replays it into the tracker, the
correction server and a simulated operator, each a process of its own. It records what they publish,
and leaves in the output folder `overlay.mp4`, `contact_sheet.png`, `timeline.png`, the recording
`published/` (masks, tracks, requests, corrections, diagnostics), the bag that was played, the
tables `frames.csv` and `events.csv`, and the nodes' logs.
"""

from __future__ import annotations

import os
import threading
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import TaskID

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.data.outputs import alone_in, claim
from lazyxmem_ros.data.views import SelectedFrames
from lazyxmem_ros.demo.options import DemoOptions, open_sequence, parse_options
from lazyxmem_ros.demo.story import story_of
from lazyxmem_ros.demo.summary import Demonstration, summary_table
from lazyxmem_ros.entry import run_to_the_end
from lazyxmem_ros.evaluation.errors import EvaluationError
from lazyxmem_ros.evaluation.graph.launch import graph_environment
from lazyxmem_ros.evaluation.graph.run import (
    BAG_FOLDER,
    LOGS_FOLDER,
    RECORD_FOLDER,
    GraphRun,
    run_through_graph,
)
from lazyxmem_ros.evaluation.methods import Method, MethodOptions, Trigger, all_methods
from lazyxmem_ros.evaluation.offline import SequenceRunner
from lazyxmem_ros.evaluation.plan import GraphMode, Job, TrackerSettings
from lazyxmem_ros.evaluation.rows import RunLog
from lazyxmem_ros.evaluation.simulated_operator import SimulatedOperator
from lazyxmem_ros.evaluation.trackers import make_lazy_tracker, shared_corrector
from lazyxmem_ros.images.files import write_whole
from lazyxmem_ros.lazy import LazyConfig
from lazyxmem_ros.progress import Progress

DEMO_LAZY = LazyConfig(cooldown_frames=5, operator_iou=0.7, least_view=0.3)
"""The pond has 10 frames per second, a third of a usual camera's, and much happens in them. Where
something alike is about it asks sooner than by default, and not about what is nearly hidden."""
PERSON_LAZY = replace(
    DEMO_LAZY, request_timeout=8 * SECOND, correction_horizon=12 * SECOND, cooldown_frames=15
)
"""By the images' time, which passes at a quarter of its pace: half a minute for an answer."""
TITLE = "with corrections"
WITHOUT = replace(all_methods(MethodOptions(DEMO_LAZY))["udu"], name="without corrections")
NAIVE = Method(
    "with answers put on the newest frame",
    "the naive way: whatever has moved since",
    DEMO_LAZY,
    Trigger.POLICY,
    to_newest=True,
)
PAGE_AFTER_S = 8.0
"""Time that the nodes need to start."""
VIDEO, SHEET, TIMELINE = "overlay.mp4", "contact_sheet.png", "timeline.png"
FRAMES, EVENTS = "frames.csv", "events.csv"
PROGRAM = "the demonstration"
MADE = (VIDEO, SHEET, TIMELINE, FRAMES, EVENTS)
"""What it makes beside the folders of a run through the graph."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; returns the exit code."""
    return run_to_the_end(
        lambda: demonstrate(parse_options(arguments), Console()),
        "demo",
        "every process has been ended",
    )


def demonstrate(options: DemoOptions, console: Console) -> None:
    """Play, compare, draw and print. Raises EvaluationError, DataError and their kin."""
    lazy = DEMO_LAZY if options.console_port is None else PERSON_LAZY
    job = Job(
        open_sequence(options),
        Method(TITLE, "the demonstration", lazy, Trigger.POLICY),
        TrackerSettings(options.weights, options.device, options.internal_size),
        options.operator,
        graph=GraphMode(options.rate),
    )
    with alone_in(options.out):
        claim(options.out, PROGRAM, (*MADE, BAG_FOLDER, RECORD_FOLDER, LOGS_FOLDER))
        _demonstrate(job, options, console)


def _demonstrate(job: Job, options: DemoOptions, console: Console) -> None:
    for name in MADE:
        (options.out / name).unlink(missing_ok=True)
    with Progress(console) as progress:
        run, frames, events = _play(job, options, progress)
        compared = {
            method.name: _the_same_frames(
                job, run, method, _Bar(progress, method.name, len(run.record.masks))
            )
            for method in ((WITHOUT,) if options.console_port else (WITHOUT, NAIVE))
        }
        outcome = Demonstration(
            run.bag, options.rate, run.record, frames, events, compared, options.scripted
        )
        story = story_of(outcome)
        story.save_timeline(options.out / TIMELINE)
        story.save_contact_sheet(options.out / SHEET)
        story.save_video(options.out / VIDEO, _Bar(progress, "making the video", len(run.bag)))
    write_whole(options.out / FRAMES, frames.to_csv(index=False).encode())
    write_whole(options.out / EVENTS, events.to_csv(index=False).encode())
    console.print(summary_table(outcome))
    console.print(
        f"in [bold]{escape(str(options.out))}/[/]: {VIDEO}, {SHEET}, {TIMELINE}, "
        "published/ (masks, tracks, requests and corrections as a bag), logs/"
    )


def _play(
    job: Job, options: DemoOptions, progress: Progress
) -> tuple[GraphRun, pd.DataFrame, pd.DataFrame]:
    """Play the sequence through the graph; returns what came out, frame rows and event rows."""
    out = options.out
    environment = graph_environment()
    progress.console.print(
        f"[dim]to look on: ROS_DOMAIN_ID={environment['ROS_DOMAIN_ID']} rviz2[/]"
    )
    if options.console_port is not None:
        _invite(f"http://127.0.0.1:{options.console_port}/", progress)
    total = len(job.sequence)
    played = _Bar(progress, "replay -> tracker <-> corrections", total)
    log = RunLog()
    run = run_through_graph(
        job,
        out,
        log,
        played,
        compression="jpeg",
        exported=_Bar(progress, "making the bag", total),
        environment=environment,
        console_port=options.console_port,
    )
    played(total)  # also where frames were dropped
    if not log.frames:
        raise EvaluationError(f"the tracker published no mask; see {out / LOGS_FOLDER}")
    return run, *log.tables(sequence=run.bag.name, method=job.method.name)


def _invite(address: str, progress: Progress) -> None:
    """Say where the page is, and open it where there is a screen."""
    progress.console.print(
        f"[bold]You are the operator.[/] Open [bold]{address}[/] in a browser; the recording "
        "begins then. When the tracker asks, answer; what that brought is said here at the end."
    )
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        later = threading.Timer(PAGE_AFTER_S, webbrowser.open, (address,))
        later.daemon = True  # a run that fails before shows no page
        later.start()


def _the_same_frames(
    job: Job, run: GraphRun, method: Method, progressed: Callable[[int], None]
) -> pd.DataFrame:
    """Frame rows of another method on exactly the frames that the tracker got to see."""
    log = RunLog()
    runner = SequenceRunner(
        make_lazy_tracker(job.tracker, method.lazy),
        shared_corrector(job.tracker),
        SimulatedOperator(job.operator),
        method,
        log=log,
    )
    seen = SelectedFrames(run.bag, frozenset(run.record.masks))
    for done, _ in enumerate(runner.run(seen), start=1):
        progressed(done)
    return log.tables(sequence=run.bag.name, method=method.name)[0]


class _Bar:
    """A bar of the progress display that appears when it is first told how much is done."""

    def __init__(self, progress: Progress, description: str, total: int) -> None:
        self._progress = progress
        self._description = description
        self._total = total
        self._task: TaskID | None = None

    def __call__(self, done: int) -> None:
        if self._task is None:
            self._task = self._progress.add_task(self._description, total=self._total)
        self._progress.update(self._task, completed=done)

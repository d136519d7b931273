# SPDX-License-Identifier: Apache-2.0
"""The demonstration: a bag through the real ROS graph, with a simulated operator who helps.

    python -m lazyxmem_ros.demo [--sequence camel] [--rate 1.0] [--out out/demo]

Makes a bag (the generated pond, or a real sequence of ../shared/data), replays it into the tracker,
the correction server and a simulated operator, each a process of its own, records what they
publish, and leaves in the output folder: `overlay.mp4`, `contact_sheet.png`, `timeline.png`, the
recording `published/` (masks, tracks, requests, corrections, diagnostics), the bag that was played,
tables, and the nodes' logs.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from lazyxmem_ros import weights
from lazyxmem_ros.basics import stamp_of
from lazyxmem_ros.correction import DEFAULT_CORRECTOR, make_corrector
from lazyxmem_ros.data.datasets import DatasetOptions, open_dataset
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.pond import FAILURE_SPAN, MAX_DURATION, SceneConfig
from lazyxmem_ros.data.sequences import (
    BagSequence,
    SceneSequence,
    SelectedFrames,
    VideoSequence,
)
from lazyxmem_ros.demo.story import Clicks, Story
from lazyxmem_ros.evaluation.errors import EvaluationError
from lazyxmem_ros.evaluation.graph.bag_export import FIRST_STAMP, TRUTH_TOPIC, export_bag
from lazyxmem_ros.evaluation.graph.launch import (
    GraphSettings,
    graph_environment,
    run_graph,
    tracker_parameters,
)
from lazyxmem_ros.evaluation.graph.processes import interruptible
from lazyxmem_ros.evaluation.graph.record import GraphRecord, read_record, score_record
from lazyxmem_ros.evaluation.methods import Method, MethodOptions, all_methods
from lazyxmem_ros.evaluation.offline import SequenceRunner
from lazyxmem_ros.evaluation.simulated_operator import Gesture, OperatorConfig, SimulatedOperator
from lazyxmem_ros.evaluation.tables import given_corrections
from lazyxmem_ros.lazy import LazyConfig, LazyTracker, iou_predictor_of
from lazyxmem_ros.xmem import MemoryConfig, XMem, XMemTracker

DATA = Path("..") / "shared" / "data"
DATA_FOLDERS = ("davis2016-dev", "multi-object")
DEFAULT_OUT = Path("out") / "demo"
INTERNAL_SIZE = weights.EMBEDDED_INTERNAL_SIZE
"""Short side inside the tracker, pixels: what two CPU cores follow at the pond's 10 Hz."""
REAL_SEQUENCE_RATE = 0.4
"""Real sequences have 24 frames per second; played at about 10."""
REACTION_DELAY_S = 0.3
DEMO_LAZY = LazyConfig(cooldown_frames=5)
"""The pond has 10 frames per second, a third of a usual camera's, and much happens in them."""
EXIT_FAULT, EXIT_INTERRUPTED = 1, 130


@dataclass(frozen=True)
class DemoOptions:
    """What the command line says; None leaves a choice to the kind of sequence."""

    sequence: str | None
    duration: float
    rate: float | None
    out: Path
    weights: str
    device: str
    internal_size: int
    reaction_delay: float
    gesture: Gesture


@dataclass(frozen=True)
class Demonstration:
    """Everything that the table and the pictures are made from."""

    bag: BagSequence
    record: GraphRecord
    frames: pd.DataFrame
    events: pd.DataFrame
    without: pd.DataFrame
    rate: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; returns the exit code (130 after Ctrl-C)."""
    options = _parse(arguments)
    console, errors = Console(), Console(stderr=True)
    try:
        with interruptible():
            demonstrate(options, console)
    except KeyboardInterrupt:
        errors.print("\n[yellow]interrupted; every process has been ended[/]")
        return EXIT_INTERRUPTED
    except (ValueError, RuntimeError, OSError) as error:
        errors.print(f"[red]demo:[/] {error}", soft_wrap=True)
        return EXIT_FAULT
    return 0


def demonstrate(options: DemoOptions, console: Console) -> Demonstration:
    """Bag, graph, comparison, pictures, table. Raises EvaluationError or WeightsError."""
    weights_file = weights.locate(options.weights)
    source = _source(options)
    rate = options.rate or (REAL_SEQUENCE_RATE if options.sequence else 1.0)
    _clear(options.out)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        total = len(source)
        task = progress.add_task("making the bag", total=total)
        bag = export_bag(
            source, options.out / "bag", progressed=lambda n: progress.update(task, completed=n)
        )
        lazy = DEMO_LAZY
        settings = _graph_settings(options, bag, lazy, weights_file, rate)
        environment = graph_environment()
        domain = environment["ROS_DOMAIN_ID"]
        progress.console.print(f"[dim]to look on: ROS_DOMAIN_ID={domain} rviz2[/]")
        task_graph = progress.add_task("replay -> tracker <-> corrections", total=total)
        run_graph(
            settings,
            options.out / "published",
            options.out / "logs",
            lambda n: progress.update(task_graph, completed=n),
            environment,
        )
        progress.update(task_graph, completed=total)  # also where frames were dropped
        record = read_record(options.out / "published", bag.image_topic)
        frames, events = score_record(record, bag, method="with corrections")
        if not len(frames):
            raise EvaluationError(f"the tracker published no mask; see {options.out / 'logs'}")
        task_plain = progress.add_task("the same frames without corrections", total=len(frames))
        without = _without_corrections(
            options,
            bag,
            record,
            lazy,
            weights_file,
            lambda done: progress.update(task_plain, completed=done),
        )
        outcome = Demonstration(bag, record, frames, events, without, rate)
        task_video = progress.add_task("making the video", total=total)
        save_pictures(outcome, options.out, lambda n: progress.update(task_video, completed=n))
    frames.to_csv(options.out / "frames.csv", index=False)
    events.to_csv(options.out / "events.csv", index=False)
    console.print(summary_table(outcome, scripted=options.sequence is None))
    console.print(
        f"in [bold]{options.out}/[/]: overlay.mp4, contact_sheet.png, timeline.png, "
        "published/ (masks, tracks, requests and corrections as a bag), logs/"
    )
    return outcome


def save_pictures(outcome: Demonstration, folder: Path, progressed: Callable[[int], None]) -> None:
    """Overlay video, contact sheet and timeline of the first object."""
    first_object = int(outcome.frames["object"].iloc[0])
    mine = outcome.frames[outcome.frames["object"] == first_object].reset_index(drop=True)
    events = outcome.events[outcome.events["object"] == first_object]
    clicks = {
        stamp_of(answer.header.stamp): Clicks(
            _points(answer.prompt.positive), _points(answer.prompt.negative)
        )
        for answer in outcome.record.answers
    }
    story = Story(
        f"{outcome.bag.name}: tracked through the ROS graph",
        outcome.bag,
        mine,
        events,
        outcome.record.labels_at,
        outcome.without[outcome.without["object"] == first_object],
        clicks,
        _frame_rate(outcome) * outcome.rate,
    )
    story.save_timeline(folder / "timeline.png")
    story.save_contact_sheet(folder / "contact_sheet.png")
    story.save_video(folder / "overlay.mp4", progressed)


def summary_table(outcome: Demonstration, *, scripted: bool) -> Table:
    """The one table of the demonstration."""
    frames, events, record = outcome.frames, outcome.events, outcome.record
    asked = events[events["source"] == "operator"]
    itself = events[events["source"] == "pseudo"]
    tracked = len(record.masks)
    table = Table(title=f"{outcome.bag.name}, replayed at {outcome.rate:g}x", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("frames in", str(len(outcome.bag)))
    table.add_row("tracked", str(tracked))
    table.add_row("dropped (a newer one was there)", str(len(outcome.bag) - tracked))
    table.add_row("latency image -> mask, p50", f"{record.latency_ms(50):.0f} ms")
    table.add_row("latency image -> mask, p99", f"{record.latency_ms(99):.0f} ms")
    table.add_section()
    table.add_row("J with corrections", _percent(frames))
    table.add_row("J without corrections *", _percent(outcome.without))
    if scripted:
        table.add_row("J outside the scripted failure, with", _percent(_outside_failure(frames)))
        table.add_row(
            "J outside the scripted failure, without *", _percent(_outside_failure(outcome.without))
        )
    table.add_section()
    table.add_row("corrections asked of the operator", str(len(asked)))
    table.add_row("corrections given and applied", str(len(given_corrections(events))))
    table.add_row("corrections the tracker made itself", str(int(itself["applied"].sum())))
    table.caption = "* the same frames run again offline, corrections off, all else equal"
    table.caption_justify = "left"
    return table


def _graph_settings(
    options: DemoOptions, bag: BagSequence, lazy: LazyConfig, weights_file: Path, rate: float
) -> GraphSettings:
    operator = OperatorConfig(gesture=options.gesture, reaction_delay=options.reaction_delay)
    parameters = tracker_parameters(
        weights_file, options.device, options.internal_size, MemoryConfig(), lazy
    )
    duration = len(bag) / 10.0
    return GraphSettings(
        bag.path, bag.image_topic, True, TRUTH_TOPIC, duration, rate, parameters, {}, operator
    )


def _without_corrections(
    options: DemoOptions,
    bag: BagSequence,
    record: GraphRecord,
    lazy: LazyConfig,
    weights_file: Path,
    progressed: Callable[[int], None],
) -> pd.DataFrame:
    """Frame rows of the tracker on exactly the frames it got to see, with corrections off."""
    method: Method = replace(all_methods(MethodOptions(lazy))["udu"], name="without corrections")
    network = XMem.from_checkpoint(weights_file)
    tracker = XMemTracker(
        network,
        device=options.device,
        max_internal_size=options.internal_size,
        precision="auto",
    )
    runner = SequenceRunner(
        LazyTracker(tracker, method.lazy, iou_predictor=iou_predictor_of(weights_file)),
        make_corrector(DEFAULT_CORRECTOR),
        SimulatedOperator(),
        method,
    )
    seen = SelectedFrames(bag, frozenset(record.masks))
    for done, _ in enumerate(runner.run(seen), start=1):
        progressed(done)
    return pd.DataFrame(runner.log.frames)


def _source(options: DemoOptions) -> VideoSequence:
    """The generated pond, or a sequence of the data beside the project."""
    name = options.sequence
    if name is None:
        return SceneSequence(SceneConfig(duration=options.duration))
    known: dict[str, Path] = {}
    for folder in (DATA / entry for entry in DATA_FOLDERS):
        if (folder / "JPEGImages").is_dir():
            known |= {sequence.name: folder for sequence in open_dataset(folder)}
    if name in known:
        return open_dataset(known[name], DatasetOptions(sequences=(name,)))[0]
    if not known:
        raise DatasetError(
            f"SEQUENCE={name} needs the real sequences in {DATA}, which is not there; "
            "without SEQUENCE the demo makes its own"
        )
    raise DatasetError(f"there is no sequence {name} in {DATA}; there are {', '.join(known)}")


def _clear(out: Path) -> None:
    """Remove what an earlier demonstration left, and nothing else."""
    for name in ("bag", "published", "logs"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("overlay.mp4", "contact_sheet.png", "timeline.png", "frames.csv", "events.csv"):
        (out / name).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)


def _outside_failure(frames: pd.DataFrame) -> pd.DataFrame:
    seconds = (frames["stamp"] - FIRST_STAMP) / 1e9
    return frames[(seconds < FAILURE_SPAN[0]) | (seconds > FAILURE_SPAN[1])]


def _percent(frames: pd.DataFrame) -> str:
    scored = frames[frames["scored"].astype(bool)]
    return f"{100 * scored['j'].mean():.1f} %" if len(scored) else "-"


def _frame_rate(outcome: Demonstration) -> float:
    stamps = np.sort(np.fromiter(outcome.record.received, np.int64))
    return 1e9 / float(np.median(np.diff(stamps))) if len(stamps) > 1 else 10.0


def _points(points: Sequence[Any]) -> NDArray[np.float32]:
    return np.array([(point.x, point.y) for point in points], np.float32).reshape(-1, 2)


def _parse(arguments: Sequence[str] | None) -> DemoOptions:
    parser = argparse.ArgumentParser(
        prog="python -m lazyxmem_ros.demo", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--sequence", help=f"a real sequence of {DATA} instead of the pond")
    parser.add_argument(
        "--duration", type=float, default=MAX_DURATION, help="of the pond, seconds (at most 15)"
    )
    parser.add_argument("--rate", type=float, help="speed of the replay; 1 = as recorded")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="output folder")
    parser.add_argument("--weights", default="", help="a known name or a path; empty = embedded")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--internal-size", type=int, default=INTERNAL_SIZE, help="short side in the tracker, pixels"
    )
    parser.add_argument(
        "--reaction-delay", type=float, default=REACTION_DELAY_S, help="of the operator, seconds"
    )
    parser.add_argument(
        "--gesture",
        choices=[gesture.value for gesture in Gesture],
        default=Gesture.BOX.value,
        help="how the operator answers",
    )
    parsed = parser.parse_args(arguments)
    if parsed.rate is not None and parsed.rate <= 0:
        parser.error("--rate must be above 0")
    return DemoOptions(
        parsed.sequence,
        parsed.duration,
        parsed.rate,
        parsed.out,
        parsed.weights,
        parsed.device,
        parsed.internal_size,
        parsed.reaction_delay,
        Gesture(parsed.gesture),
    )

# SPDX-License-Identifier: Apache-2.0
"""One correction that comes late: exactly applied, applied to the newest frame, or not at all.

    tools/run python bench/late_corrections.py                    # the generated pond
    tools/run python bench/late_corrections.py ../shared/data/davis2016-dev camel breakdance

On the first frame where the object is lost (IoU below 0.5) the operator is asked, once, and answers
with the true mask after 0, 0.5, 1, 2 and 4 seconds. J is the mean over the frames after the answer
and the catching up; beside it stands that of an instant answer over the same frames. Writes
out/bench/late_corrections.png and .csv.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from lazyxmem_ros.correction import make_corrector
from lazyxmem_ros.evaluation.datasets import DatasetOptions, open_dataset
from lazyxmem_ros.evaluation.methods import Method, Trigger
from lazyxmem_ros.evaluation.offline import SequenceRunner
from lazyxmem_ros.evaluation.operator import Gesture, OperatorConfig, SimulatedOperator
from lazyxmem_ros.evaluation.scene import SceneConfig
from lazyxmem_ros.evaluation.sequences import SceneSequence, VideoSequence
from lazyxmem_ros.lazy import SECOND, LazyConfig, LazyTracker
from lazyxmem_ros.weights import locate
from lazyxmem_ros.xmem import XMem, XMemTracker

mpl.use("Agg")
import matplotlib.pyplot as plt

DELAYS = (0.0, 0.5, 1.0, 2.0, 4.0)
LOST_BELOW = 0.5
ONCE = 10**9
"""Frames of cool-down: nobody is asked twice."""
OUT = Path("out/bench")
QUIET = LazyConfig(
    user_corrections=False,
    pseudo_corrections=False,
    hold_entropy=float("inf"),
    cooldown_frames=ONCE,
)
EXACT = replace(QUIET, correction_horizon=8 * SECOND, history_time=8 * SECOND)
NAIVE = replace(QUIET, correction_horizon=0, late_overlap=0.0, history_time=8 * SECOND)
COLOURS = {"exact": "#2f6db5", "newest frame": "#d08a2e", "none": "#9a9a9a"}


@dataclass(frozen=True)
class Run:
    """J of each frame, and the stamps (s) of the answer and of the end of the catching up."""

    stamps: np.ndarray
    scores: np.ndarray
    asked: float | None
    answered: float | None
    caught_up: float | None


def run(
    tracker: XMemTracker, sequence: VideoSequence, lazy: LazyConfig, delay: float | None
) -> Run:
    """delay None: nobody is asked."""
    tracker.reset()
    trigger = Trigger.NOBODY if delay is None else Trigger.ORACLE
    runner = SequenceRunner(
        LazyTracker(tracker, lazy),
        make_corrector("grabcut"),
        SimulatedOperator(OperatorConfig(gesture=Gesture.MASK, reaction_delay=delay or 0.0)),
        Method("bench", "", lazy, trigger, below=LOST_BELOW),
    )
    caught_up = None
    for outcome in runner.run(sequence):
        if outcome.result.caught_up:
            caught_up = outcome.sample.stamp / SECOND
    frames = pd.DataFrame(runner.log.frames).groupby("stamp")["j"].mean()
    stamps = frames.index.to_numpy() / SECOND
    events = [e for e in runner.log.events if e["applied"]]
    asked = events[0]["stamp"] / SECOND if events else None
    answered = None if asked is None else asked + (delay or 0.0)
    return Run(stamps, frames.to_numpy(), asked, answered, caught_up or answered)


def compare(
    tracker: XMemTracker, sequence: VideoSequence, tick: Callable[[], None]
) -> Iterator[dict[str, object]]:
    """A row per delay and kind; nothing where the object is never lost."""
    instant = run(tracker, sequence, EXACT, 0.0)
    plain = run(tracker, sequence, QUIET, None)
    tick()
    if instant.asked is None:
        return
    for delay in DELAYS:
        exact = run(tracker, sequence, EXACT, delay)
        naive = run(tracker, sequence, NAIVE, delay)
        tick()
        if exact.caught_up is None or exact.caught_up >= instant.stamps[-1]:
            continue
        after = instant.stamps >= exact.caught_up
        for kind, result in (("exact", exact), ("newest frame", naive), ("none", plain)):
            yield {
                "sequence": sequence.name,
                "delay_s": delay,
                "kind": kind,
                "catch_up_s": exact.caught_up - instant.asked - delay,
                "frames": int(after.sum()),
                "j": float(np.nanmean(result.scores[after])),
                "j_instant": float(np.nanmean(instant.scores[after])),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", type=Path, help="a dataset (default: the pond)")
    parser.add_argument("sequences", nargs="*", help="its sequences (default: all)")
    parser.add_argument("--weights", default="")
    parser.add_argument("--max-internal-size", type=int, default=360)
    parser.add_argument("--budget", type=float, default=0.05, help="catch-up budget, s a frame")
    arguments = parser.parse_args()
    sequences: list[VideoSequence] = [SceneSequence(SceneConfig())]
    if arguments.dataset is not None:
        known = open_dataset(arguments.dataset, DatasetOptions())
        wanted = arguments.sequences
        sequences = [s for s in known if not wanted or s.name.split("/")[-1] in wanted]
    tracker = XMemTracker(
        XMem.from_checkpoint(locate(arguments.weights)),
        device="auto",
        max_internal_size=arguments.max_internal_size,
        precision="auto",
    )
    torch.set_num_threads(max(torch.get_num_threads(), 1))
    rows: list[dict[str, object]] = []
    with Progress() as progress:
        task = progress.add_task("runs", total=len(sequences) * (len(DELAYS) + 1))
        for sequence in sequences:
            rows += compare(tracker, sequence, lambda: progress.advance(task))
    console = Console()
    if not rows:
        console.print("the tracker lost nothing: there is nothing to correct")
        return
    table = pd.DataFrame(rows)
    OUT.mkdir(parents=True, exist_ok=True)
    table.to_csv(OUT / "late_corrections.csv", index=False)
    draw(table)
    shown = Table(*map(str, table.columns), title="J after the answer and the catching up")
    for row in rows:
        shown.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
    console.print(shown, f"picture: {OUT / 'late_corrections.png'}")


def draw(table: pd.DataFrame) -> None:
    """J against the operator's delay, the mean over sequences."""
    figure, axes = plt.subplots(figsize=(6.4, 3.6), constrained_layout=True)
    means = table.groupby(["kind", "delay_s"])[["j", "j_instant"]].mean().reset_index()
    for kind, colour in COLOURS.items():
        part = means[means["kind"] == kind]
        axes.plot(part["delay_s"], part["j"], "o-", label=kind, color=colour)
    part = means[means["kind"] == "exact"]
    axes.plot(part["delay_s"], part["j_instant"], "k:", label="instant, same frames")
    axes.set(xlabel="the operator answers after, s", ylabel="J after catching up", ylim=(0, 1))
    axes.legend(frameon=False)
    figure.savefig(OUT / "late_corrections.png", dpi=130)


if __name__ == "__main__":
    main()

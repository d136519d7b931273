# SPDX-License-Identifier: Apache-2.0
"""One correction that comes late: exactly applied, applied to the newest frame, or not at all.

    tools/run python bench/late_corrections.py                   # pond and real sequences
    tools/run python bench/late_corrections.py --sequences pond  # the generated pond alone
    tools/run python bench/late_corrections.py --twin ...        # each crossed by its mirror image

On the first frame on which the object is in view and lost (IoU below 0.5) the operator is asked,
once, and answers with the true mask after 0, 0.5, 1, 2 and 4 seconds. J of that object is the mean
over the frames from the moment when the answer has taken effect (answer plus catching up) to the
end; beside it stands that of an instant answer over the same frames. A second table has J over the
two seconds after the answer, while the frames since are still being gone through.

Real sequences are shorter than that takes, so they are played to and fro, and every sequence at
`--rate` frames a second of its own time. Catching up goes without a budget, two past frames with
every new one, so that the outcome does not depend on the machine; `--budget` gives it more.
Writes out/bench/late_corrections.{png,csv,md} and late_answers.{csv,md}.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.layouts.options import DatasetOptions
from lazyxmem_ros.data.layouts.scene import SceneSequence
from lazyxmem_ros.data.location import data_folder
from lazyxmem_ros.data.pond import SceneConfig
from lazyxmem_ros.data.samples import VideoSequence
from lazyxmem_ros.data.stress import TwinSequence
from lazyxmem_ros.evaluation.metrics import region_similarity
from lazyxmem_ros.evaluation.printing import markdown_table, screen_table
from lazyxmem_ros.lazy import Correction, LazyConfig, LazyTracker, Snapshot
from lazyxmem_ros.progress import Progress
from lazyxmem_ros.weights import locate
from lazyxmem_ros.xmem import Frame, XMemTracker, load_network
from lazyxmem_ros.xmem.network import KeyFeatures
from tools.documents import add_docs_argument, check_docs, into_documents

mpl.use("Agg")
import matplotlib.pyplot as plt

POND = "pond"
DATASET = data_folder() / "davis2016-dev"
HELD_OUT = ("breakdance", "camel", "parkour")
"""Real sequences that the embedded model was not trained on."""
DELAYS = (0.5, 1.0, 2.0, 4.0)
"""Seconds until the operator answers, who also does so at once."""
LOST_BELOW = 0.5
IN_VIEW_SHARE = 0.002
"""Of the image: an object that shows less of itself is nobody's to correct."""
AFTER = 6.5
"""Seconds that are played after the latest answer: its catching up, and something to measure."""
SOON = 2.0
"""Seconds after the answer in which it should show."""
PATIENCE = 3
"""Rounds of a sequence in which the object may be lost."""
SHOWN_DELAY = 2.0
"""Of the picture's curves over time, seconds."""
MARGIN = 0.05
"""Of the picture's axis of J."""
OUT = Path("out/bench")
PLAIN = LazyConfig(operator_corrections=False, pseudo_corrections=False, history_time=10 * SECOND)
EXACT = replace(PLAIN, correction_horizon=8 * SECOND)
NAIVE = replace(PLAIN, correction_horizon=0)
COLOURS = {"exact": "#2f6db5", "newest frame": "#d08a2e", "none": "#9a9a9a"}
Tick = Callable[[], None]


@dataclass(frozen=True, eq=False)
class Shot:
    """A frame and its ground truth, uint8 [H, W, 3] and label map uint16 [H, W]."""

    image: NDArray[np.uint8]
    truth: NDArray[np.uint16]


class Clip:
    """A sequence's annotated frames at a given rate, played to and fro without end."""

    def __init__(self, sequence: VideoSequence, rate: float) -> None:
        """rate: frames a second at most; every so many of the sequence's frames are taken."""
        self.name = sequence.name.split("/")[-1]
        samples = [s for s in sequence.samples() if s.image is not None and s.truth is not None]
        native = SECOND / (samples[1].stamp - samples[0].stamp)
        stride = max(math.ceil(native / rate - 0.01), 1)
        self.rate = native / stride
        self.shots = [
            Shot(s.image, s.truth)
            for s in samples[::stride]
            if s.image is not None and s.truth is not None
        ]

    @property
    def seconds(self) -> float:
        """How long one pass takes."""
        return (len(self.shots) - 1) / self.rate

    def position(self, index: int) -> int:
        """The place in the sequence of the frame played as number `index`."""
        last = len(self.shots) - 1
        return last - abs(last - index % (2 * last))

    def stamp(self, index: int) -> int:
        """Nanoseconds."""
        return round(index / self.rate * SECOND)


class SharingTracker(XMemTracker):
    """The key encoder sees each image once, however often and in how many runs it is played."""

    encoded: dict[int, KeyFeatures | None]
    clip: Clip

    def begin(self, clip: Clip) -> None:
        """Another clip."""
        self.encoded, self.clip = {}, clip

    def _open(self, frame: Frame, given: Mapping[int, Tensor]) -> None:
        position = self.clip.position(frame.index)
        if frame.features is None:
            frame.features = self.encoded.get(position)
        super()._open(frame, given)
        self.encoded[position] = frame.features


@dataclass(frozen=True, eq=False)
class Question:
    """What the operator is asked: about which object, on which frame; the true mask.

    before: the tracker as it was one frame earlier.
    """

    index: int
    object_id: int
    mask: NDArray[np.bool_]
    before: Snapshot


@dataclass(frozen=True, eq=False)
class Run:
    """J of each frame from the question on, and on which frames things happened."""

    scores: NDArray[np.float64]
    answered: int | None = None
    caught_up: int | None = None


Runs = dict[tuple[str, float], Run]
"""Kind and delay (s) -> run."""


class Comparison:
    """All runs of one clip."""

    def __init__(
        self, tracker: SharingTracker, clip: Clip, budget: float, delays: Sequence[float] = DELAYS
    ) -> None:
        """budget: `catch_up_budget`, seconds a frame. delays: seconds until an answer."""
        tracker.reset()
        tracker.begin(clip)
        self.clip, self._tracker = clip, tracker
        self.delays = (0.0, *delays)
        self._exact = replace(EXACT, catch_up_budget=budget)

    def find_question(self, tick: Tick) -> Question | None:
        """Plays until an object is lost; None where none is."""
        lazy = LazyTracker(self._tracker, PLAIN)
        for index in range(len(self.clip.shots) * PATIENCE):
            shot = self.clip.shots[self.clip.position(index)]
            lazy.close()
            before = lazy.snapshot()
            first = {int(i): shot.truth == i for i in np.unique(shot.truth) if i}
            new = {i: m for i, m in first.items() if i not in lazy.object_ids}
            labels = lazy.step(shot.image, self.clip.stamp(index), masks=new).labels
            tick()
            for object_id in set(first) - set(new):
                truth = first[object_id]
                in_view = truth.mean() > IN_VIEW_SHARE
                if in_view and region_similarity(labels == object_id, truth) < LOST_BELOW:
                    return Question(index, object_id, truth, before)
        return None

    def run(
        self, question: Question, config: LazyConfig, delay: float | None, last: int, tick: Tick
    ) -> Run:
        """Plays from the question to frame `last`; delay None: nobody answers."""
        lazy = LazyTracker(self._tracker, config)
        lazy.resume(question.before)
        due = math.inf if delay is None else self.clip.stamp(question.index) + delay * SECOND
        scores: list[float] = []
        answered, caught_up = None, None
        for index in range(question.index, last + 1):
            shot, stamp = self.clip.shots[self.clip.position(index)], self.clip.stamp(index)
            result = lazy.step(shot.image, stamp)
            labels = result.labels
            if result.caught_up:
                caught_up = index
            if answered is None and stamp >= due:
                answered = index
                named = stamp if config.correction_horizon == 0 else self.clip.stamp(question.index)
                outcome = lazy.apply(Correction(named, {question.object_id: question.mask}))
                if not outcome.applied or outcome.labels is None:
                    raise RuntimeError(f"the correction was refused: {outcome.reason}")
                if outcome.applied_stamp == stamp:
                    caught_up, labels = index, outcome.labels
            truth = shot.truth == question.object_id
            scores.append(region_similarity(labels == question.object_id, truth))
            tick()
        return Run(np.array(scores), answered, caught_up)

    def rows(self, question: Question, runs: Runs) -> Iterator[dict]:
        """A row per delay: J of each way of applying the answer, over the same frames."""
        for delay in self.delays:
            exact, instant = runs["exact", delay], runs["exact", 0.0]
            assert exact.answered is not None
            if exact.caught_up is None:
                raise RuntimeError(f"{self.clip.name}: {delay} s late, it never caught up")
            after = slice(exact.caught_up - question.index, None)
            waited = (exact.caught_up - exact.answered) / self.clip.rate
            yield {
                "sequence": self.clip.name,
                "answer after, s": f"{delay:g}",
                "catching up, s": f"{waited:.1f}",
                "frames scored": len(exact.scores[after]),
                "instant": float(instant.scores[after].mean()),
                "exact": float(exact.scores[after].mean()),
                "newest frame": float(runs["newest frame", delay].scores[after].mean()),
                "none": float(runs["none", 0.0].scores[after].mean()),
            }

    def soon(self, runs: Runs) -> Iterator[dict]:
        """A row per delay: J over the frames of the `SOON` seconds after the answer."""
        for delay in self.delays[1:]:
            late, asked = runs["exact", delay], runs["exact", 0.0].answered
            assert late.answered is not None
            assert asked is not None  # an instant answer comes with the question
            start = late.answered - asked + 1
            frames = slice(start, start + round(SOON * self.clip.rate))
            yield {
                "sequence": self.clip.name,
                "answer after, s": f"{delay:g}",
                "instant": float(runs["exact", 0.0].scores[frames].mean()),
                "late": float(late.scores[frames].mean()),
                "newest frame": float(runs["newest frame", delay].scores[frames].mean()),
                "none": float(runs["none", 0.0].scores[frames].mean()),
            }


def compare(
    tracker: SharingTracker,
    clip: Clip,
    budget: float,
    delays: Sequence[float],
    progress: Progress,
) -> tuple[list[dict], list[dict], Runs]:
    """All of a clip's rows, of both tables, and runs; none where the object is never lost."""
    task = progress.add_task(f"{clip.name}: until it is lost", total=None)
    comparison = Comparison(tracker, clip, budget, delays)
    question = comparison.find_question(lambda: progress.advance(task))
    if question is None:
        progress.update(task, description=f"{clip.name}: never lost", total=1, completed=1)
        return [], [], {}
    last = question.index + math.ceil((max(comparison.delays) + AFTER) * clip.rate)
    wanted: list[tuple[str, float, LazyConfig, float | None]] = [("none", 0.0, PLAIN, None)]
    for delay in comparison.delays:
        wanted.append(("exact", delay, comparison._exact, delay))
        if delay:
            wanted.append(("newest frame", delay, NAIVE, delay))
    frames = (last - question.index + 1) * len(wanted)
    progress.reset(task, total=frames, description=f"{clip.name}: lost on {question.index}")
    runs: Runs = {}
    for kind, delay, config, seconds in wanted:
        runs[kind, delay] = comparison.run(
            question, config, seconds, last, lambda: progress.advance(task)
        )
    # Answered at once, the frame is the newest one: there is no difference.
    runs["newest frame", 0.0] = runs["exact", 0.0]
    return list(comparison.rows(question, runs)), list(comparison.soon(runs)), runs


def draw(table: pd.DataFrame, clips: dict[str, tuple[Clip, Runs]]) -> None:
    """J against the operator's delay, and over time on the sequence that gains most."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 3.6), constrained_layout=True, width_ratios=(1, 1.5)
    )
    means = table.groupby("answer after, s", sort=False)[["instant", *COLOURS]].mean()
    delays = means.index.astype(float)
    for kind, colour in COLOURS.items():
        left.plot(delays, means[kind], "o-", label=kind, color=colour)
    left.plot(delays, means["instant"], "k:", label="instant, same frames")
    names = ", ".join(table["sequence"].unique())
    left.set(xlabel="the operator answers after, s", ylabel="J after catching up")
    left.set_ylim(means.to_numpy().min() - MARGIN, means.to_numpy().max() + MARGIN)
    left.set_title(f"mean of {names}", fontsize=9)
    left.legend(frameon=False, fontsize=8)
    gains = table[table["answer after, s"] == f"{SHOWN_DELAY:g}"].set_index("sequence")
    clip, runs = clips[str((gains["exact"] - gains["none"]).idxmax())]
    exact = runs["exact", SHOWN_DELAY]
    time = np.arange(len(exact.scores)) / clip.rate
    right.plot(time, runs["exact", 0.0].scores, "k:", label="instant")
    for kind, colour in COLOURS.items():
        right.plot(time, runs[kind, SHOWN_DELAY if kind != "none" else 0.0].scores, color=colour)
    start = exact.answered or 0
    first = start - round(SHOWN_DELAY * clip.rate)
    for frame, text in ((exact.answered, "answered"), (exact.caught_up, "caught up")):
        if frame is not None:
            right.axvline((frame - first) / clip.rate, color="#555555", lw=0.8, ls="--")
            right.text((frame - first) / clip.rate, 1.02, text, fontsize=8, ha="center")
    right.set(xlabel=f"s since {clip.name} was lost and somebody was asked", ylim=(0, 1))
    right.legend(frameon=False, fontsize=8, loc="lower right")
    right.set_ylabel(f"J, answer after {SHOWN_DELAY:g} s")
    figure.savefig(OUT / "late_corrections.png", dpi=130)
    plt.close(figure)


def open_clips(arguments: argparse.Namespace) -> Iterator[Clip]:
    """The clips asked for; says which are not there."""
    wanted = list(arguments.sequences)
    if POND in wanted:
        yield Clip(_as_asked(SceneSequence(SceneConfig()), arguments), arguments.rate)
        wanted.remove(POND)
    if not wanted:
        return
    if not arguments.dataset.is_dir():
        print(f"{arguments.dataset} is not there: left out {', '.join(wanted)}", file=sys.stderr)
        return
    for sequence in open_dataset(arguments.dataset, DatasetOptions(sequences=tuple(wanted))):
        yield Clip(_as_asked(sequence, arguments), arguments.rate)


def _as_asked(sequence: VideoSequence, arguments: argparse.Namespace) -> VideoSequence:
    return TwinSequence(sequence) if arguments.twin else sequence


def report(rows: list[dict], soon: list[dict], budget: float) -> None:
    """The tables: on the screen, as Markdown and as CSV."""
    pd.DataFrame(soon).to_csv(OUT / "late_answers.csv", index=False)
    (OUT / "late_answers.md").write_text(markdown_table(soon))
    Console().print(screen_table(soon, title=f"J over the {SOON:g} s after the answer"))
    table = pd.DataFrame(rows)
    table.to_csv(OUT / "late_corrections.csv", index=False)
    (OUT / "late_corrections.md").write_text(markdown_table(rows))
    shown = screen_table(rows, title=f"J from then on; catch-up budget {budget:g} s")
    worst = float((table["exact"] - table["instant"]).abs().max())
    Console().print(shown, f"exact and instant differ by {worst:.4f} at most; see {OUT}/")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, default=DATASET, help=f"default: {DATASET}")
    parser.add_argument(
        "--sequences", nargs="+", default=[POND, *HELD_OUT], help=f"{POND}, and of the dataset"
    )
    parser.add_argument(
        "--delays", nargs="+", type=float, default=DELAYS, help="s until an answer, 2 among them"
    )
    parser.add_argument("--twin", action="store_true", help="each crossed by its mirror image")
    parser.add_argument("--weights", default="")
    parser.add_argument("--max-internal-size", type=int, default=240, metavar="ROWS")
    parser.add_argument("--rate", type=float, default=12.0, help="frames a second (default: 12)")
    parser.add_argument("--budget", type=float, default=0.0, help="catch-up budget, s a frame")
    add_docs_argument(parser)
    arguments = parser.parse_args()
    if SHOWN_DELAY not in arguments.delays:
        parser.error(f"--delays must have {SHOWN_DELAY:g} among them, of which the picture is")
    check_docs(parser, arguments, {"dataset"})
    if arguments.docs and not arguments.dataset.is_dir():
        parser.error(
            f"--docs is for pond and real sequences, and {arguments.dataset} is not there; name "
            "another by --dataset"
        )
    torch.set_num_threads(1)
    tracker = SharingTracker(
        load_network(locate(arguments.weights)),
        device="auto",
        max_internal_size=arguments.max_internal_size,
        precision="auto",
    )
    rows: list[dict] = []
    soon: list[dict] = []
    clips: dict[str, tuple[Clip, Runs]] = {}
    try:
        with Progress() as progress:
            for clip in open_clips(arguments):
                more, sooner, runs = compare(
                    tracker, clip, arguments.budget, arguments.delays, progress
                )
                rows += more
                soon += sooner
                if not runs:
                    continue
                clips[clip.name] = clip, runs
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    if not rows:
        print("the tracker lost nothing: there is nothing to correct")
        return 0
    OUT.mkdir(parents=True, exist_ok=True)
    draw(pd.DataFrame(rows), clips)
    report(rows, soon, arguments.budget)
    if arguments.docs:
        into_documents("late_corrections", OUT)
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""How good given weights are: `python -m training.measure WEIGHTS`.

Every set is tracked by the tracker that ships, from the first mask on and without corrections;
the first frame is not scored. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.evaluation.datasets import DatasetOptions, open_dataset
from lazyxmem_ros.evaluation.metrics import boundary_f, region_similarity
from lazyxmem_ros.evaluation.sequences import SceneSequence
from lazyxmem_ros.xmem import MemoryConfig, XMem, XMemTracker
from training.compose import ComposeConfig, Composer
from training.material import HELD_OUT_SEQUENCES, TRAINING_SEQUENCES, load_material

TRIAL_SEED = 2 * 10**6  # trials are never trained on
TRIALS = 10
TRIAL_FRAMES = 30
FOUND = 0.5  # IoU from which an object counts as found

Frame = tuple[NDArray[np.uint8], NDArray[np.integer] | None]
"""RGB uint8 [H, W, 3] and its label map [H, W], where it has one."""


@dataclass(frozen=True)
class Result:
    """Scores of one clip, [scored frames, objects], and the frames tracked a second."""

    name: str
    j: NDArray[np.float64]
    f: NDArray[np.float64]
    rate: float

    @property
    def mean_j(self) -> float:
        """Mean over frames and objects."""
        return float(self.j.mean())

    @property
    def mean_f(self) -> float:
        """Mean over frames and objects."""
        return float(self.f.mean())


def track(
    make_tracker: Callable[[], XMemTracker], name: str, frames: Iterator[Frame], *, every: int
) -> Result:
    """Tracks every `every`-th frame from the labels of the first; scores where there are labels."""
    tracker = make_tracker()
    scores_j, scores_f, spent, count = [], [], 0.0, 0
    ids: list[int] = []
    for index, (image, truth) in enumerate(frames):
        if index % every:
            continue
        masks = None
        if index == 0:
            assert truth is not None, f"{name}: the first frame needs labels"
            ids = [int(i) for i in np.unique(truth) if i]
            masks = {i: truth == i for i in ids}
        began = time.perf_counter()
        frame = tracker.segment(image, masks)
        labels = frame.labels()
        tracker.memorize(frame)
        spent, count = spent + time.perf_counter() - began, count + 1
        if index and truth is not None:
            scores_j.append([region_similarity(labels == i, truth == i) for i in ids])
            scores_f.append([boundary_f(labels == i, truth == i) for i in ids])
    return Result(name, np.array(scores_j), np.array(scores_f), count / spent)


def _real(path: Path, names: Sequence[str] = ()) -> Iterator[tuple[str, Iterator[Frame]]]:
    for sequence in open_dataset(path, DatasetOptions(sequences=tuple(names))):
        frames = ((s.image, s.truth) for s in sequence.samples() if s.image is not None)
        yield sequence.name, frames


def _scene() -> Iterator[tuple[str, Iterator[Frame]]]:
    sequence = SceneSequence()
    yield sequence.name, ((s.image, s.truth) for s in sequence.samples() if s.image is not None)


def _trials(data: Path, kind: str) -> Iterator[tuple[str, Iterator[Frame]]]:
    """Clips of one target: `hidden` passes under a bridge, `twins` has a look-alike to cross;
    `several` has three targets.
    """
    material = load_material(data if data.is_dir() else None, sequences=())
    config = ComposeConfig(
        size=240,
        frames=TRIAL_FRAMES,
        real_share=0,
        in_place_share=0,
        real_cut_out_share=0,
        smallest=0.2,
        largest=0.4,
        occluder_share=0,
        hiding_share=0,
        swap_share=0,
        look_alike_share=float(kind == "twins"),
        min_target_share=0.008,
        bridge_share=float(kind == "hidden"),
    )
    composer = Composer(material, config)
    for trial in range(TRIALS):
        clip = composer.compose((TRIAL_SEED, trial), objects=3 if kind == "several" else 1)
        yield f"{kind} {trial}", zip(clip.frames, clip.labels, strict=True)


def sets_of(data: Path) -> dict[str, Callable[[], Iterator[tuple[str, Iterator[Frame]]]]]:
    """The sets that can be measured, by name."""
    davis = data / "davis2016-dev"
    return {
        "held-out": lambda: _real(davis, HELD_OUT_SEQUENCES),
        "trained-on": lambda: _real(davis, TRAINING_SEQUENCES),
        "scene": _scene,
        "hidden": lambda: _trials(data, "hidden"),
        "twins": lambda: _trials(data, "twins"),
        "several": lambda: _trials(data, "several"),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="+", default=["held-out", "scene"])
    parser.add_argument("--every", type=int, default=1, help="track every n-th frame only")
    parser.add_argument("--internal-size", type=int, default=240, help="short side inside, pixels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    arguments = parser.parse_args()
    known = sets_of(arguments.data)
    unknown = set(arguments.sets) - set(known)
    if unknown:
        parser.error(f"unknown sets {sorted(unknown)}; known are {sorted(known)}")
    network = XMem.from_checkpoint(arguments.weights)

    def make_tracker() -> XMemTracker:
        return XMemTracker(
            network,
            MemoryConfig(),
            device=arguments.device,
            max_internal_size=arguments.internal_size,
            precision=arguments.precision,
        )

    print("| clip | J | F | J&F | frames/s |\n| --- | --- | --- | --- | --- |", flush=True)
    for name in arguments.sets:
        results = []
        for clip, frames in known[name]():
            result = track(make_tracker, clip, frames, every=arguments.every)
            results.append(result)
            _print_row(clip, result.mean_j, result.mean_f, f"{result.rate:.1f}")
        j = float(np.mean([r.mean_j for r in results]))
        f = float(np.mean([r.mean_f for r in results]))
        _print_row(f"**{name}**", j, f, "")
        if name in ("hidden", "twins"):
            found = sum(bool((r.j[-3:] >= FOUND).all()) for r in results)
            print(f"| {name}: on the target at the end | {found} of {len(results)} | | | |")


def _print_row(name: str, j: float, f: float, rate: str) -> None:
    print(f"| {name} | {j:.3f} | {f:.3f} | {(j + f) / 2:.3f} | {rate} |", flush=True)


if __name__ == "__main__":
    main()

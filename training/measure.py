# SPDX-License-Identifier: Apache-2.0
"""How good given weights are: `python -m training.measure WEIGHTS`.

Every set is tracked by the tracker that ships, from the first mask on and without corrections:
nobody is asked, but what is doubtful or shows nothing stays out of memory, and what is probably of
something else out of the mask, as on the robot (`--plain`: XMem alone, which learns whatever it
sees, and shows it). The first frame is not scored. Prints a
Markdown table.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.label_maps import read_label_map
from lazyxmem_ros.data.layouts.options import DatasetOptions
from lazyxmem_ros.data.layouts.scene import SceneSequence
from lazyxmem_ros.data.location import add_data_argument
from lazyxmem_ros.entry import run_to_the_end
from lazyxmem_ros.evaluation.metrics import boundary_f, region_similarity, robustness
from lazyxmem_ros.lazy import LazyConfig, LazyTracker, iou_predictor_of
from lazyxmem_ros.xmem import MemoryConfig, XMemTracker, load_network
from training.compose import ComposeConfig, Composer
from training.material import (
    DAVIS_TRAIN,
    TRAINING_SEQUENCES,
    TUNING_SEQUENCES,
    Material,
    load_material,
    load_sequence,
)
from training.material import Sequence as RealSequence

TRIAL_SEED = 2 * 10**6  # trials are never trained on
TRIALS = 10
"""Of a generated set; `--trials` makes more of the same kind, after these."""
GENERATED = ("hidden", "look-alike", "twins", "several")
TRIAL_PHOTOGRAPHS = ("bsds500",)  # other ones would make other trials
TRIAL_FRAMES = 30
HIDDEN_FRAMES = 60  # 2 s at 30 frames/s, besides those on which the target passes under the strip
LEAST_CONTRAST = 20.0  # in CIELAB; 2 is just noticeable
RING = 31  # pixels: the ring is half as wide
IN_VIEW_PIXELS = 250  # of 240 x 240
SCORED_AT_THE_END = 3
CLIP_OF_SEVERAL = "judo"
FOUND = 0.5  # IoU from which an object counts as found
RATE = 30  # frames/s
UNHELPED = LazyConfig(operator_corrections=False, pseudo_corrections=False, correction_horizon=0)

Frame = tuple[NDArray[np.uint8], NDArray[np.integer] | None]
"""RGB uint8 [H, W, 3] and its label map [H, W], where it has one."""


@dataclass(frozen=True)
class Result:
    """Scores of one clip, one a frame and object in order, and the frames tracked a second."""

    name: str
    j: NDArray[np.float64]
    f: NDArray[np.float64]
    rate: float

    @property
    def mean_j(self) -> float:
        """Mean over frames and objects."""
        return float(self.j.mean())

    @property
    def found(self) -> float:
        """Share of frames and objects that were found (R@0.5)."""
        return robustness(self.j, FOUND)

    @property
    def mean_f(self) -> float:
        """Mean over frames and objects."""
        return float(self.f.mean())


def track(
    make_tracker: Callable[[], LazyTracker],
    name: str,
    frames: Iterator[Frame],
    *,
    every: int,
    one_at_a_time: bool = False,
) -> Result:
    """Tracks every `every`-th frame and scores where there are labels.

    Each object is given on the first frame that shows it. one_at_a_time: a frame's labels show one
    of the objects, and say nothing about the others.
    """
    lazy = make_tracker()
    scores_j, scores_f, spent, count = [], [], 0.0, 0
    for index, (image, truth) in enumerate(frames):
        if index % every:
            continue
        known = lazy.object_ids
        shown = [] if truth is None else [int(i) for i in np.unique(truth) if i]
        masks: dict[int, NDArray[np.bool_]] = {
            i: np.asarray(truth == i) for i in shown if i not in known
        }
        began = time.perf_counter()
        labels = lazy.shown(lazy.step(image, index * SECOND // RATE, masks or None).labels)
        lazy.close()
        spent, count = spent + time.perf_counter() - began, count + 1
        if truth is not None:
            # An object that is not to be seen any more is scored as well, but not in a clip that
            # shows one object at a time.
            scored = [i for i in known if i in shown] if one_at_a_time else known
            scores_j += [region_similarity(labels == i, truth == i) for i in scored]
            scores_f += [boundary_f(labels == i, truth == i) for i in scored]
    return Result(name, np.array(scores_j), np.array(scores_f), count / spent)


def real_frames(sequence: RealSequence) -> Iterator[Frame]:
    """A sequence of DAVIS 2016's training set; its object's label is 1."""
    for index in range(len(sequence)):
        picture = sequence.picture(index)
        yield picture[..., :3], (picture[..., 3] > 0).astype(np.uint8)


def _of_training_set(data: Path, names: tuple[str, ...]) -> Iterator[tuple[str, Iterator[Frame]]]:
    for name in names:
        yield name, real_frames(load_sequence(data / DAVIS_TRAIN, name))


def _validation(data: Path) -> Iterator[tuple[str, Iterator[Frame]]]:
    for sequence in open_dataset(data / "davis2016-dev", DatasetOptions()):
        frames = ((s.image, s.truth) for s in sequence.samples() if s.image is not None)
        yield sequence.name, frames


def _scene() -> Iterator[tuple[str, Iterator[Frame]]]:
    sequence = SceneSequence()
    yield sequence.name, ((s.image, s.truth) for s in sequence.samples() if s.image is not None)


def _there_and_back(data: Path) -> Iterator[tuple[str, Iterator[Frame]]]:
    """The multi-object clip, forwards and then backwards.

    Each of its annotated frames shows one object, and another one each time, so that none has a
    mask to be measured by later. Played forwards and then backwards it has: an object shown on
    frame n is tracked to the end and back again to frame n.
    """
    folder = data / "multi-object" / "Annotations" / CLIP_OF_SEVERAL
    (sequence,) = open_dataset(data / "multi-object", DatasetOptions())
    frames: list[Frame] = []
    for sample in sequence.samples():
        assert sample.image is not None
        annotation = folder / f"{sample.key}.png"
        labels = read_label_map(annotation, binary=False) if annotation.is_file() else None
        if labels is not None:  # one of the masks is a column narrower than its image
            missing = sample.image.shape[1] - labels.shape[1]
            labels = np.pad(labels, ((0, 0), (0, missing)), mode="edge")
        frames.append((sample.image, labels))
    yield f"{CLIP_OF_SEVERAL}, there and back", iter([*frames, *frames[-2::-1]])


def trials(
    data: Path, kind: str, *, seed: int = TRIAL_SEED, count: int = TRIALS
) -> Iterator[tuple[str, Iterator[Frame]]]:
    """Generated clips of 30 frames that are never trained on.

    hidden: the one target passes under a strip, and while nothing of it is to be seen the clip
    stands still for two seconds. look-alike: something of its shape and texture, with other marks
    and another tint, often crosses it; twins: the same picture does, pixel by pixel. several: three
    targets. But for the last, only clips count in which the target is in view again at the end and
    in which its mean colour differs from that around it, so that a person could follow it; which
    ones these are is decided by picture and ground truth alone.
    """
    material = trial_material(data)
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
        look_alike_share=float(kind in ("look-alike", "twins")),
        cousin_share=float(kind == "look-alike"),
        min_target_share=0.008,
        bridge_share=float(kind == "hidden"),
    )
    composer = Composer(material, config)
    found = attempt = 0
    while found < count:
        clip = composer.compose((seed, attempt), objects=3 if kind == "several" else 1)
        attempt += 1
        frames: list[Frame] = list(zip(clip.frames, clip.labels, strict=True))
        if kind != "several":
            areas = np.count_nonzero(clip.labels == 1, axis=(1, 2))
            away = np.flatnonzero(areas == 0)
            if areas[-SCORED_AT_THE_END:].min() < IN_VIEW_PIXELS or (
                kind == "hidden" and not len(away)
            ):
                continue
            if contrast(clip.frames[0], clip.labels[0] == 1) < LEAST_CONTRAST:
                continue
            if kind == "hidden":
                middle = int(away[len(away) // 2])
                frames[middle:middle] = [frames[middle]] * HIDDEN_FRAMES
        yield f"{kind} {found}", iter(frames)
        found += 1


def trial_material(data: Path) -> Material:
    """What trials are composed of. Says where the photographs are missing that the documents' were
    composed of: scikit-image's alone make other ones.
    """
    material = load_material(data, folders=TRIAL_PHOTOGRAPHS, sequences=())
    if not material.with_regions:
        absent = " and ".join(str(data / folder) for folder in TRIAL_PHOTOGRAPHS)
        print(
            f"without {absent} other clips are generated than the documents tell of",
            file=sys.stderr,
        )
    return material


def contrast(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> float:
    """Distance in CIELAB between the mean colours of a mask and of the ring around it."""
    ring = cv2.dilate(mask.astype(np.uint8), np.ones((RING, RING), np.uint8)) > 0
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return float(np.linalg.norm(lab[mask].mean(0) - lab[ring & ~mask].mean(0)))


def sets_of(
    data: Path, count: int = TRIALS
) -> dict[str, Callable[[], Iterator[tuple[str, Iterator[Frame]]]]]:
    """The sets that can be measured, by name. count: trials of a generated one."""
    return {
        "tuning": lambda: _of_training_set(data, TUNING_SEQUENCES),
        "trained-on": lambda: _of_training_set(data, TRAINING_SEQUENCES),
        "validation": lambda: _validation(data),
        "several-real": lambda: _there_and_back(data),
        "scene": _scene,
        **{kind: partial(trials, data, kind, count=count) for kind in GENERATED},
    }


def main(given: Sequence[str] | None = None) -> int:
    """The command line; what is wrong with the input ends as one sentence and status 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    add_data_argument(parser)
    parser.add_argument(
        "--sets",
        nargs="+",
        default=["tuning", "scene"],
        help=f"of {', '.join(sets_of(Path()))} (default: tuning scene)",
    )
    parser.add_argument("--every", type=int, default=1, help="track every n-th frame only")
    parser.add_argument(
        "--trials", type=int, default=TRIALS, help=f"clips of a generated set (default: {TRIALS})"
    )
    parser.add_argument("--internal-size", type=int, default=240, help="short side inside, pixels")
    parser.add_argument("--plain", action="store_true", help="XMem alone")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    arguments = parser.parse_args(given)
    known = sets_of(arguments.data, arguments.trials)
    unknown = set(arguments.sets) - set(known)
    if unknown:
        parser.error(f"unknown sets {sorted(unknown)}; known are {sorted(known)}")
    if arguments.every < 1:
        parser.error(f"--every must be at least 1, not {arguments.every}")
    if arguments.trials < 1:
        parser.error(f"--trials must be at least 1, not {arguments.trials}")
    return run_to_the_end(lambda: measure(arguments), "measure", "the rows above are whole")


def measure(arguments: argparse.Namespace) -> None:
    """Track the sets, and print a row for each clip and set."""
    known = sets_of(arguments.data, arguments.trials)
    network = load_network(arguments.weights)

    def make_tracker() -> LazyTracker:
        tracker = XMemTracker(
            network,
            MemoryConfig(),
            device=arguments.device,
            max_internal_size=arguments.internal_size,
            precision=arguments.precision,
        )
        config = UNHELPED.plain_xmem() if arguments.plain else UNHELPED
        return LazyTracker(tracker, config, iou_predictor=iou_predictor_of(arguments.weights))

    print("| clip | J | F | J&F | R@0.5 | frames/s |\n" + 6 * "| --- " + "|", flush=True)
    for name in arguments.sets:
        results = []
        for clip, frames in known[name]():
            result = track(
                make_tracker,
                clip,
                frames,
                every=arguments.every,
                one_at_a_time=name == "several-real",
            )
            results.append(result)
            _print_row(clip, result.mean_j, result.mean_f, result.found, f"{result.rate:.1f}")
        j = float(np.mean([r.mean_j for r in results]))
        f = float(np.mean([r.mean_f for r in results]))
        _print_row(f"**{name}**", j, f, float(np.mean([r.found for r in results])), "")
        if name in ("hidden", "look-alike", "twins"):
            found = sum(bool((r.j[-SCORED_AT_THE_END:] >= FOUND).all()) for r in results)
            print(f"| {name}: on the target at the end | {found} of {len(results)} | | | | |")


def _print_row(name: str, j: float, f: float, found: float, rate: str) -> None:
    print(f"| {name} | {j:.3f} | {f:.3f} | {(j + f) / 2:.3f} | {found:.3f} | {rate} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())

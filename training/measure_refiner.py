# SPDX-License-Identifier: Apache-2.0
"""How good correctors are, side by side: `python -m training.measure_refiner`.

A simulated user starts from nothing (a click, or a box), from a broken mask or from a good one, and
up to three times clicks on the middle of the largest error; each answer is the next prompt's prior.
As on the robot, the corrector is told about how good the prior is: its IoU, give or take 0.12.
Mean J (IoU) on real frames that nothing was trained on and on generated ones. SAM-HQ runs through
the same harness: `--correctors refiner grabcut sam_hq --sam-hq CHECKPOINT`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from lazyxmem_ros.correction import Corrector, Prompt, make_corrector
from lazyxmem_ros.correction.base import BoolMask, box_of_mask
from lazyxmem_ros.correction.refiner import RefinerCorrector, load_refiner
from lazyxmem_ros.data.location import add_data_argument
from lazyxmem_ros.entry import run_to_the_end
from lazyxmem_ros.evaluation.metrics import region_similarity
from lazyxmem_ros.evaluation.simulated_operator import largest_error
from lazyxmem_ros.progress import track
from training.compose import ComposeConfig, Composer
from training.material import DAVIS_TRAIN, TUNING_SEQUENCES, load_sequence
from training.measure import trial_material

FRAME_STEP = 4
"""Every which frame of the real sequences is measured."""
GENERATED = 30
GENERATED_SEED = 4 * 10**6
GENERATED_SIDE = 384  # pixels
CLICKS = 3
SHIFT = 0.3
"""Of the object's extent."""
TOLD_NOISE = 0.12
WORSE = 0.03
"""Loss of J from which a click has made a good mask worse."""


@dataclass(frozen=True)
class Scene:
    """An image uint8 [H, W, 3], a target's mask and what lies beside it."""

    image: NDArray[np.uint8]
    truth: BoolMask
    neighbour: BoolMask


def real_scenes(data: Path) -> Iterator[Scene]:
    """Every fourth frame of the tuning sequences; the neighbour is a patch of their background."""
    for name in TUNING_SEQUENCES:
        sequence = load_sequence(data / DAVIS_TRAIN, name)
        for index in range(0, len(sequence), FRAME_STEP):
            picture = sequence.picture(index)
            truth = picture[..., 3] > 0
            if truth.any():
                yield Scene(picture[..., :3], truth, patch_beside(truth))


def generated_scenes(data: Path) -> Iterator[Scene]:
    """Frames of composed clips with two targets, from seeds that no training uses."""
    config = ComposeConfig(
        size=GENERATED_SIDE, frames=2, real_share=0, hiding_share=0, min_target_share=0.01
    )
    composer = Composer(trial_material(data), config)
    for number in range(GENERATED):
        clip = composer.compose((GENERATED_SEED, number), objects=2)
        yield Scene(clip.frames[0], clip.labels[0] == 1, clip.labels[0] == 2)


def patch_beside(truth: BoolMask) -> BoolMask:
    """A disc of half the object's extent, at the right or left end of it."""
    x0, y0, x1, y1 = box_of_mask(truth) or (0, 0, 1, 1)
    centre = x1 if x1 + (x1 - x0) // 4 < truth.shape[1] else x0
    patch = np.zeros(truth.shape, np.uint8)
    cv2.circle(patch, (centre, (y0 + y1) // 2), max(2, max(x1 - x0, y1 - y0) // 4), (1,), -1)
    return np.asarray(patch > 0)


def half_missing(scene: Scene) -> BoolMask:
    """The left half of the object's box is missing."""
    x0, _, x1, _ = box_of_mask(scene.truth) or (0, 0, 1, 1)
    broken = scene.truth.copy()
    broken[:, : (x0 + x1) // 2] = False
    return broken


def shifted(scene: Scene) -> BoolMask:
    """Moved right by 30 % of the longer side of the object's box."""
    x0, y0, x1, y1 = box_of_mask(scene.truth) or (0, 0, 1, 1)
    move = np.array([[1, 0, SHIFT * max(x1 - x0, y1 - y0)], [0, 1, 0]], np.float32)
    height, width = scene.truth.shape
    return np.asarray(cv2.warpAffine(scene.truth.astype(np.uint8), move, (width, height)) > 0)


def leaked(scene: Scene) -> BoolMask:
    """With the neighbour."""
    return scene.truth | scene.neighbour


def good(scene: Scene) -> BoolMask:
    """The true mask, smoothed and with a little less of the rim: J about 0.95."""
    smooth = cv2.GaussianBlur(scene.truth.astype(np.float32), (0, 0), 2.0)
    return np.asarray(smooth > 0.6)


def nothing(scene: Scene) -> BoolMask:
    """No mask."""
    return np.zeros_like(scene.truth)


STARTS: dict[str, Callable[[Scene], BoolMask]] = {
    "nothing": nothing,
    "half missing": half_missing,
    "shifted by 30 %": shifted,
    "leaked": leaked,
    "good": good,
}


def correct(
    corrector: Corrector, scene: Scene, start: BoolMask, rng: np.random.Generator
) -> tuple[list[float], list[float]]:
    """J before and after each click, and the seconds that each took."""
    mask, scores, seconds = start, [region_similarity(start, scene.truth)], []
    positive: list[tuple[float, float]] = []
    negative: list[tuple[float, float]] = []
    prior_iou = float(np.clip(scores[0] + rng.normal(0, TOLD_NOISE), 0, 1))
    for _ in range(CLICKS):
        spot = largest_error(scene.truth & ~mask, mask & ~scene.truth)
        if spot is not None:
            (positive if spot.missing else negative).append((spot.x, spot.y))
        if not positive and not mask.any():
            break
        prompt = Prompt(
            positive=np.array(positive),
            negative=np.array(negative),
            mask=mask if mask.any() else None,
            prior_iou=prior_iou,
        )
        began = time.perf_counter()
        (answer,) = corrector.refine(scene.image, [prompt])
        seconds.append(time.perf_counter() - began)
        mask, prior_iou = answer.mask, answer.score
        scores.append(region_similarity(mask, scene.truth))
    scores += [scores[-1]] * (1 + CLICKS - len(scores))
    return scores, seconds


def measure(corrector: Corrector, scenes: list[Scene], console: Console) -> pd.DataFrame:
    """One row per scene and start."""
    rows = []
    rng = np.random.default_rng(0)
    for scene in track(scenes, corrector.name, console=console):
        for name, start in STARTS.items():
            scores, seconds = correct(corrector, scene, start(scene), rng)
            rows.append({"start": name, "ms": 1e3 * float(np.median(seconds)), **_numbered(scores)})
        (boxed,) = corrector.refine(scene.image, [Prompt(box=box_of_mask(scene.truth))])
        score = region_similarity(boxed.mask, scene.truth)
        rows.append({"start": "a box", "ms": np.nan, **_numbered([0.0, score])})
    return pd.DataFrame(rows).assign(corrector=corrector.name)


def _numbered(scores: list[float]) -> dict[str, float]:
    return {f"j{number}": score for number, score in enumerate(scores)}


def table_of(rows: pd.DataFrame) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| start (its J) | corrector | 1 click | 2 clicks | 3 clicks | ms a correction |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for start in [*STARTS, "a box"]:
        for corrector, part in rows[rows["start"] == start].groupby("corrector", sort=False):
            scores = part[[f"j{n}" for n in range(1, 1 + CLICKS)]].dropna(axis=1).mean()
            cells = [f"{score:.2f}" for score in scores]
            cells += [""] * (CLICKS - len(cells))
            milliseconds = part["ms"].dropna()
            cells.append(f"{milliseconds.median():.0f}" if len(milliseconds) else "")
            yield f"| {start} ({part['j0'].mean():.2f}) | {corrector} | {' | '.join(cells)} |"
    fine = rows[(rows["start"] == "good") & (rows["j0"] >= 0.9)]
    for corrector, part in fine.groupby("corrector", sort=False):
        worse = (part["j1"] < part["j0"] - WORSE).mean()
        lost = (part["j0"] - part["j1"]).max()
        yield (
            f"\n{corrector}: one click made {worse:.0%} of {len(part)} good masks (J >= 0.9) "
            f"worse by more than {WORSE}; the most that one lost was {lost:.3f}."
        )


def main(given: Sequence[str] | None = None) -> int:
    """The command line; what is wrong with the input ends as one sentence and status 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--correctors",
        nargs="+",
        default=["refiner", "grabcut"],
        help="of refiner, grabcut and sam_hq (default: refiner grabcut)",
    )
    parser.add_argument("--weights", type=Path, help="of the refiner; default: the embedded ones")
    parser.add_argument("--sam-hq", type=Path, help="SAM-HQ's checkpoint")
    parser.add_argument("--model", default="vit_tiny", help="SAM-HQ's size")
    parser.add_argument("--device", default="auto")
    add_data_argument(parser)
    arguments = parser.parse_args(given)
    return run_to_the_end(
        lambda: compare(arguments, Console()), "measure_refiner", "the tables above are whole"
    )


def compare(arguments: argparse.Namespace, console: Console) -> None:
    """Measure the correctors on all scenes, and print a table for each set."""
    correctors: list[Corrector] = []
    for name in arguments.correctors:
        if name == "refiner" and arguments.weights:
            network = load_refiner(arguments.weights)
            correctors.append(RefinerCorrector(network, device=arguments.device))
            continue
        checkpoint = arguments.sam_hq if name == "sam_hq" else None
        correctors.append(
            make_corrector(
                name,
                device=arguments.device,
                checkpoint=checkpoint,
                model_type=arguments.model,
            )
        )
    sets = {"generated frames": generated_scenes}
    if (arguments.data / DAVIS_TRAIN).is_dir():
        sets = {"real frames of the tuning sequences": real_scenes, **sets}
    for name, scenes_of in sets.items():
        scenes = list(scenes_of(arguments.data))
        rows = pd.concat([measure(corrector, scenes, console) for corrector in correctors])
        console.print(f"\n{name}, {len(scenes)} of them\n", highlight=False)
        for line in table_of(rows):
            print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""The predicted IoU and the thresholds that suit given weights, from the tuning sequences.

    tools/run python -m training.calibrate lazyxmem_ros/weights/tracker.safetensors
    tools/run python -m training.calibrate xmem-s012 --max-internal-size 480

The tracker follows the sequences of DAVIS 2016's training set that are kept for this, in several
views - as they are; every third frame; dark and noisy; blurred and mirrored; small, in a wide
frame; of 240 rows; the same strongly compressed; with a person's help now and then - and generated
clips in which the target hides or meets a look-alike. From these frames come

- the weights of the predicted IoU (`lazyxmem_ros.lazy.predicted_iou`): a logistic regression on the
  true IoU, every sequence counting the same;
- thresholds, from the frames on which all is well (IoU >= 0.7): memory is withheld above the
  entropy that 95 % of them stay below; the tracker corrects itself above the rate of entropy that
  97.5 % stay below; a person is asked above the rate that 99.5 % stay below, or below the predicted
  IoU that 97.5 % stay above, and memory learns nothing below that: help is wanted on few frames
  that do not need it.

Written beside the weights, as x.calibration.json; the tracker uses the predicted IoU, and whoever
wants the thresholds sets them as parameters. How honest both are is printed for sequences that
the fit has not seen: each is left out in turn.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize
from scipy.stats import spearmanr

from lazyxmem_ros.basics import BoolMask
from lazyxmem_ros.data.location import add_data_argument
from lazyxmem_ros.entry import run_to_the_end
from lazyxmem_ros.evaluation.figures import reliability_figure, save_figure
from lazyxmem_ros.evaluation.metrics import region_similarity
from lazyxmem_ros.evaluation.tables import calibration_error, honesty
from lazyxmem_ros.lazy import (
    Calibration,
    Correction,
    Evidence,
    IouPredictor,
    LazyConfig,
    LazyTracker,
    calibration_path,
)
from lazyxmem_ros.progress import Progress
from lazyxmem_ros.weights import EMBEDDED_INTERNAL_SIZE, locate, sha256
from lazyxmem_ros.xmem import XMemTracker, load_network
from training.material import DAVIS_TRAIN, TUNING_SEQUENCES, MaterialError, load_sequence
from training.measure import Frame, real_frames, trials

WELL = 0.7
"""IoU from which a frame counts as tracked well."""
HOLD_SHARE, PSEUDO_SHARE, USER_SHARE, USER_IOU_SHARE = 0.95, 0.975, 0.995, 0.025
IOU_STEP = 0.05
"""Predicted IoUs are not known more exactly."""
RIDGE = 1e-2
"""Penalty on the squared weights of the standardised evidence."""
CLIP_SEED = 3 * 10**6
CLIPS = 6
LOW_ROWS, LOW_QUALITY = 240, 30
"""Rows, and JPEG quality, of a cheap camera's view."""
OUT = Path("out") / "calibration"
NAMES = [field.name for field in fields(Evidence)]
UNHELPED = LazyConfig(
    operator_corrections=False, pseudo_corrections=False, correction_horizon=0, show_iou=0.0
)

Image = NDArray[np.uint8]


class _Recorder(IouPredictor):
    """Keeps the evidence that it is shown."""

    def __init__(self) -> None:
        zero = Evidence(*(0.0 for _ in NAMES))
        super().__init__(mean=zero, scale=zero, weight=zero, bias=0.0)
        object.__setattr__(self, "seen", [])

    def predict(self, evidence: Evidence) -> float:
        """See the class."""
        self.seen.append(evidence)  # type: ignore[attr-defined]
        return math.nan

    def take(self) -> Evidence | None:
        """The newest, once."""
        seen: list[Evidence] = self.seen  # type: ignore[attr-defined]
        newest = seen[-1] if seen else None
        seen.clear()
        return newest


@dataclass(frozen=True)
class View:
    """A way to look at a sequence: every n-th frame, changed pictures, changed labels; and the true
    mask given as a correction on every so many-th of these frames (0: never).

    margin: added on each side, in heights and widths of the image. rows: the image is scaled to so
    many, 0: not at all.
    """

    name: str
    every: int = 1
    picture: Callable[[Image], Image] = lambda image: image
    mirrored: bool = False
    help_every: int = 0
    margin: float = 0.0
    rows: int = 0

    def of(self, image: Image, truth: BoolMask | None) -> tuple[Image, BoolMask | None]:
        """Image [H, W, 3] and mask [H, W] as they are in this view."""
        shown = self._placed(image)
        if truth is not None:
            truth = self._placed(truth.astype(np.uint8)) > 0
        shown = self.picture(shown)
        if self.mirrored:
            shown = np.ascontiguousarray(shown[:, ::-1])
            truth = None if truth is None else np.ascontiguousarray(truth[:, ::-1])
        return shown, truth

    def _placed(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An image or a mask (of two dimensions) within the margin and in the rows of this view."""
        is_mask = pixels.ndim == 2
        if self.margin:
            y, x = (round(self.margin * side) for side in pixels.shape[:2])
            edge = cv2.BORDER_CONSTANT if is_mask else cv2.BORDER_REPLICATE
            pixels = np.asarray(cv2.copyMakeBorder(pixels, y, y, x, x, edge), np.uint8)
        if self.rows:
            width = round(self.rows * pixels.shape[1] / pixels.shape[0])
            how = cv2.INTER_NEAREST if is_mask else cv2.INTER_AREA
            pixels = np.asarray(cv2.resize(pixels, (width, self.rows), interpolation=how), np.uint8)
        return pixels


def _dark(image: Image) -> Image:
    noise = np.random.default_rng(0).normal(0, 10, image.shape)
    return (0.45 * image + noise).clip(0, 255).astype(np.uint8)


def _blurred(image: Image) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 4), np.uint8)


def _compressed(image: Image) -> Image:
    _, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, LOW_QUALITY))
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


VIEWS = (
    View("as it is"),
    View("every third", every=3),
    View("dark", every=2, picture=_dark),
    View("blurred", every=2, picture=_blurred, mirrored=True),
    View("small", every=3, margin=0.4),
    View("240 rows", every=3, rows=LOW_ROWS),
    View("240 rows, compressed", every=3, picture=_compressed, rows=LOW_ROWS, mirrored=True),
    # What has just been corrected resembles its newest portrait, however it is tracked since.
    View("helped", every=2, mirrored=True, help_every=12),
)


def follow(tracker: XMemTracker, frames: Iterator[Frame], view: View) -> pd.DataFrame:
    """IoU, entropy, rate and evidence of every frame after the first, of the first one's object."""
    tracker.reset()
    recorder = _Recorder()
    lazy, rows = LazyTracker(tracker, UNHELPED, iou_predictor=recorder), []
    for index, (image, labels) in enumerate(frames):
        if index % view.every:
            continue
        truth = None if labels is None else labels == 1
        image, truth = view.of(image, truth)
        given = {1: truth} if index == 0 and truth is not None else None
        result = lazy.step(image, index + 1, masks=given)
        (track,) = result.tracks
        evidence = recorder.take()
        if index == 0 or truth is None or not truth.any():
            continue
        number = index // view.every
        if view.help_every and number % view.help_every == 0:
            lazy.apply(Correction(result.stamp, {1: truth}))
        if evidence is None:
            continue
        iou = region_similarity(result.labels == 1, truth)
        rows.append((iou, track.uncertainty, track.uncertainty_rate, *asdict(evidence).values()))
    return pd.DataFrame(rows, columns=["iou", "entropy", "rate", *NAMES])


def watch(tracker: XMemTracker, data: Path) -> pd.DataFrame:
    """All frames of the tuning sequences in all views, and of generated clips.

    Raises MaterialError unless every sequence is there, before any is followed.
    """
    parts = []
    try:
        sequences = [load_sequence(data / DAVIS_TRAIN, name) for name in TUNING_SEQUENCES]
    except MaterialError as error:
        raise MaterialError(
            f"{error}. training/README.md says under Data what is needed; --data names its folder"
        ) from error
    with Progress() as progress:
        task = progress.add_task("following", total=len(sequences) * len(VIEWS) + 2 * CLIPS)
        for sequence in sequences:
            for view in VIEWS:
                part = follow(tracker, real_frames(sequence), view)
                parts.append(part.assign(sequence=sequence.name, view=view.name))
                progress.advance(task)
        for kind in ("hidden", "look-alike"):
            for _, frames in trials(data, kind, seed=CLIP_SEED, count=CLIPS):
                parts.append(follow(tracker, frames, VIEWS[0]).assign(sequence=kind, view="clip"))
                progress.advance(task)
    return pd.concat(parts, ignore_index=True)


def fit(frames: pd.DataFrame) -> IouPredictor:
    """The logistic regression of the IoU on the evidence (Papke and Wooldridge, 1996)."""
    evidence = frames[NAMES].to_numpy(float)
    mean, scale = evidence.mean(0), evidence.std(0) + 1e-6
    x = np.column_stack([(evidence - mean) / scale, np.ones(len(frames))])
    iou = frames["iou"].to_numpy(float)
    share = 1 / frames.groupby("sequence")["iou"].transform("size").to_numpy(float)
    share = share / share.sum()

    def cost(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logit = x @ weights
        loss = np.logaddexp(0, logit) - iou * logit
        slope = 1 / (1 + np.exp(-logit)) - iou
        ridge = np.append(weights[:-1], 0.0)
        return (
            float(share @ loss + RIDGE * ridge @ ridge),
            x.T @ (share * slope) + 2 * RIDGE * ridge,
        )

    solved = minimize(cost, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x
    return IouPredictor(
        mean=Evidence(*map(float, mean)),
        scale=Evidence(*map(float, scale)),
        weight=Evidence(*map(float, solved[:-1])),
        bias=float(solved[-1]),
    )


def predicted(model: IouPredictor, frames: pd.DataFrame) -> pd.Series:
    """The model's answer for every row."""
    rows = frames[NAMES].to_numpy(float)
    return pd.Series([model.predict(Evidence(*map(float, row))) for row in rows], frames.index)


def left_out(frames: pd.DataFrame) -> pd.Series:
    """The prediction for each sequence by a model of all the others."""
    parts = []
    for _, mine in frames.groupby("sequence"):
        others = frames.drop(mine.index)
        parts.append(predicted(fit(others), mine))
    return pd.concat(parts).reindex(frames.index)


def thresholds(frames: pd.DataFrame) -> dict[str, float]:
    """The settings of LazyConfig that the frames suggest; `frames` hold a `predicted` column."""
    well = frames[(frames["iou"] >= WELL) & (frames["view"] == VIEWS[0].name)]
    credible = round(float(well["predicted"].quantile(USER_IOU_SHARE)) / IOU_STEP) * IOU_STEP
    return {
        "hold_entropy": round(float(well["entropy"].quantile(HOLD_SHARE)), 2),
        "uncertain_entropy": round(float(well["entropy"].quantile(HOLD_SHARE)), 2),
        "pseudo_rate": round(float(well["rate"].quantile(PSEUDO_SHARE)), 2),
        "operator_rate": round(float(well["rate"].quantile(USER_SHARE)), 2),
        "operator_iou": credible,
        "hold_iou": credible,
    }


def _honesty_row(table: Table, name: str, frames: pd.DataFrame) -> None:
    score = frames["iou"]
    table.add_row(
        name,
        str(len(frames)),
        f"{score.mean():.3f}",
        f"{honesty(frames['entropy'], score):.3f}",
        f"{spearmanr(frames['entropy'], score).statistic:.3f}",
        f"{honesty(-frames['predicted'], score):.3f}",
        f"{spearmanr(frames['predicted'], score).statistic:.3f}",
        f"{calibration_error(frames['predicted'], score):.3f}",
    )


def main(given: Sequence[str] | None = None) -> int:
    """Run the command line; what is wrong with the input ends as one sentence and status 1."""
    parser = argparse.ArgumentParser(
        prog="python -m training.calibrate", description=__doc__.splitlines()[0]
    )
    parser.add_argument("weights", help="a path, or a name that `lazyxmem weights list` shows")
    add_data_argument(parser)
    parser.add_argument(
        "--max-internal-size",
        type=int,
        default=EMBEDDED_INTERNAL_SIZE,
        help="short side inside the tracker, pixels, as it will run; 480 suits the published "
        "weights (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--out", type=Path, default=OUT, help="frames as CSV, and the picture")
    arguments = parser.parse_args(given)
    return run_to_the_end(
        lambda: calibrate(arguments, Console()), "calibrate", "no calibration was written"
    )


def calibrate(arguments: argparse.Namespace, console: Console) -> None:
    """Measure, fit, write and print. Raises WeightsError, MaterialError and what else may fail."""
    weights = locate(arguments.weights)
    tracker = XMemTracker(
        load_network(weights),
        device=arguments.device,
        max_internal_size=arguments.max_internal_size,
        precision="auto",
    )
    frames = watch(tracker, arguments.data)
    model = fit(frames)
    frames["predicted"] = left_out(frames)
    found = thresholds(frames)
    arguments.out.mkdir(parents=True, exist_ok=True)
    frames.to_csv(arguments.out / "frames.csv", index=False)
    about = {
        "sequences": [*TUNING_SEQUENCES, "hidden", "look-alike"],
        "frames": len(frames),
        "max_internal_size": arguments.max_internal_size,
        "command": "python -m training.calibrate",
    }
    table = Table(
        *("frames of", "n", "mean IoU", "entropy: ROC", "rank corr."),
        *("predicted IoU: ROC", "rank corr.", "ECE"),
    )
    for name, part in frames.groupby("sequence"):
        _honesty_row(table, str(name), part)
    for name, part in frames.groupby("view", sort=False):
        _honesty_row(table, f"view: {name}", part)
    _honesty_row(table, "all of these, each left out", frames)
    console.print(table)
    console.print("ROC: area under the curve for IoU < 0.5. Thresholds that these frames suggest:")
    for name, value in found.items():
        console.print(f"  {name}: {value:.2f}")
    shown = frames.assign(method="each sequence left out")
    shown = shown.rename(columns={"predicted": "predicted_iou", "iou": "j"})
    picture = arguments.out / "reliability.png"
    save_figure(picture, reliability_figure(shown))
    Calibration(model, found, about, sha256(weights)).save(calibration_path(weights))
    console.print(f"{calibration_path(weights)} and {picture} are written")


if __name__ == "__main__":
    sys.exit(main())

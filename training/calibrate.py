# SPDX-License-Identifier: Apache-2.0
"""Thresholds of the uncertainty that suit a model, from the sequences that it was trained on.

    tools/run python -m training.calibrate lazyxmem_ros/weights/tracker.safetensors

The tracker follows each training sequence of davis2016-dev (never the held-out three) and the
generated pond, without help. What its masked entropy and the entropy's rate are while all is well
(IoU >= 0.7) decides: memory is withheld above the entropy that 95 % of those frames stay below; the
tracker corrects itself above the rate that 97.5 % of them stay below, and a person is asked above
the one that 99.5 % stay below, so that help is wanted on few frames that do not need it.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.stats import spearmanr

from lazyxmem_ros.evaluation.datasets import open_dataset
from lazyxmem_ros.evaluation.metrics import region_similarity
from lazyxmem_ros.evaluation.sequences import SceneSequence, VideoSequence
from lazyxmem_ros.lazy import LazyConfig, LazyTracker
from lazyxmem_ros.xmem import XMem, XMemTracker
from training.material import TRAINING_SEQUENCES

WELL = 0.7
FAILED = 0.5
HOLD_SHARE, PSEUDO_SHARE, USER_SHARE = 0.95, 0.975, 0.995
DATA = Path("..") / "shared" / "data" / "davis2016-dev"
QUIET = LazyConfig(
    user_corrections=False,
    pseudo_corrections=False,
    hold_entropy=math.inf,
    correction_horizon=0,
)


def follow(tracker: XMemTracker, sequence: VideoSequence) -> pd.DataFrame:
    """Masked entropy, rate and IoU of every frame after an object's first."""
    tracker.reset()
    lazy, rows = LazyTracker(tracker, QUIET), []
    for sample in sequence.samples():
        if sample.image is None or not (sample.given or lazy.object_ids):
            continue
        result = lazy.step(sample.image, sample.stamp + 1, masks=sample.given or None)
        for track in result.tracks:
            if sample.truth is None or track.uncertainty_rate is None:
                continue
            truth, found = sample.truth == track.object_id, result.labels == track.object_id
            if truth.any() and found.any():
                iou = region_similarity(found, truth)
                rows.append((sequence.name, iou, track.uncertainty, track.uncertainty_rate))
    return pd.DataFrame(rows, columns=["sequence", "iou", "entropy", "rate"])


def thresholds(frames: pd.DataFrame) -> dict[str, float]:
    """The settings of LazyConfig that the frames suggest."""
    well = frames[frames["iou"] >= WELL]
    return {
        "hold_entropy": float(well["entropy"].quantile(HOLD_SHARE)),
        "uncertain_entropy": float(well["entropy"].quantile(HOLD_SHARE)),
        "pseudo_rate": float(well["rate"].quantile(PSEUDO_SHARE)),
        "user_rate": float(well["rate"].quantile(USER_SHARE)),
    }


def honesty(frames: pd.DataFrame) -> tuple[float, float]:
    """Area under the ROC curve of the entropy as a detector of IoU < 0.5; Spearman with IoU."""
    failed = (frames["iou"] < FAILED).to_numpy()
    if failed.all() or not failed.any():
        return math.nan, math.nan
    ranks = frames["entropy"].rank().to_numpy()
    positives, negatives = failed.sum(), (~failed).sum()
    area = (ranks[failed].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    return float(area), float(spearmanr(frames["entropy"], frames["iou"]).statistic)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, default=DATA, help="davis2016-dev")
    parser.add_argument("--max-internal-size", type=int, default=360)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    network = XMem.from_checkpoint(arguments.weights)
    tracker = XMemTracker(
        network,
        device=arguments.device,
        max_internal_size=arguments.max_internal_size,
        precision="auto",
    )
    sequences: list[VideoSequence] = [SceneSequence()]
    if arguments.data.is_dir():
        sequences += [s for s in open_dataset(arguments.data) if s.name in TRAINING_SEQUENCES]
    parts = []
    with Progress() as progress:
        task = progress.add_task("following", total=len(sequences))
        for sequence in sequences:
            parts.append(follow(tracker, sequence))
            progress.advance(task)
    frames = pd.concat(parts, ignore_index=True)
    table = Table("sequence", "frames", "mean IoU", "median entropy", "of good frames")
    for name, part in frames.groupby("sequence"):
        good = part[part["iou"] >= WELL]["entropy"]
        table.add_row(
            str(name),
            str(len(part)),
            f"{part['iou'].mean():.3f}",
            f"{part['entropy'].median():.3f}",
            f"{np.median(good):.3f}" if len(good) else "-",
        )
    area, correlation = honesty(frames)
    console = Console()
    console.print(table)
    console.print(f"entropy as a detector of IoU < {FAILED}: ROC area {area:.3f}")
    console.print(f"Spearman correlation of entropy and IoU: {correlation:.3f}")
    for name, value in thresholds(frames).items():
        console.print(f"{name}: {value:.2f}")


if __name__ == "__main__":
    main()

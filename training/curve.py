# SPDX-License-Identifier: Apache-2.0
"""A training curve as a picture."""

from __future__ import annotations

import csv
from pathlib import Path


def plot_curve(table: Path, picture: Path) -> None:
    """Draws loss and J over the steps from a run's curve.csv."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    left.plot(steps, [float(row["loss"]) for row in rows], linewidth=1)
    left.set(xlabel="step", ylabel="loss")
    measured = [(int(r["step"]), float(r["j"])) for r in rows if r["j"]]
    if measured:
        right.plot(*zip(*measured, strict=True), linewidth=1, label="training batches")
    checked = [(int(r["step"]), float(r["validation_j"])) for r in rows if r["validation_j"]]
    if checked:
        right.plot(*zip(*checked, strict=True), "o-", label="generated validation clips, averaged")
    tuned = [(int(r["step"]), float(r["tuning_j"])) for r in rows if r.get("tuning_j")]
    if tuned:
        right.plot(*zip(*tuned, strict=True), "s-", label="tuning sequences, averaged")
    right.set(xlabel="step", ylabel="mean J", ylim=(0, 1))
    right.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(picture, dpi=100)
    plt.close(figure)

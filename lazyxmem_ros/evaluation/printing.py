# SPDX-License-Identifier: Apache-2.0
"""Tables of figures as a person reads them: on the screen, in a document."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from rich import box
from rich.table import Table

from lazyxmem_ros.evaluation.intervals import HIGH, LOW

DIGITS = 3
"""Decimals of a number in a table that does not say."""
MISSING = "-"
"""What stands for a figure that nothing speaks for."""


@dataclass(frozen=True)
class Column:
    """A column of the evaluation's table over all sequences.

    key: its column in `tables.dataset_table`. about: the heading explained. A figure is shown
    multiplied by `scale`, with so many `decimals`.
    """

    key: str
    title: str
    about: str
    scale: float = 1.0
    decimals: int = 1

    def text(self, row: pd.Series) -> str:
        """The figure of a row as it is shown."""
        return number(row[self.key], self.scale, self.decimals)

    def interval(self, row: pd.Series) -> str:
        """The interval of a row's mean, "low-high"; "" where there is none."""
        low, high = row.get(self.key + LOW), row.get(self.key + HIGH)
        if low is None or math.isnan(low):
            return ""
        return "\u2013".join(number(bound, self.scale, self.decimals) for bound in (low, high))


MERIT = (
    Column(
        "quiet_failures",
        "quiet failures",
        "stretches of a second and more with IoU below 0.5 about which nobody was asked",
    ),
    Column(
        "gain_per_correction", "gain each", "J&F gained over plain XMem per correction, points", 100
    ),
    Column(
        "oracle_share",
        "of oracle's gain",
        "the gain as a share of what `oracle` gains with as many corrections, %",
        100,
    ),
    Column("after_answers", "J after", "J over the two seconds after an answer, %", 100),
)

QUALITY = (
    Column("jf", "J&F", "mean of J and F, %", 100),
    Column("j_mean", "J", "region IoU, %", 100),
    Column("f_mean", "F", "boundary F-measure, %", 100),
    Column("j_recall", "J recall", "share of frames with J above 0.5, %", 100),
    Column("j_decay", "J decay", "J of the first quarter minus J of the last, %", 100),
    Column("r_0.1", "R@0.1", "share of frames with IoU of at least 0.1, %", 100),
    Column("r_0.25", "R@0.25", "the same for 0.25, %", 100),
    Column("r_0.5", "R@0.5", "the same for 0.5, %", 100),
)
HELP = (
    Column("corrections", "NoC", "corrections by the operator"),
    Column("per_1000_frames", "per 1000", "corrections per 1000 frames"),
    Column("interval_mean", "interval", "mean frames between an object's corrections"),
    Column("aci_mean", "ACI", "average cumulative interactions, mean over objects", 1, 2),
    Column("aci_sum", "ACI sum", "the same, sum over objects", 1, 2),
    Column("pseudo_corrections", "self", "corrections that the tracker made itself", 1, 0),
    Column(
        "honesty",
        "honesty",
        "ROC area of uncertainty for IoU < 0.5, over frames with a mask",
        1,
        2,
    ),
    Column(
        "iou_honesty",
        "pred. IoU honesty",
        "the same of the predicted IoU",
        1,
        2,
    ),
    Column("iou_error", "ECE", "expected calibration error of the predicted IoU", 1, 3),
    Column("coverage", "coverage", "share of frames with a non-empty mask, %", 100),
    Column("stability", "stability", "IoU of successive masks, %", 100),
    Column("seconds_per_frame", "s/frame", "tracker and corrector, one process", 1, 3),
    Column("latency", "s to mask", "from an image to its mask through the ROS graph", 1, 3),
)
SUMMARY_QUALITY = ("quiet_failures", "jf", "j_mean", "f_mean", "r_0.5")
SUMMARY_WITHOUT_TRUTH = ("coverage", "stability")
SUMMARY_HELP = ("corrections", "per_1000_frames", "gain_per_correction", "aci_mean")


def summary_table(dataset: pd.DataFrame, *, scored: bool) -> Table:
    """The figures that matter most, a row per method, no wider than 80 characters.

    dataset: see `tables.dataset_table`. scored: whether there is ground truth to score by.
    """
    columns = {column.key: column for column in (*MERIT, *QUALITY, *HELP)}
    keys = (*(SUMMARY_QUALITY if scored else SUMMARY_WITHOUT_TRUTH), *SUMMARY_HELP)
    shown = [columns[key] for key in keys]
    table = Table(
        title="All sequences (%)" if scored else "All sequences (%), no ground truth",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method", no_wrap=True)
    for column in shown:
        # A heading of two words takes two lines.
        heading = column.title.replace(" ", "\n")
        table.add_column(heading, justify="right", no_wrap=True)
    for _, row in dataset.iterrows():
        table.add_row(row["method"], *(_with_interval(column, row) for column in shown))
    return table


def _with_interval(column: Column, row: pd.Series) -> str:
    """The figure; below that of the one that matters most its interval."""
    interval = column.interval(row) if column.key == "jf" else ""
    return f"{column.text(row)}\n{interval}" if interval else column.text(row)


def markdown_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows with the first one's columns as a Markdown table; numbers have DIGITS decimals."""
    columns = list(rows[0])
    lines = [_line(columns), _line(["---"] * len(columns))]
    lines += [_line([_cell(row.get(column, "")) for column in columns]) for row in rows]
    return "\n".join(lines) + "\n"


def screen_table(rows: Sequence[Mapping[str, object]], *, title: str | None = None) -> Table:
    """The same rows as a table for a terminal."""
    table = Table(*map(str, rows[0]), title=title)
    for row in rows:
        table.add_row(*(_cell(row.get(column, "")) for column in rows[0]))
    return table


def number(figure: float | None, scale: float, decimals: int) -> str:
    """`figure * scale` with so many decimals; MISSING for None and NaN."""
    if figure is None or math.isnan(figure):
        return MISSING
    return f"{figure * scale:.{decimals}f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    return f"{value:.{DIGITS}f}" if isinstance(value, float) else str(value)

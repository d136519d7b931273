# SPDX-License-Identifier: Apache-2.0
"""Published figures of the DAVIS-2016 validation set, beside one's own on the same sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from rich import box
from rich.table import Table

from lazyxmem_ros.evaluation.job import JobReport
from lazyxmem_ros.evaluation.printing import QUALITY, number

VALIDATION = frozenset(
    (
        "blackswan",
        "bmx-trees",
        "breakdance",
        "camel",
        "car-roundabout",
        "car-shadow",
        "cows",
        "dance-twirl",
        "dog",
        "drift-chicane",
        "drift-straight",
        "goat",
        "horsejump-high",
        "kite-surf",
        "libby",
        "motocross-jump",
        "paragliding-launch",
        "parkour",
        "scooter-black",
        "soapbox",
    )
)
"""The sequences of DAVIS 2016's validation set."""


NOT_PUBLISHED = "Cheng et al., CVPR 2024: none in its main tables, as far as we know"


class Published(NamedTuple):
    """What a paper reports for the whole validation set, %; None where it reports nothing."""

    method: str
    jf: float | None
    j: float | None
    f: float | None
    source: str


PUBLISHED = (
    Published("OSVOS", 80.2, 79.8, 80.6, "Caelles et al., CVPR 2017, and the benchmark's site"),
    Published("STM", 89.3, 88.7, 89.9, "Oh et al., ICCV 2019, trained on YouTube-VOS, too"),
    Published("XMem", 91.5, 90.4, 92.7, "Cheng and Schwing, ECCV 2022, Table 3"),
    Published(
        "Cutie",
        None,
        None,
        None,
        NOT_PUBLISHED,
    ),
)
"""The J&F of OSVOS is the mean of the two that are published."""


def compared(
    dataset: pd.DataFrame, frames: pd.DataFrame, reports: Sequence[JobReport]
) -> Table | str:
    """One's own figures and the published ones, or why they cannot be compared.

    dataset, frames: see `tables.dataset_table` and `rows`; the sequences are those that were scored
    by every method. reports: of all runs.
    """
    scored = frames[frames["scored"].astype(bool)].groupby("method")["sequence"]
    sequences = set.intersection(*(set(names) for _, names in scored)) if len(scored) else set()
    found = VALIDATION & sequences
    others = sequences - VALIDATION
    if found != VALIDATION or others:
        besides = f" and {len(others)} others" if others else ""
        return (
            f"{len(found)} of {len(VALIDATION)} validation sequences of DAVIS 2016{besides}: the "
            "published figures, which are means over all of them and no other, are not comparable"
        )
    if missing := [why for report in reports if (why := _what_is_missing(report))]:
        return (
            f"{'; '.join(missing)}: the published figures, which are means over all frames, are "
            "not comparable"
        )
    table = Table(
        title="DAVIS 2016, all twenty validation sequences (%)",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method", no_wrap=True)
    for title in ("J&F", "J", "F"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("source")
    own = {column.key: column for column in QUALITY}
    for _, row in dataset.iterrows():
        figures = (own[key].text(row) for key in ("jf", "j_mean", "f_mean"))
        table.add_row(str(row["method"]), *figures, "this evaluation")
    table.add_section()
    for entry in PUBLISHED:
        figures = (number(figure, 1.0, 1) for figure in (entry.jf, entry.j, entry.f))
        table.add_row(entry.method, *figures, entry.source)
    return table


def _what_is_missing(report: JobReport) -> str:
    """What of a sequence a run has not scored, "" for nothing: all frames are annotated, and the
    object is given on the first one.
    """
    if report.error:
        return f"{report.name} ended early"
    if report.scored < report.asked - 1:
        return f"of {report.name} {report.scored} of {report.asked - 1} frames are scored"
    return ""

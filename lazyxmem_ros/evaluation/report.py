# SPDX-License-Identifier: Apache-2.0
"""Writes the evaluation's report: one HTML file with every picture inside."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from lazyxmem_ros.evaluation.figures import (
    balance_figure,
    honesty_figure,
    method_colour,
    reliability_figure,
    robustness_figure,
    timeline_figure,
    to_png,
)
from lazyxmem_ros.evaluation.job import WORST_FOLDER, JobReport, skipped_faults
from lazyxmem_ros.evaluation.merit import quiet_failures
from lazyxmem_ros.evaluation.methods import REFERENCE, Method
from lazyxmem_ros.evaluation.printing import HELP, MERIT, MISSING, QUALITY, Column, number
from lazyxmem_ros.evaluation.run import JOBS_FOLDER, Results
from lazyxmem_ros.evaluation.tables import as_measured
from lazyxmem_ros.images.files import write_whole

TEMPLATE = Path(__file__).with_name("report.html.j2")
SHOWN_EVENTS = 400
"""Rows of a sequence's requests and corrections that are listed."""
SHOWN_FAULTS = 200
PREFERRED = (REFERENCE, "user", "oracle", "pseudo", "udu", "xmem")
"""The first of these methods that was run is the one whose timelines are shown."""


def write_report(
    path: Path,
    results: Results,
    methods: Sequence[Method],
    *,
    folder: Path,
    title: str,
    subtitle: str,
    settings: Mapping[str, str],
) -> None:
    """Write the report of an evaluation, whose jobs lie in `folder`, to `path`.

    methods: what was to be run, in the report's order. settings: name -> value, listed at the end.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    scored = bool(results.frames["scored"].any())
    names = [method.name for method in methods if method.name in set(results.dataset["method"])]
    parts = [
        _dataset_part("what questions are worth", MERIT, results.dataset, methods),
        _dataset_part("quality", QUALITY, results.dataset, methods),
        _dataset_part("help and honesty", HELP, results.dataset, methods),
    ]
    html = template.render(
        title=title,
        subtitle=subtitle,
        quiet=_quiet_rows(results, methods),
        none_quiet=_about_no_quiet_rows(methods, names, scored=scored),
        tables=[part for part in parts if part["columns"]],
        methods=[method for method in methods if method.name in names],
        figures=_figures(results, scored=scored),
        method_names=names,
        by_sequence=_sequence_rows(results.sequences, names, scored=scored),
        by_sequence_about=(
            "J&F in %, and in brackets the operator's corrections"
            if scored
            else "stability in %: IoU of successive masks (there is no ground truth)"
        ),
        sequences=_sequence_sections(results, names, folder / JOBS_FOLDER),
        faults=_shortened(_faults(results.reports)),
        broken_off=_shortened(_broken_off(results.reports)),
        uneven=results.uneven_note,
        settings=dict(settings),
    )
    # Faults name files, whose paths are any bytes.
    write_whole(path, html.encode(errors="backslashreplace"))


def _dataset_part(
    heading: str, columns: Sequence[Column], dataset: pd.DataFrame, methods: Sequence[Method]
) -> dict[str, Any]:
    """A table over all sequences: the columns that say something, a row per method."""
    about = {method.name: method.description for method in methods}
    shown = [column for column in columns if dataset[column.key].notna().any()]
    best = dataset["jf"].max(skipna=True)
    rows = [
        {
            "name": row["method"],
            "about": about.get(row["method"], ""),
            "colour": method_colour(place),
            "best": row["jf"] == best,
            "cells": [(column.text(row), column.interval(row)) for column in shown],
        }
        for place, (_, row) in enumerate(dataset.iterrows())
    ]
    return {"heading": heading, "columns": shown, "rows": rows}


def _quiet_rows(results: Results, methods: Sequence[Method]) -> list[dict[str, Any]]:
    """The quiet failures of those methods that may ask, of their first run."""
    asking = [method.name for method in methods if method.asks_operator]
    found = quiet_failures(results.frames, results.events)
    found = found[found["method"].isin(asking) & (found["repeat"] == 0)]
    return [
        {
            "method": row.method,
            "sequence": row.sequence,
            "object": row.object,
            "frames": f"{row.first} to {row.last}",
            "seconds": number(row.seconds, 1, 1),
            "iou": number(row.j, 1, 2),
            "predicted": number(row.predicted_iou, 1, 2),
        }
        for row in found.itertuples(index=False)
    ]


def _about_no_quiet_rows(methods: Sequence[Method], names: Sequence[str], *, scored: bool) -> str:
    """What stands in place of quiet failures. names: of the methods that were run."""
    if not scored:
        return "Not known: there is no ground truth."
    if not any(method.asks_operator for method in methods if method.name in names):
        return "Not known: no method that may ask was run."
    return "None."


def _figures(results: Results, *, scored: bool) -> list[dict[str, str]]:
    if not scored:
        return []
    judged = as_measured(results.frames, results.events)
    made = [
        (balance_figure(results.dataset), "J&F against the help that it took"),
        (robustness_figure(results.frames), "Share of frames with at least this IoU"),
        (honesty_figure(judged), "Mean IoU where the uncertainty is so high"),
        (reliability_figure(judged), "Mean IoU where so much is predicted"),
    ]
    return [{"about": about, "data": _encode(to_png(figure))} for figure, about in made]


def _sequence_rows(
    sequences: pd.DataFrame, names: Sequence[str], *, scored: bool
) -> list[dict[str, Any]]:
    averaged = sequences.groupby(["sequence", "method"], sort=False).mean(numeric_only=True)
    rows = []
    for sequence in sequences["sequence"].unique():
        cells = []
        for name in names:
            if (sequence, name) not in averaged.index:
                cells.append(MISSING)
                continue
            figures = averaged.loc[(sequence, name)]
            quality = number(figures["jf"] if scored else figures["stability"], 100, 1)
            asked = figures["corrections"]
            cells.append(f"{quality} ({asked:.3g})" if asked else quality)
        rows.append({"name": sequence, "cells": cells})
    return rows


def _sequence_sections(results: Results, names: Sequence[str], jobs: Path) -> list[dict[str, Any]]:
    shown = next((name for name in PREFERRED if name in names), names[0])
    behind = "xmem" if "xmem" in names and shown != "xmem" else None
    sections = []
    for sequence in results.sequences["sequence"].unique():
        frames = results.frames[results.frames["sequence"] == sequence]
        events = results.events[results.events["sequence"] == sequence]
        own = frames[(frames["method"] == shown) & (frames["repeat"] == 0)]
        cut = len(events) > SHOWN_EVENTS
        sections.append(
            {
                "name": sequence,
                "about": f"{frames['index'].nunique()} frames, "
                f"{frames['object'].nunique()} object(s); timeline and worst frames of {shown}"
                + (f", dashed: {behind}" if behind else ""),
                "timelines": _timelines(own, frames, events, shown, behind),
                "worst": _worst(jobs / str(sequence) / shown / WORST_FOLDER),
                "events": _event_rows(events),
                "events_about": f"{len(events)} requests and corrections"
                + (f", of which the first {SHOWN_EVENTS} are listed" if cut else ""),
            }
        )
    return sections


def _timelines(
    own: pd.DataFrame, frames: pd.DataFrame, events: pd.DataFrame, shown: str, behind: str | None
) -> list[dict[str, str]]:
    timelines = []
    mine = events[(events["method"] == shown) & (events["repeat"] == 0)]
    for object_id, rows in own.groupby("object", sort=True):
        compared = frames[(frames["method"] == behind) & (frames["object"] == object_id)]
        figure = timeline_figure(
            rows,
            mine[mine["object"] == object_id],
            title=f"object {object_id}",
            compared={behind: compared} if behind else {},
            size=(9.0, 3.6),
        )
        timelines.append({"about": f"{shown}, object {object_id}", "data": _encode(to_png(figure))})
    return timelines


def _worst(folder: Path) -> list[dict[str, str]]:
    return [
        {"about": f"worst frame {place}", "data": _encode(file.read_bytes())}
        for place, file in enumerate(sorted(folder.glob("*.jpg")), start=1)
    ]


def _event_rows(events: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "method": row.method if row.repeat == 0 else f"{row.method} ({row.repeat})",
            "key": row.key,
            "object": row.object,
            "source": row.source,
            "reason": row.reason,
            "outcome": ("applied" if row.applied else "not applied")
            + (f": {row.outcome}" if row.outcome else ""),
            "before": number(row.j_before, 1, 2),
            "after": number(row.j_after, 1, 2),
        }
        for row in events.head(SHOWN_EVENTS).itertuples(index=False)
    ]


def _faults(reports: Sequence[JobReport]) -> list[str]:
    """Each fault once, with the sequence it was found in and how often it occurred there."""
    return [
        fault + (f" ({count} times)" if count > 1 else "")
        for fault, count in skipped_faults(reports).items()
    ]


def _broken_off(reports: Sequence[JobReport]) -> list[str]:
    """Why runs ended early, whatever was at fault; each reason of a sequence once."""
    reasons: dict[str, None] = {}
    for report in reports:
        if report.error:
            named = report.error.startswith(report.sequence)
            reasons[report.error if named else f"{report.sequence}: {report.error}"] = None
    return list(reasons)


def _shortened(listed: list[str]) -> list[str]:
    if len(listed) > SHOWN_FAULTS:
        return [*listed[:SHOWN_FAULTS], f"and {len(listed) - SHOWN_FAULTS} more"]
    return listed


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")

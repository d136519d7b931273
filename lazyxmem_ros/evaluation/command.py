# SPDX-License-Identifier: Apache-2.0
"""`lazyxmem evaluate` measures tracking on datasets and bags, and writes tables and a report."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import lazyxmem_ros
from lazyxmem_ros import weights
from lazyxmem_ros.data.layouts.options import Layout
from lazyxmem_ros.evaluation.display import Display
from lazyxmem_ros.evaluation.job import JobReport, skipped_faults
from lazyxmem_ros.evaluation.methods import Method
from lazyxmem_ros.evaluation.options import (
    executor_of,
    plan_of,
    settings_given,
    views_of,
)
from lazyxmem_ros.evaluation.plan import EvaluationPlan
from lazyxmem_ros.evaluation.printing import summary_table
from lazyxmem_ros.evaluation.published import compared
from lazyxmem_ros.evaluation.report import write_report
from lazyxmem_ros.evaluation.run import REPORT_FILE, Results, evaluate
from lazyxmem_ros.lazy import LazyConfig

SHOWN_FAULTS = 5


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Evaluate, write tables and report, print the summary.

    Returns 0, or 1 where a sequence could not be evaluated to the end. Raises EvaluationError,
    DataError and their kin for bad input.
    """
    plan = plan_of(arguments, console)
    with Display(console) as display:
        results = evaluate(plan, arguments.out, display, executor_of(arguments.ray))
    results.save(arguments.out, kind=arguments.format)
    report = arguments.out / REPORT_FILE
    write_report(
        report,
        results,
        plan.methods,
        folder=arguments.out,
        title=f"Evaluation on {arguments.dataset.resolve().name}",
        subtitle=_subtitle(plan),
        settings=_described(arguments, plan),
    )
    scored = bool(results.frames["scored"].any())
    console.print(summary_table(results.dataset, scored=scored))
    if arguments.layout == Layout.DAVIS2016.value:
        console.print(_beside_published(arguments, results), soft_wrap=True)
    _print_faults(results, console, views_of(arguments))
    console.print(
        f"tables and report in [bold]{escape(str(arguments.out))}/[/]; open {escape(str(report))}"
    )
    return 1 if any(entry.error for entry in results.reports) else 0


def _beside_published(arguments: argparse.Namespace, results: Results) -> Table | str:
    """One's own figures and the published ones, or why they cannot be compared."""
    made = views_of(arguments)
    if made:
        return f"with {made} the published figures are not comparable"
    return compared(results.dataset, results.frames, results.reports)


def _print_faults(results: Results, console: Console, views: str = "") -> None:
    reports = results.reports
    failed = {report.sequence for report in reports if report.error}
    if failed:
        console.print(f"[red]{len(failed)} sequence(s) could not be evaluated to the end:[/]")
        for reason in dict.fromkeys(report.error for report in reports if report.error):
            console.print(f"  {escape(reason)}", soft_wrap=True, highlight=False)
    if results.uneven_note:
        console.print(f"[red]{escape(results.uneven_note)}[/]", soft_wrap=True, highlight=False)
    faults = skipped_faults(reports)
    if faults:
        count = sum(faults.values())
        console.print(f"[yellow]{count} fault(s) in the input were skipped:[/]")
        for fault in list(faults)[:SHOWN_FAULTS]:
            times = f" ({faults[fault]} times)" if faults[fault] > 1 else ""
            console.print(f"  {escape(fault)}{times}", soft_wrap=True, highlight=False)
        if len(faults) > SHOWN_FAULTS:
            console.print(f"  … and {len(faults) - SHOWN_FAULTS} more; see the report")
    for note in dict.fromkeys(note for report in reports for note in report.notes):
        console.print(f"  {escape(note)}", soft_wrap=True, highlight=False)
    _print_frames(reports, console, views)


def _print_frames(reports: Sequence[JobReport], console: Console, views: str = "") -> None:
    """How many of the frames asked for went all the way. views: how they were asked for."""
    counts: dict[str, tuple[int, ...]] = {}
    for report in reports:
        numbers = (report.asked, report.read, report.frames, report.scored)
        others = counts.get(report.sequence, numbers)
        counts[report.sequence] = tuple(map(min, others, numbers))
    asked, read, tracked, scored = (sum(column) for column in zip(*counts.values(), strict=True))
    console.print(
        f"frames: {asked} asked for{f' with {escape(views)}' if views else ''}, {read} read, "
        f"{tracked} tracked, {scored} scored",
        highlight=False,
    )


def _subtitle(plan: EvaluationPlan) -> str:
    frames = sum(len(sequence) for sequence in plan.sequences)
    return (
        f"{len(plan.sequences)} sequence(s), {frames} frames, weights "
        f"{plan.tracker.weights.name}, corrector {plan.tracker.corrector}"
    )


def _described(arguments: argparse.Namespace, plan: EvaluationPlan) -> dict[str, str]:
    """Everything that one needs to repeat it."""
    thresholds = _first_lazy(plan.methods)
    return {
        "lazyxmem_ros": lazyxmem_ros.__version__,
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "weights SHA-256": weights.sha256(plan.tracker.weights),
        **settings_given(arguments),
        **({} if thresholds is None else {"thresholds": str(thresholds)}),
    }


def _first_lazy(methods: Sequence[Method]) -> LazyConfig | None:
    asking = [method.lazy for method in methods if method.asks_operator]
    return asking[0] if asking else None

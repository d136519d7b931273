# SPDX-License-Identifier: Apache-2.0
"""Runs an evaluation: the jobs of its plan, but for those complete from before, then its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from lazyxmem_ros.data.outputs import alone_in, claim, writing_to
from lazyxmem_ros.evaluation import tables
from lazyxmem_ros.evaluation.errors import EvaluationError
from lazyxmem_ros.evaluation.executors import Executor, ProcessExecutor
from lazyxmem_ros.evaluation.fingerprint import computed_by
from lazyxmem_ros.evaluation.job import JobReport, completed_report, load_tables
from lazyxmem_ros.evaluation.methods import Schedule
from lazyxmem_ros.evaluation.plan import KINDS, EvaluationPlan, Job
from lazyxmem_ros.evaluation.rows import given_corrections
from lazyxmem_ros.images.files import write_whole

PROGRAM = "lazyxmem evaluate"
JOBS_FOLDER = "jobs"
REPORT_FILE = "report.html"
LEVELS = ("frames", "events", "objects", "sequences", "dataset")
OUTPUTS = (JOBS_FOLDER, REPORT_FILE, *(f"{level}.{kind}" for level in LEVELS for kind in KINDS))
"""What an evaluation replaces in its folder."""
LOTS_APART = 1000
"""Between the seeds of a random method's repeats."""


class Observer(Protocol):
    """Is told how an evaluation goes on, as the progress display is."""

    def planned(self, names: Sequence[str], frames: Sequence[int]) -> None:
        """These jobs are to be run; frames: their number, for each job."""

    def progressed(self, name: str, frames: int) -> None:
        """A running job has done so many frames so far."""

    def finished(self, report: JobReport, *, kept: bool) -> None:
        """A job is done. kept: its results are from an earlier run."""


@dataclass(frozen=True)
class Results:
    """The tables of every level (see `rows` and `tables`), and every job's report.

    uneven: sequences of which a run broke off that others took further. They are left out of
    `dataset`; where no other is left it holds them, without gains.
    """

    frames: pd.DataFrame
    events: pd.DataFrame
    objects: pd.DataFrame
    sequences: pd.DataFrame
    dataset: pd.DataFrame
    reports: tuple[JobReport, ...]
    uneven: tuple[str, ...] = ()

    @property
    def uneven_note(self) -> str:
        """What is said of the uneven sequences; "" where there is none."""
        if not self.uneven:
            return ""
        names = ", ".join(self.uneven)
        if set(self.sequences["sequence"]) - set(self.uneven):
            return f"left out of the figures of all sequences: {names}, where a run broke off alone"
        return f"no methods can be compared: {names}, where a run broke off alone"

    def save(self, folder: Path, *, kind: str = "parquet") -> list[Path]:
        """Write one file per level, of a `kind` of KINDS; returns their paths.

        Those of an earlier run in another kind go.
        """
        paths = []
        for level in LEVELS:
            path = folder / f"{level}.{kind}"
            table: pd.DataFrame = getattr(self, level)
            data = table.to_csv(index=False).encode() if kind == "csv" else table.to_parquet()
            write_whole(path, data)
            for other in set(KINDS) - {kind}:
                path.with_suffix(f".{other}").unlink(missing_ok=True)
            paths.append(path)
        return paths


def evaluate(
    plan: EvaluationPlan, folder: Path, observer: Observer, executor: Executor | None = None
) -> Results:
    """Run what is not yet complete under `folder`, then make the tables.

    Raises EvaluationError where nothing could be evaluated, and with `plan.strict` for any fault;
    OutputError where `folder` cannot be written to, holds under one of the names OUTPUTS what is
    of no evaluation, or is being written to by another run.
    """
    plan = replace(plan, tracker=replace(plan.tracker, computed_by=computed_by(plan.tracker)))
    with alone_in(folder):
        claim(folder, PROGRAM, OUTPUTS)
        jobs_folder = folder / JOBS_FOLDER
        with writing_to(jobs_folder):
            jobs_folder.mkdir(exist_ok=True)
        progress = _Progress(plan, jobs_folder, observer)
        runner = executor or ProcessExecutor(plan.workers)
        runner.run(progress.first_jobs(), jobs_folder, observer.progressed, progress.finished)
        return collect(jobs_folder, progress.reports, [method.name for method in plan.methods])


def collect(jobs_folder: Path, reports: Sequence[JobReport], order: Sequence[str]) -> Results:
    """Make the tables of complete jobs; each job counts once, however often it was started.

    order: the methods' names as tables and report list them. Raises EvaluationError where no job
    has tracked a frame.
    """
    by_name = {report.name: report for report in reports}
    folders = [jobs_folder / name for name, report in by_name.items() if report.frames]
    if not folders:
        errors = {report.error for report in reports if report.error}
        reasons = "; ".join(sorted(errors)) or "there were no jobs"
        raise EvaluationError(f"nothing could be evaluated: {reasons}")
    frames, events = (_sorted(table, order) for table in load_tables(folders))
    objects = tables.object_table(frames, events)
    uneven = _uneven(list(by_name.values()))
    return Results(
        frames,
        events,
        objects,
        tables.sequence_table(objects, frames, events),
        _dataset(objects, frames, events, uneven),
        tuple(by_name.values()),
        uneven,
    )


def _uneven(reports: Sequence[JobReport]) -> tuple[str, ...]:
    """The sequences of which a run broke off, but not all runs after as many frames."""
    lengths: dict[str, set[int]] = {}
    broken = set()
    for report in reports:
        lengths.setdefault(report.sequence, set()).add(report.frames)
        if report.error:
            broken.add(report.sequence)
    return tuple(name for name, found in lengths.items() if name in broken and len(found) > 1)


def _dataset(
    objects: pd.DataFrame, frames: pd.DataFrame, events: pd.DataFrame, uneven: Sequence[str]
) -> pd.DataFrame:
    """The dataset table; what methods make of a sequence counts only where all ran as far."""
    even = [table[~table["sequence"].isin(uneven)] for table in (objects, frames, events)]
    if len(even[0]):
        return tables.dataset_table(*even)
    nothing = {column: np.nan for column in ("gain_per_correction", "oracle_share")}
    return tables.dataset_table(objects, frames, events).assign(**nothing)


def _sorted(table: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """The rows by method, in the given order, then by repeat, sequence, object and frame."""
    if table.empty:
        return table
    places = table["method"].map({name: place for place, name in enumerate(order)})
    keys = table.assign(place=places)[["place", "repeat", "sequence", "object", "index"]]
    return table.loc[keys.sort_values(list(keys.columns), kind="stable").index].reset_index(
        drop=True
    )


class _Progress:
    """Knows which of the plan's jobs are complete, and which follow from a finished one."""

    def __init__(self, plan: EvaluationPlan, folder: Path, observer: Observer) -> None:
        self._plan = plan
        self._folder = folder
        self._observer = observer
        self.reports: list[JobReport] = []

    def first_jobs(self) -> list[Job]:
        """The jobs that depend on no other, without those that are complete already."""
        plan = self._plan
        every = [job for sequence in plan.sequences for job in plan.jobs_of(sequence)]
        self._observer.planned([job.name for job in every], [len(job.sequence) for job in every])
        independent = [job for job in every if job.method.budget_of is None]
        # Long sequences first: the last process to finish then keeps the others waiting least.
        independent.sort(key=lambda job: -len(job.sequence))
        return self._without_complete(independent)

    def finished(self, job: Job, report: JobReport) -> list[Job]:
        """Take note of a job's end; returns the jobs that can begin now."""
        self._note(report, kept=False)
        return self._followers(job, report)

    def _note(self, report: JobReport, *, kept: bool) -> None:
        self.reports.append(report)
        self._observer.finished(report, kept=kept)

    def _without_complete(self, jobs: list[Job]) -> list[Job]:
        remaining = []
        for job in jobs:
            report = completed_report(job, self._folder)
            if report is None:
                remaining.append(job)
            else:
                self._note(report, kept=True)
                remaining.extend(self._followers(job, report))
        return remaining

    def _followers(self, done: Job, report: JobReport) -> list[Job]:
        """What is to be run after a job; nothing where that has no results."""
        followers = []
        for job in self._plan.jobs_of(done.sequence):
            if job.method.budget_of == done.method.name:
                if not report.frames:
                    self._note(_without_reference(job, done), kept=False)
                    continue
                seed = self._plan.operator.seed + LOTS_APART * job.repeat
                schedule = random_schedule(self._folder / done.name, seed=seed)
                followers.append(replace(job, schedule=schedule))
        return self._without_complete(followers)


def _without_reference(job: Job, reference: Job) -> JobReport:
    """The report of a job that asks as often as another, which has failed."""
    why = f"{job.name} was not run: {reference.name}, as often as which it asks, has no results"
    return JobReport(
        name=job.name, frames=0, seconds=0.0, faults=(), error=why, asked=len(job.sequence)
    )


def random_schedule(reference: Path, *, seed: int) -> Schedule:
    """Draw, per object, as many frames as it was corrected on in the reference run.

    reference: folder of a job that has tracked frames. They are drawn without replacement, of
    those on which an operator could answer: annotated ones, not the object's first.
    """
    frames, events = load_tables([reference])
    given = given_corrections(events)
    schedule = {}
    for object_id, group in frames.groupby("object"):
        candidates = group.loc[group["scored"].astype(bool), "index"].to_numpy()
        wanted = min(int((given["object"] == object_id).sum()), len(candidates))
        random = np.random.default_rng((seed, int(str(object_id))))
        drawn = random.choice(candidates, wanted, replace=False)
        schedule[int(str(object_id))] = frozenset(int(index) for index in drawn)
    return schedule

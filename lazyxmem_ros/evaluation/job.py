# SPDX-License-Identifier: Apache-2.0
"""One job of an evaluation: how it is run, and its results on the disk.

A job's folder is complete once its `job.json` is there; that file is written last and in one
step, so an evaluation that was stopped goes on from the jobs that are complete.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from lazyxmem_ros.correction import CorrectorError
from lazyxmem_ros.data.errors import DataError
from lazyxmem_ros.data.label_maps import VOID, save_label_map
from lazyxmem_ros.data.outputs import writing_to
from lazyxmem_ros.data.samples import Sample
from lazyxmem_ros.evaluation.errors import EvaluationError
from lazyxmem_ros.evaluation.fingerprint import fingerprint
from lazyxmem_ros.evaluation.graph.run import run_through_graph
from lazyxmem_ros.evaluation.offline import SequenceRunner
from lazyxmem_ros.evaluation.plan import Job
from lazyxmem_ros.evaluation.rows import EVENT_COLUMNS, RunLog
from lazyxmem_ros.evaluation.simulated_operator import SimulatedOperator
from lazyxmem_ros.evaluation.trackers import make_lazy_tracker, shared_corrector
from lazyxmem_ros.evaluation.worst_frames import WorstFrames
from lazyxmem_ros.images.files import WriteError, write_whole
from lazyxmem_ros.xmem import TrackerError

FRAMES_FILE = "frames.parquet"
EVENTS_FILE = "events.parquet"
JOB_FILE = "job.json"
MASKS_FOLDER = "masks"
WORST_FOLDER = "worst"
TRACEBACK_FILE = "traceback.txt"
EXPLAINED = (EvaluationError, DataError, TrackerError, CorrectorError, WriteError)
"""Errors whose text says what is wrong and what to do; any other is the program's own fault."""


@dataclass(frozen=True, kw_only=True)
class JobReport:
    """What became of a job: frames tracked, seconds taken, faults of the input by sentence.

    error: the sentence that ended the job early, None where it was run to the end. asked: frames
    of the sequence; read: those whose image could be read; scored: those scored by ground truth.
    notes: what is said once, and is no fault.
    """

    name: str
    frames: int
    seconds: float
    faults: tuple[str, ...]
    error: str | None
    asked: int = 0
    read: int = 0
    scored: int = 0
    notes: tuple[str, ...] = ()

    @property
    def sequence(self) -> str:
        """The name of its sequence."""
        return self.name.partition("/")[0]


def skipped_faults(reports: Iterable[JobReport]) -> Counter[str]:
    """Faults of the input with their sequence, each as often as it occurred in a run of that one.

    Every method meets the same faults, so those of several runs are not added up.
    """
    faults: Counter[str] = Counter()
    for report in reports:
        faults |= Counter(f"{report.sequence}: {fault}" for fault in report.faults)
    return faults


def completed_report(job: Job, folder: Path) -> JobReport | None:
    """The report of a job that was completed before under the same settings, else None.

    None, too, where any of its files is damaged or gone, and with `job.save_masks` any mask: it is
    then run again.
    """
    target = folder / job.name
    try:
        kept = json.loads((target / JOB_FILE).read_bytes())
        if kept.pop("fingerprint", None) != fingerprint(job) or kept.get("error"):
            return None
        frames, _ = load_tables([target])
        if job.save_masks and not all(_mask_file(target, key).is_file() for key in _keys(frames)):
            return None
        return JobReport(**kept | {name: tuple(kept[name]) for name in ("faults", "notes")})
    except Exception:  # noqa: BLE001 - damage comes as any error of JSON, Python and Arrow
        return None


def run_job(
    job: Job,
    folder: Path,
    progress: Callable[[int], None] = lambda frames: None,
    *,
    named: Path | None = None,
) -> JobReport:
    """Run a job and keep its results in `folder / job.name`; an error ends up in the report.

    An error that is no fault of the input is named with its kind, and its traceback is kept in the
    job's folder. progress: called with the number of frames done so far. named: the folder that the
    report names in place of `folder`, because the results will lie there. With `job.strict` the
    first error is raised.
    """
    loaded = fingerprint(job)  # of what is loaded now, not of what it is edited to meanwhile
    target = folder / job.name
    shown = (named or folder) / job.name
    shutil.rmtree(target, ignore_errors=True)
    with writing_to(target):
        target.mkdir(parents=True)
    torch.set_num_threads(job.tracker.threads)
    cv2.setNumThreads(job.tracker.threads)
    started = time.perf_counter()
    log = RunLog()
    worst = WorstFrames(len(job.sequence))
    graph = job.graph is not None
    final = _through_graph(job, log, progress, target) if graph else _offline(job, log, progress)
    error = None
    notes: dict[str, None] = {}
    try:
        for frame in final:
            if frame.scores and frame.sample.image is not None:
                worst.add(frame.sample, frame.labels, float(np.mean(frame.scores)))
            if job.save_masks:
                deep = save_label_map(_mask_file(target, frame.sample.key), frame.labels)
                if deep:
                    notes[f"{shown / MASKS_FOLDER}: masks with ids from {VOID} on have 16 bits"] = (
                        None
                    )
    except EXPLAINED as fault:
        if job.strict:
            raise
        error = str(fault)
    except Exception as fault:
        if job.strict:
            raise
        error = f"{job.name}: internal error: {type(fault).__name__}: {fault}; see "
        error += _keep_traceback(target, shown)
    report = JobReport(
        name=job.name,
        frames=len({row["index"] for row in log.frames}),
        seconds=time.perf_counter() - started,
        faults=tuple(log.faults),
        error=error,
        asked=log.seen if log.seen and error is None else max(log.seen, len(job.sequence)),
        read=log.read,
        scored=len({row["index"] for row in log.frames if row["scored"]}),
        notes=tuple(notes),
    )
    try:
        _keep(job, report, loaded, log, worst, target)
    except WriteError as fault:
        if job.strict:
            raise
        # Tables of which a part is missing are no results.
        report = replace(report, frames=0, scored=0, error=error or str(fault))
    return report


def _keep(
    job: Job, report: JobReport, loaded: str, log: RunLog, worst: WorstFrames, target: Path
) -> None:
    """Write a job's results, `job.json` last. loaded: the fingerprint. Raises WriteError."""
    frames, events = log.tables(
        sequence=job.sequence.name, method=job.method.name, repeat=job.repeat
    )
    write_whole(target / FRAMES_FILE, frames.to_parquet())
    write_whole(target / EVENTS_FILE, events.to_parquet())
    worst.save(target / WORST_FOLDER)
    content = {**asdict(report), "fingerprint": loaded}
    write_whole(target / JOB_FILE, json.dumps(content, indent=1).encode())


def _mask_file(target: Path, key: str) -> Path:
    return target / MASKS_FOLDER / f"{key}.png"


def _keys(frames: pd.DataFrame) -> list[str]:
    """The keys of a job's tracked frames."""
    return list(frames["key"].unique()) if len(frames) else []


def _keep_traceback(target: Path, shown: Path) -> str:
    """Write the traceback of the error that is handled; returns where it is, as the report names
    it, or why it is not there.
    """
    said = traceback.format_exc().encode(errors="backslashreplace")  # paths are any bytes
    try:
        write_whole(target / TRACEBACK_FILE, said)
    except WriteError as fault:
        return f"its traceback, but {fault}"
    return str(shown / TRACEBACK_FILE)


def load_tables(folders: list[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frames and events of the given complete jobs, one table each."""
    # Arrow's own threads sometimes still hold the file when Python ends, and abort or hang it
    # (apache/arrow 34314 and 50482).
    read = partial(pd.read_parquet, use_threads=False)
    frames = [read(folder / FRAMES_FILE) for folder in folders]
    events = [read(folder / EVENTS_FILE) for folder in folders]
    events = [table for table in events if len(table)]
    return (
        pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(),
        pd.concat(events, ignore_index=True) if events else pd.DataFrame(columns=EVENT_COLUMNS),
    )


class _FinalFrame(NamedTuple):
    """A frame that nothing changes any more: its published label map, J of its scored objects."""

    sample: Sample
    labels: NDArray[np.uint16]
    scores: list[float]


def _offline(job: Job, log: RunLog, progress: Callable[[int], None]) -> Iterator[_FinalFrame]:
    """Run a job on frames straight from their source; its rows go into `log` on the way."""
    runner = SequenceRunner(
        make_lazy_tracker(job.tracker, job.method.lazy),
        shared_corrector(job.tracker),
        SimulatedOperator(replace(job.operator, seed=job.operator.seed + job.repeat)),
        job.method,
        schedule=job.schedule,
        strict=job.strict,
        log=log,
    )
    for outcome in runner.run(job.sequence):
        yield _FinalFrame(outcome.sample, outcome.labels, _newest_scores(log))
        progress(outcome.sample.index + 1)


def _through_graph(
    job: Job, log: RunLog, progress: Callable[[int], None], target: Path
) -> Iterator[_FinalFrame]:
    """Run a job through the ROS graph, whose bags stay in `target`."""
    run = run_through_graph(job, target, log, progress)
    scores: dict[int, list[float]] = {}
    for row in log.frames:
        if row["scored"]:
            scores.setdefault(row["index"], []).append(row["j"])
    for sample in run.bag.samples():
        labels = run.record.labels_at(sample.stamp)
        if labels is not None:
            yield _FinalFrame(sample, labels, scores.get(sample.index, []))


def _newest_scores(log: RunLog) -> list[float]:
    """J of the newest frame's scored objects."""
    newest = log.frames[-1]["index"] if log.frames else None
    rows = itertools.takewhile(lambda row: row["index"] == newest, reversed(log.frames))
    return [row["j"] for row in rows if row["scored"]]

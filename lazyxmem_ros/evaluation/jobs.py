# SPDX-License-Identifier: Apache-2.0
"""One unit of an evaluation's work: a method on a sequence, its results kept on the disk.

A job's folder is complete once its `job.json` is there; that file is written last and in one
step, so an evaluation that was stopped goes on from the jobs that are complete.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import itertools
import json
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

import lazyxmem_ros
from lazyxmem_ros import weights
from lazyxmem_ros.correction import (
    DEFAULT_CORRECTOR,
    Corrector,
    corrector_weights,
    make_corrector,
)
from lazyxmem_ros.data.errors import DataError
from lazyxmem_ros.data.sequences import Sample, VideoSequence
from lazyxmem_ros.evaluation.errors import EvaluationError
from lazyxmem_ros.evaluation.graph.run import GraphMode, run_through_graph
from lazyxmem_ros.evaluation.methods import Method
from lazyxmem_ros.evaluation.offline import RunLog, Schedule, SequenceRunner
from lazyxmem_ros.evaluation.pictures import caption, overlay, save_image, save_indexed_png
from lazyxmem_ros.evaluation.simulated_operator import OperatorConfig, SimulatedOperator
from lazyxmem_ros.evaluation.tables import EVENT_COLUMNS
from lazyxmem_ros.lazy import LazyTracker, calibration_path, iou_predictor_of
from lazyxmem_ros.xmem import MemoryConfig, XMem, XMemTracker

FRAMES_FILE = "frames.parquet"
EVENTS_FILE = "events.parquet"
JOB_FILE = "job.json"
WORST_FRAMES = 3
WORST_SEGMENTS = 6
"""The worst frames are looked for one in each of so many stretches, so that they differ."""
PICTURE_WIDTH = 480


@dataclass(frozen=True)
class TrackerSettings:
    """Everything that decides what the tracker computes.

    weights: path of a checkpoint. device: "auto", "cpu", "cuda", "cuda:N". max_internal_size:
    short side in pixels, 0 = off. corrector: a name of `make_corrector`, with its checkpoint.
    """

    weights: Path
    device: str = "auto"
    max_internal_size: int = 0
    precision: str = "auto"
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    corrector: str = DEFAULT_CORRECTOR
    corrector_checkpoint: Path | None = None
    corrector_model: str = "vit_tiny"
    threads: int = 1


@dataclass(frozen=True)
class Job:
    """A method on a sequence.

    repeat: numbers the runs of a method that draws lots. graph: through the ROS graph instead of
    offline.
    """

    sequence: VideoSequence
    method: Method
    tracker: TrackerSettings
    operator: OperatorConfig
    repeat: int = 0
    schedule: Schedule | None = None
    strict: bool = False
    save_masks: bool = False
    graph: GraphMode | None = None

    @property
    def name(self) -> str:
        """The job's folder, relative to the evaluation's."""
        repeat = f"-{self.repeat}" if self.repeat else ""
        return f"{self.sequence.name}/{self.method.name}{repeat}"

    def fingerprint(self) -> str:
        """Changes with anything that could change the results."""
        settings = self.tracker
        facts = {
            "code": _code_digest(Path(lazyxmem_ros.__file__).parent),
            "weights": _digest(settings.weights),
            "calibration": _digest(calibration_path(settings.weights)),
            "corrector": _digest(
                corrector_weights(settings.corrector, settings.corrector_checkpoint)
            ),
            "data": [_version(file) for file in self.sequence.files],
            # The number of threads decides how long it takes, not what comes out.
            "job": _plain(replace(self, tracker=replace(settings, threads=1))),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class JobReport:
    """What became of a job: frames tracked, faults by sentence, an error that ended it."""

    name: str
    frames: int
    seconds: float
    faults: tuple[str, ...]
    error: str | None


def is_complete(job: Job, folder: Path) -> JobReport | None:
    """The report of a job that was completed before under the same settings, else None."""
    file = folder / job.name / JOB_FILE
    if not file.is_file():
        return None
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    if kept.get("fingerprint") != job.fingerprint() or kept.get("error"):
        return None
    return JobReport(
        kept["name"], kept["frames"], kept["seconds"], tuple(kept["faults"]), kept["error"]
    )


def run_job(
    job: Job, folder: Path, progress: Callable[[int], None] = lambda frames: None
) -> JobReport:
    """Run a job and keep its results; an error of the sequence ends up in the report.

    progress: called with the number of frames done so far. With `job.strict` errors are raised.
    """
    fingerprint = job.fingerprint()  # of what is loaded now, not of what it is edited to meanwhile
    target = folder / job.name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    torch.set_num_threads(job.tracker.threads)
    cv2.setNumThreads(job.tracker.threads)
    started = time.perf_counter()
    work = _GraphWork(job, target) if job.graph is not None else _OfflineWork(job, target)
    error = None
    try:
        work.run(progress)
    except (EvaluationError, DataError) as fault:
        if job.strict:
            raise
        error = str(fault)
    _keep_tables(job, work.log, target)
    work.worst.save(target / "worst")
    frames = len({row["index"] for row in work.log.frames})
    report = JobReport(
        job.name, frames, time.perf_counter() - started, tuple(work.log.faults), error
    )
    _write_last(target / JOB_FILE, {**asdict(report), "fingerprint": fingerprint})
    return report


class _Work(ABC):
    """A job under way: its rows so far, and its worst frames."""

    def __init__(self, job: Job, target: Path) -> None:
        self.job = job
        self.target = target
        self.log = RunLog()
        self.worst = WorstFrames(len(job.sequence))

    @abstractmethod
    def run(self, progress: Callable[[int], None]) -> None:
        """Do the work; raises EvaluationError or DataError where it cannot go on."""

    def _keep(self, sample: Sample, labels: NDArray[np.uint16], scores: list[float]) -> None:
        """Note a frame's picture and, if asked for, its masks."""
        if scores and sample.image is not None:
            self.worst.add(sample, labels, float(np.mean(scores)))
        if self.job.save_masks:
            save_indexed_png(self.target / "masks" / f"{sample.key}.png", labels)


class _OfflineWork(_Work):
    """Frames straight from their source."""

    def run(self, progress: Callable[[int], None]) -> None:
        """See _Work."""
        job = self.job
        operator = replace(job.operator, seed=job.operator.seed + job.repeat)
        runner = SequenceRunner(
            _lazy_tracker(job),
            _corrector(job.tracker),
            SimulatedOperator(operator),
            job.method,
            schedule=job.schedule,
            strict=job.strict,
        )
        self.log = runner.log
        for outcome in runner.run(job.sequence):
            self._keep(outcome.sample, outcome.labels, _newest_scores(self.log))
            progress(outcome.sample.index + 1)


class _GraphWork(_Work):
    """Frames through the ROS graph."""

    def run(self, progress: Callable[[int], None]) -> None:
        """See _Work."""
        assert self.job.graph is not None
        run = run_through_graph(self.job, self.job.graph, self.target, progress)
        self.log.faults.extend(run.faults)
        self.log.events = run.events.to_dict("records")
        self.log.frames = run.frames.to_dict("records")
        for sample in run.bag.samples():
            labels = run.record.labels_at(sample.stamp)
            if labels is not None:
                rows = run.frames[(run.frames["index"] == sample.index) & run.frames["scored"]]
                self._keep(sample, labels, rows["j"].to_list())


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


class WorstFrames:
    """Keeps the pictures of a run's worst frames without keeping all pictures."""

    def __init__(self, length: int) -> None:
        self._segment = max(1, -(-length // WORST_SEGMENTS))
        self._worst: dict[int, tuple[float, Sample, NDArray[np.uint16]]] = {}

    def add(self, sample: Sample, labels: NDArray[np.uint16], score: float) -> None:
        """Consider a frame; score: mean J of its objects."""
        segment = sample.index // self._segment
        if segment not in self._worst or score < self._worst[segment][0]:
            self._worst[segment] = (score, sample, labels)

    def save(self, folder: Path) -> None:
        """Write the overlays of the worst few as JPEG."""
        ranked = sorted(self._worst.values(), key=lambda entry: entry[0])[:WORST_FRAMES]
        for number, (score, sample, labels) in enumerate(ranked):
            assert sample.image is not None
            picture = overlay(sample.image, labels, sample.truth)
            height = round(PICTURE_WIDTH * picture.shape[0] / picture.shape[1])
            picture = cv2.resize(picture, (PICTURE_WIDTH, height), interpolation=cv2.INTER_AREA)
            text = f"frame {sample.key}   J {score:.2f}"
            save_image(
                folder / f"{number}-{sample.key}.jpg",
                caption(np.asarray(picture, np.uint8), text, (10, 8)),
            )


@lru_cache(maxsize=1)
def _network(weights: Path) -> XMem:
    """Loaded once per process, whatever the number of jobs."""
    return XMem.from_checkpoint(weights)


@lru_cache(maxsize=1)
def _corrector(settings: TrackerSettings) -> Corrector:
    return make_corrector(
        settings.corrector,
        device=settings.device,
        checkpoint=settings.corrector_checkpoint,
        model_type=settings.corrector_model,
    )


def _lazy_tracker(job: Job) -> LazyTracker:
    tracker = XMemTracker(
        _network(job.tracker.weights),
        job.tracker.memory,
        device=job.tracker.device,
        max_internal_size=job.tracker.max_internal_size,
        precision=job.tracker.precision,
    )
    return LazyTracker(
        tracker, job.method.lazy, iou_predictor=iou_predictor_of(job.tracker.weights)
    )


def _newest_scores(log: RunLog) -> list[float]:
    """J of the newest frame's scored objects."""
    newest = log.frames[-1]["index"] if log.frames else None
    rows = itertools.takewhile(lambda row: row["index"] == newest, reversed(log.frames))
    return [row["j"] for row in rows if row["scored"]]


def _keep_tables(job: Job, log: RunLog, target: Path) -> None:
    run = {"sequence": job.sequence.name, "method": job.method.name, "repeat": job.repeat}
    frames = pd.DataFrame([{**run, **row} for row in log.frames])
    events = pd.DataFrame([{**run, **row} for row in log.events], columns=EVENT_COLUMNS)
    frames.to_parquet(target / FRAMES_FILE)
    events.to_parquet(target / EVENTS_FILE)


def _write_last(path: Path, content: dict[str, Any]) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(content, indent=1), encoding="utf-8")
    os.replace(draft, path)


@lru_cache(maxsize=8)
def _digest(path: Path | None) -> str | None:
    return None if path is None or not path.is_file() else weights.sha256(path)


def _version(path: Path) -> tuple[int, int] | None:
    """Size and time of change (ns) of a file; None where it is gone.

    Data sets are too large to be read for every job.
    """
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns


@lru_cache(maxsize=1)
def _code_digest(package: Path) -> str:
    """Of every module of a package: nobody can tell which of them leaves the results alone."""
    digest = hashlib.sha256()
    for module in sorted(package.rglob("*.py")):
        digest.update(module.relative_to(package).as_posix().encode() + b"\0" + module.read_bytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Dataclasses, enums, paths and sets as JSON can hold them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [entry.name for entry in dataclasses.fields(value)]
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (frozenset, set)):
        return sorted(_plain(entry) for entry in value)
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value

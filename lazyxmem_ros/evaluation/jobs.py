# SPDX-License-Identifier: Apache-2.0
"""One unit of an evaluation's work: a method on a sequence, its results kept on the disk.

A job's folder is complete once its `job.json` is there; that file is written last and in one
step, so an evaluation that was stopped goes on from the jobs that are complete.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch

import lazyxmem_ros
from lazyxmem_ros.correction import Corrector, make_corrector
from lazyxmem_ros.evaluation.errors import EvaluationError
from lazyxmem_ros.evaluation.methods import Method
from lazyxmem_ros.evaluation.offline import FrameOutcome, RunLog, Schedule, SequenceRunner
from lazyxmem_ros.evaluation.operator import OperatorConfig, SimulatedOperator
from lazyxmem_ros.evaluation.pictures import caption, overlay, save_image, save_indexed_png
from lazyxmem_ros.evaluation.sequences import VideoSequence
from lazyxmem_ros.evaluation.tables import EVENT_COLUMNS
from lazyxmem_ros.lazy import LazyTracker
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
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    corrector: str = "grabcut"
    corrector_checkpoint: Path | None = None
    corrector_model: str = "vit_tiny"
    threads: int = 1


@dataclass(frozen=True)
class Job:
    """A method on a sequence. repeat, seed: of methods that draw lots and of the click noise."""

    sequence: VideoSequence
    method: Method
    tracker: TrackerSettings
    operator: OperatorConfig
    repeat: int = 0
    schedule: Schedule | None = None
    strict: bool = False
    save_masks: bool = False

    @property
    def name(self) -> str:
        """The job's folder, relative to the evaluation's."""
        repeat = f"-{self.repeat}" if self.repeat else ""
        return f"{self.sequence.name}/{self.method.name}{repeat}"

    def fingerprint(self) -> str:
        """Changes with anything that could change the results."""
        weights = self.tracker.weights
        facts = {
            "version": lazyxmem_ros.__version__,
            "weights": [weights.stat().st_size, _digest(weights)],
            "job": _plain(self),
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
    target = folder / job.name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    torch.set_num_threads(job.tracker.threads)
    cv2.setNumThreads(job.tracker.threads)
    started = time.perf_counter()
    runner = SequenceRunner(
        _lazy_tracker(job),
        _corrector(job.tracker),
        SimulatedOperator(dataclasses.replace(job.operator, seed=job.operator.seed + job.repeat)),
        job.method,
        schedule=job.schedule,
        strict=job.strict,
    )
    worst = WorstFrames(len(job.sequence))
    error = None
    count = 0
    try:
        for outcome in runner.run(job.sequence):
            count += 1
            worst.add(outcome, _mean_score(runner.log))
            if job.save_masks:
                save_indexed_png(target / "masks" / f"{outcome.sample.key}.png", outcome.labels)
            progress(outcome.sample.index + 1)
    except EvaluationError as fault:
        if job.strict:
            raise
        error = str(fault)
    _keep_tables(job, runner.log, target)
    worst.save(target / "worst")
    report = JobReport(
        job.name, count, time.perf_counter() - started, tuple(runner.log.faults), error
    )
    _write_last(target / JOB_FILE, {**asdict(report), "fingerprint": job.fingerprint()})
    return report


def load_tables(folders: list[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frames and events of the given complete jobs, one table each."""
    frames = [pd.read_parquet(folder / FRAMES_FILE) for folder in folders]
    events = [pd.read_parquet(folder / EVENTS_FILE) for folder in folders]
    events = [table for table in events if len(table)]
    return (
        pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(),
        pd.concat(events, ignore_index=True) if events else pd.DataFrame(columns=EVENT_COLUMNS),
    )


class WorstFrames:
    """Keeps the pictures of a run's worst frames without keeping all pictures."""

    def __init__(self, length: int) -> None:
        self._segment = max(1, -(-length // WORST_SEGMENTS))
        self._worst: dict[int, tuple[float, FrameOutcome]] = {}

    def add(self, outcome: FrameOutcome, score: float) -> None:
        """Consider a frame; score: mean J of its objects, NaN where it is not scored."""
        segment = outcome.sample.index // self._segment
        if not np.isnan(score) and score < self._worst.get(segment, (np.inf, outcome))[0]:
            self._worst[segment] = (score, outcome)

    def save(self, folder: Path) -> None:
        """Write the overlays of the worst few as JPEG."""
        ranked = sorted(self._worst.values(), key=lambda entry: entry[0])[:WORST_FRAMES]
        for number, (score, outcome) in enumerate(ranked):
            assert outcome.sample.image is not None
            picture = overlay(outcome.sample.image, outcome.labels, outcome.sample.truth)
            height = round(PICTURE_WIDTH * picture.shape[0] / picture.shape[1])
            picture = cv2.resize(picture, (PICTURE_WIDTH, height), interpolation=cv2.INTER_AREA)
            text = f"frame {outcome.sample.key}   J {score:.2f}"
            save_image(
                folder / f"{number}-{outcome.sample.key}.jpg",
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
    )
    return LazyTracker(tracker, job.method.lazy)


def _mean_score(log: RunLog) -> float:
    """Mean J of the newest frame's scored objects."""
    newest = log.frames[-1]["index"] if log.frames else None
    scores = []
    for row in reversed(log.frames):
        if row["index"] != newest:
            break
        if row["scored"]:
            scores.append(row["j"])
    return float(np.mean(scores)) if scores else float("nan")


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
def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


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

# SPDX-License-Identifier: Apache-2.0
"""A method on a sequence through the ROS graph in real time: drops and latency are part of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.sequences import BagSequence
from lazyxmem_ros.evaluation.graph.bag_export import TRUTH_TOPIC, export_bag
from lazyxmem_ros.evaluation.graph.launch import (
    LOCKSTEP_WAIT_S,
    GraphSettings,
    run_graph,
    tracker_parameters,
)
from lazyxmem_ros.evaluation.graph.record import GraphRecord, read_record, score_record
from lazyxmem_ros.evaluation.plan import Job


@dataclass(frozen=True)
class GraphRun:
    """Rows (see `tables`), what was published, the bag that was played, faults of the input."""

    frames: pd.DataFrame
    events: pd.DataFrame
    record: GraphRecord
    bag: BagSequence
    faults: tuple[str, ...]


def run_through_graph(job: Job, folder: Path, progressed: Callable[[int], None]) -> GraphRun:
    """Play the job's sequence as `job.graph` says; the bags stay in `folder`.

    progressed: called with the number of masks recorded so far. Raises ProcessError where a node
    fails, DatasetError where the sequence has nothing to track.
    """
    mode = job.graph
    assert mode is not None
    for name in ("bag", "published", "logs"):
        shutil.rmtree(folder / name, ignore_errors=True)
    faults: list[str] = []

    def note(fault: str) -> None:
        if job.strict:
            raise DatasetError(f"{job.sequence.name}: {fault}")
        faults.append(fault)

    bag = export_bag(job.sequence, folder / "bag", compression="png", faulty=note)
    parameters = tracker_parameters(
        job.tracker.weights,
        job.tracker.device,
        job.tracker.max_internal_size,
        job.tracker.memory,
        job.method.lazy,
        precision=job.tracker.precision,
    )
    corrector: dict[str, object] = {"corrector": job.tracker.corrector}
    if job.tracker.corrector_checkpoint is not None:
        corrector["checkpoint"] = job.tracker.corrector_checkpoint.resolve()
        corrector["model_type"] = job.tracker.corrector_model
    settings = GraphSettings(
        bag.path,
        bag.image_topic,
        True,
        TRUTH_TOPIC,
        _duration(bag),
        mode.rate,
        parameters | (_lockstep_parameters(job) if mode.lockstep else {}),
        corrector,
        job.operator if job.method.asks_operator else None,
        mode.lockstep,
    )
    run_graph(settings, folder / "published", folder / "logs", progressed)
    record = read_record(folder / "published", bag.image_topic)
    frames, events = score_record(record, bag, method=job.method.name)
    return GraphRun(frames, events, record, bag, tuple(faults))


def _lockstep_parameters(job: Job) -> dict[str, object]:
    """Of the tracker, so that no image is dropped and no correction comes late by the clock."""
    parameters: dict[str, object] = {"image_reliability": "reliable"}
    if not (job.method.asks_operator and job.operator.reaction_delay):
        # The replay waits longer than a frame does, and a frame longer than for one service call.
        parameters |= {
            "correction_wait": LOCKSTEP_WAIT_S / 2,
            "correction_timeout": LOCKSTEP_WAIT_S / 4,
        }
    return parameters


def _duration(bag: BagSequence) -> float:
    """Seconds from the first image to the last."""
    stamps = [sample.stamp for sample in bag.samples()]
    return (stamps[-1] - stamps[0]) / SECOND if stamps else 0.0

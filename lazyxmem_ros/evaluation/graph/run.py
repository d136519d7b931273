# SPDX-License-Identifier: Apache-2.0
"""Runs a method on a sequence through the ROS graph in real time, drops and latency included."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lazyxmem_ros.basics import SECOND, stamp_of
from lazyxmem_ros.data.bag_reader import BagReader
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.layouts.bags import BagSequence
from lazyxmem_ros.evaluation.graph.bag_export import TRUTH_TOPIC, export_bag
from lazyxmem_ros.evaluation.graph.launch import (
    LOCKSTEP_WAIT_S,
    GraphSettings,
    corrector_parameters,
    run_graph,
    tracker_parameters,
)
from lazyxmem_ros.evaluation.graph.record import GraphRecord, read_record, score_record
from lazyxmem_ros.evaluation.plan import Job
from lazyxmem_ros.evaluation.rows import RunLog

BAG_FOLDER = "bag"
RECORD_FOLDER = "published"
LOGS_FOLDER = "logs"


@dataclass(frozen=True)
class GraphRun:
    """The bag that was played, and what was published."""

    bag: BagSequence
    record: GraphRecord


def run_through_graph(
    job: Job,
    folder: Path,
    log: RunLog,
    progressed: Callable[[int], None],
    *,
    compression: str = "png",
    exported: Callable[[int], None] = lambda frames: None,
    environment: Mapping[str, str] | None = None,
    console_port: int | None = None,
) -> GraphRun:
    """Play the job's sequence as `job.graph` says; its rows and faults go into `log`.

    The bag that is played, the recording and the nodes' logs stay in `folder`, instead of those of
    an earlier run. progressed: called with the number of masks recorded so far. compression: of the
    images that are played, "png" or "jpeg". exported: called with the number of frames put into
    the bag so far. environment: of the nodes, see `graph_environment`. console_port: of the page in
    which a person answers instead of the job's operator. Raises ProcessError where a
    node fails, DatasetError where there is nothing to track and, of a strict job, at the first
    fault.
    """
    mode = job.graph
    assert mode is not None
    for name in (BAG_FOLDER, RECORD_FOLDER, LOGS_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)

    def note(fault: str) -> None:
        if job.strict:
            raise DatasetError(f"{job.sequence.name}: {fault}")
        log.faults.append(fault)

    bag = export_bag(
        job.sequence,
        folder / BAG_FOLDER,
        compression=compression,
        progressed=exported,
        faulty=note,
    )
    parameters = tracker_parameters(job.tracker, job.method.lazy)
    settings = GraphSettings(
        bag=bag.path,
        image_topic=bag.image_topic,
        truth_topic=TRUTH_TOPIC,
        duration=_duration(bag),
        rate=mode.rate,
        tracker=parameters | (_lockstep_parameters(job) if mode.lockstep else {}),
        corrector=corrector_parameters(job.tracker),
        operator=job.operator if job.method.asks_operator and console_port is None else None,
        console_port=console_port,
        lockstep=mode.lockstep,
    )
    published = folder / RECORD_FOLDER
    run_graph(settings, published, folder / LOGS_FOLDER, progressed, environment)
    record = read_record(published, bag.image_topic)
    log.read = len(bag)
    score_record(record, bag, log)
    return GraphRun(bag, record)


def _lockstep_parameters(job: Job) -> dict[str, object]:
    """Parameters of a tracker that drops no image and for which no correction comes too late."""
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
    with BagReader(bag.path) as reader:
        images = reader.messages(bag.image_topic)
        stamps = [stamp_of(message.content.header.stamp) for message in images]
    return (stamps[-1] - stamps[0]) / SECOND if stamps else 0.0

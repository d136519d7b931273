# SPDX-License-Identifier: Apache-2.0
"""The parts of the tracker's node, and how they hang together.

Everything points one way. What comes in (`images`, `objects`, `corrections`) goes to the worker, in
whose thread the session tracks; what comes out goes to the outputs, which know nothing of the
rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rclpy.lifecycle import LifecycleNode

from lazyxmem_ros.basics import MEBIBYTE
from lazyxmem_ros.extras import missing_extras_explained
from lazyxmem_ros.lazy import LazyTracker, SnapshotError, iou_predictor_of
from lazyxmem_ros.nodes.diagnostics import LogLimiter
from lazyxmem_ros.nodes.logs import error_of, info_of
from lazyxmem_ros.nodes.parameters import Parameters
from lazyxmem_ros.nodes.services import SHUTTING_DOWN, Services
from lazyxmem_ros.nodes.tracker import parameters as tracker_parameters
from lazyxmem_ros.nodes.tracker.corrections import (
    RETRACTION,
    TOPIC,
    CorrectionInput,
    Corrections,
    WorkerCorrectionClient,
)
from lazyxmem_ros.nodes.tracker.diagnostics import TrackerReport
from lazyxmem_ros.nodes.tracker.failures import Failures
from lazyxmem_ros.nodes.tracker.images import ImageInput, QualityOverrides
from lazyxmem_ros.nodes.tracker.object_input import MaskInput, ObjectServices
from lazyxmem_ros.nodes.tracker.objects import WAS_DEACTIVATED, Objects
from lazyxmem_ros.nodes.tracker.publishers import TrackerOutputs
from lazyxmem_ros.nodes.tracker.received_frames import ReceivedFrame, ReceivedFrames
from lazyxmem_ros.nodes.tracker.session import TrackingSession
from lazyxmem_ros.nodes.tracker.snapshots import (
    SAVING,
    SnapshotKeeper,
    SnapshotService,
    claimed,
    set_aside,
    usable_path,
)
from lazyxmem_ros.nodes.tracker.worker import Worker
from lazyxmem_ros.xmem import (
    MemoryConfig,
    XMemTracker,
    load_network,
    resolve_device,
    with_backend,
)

if TYPE_CHECKING:
    from lazyxmem_ros.nodes.tracker.records import Records


@dataclass
class TrackerParts:
    """What exists between configure and cleanup. `doors` closes it all, the last opened first."""

    doors: ExitStack
    images: ImageInput
    worker: Worker[ReceivedFrame]
    session: TrackingSession
    objects: Objects
    received: ReceivedFrames
    outputs: TrackerOutputs
    client: WorkerCorrectionClient
    corrections: Corrections
    report: TrackerReport
    snapshots: SnapshotKeeper | None
    records: Records | None
    weights: str
    device: str

    def deactivate(self) -> None:
        """Stop listening to images, and end all that is under way; the objects stay."""
        self.images.close()
        self.worker.drop_work(WAS_DEACTIVATED)
        self.worker.post(self.objects.deactivate)


def build_parts(
    node: LifecycleNode,
    doors: ExitStack,
    settings: Parameters,
    services: Services,
    failures: Failures,
    overrides: QualityOverrides,
) -> TrackerParts:
    """Loads the network and opens every door but the image topics.

    doors: closes what was opened, also where this fails. Raises ValueError or OSError where a
    setting cannot be used.
    """
    values, measures = settings.values(), failures.measures
    device = resolve_device(values["device"])
    path = tracker_parameters.weights_path(values)
    network = with_backend(
        load_network(path),
        values["backend"],
        device=device,
        precision=values["precision"],
        say=info_of(node),
    )

    def make_tracker(memory: MemoryConfig) -> XMemTracker:
        return XMemTracker(
            network,
            memory,
            device=device,
            max_internal_size=values["max_internal_size"],
            precision=values["precision"],
        )

    lazy = LazyTracker(
        make_tracker(tracker_parameters.memory_config(values)),
        tracker_parameters.lazy_config(values),
        iou_predictor=iou_predictor_of(path),
    )
    received = ReceivedFrames(values["history_megabytes"] * MEBIBYTE, lazy.config.history_time)
    worker: Worker[ReceivedFrame] = Worker(on_failure=failures.report)
    client = WorkerCorrectionClient(
        node, worker, timeout=lambda: float(settings["correction_timeout"])
    )
    doors.callback(client.close)
    records = _open_records(node, values) if values["record_dir"] else None
    if records is not None:
        doors.callback(records.close)
    outputs = TrackerOutputs(node, setting=settings.__getitem__, measures=measures, records=records)
    doors.callback(outputs.close)
    corrections = Corrections(
        lazy,
        received,
        outputs,
        client,
        measures,
        topic=node.resolve_topic_name(TOPIC),
        retraction_service=node.resolve_service_name(RETRACTION),
    )
    session = TrackingSession(
        lazy,
        received,
        outputs,
        corrections,
        measures,
        serve_commands=worker.serve_commands_until,
        keeps_up=worker.keeps_up,
        correction_wait=values["correction_wait"],
    )
    objects = Objects(
        lazy,
        received,
        session,
        corrections,
        measures,
        make_tracker=lambda: make_tracker(MemoryConfig(long_term=False)),
        max_objects=values["max_objects"],
        may_work=worker.claim,
    )
    images = ImageInput(
        node,
        worker,
        received,
        measures,
        is_tracking=lambda: bool(session.object_ids) or objects.are_expected,
        on_new_clock=objects.begin_again,
        transport=values["image_transport"],
        reliable=values["image_reliability"] == "reliable",
        max_pixels=values["max_pixels"],
        overrides=overrides,
        on_failure=failures.report,
    )
    doors.callback(services.withdraw)
    answers = CorrectionInput(
        node,
        services,
        worker,
        corrections,
        is_active=lambda: images.is_open,
        failures=failures,
    )
    doors.callback(answers.close)
    masks = MaskInput(
        node,
        worker=worker,
        objects=objects,
        images=images,
        failures=failures,
        max_objects=values["max_objects"],
        max_pixels=values["max_pixels"],
    )
    doors.callback(masks.close)
    ObjectServices(
        node,
        services,
        worker=worker,
        objects=objects,
        session=session,
        images=images,
        client=client,
    )
    report = TrackerReport(node.get_fully_qualified_name(), measures, client.measures)
    snapshots = None
    if values["snapshot_path"]:
        kept_at = usable_path(values["snapshot_path"])
        doors.enter_context(claimed(kept_at))
        service = _open_snapshots(
            node, kept_at, values["snapshot_period"], services, lazy, session, worker, failures
        )
        doors.callback(service.close)
        snapshots = service.keeper
    else:
        services.refuse(SAVING, "no snapshot is kept: snapshot_path is empty")
    worker.start(
        objects.process,
        is_behind=lambda: session.upkeep.frames_behind > 0,
        use_idle_time=lazy.go_ahead,
    )
    doors.callback(_stop, node, worker, objects)
    doors.callback(images.close)
    return TrackerParts(
        doors=doors.pop_all(),
        images=images,
        worker=worker,
        session=session,
        objects=objects,
        received=received,
        outputs=outputs,
        client=client,
        corrections=corrections,
        report=report,
        snapshots=snapshots,
        records=records,
        weights=str(path),
        device=str(device),
    )


def _open_records(node: LifecycleNode, values: Mapping[str, Any]) -> Records:
    """Keeps what people are asked and say. Raises MissingExtraError without `rosbags`."""
    with missing_extras_explained():
        from lazyxmem_ros.nodes.tracker.records import Records
    return Records(
        node,
        values["record_dir"],
        max_bytes=values["record_max_megabytes"] * MEBIBYTE,
        max_bags=values["record_max_bags"],
        on_fault=partial(LogLimiter(error_of(node)).say, "records"),
    )


def _open_snapshots(
    node: LifecycleNode,
    path: Path,
    period: float,
    services: Services,
    lazy: LazyTracker,
    session: TrackingSession,
    worker: Worker[ReceivedFrame],
    failures: Failures,
) -> SnapshotService:
    """Goes on from the snapshot, if there is one that can be used, and keeps saving."""
    on_fault = partial(LogLimiter(error_of(node)).say, "snapshots")
    keeper = SnapshotKeeper(path, lazy, worker, on_fault=on_fault)
    try:
        ids = keeper.resume()
    except SnapshotError as error:
        kept = f"tracking starts empty, and the file is kept as {set_aside(path)}"
        failures.measures.refuse(str(path), "snapshot", f"{error}; {kept}")
    else:
        session.see_objects()
        if ids:
            node.get_logger().info(f"going on with object {', '.join(map(str, ids))}")
    return SnapshotService(node, services, keeper, period=period, on_fault=on_fault)


def _stop(node: LifecycleNode, worker: Worker[ReceivedFrame], objects: Objects) -> None:
    if worker.stop():
        objects.overtake(SHUTTING_DOWN)
    else:
        node.get_logger().warning("the worker is still busy with its last frame")

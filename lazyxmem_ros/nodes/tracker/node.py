# SPDX-License-Identifier: Apache-2.0
"""Node `lazyxmem_tracker`: images in, label maps and tracks out, help asked for where needed.

A managed lifecycle node that starts itself unless `autostart` is false. This file wires the parts
together; what they do is in their own: images come in through `image_input`, objects through
`object_input`, corrections through `corrections`; `session` tracks, in the `worker`'s thread.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from lazyxmem_ros.basics import Labels
from lazyxmem_ros.nodes import diagnostics
from lazyxmem_ros.nodes.parameters import Parameters
from lazyxmem_ros.nodes.running import NodeStartError, run_node
from lazyxmem_ros.nodes.timers import create_steady_timer
from lazyxmem_ros.nodes.tracker import parameters as tracker_parameters
from lazyxmem_ros.nodes.tracker.corrections import Corrections
from lazyxmem_ros.nodes.tracker.corrector_client import CorrectionClient
from lazyxmem_ros.nodes.tracker.diagnostics import MEBIBYTE, TrackerMeasures, TrackerReport
from lazyxmem_ros.nodes.tracker.frames import FrameHistory, ReceivedFrame
from lazyxmem_ros.nodes.tracker.images import ImageInput
from lazyxmem_ros.nodes.tracker.objects import ObjectInput
from lazyxmem_ros.nodes.tracker.publishers import TrackerOutputs
from lazyxmem_ros.nodes.tracker.worker import Worker

if TYPE_CHECKING:
    from lazyxmem_ros.lazy import LazyTracker, StepResult
    from lazyxmem_ros.nodes.tracker.session import TrackingSession
    from lazyxmem_ros.nodes.tracker.snapshots import SnapshotService

NODE_NAME = "lazyxmem_tracker"


@dataclass
class _Parts:
    """What exists between configure and cleanup. `doors` closes it all, the last opened first."""

    doors: ExitStack
    images: ImageInput
    worker: Worker[ReceivedFrame]
    session: TrackingSession
    history: FrameHistory
    outputs: TrackerOutputs
    client: CorrectionClient
    corrections: Corrections
    report: TrackerReport
    weights: str
    device: str


class TrackerNode(LifecycleNode):
    """The tracker as a managed node.

    Configuring loads the network, activating begins to listen to images, deactivating stops that
    and keeps the objects, cleaning up forgets everything.
    """

    def __init__(self, **options: Any) -> None:
        """options: those of rclpy.node.Node. Raises ParameterError for bad parameters."""
        super().__init__(NODE_NAME, **options)
        self._parts: _Parts | None = None
        self._fault = ""
        self._measures = TrackerMeasures()
        self._refusals = diagnostics.Refusals(self.get_logger().warning)
        self._settings = Parameters(
            self,
            tracker_parameters.TABLE,
            validate=tracker_parameters.fault,
            apply=self._on_parameters,
            may_reconfigure=lambda: self._parts is None,
        )
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def autostart(self) -> None:
        """Configure and activate, unless `autostart` is false; raises NodeStartError."""
        if not self._settings["autostart"]:
            self.get_logger().info("waiting for a lifecycle manager (autostart is false)")
            return
        if self.trigger_configure() != TransitionCallbackReturn.SUCCESS:
            raise NodeStartError(self._fault or "the tracker could not be configured")
        if self.trigger_activate() != TransitionCallbackReturn.SUCCESS:
            raise NodeStartError(self._fault or "the tracker could not be activated")

    def close(self) -> None:
        """End the worker and let go of everything."""
        self._tear_down()

    # ---- lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the network and open every door but the image topics."""
        try:
            # What a failed configuration has opened is closed again.
            with ExitStack() as doors:
                self._parts = self._build(doors)
        except Exception as error:  # noqa: BLE001 - whatever it is, the node stays unconfigured
            self._fault = f"the tracker cannot be configured: {error}"
            self.get_logger().error(self._fault)
            if not isinstance(error, (ValueError, OSError)):
                self.get_logger().debug(traceback.format_exc())
            return TransitionCallbackReturn.FAILURE
        self.get_logger().info(f"configured: {self._parts.weights} on {self._parts.device}")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to listen to images."""
        parts = self._parts
        assert parts is not None
        returned = super().on_activate(state)
        parts.images.open()
        self.get_logger().info(f"tracking {parts.images.topic}")
        return returned

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening to images; the objects stay."""
        parts = self._parts
        assert parts is not None
        parts.images.close()
        parts.worker.post(parts.session.pause)
        parts.corrections.forget_requests()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget everything and free the network."""
        self._tear_down()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The same, for good."""
        self._tear_down()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured, from where it can be configured again."""
        self._tear_down()
        return TransitionCallbackReturn.SUCCESS

    # ---- building

    def _build(self, doors: ExitStack) -> _Parts:
        # Imported late: PyTorch takes seconds, and Ctrl-C meanwhile is then an ordinary end.
        from lazyxmem_ros.lazy import LazyTracker, iou_predictor_of
        from lazyxmem_ros.nodes.tracker.session import TrackingSession
        from lazyxmem_ros.xmem import MemoryConfig, XMemTracker, load_network, resolve_device

        values = self._settings.values()
        device = resolve_device(values["device"])
        path = tracker_parameters.weights_path(values)
        network = load_network(path)

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
        history = FrameHistory(values["history_megabytes"] * MEBIBYTE, lazy.config.history_time)
        outputs = TrackerOutputs(self, self._settings.__getitem__)
        doors.callback(outputs.close)
        client = CorrectionClient(self)
        doors.callback(client.close)
        worker: Worker[ReceivedFrame] = Worker(self._track, on_failure=self._on_failure)
        corrections = Corrections(
            self,
            client=client,
            worker=worker,
            history=history,
            outputs=outputs,
            counts=self._measures.counts,
            refusals=self._refusals,
            setting=self._settings.__getitem__,
            post=self._post,
        )
        doors.callback(corrections.close)
        session = TrackingSession(
            lazy,
            history,
            _Outputs(self, outputs, corrections),
            make_tracker=lambda: make_tracker(MemoryConfig(long_term=False)),
            serve_commands=worker.serve_commands_until,
            correction_wait=values["correction_wait"],
        )
        corrections.attach(session)
        images = ImageInput(
            self,
            worker,
            session,
            history,
            self._measures.counts,
            self._refusals,
            transport=values["image_transport"],
            reliable=values["image_reliability"] == "reliable",
        )
        objects = ObjectInput(
            self,
            worker=worker,
            session=session,
            corrections=corrections,
            counts=self._measures.counts,
            refusals=self._refusals,
            is_active=lambda: images.is_open,
            on_reset=self._before_reset,
            on_failure=self._on_failure,
        )
        doors.callback(objects.close)
        timer = create_steady_timer(self, values["diagnostics_period"], self._report)
        doors.callback(self.destroy_timer, timer)
        report = TrackerReport(self.get_name(), self._measures, self._refusals, client)
        if values["snapshot_path"]:
            doors.callback(self._open_snapshots(lazy, session, worker).close)
        worker.start()
        doors.callback(self._stop, worker)
        doors.callback(images.close)
        return _Parts(
            doors.pop_all(),
            images,
            worker,
            session,
            history,
            outputs,
            client,
            corrections,
            report,
            str(path),
            str(device),
        )

    def _open_snapshots(
        self, lazy: LazyTracker, session: TrackingSession, worker: Worker[ReceivedFrame]
    ) -> SnapshotService:
        """Go on from the snapshot, if there is one that can be used, and keep saving."""
        from lazyxmem_ros.lazy import SnapshotError
        from lazyxmem_ros.nodes.tracker.snapshots import SnapshotKeeper, SnapshotService

        path = Path(self._settings["snapshot_path"]).expanduser()
        on_fault = self.get_logger().error
        keeper = SnapshotKeeper(path, lazy, worker, on_fault=on_fault)
        try:
            ids = keeper.resume()
        except SnapshotError as error:
            self._refusals.refuse(str(path), "snapshot", f"{error}; tracking starts empty")
        else:
            session.see_objects()
            if ids:
                self.get_logger().info(f"going on with object {', '.join(map(str, ids))}")
        period = self._settings["snapshot_period"]
        return SnapshotService(self, keeper, period=period, on_fault=on_fault)

    def _stop(self, worker: Worker[ReceivedFrame]) -> None:
        if not worker.stop():
            self.get_logger().warning("the worker is still busy with its last frame")

    def _tear_down(self) -> None:
        parts, self._parts = self._parts, None
        if parts is not None:
            parts.doors.close()

    # ---- the worker's thread

    def _track(self, frame: ReceivedFrame) -> None:
        parts = self._parts
        if parts is not None:
            started = time.monotonic()
            if not parts.session.process(frame):
                self._measures.counts.add("dropped")
            self._measures.tracking.add(time.monotonic() - started)

    def count_frame(self, frame: ReceivedFrame) -> None:
        """Note that a frame's mask went out; one that goes out again is no other frame."""
        if frame.published:
            return
        frame.published = True
        self._measures.counts.add("tracked")
        self._measures.tracked.add()
        self._measures.latency.add(time.monotonic() - frame.received_at)

    def refuse(self, topic: str, kind: str, fault: str) -> None:
        """Count and report refused input."""
        self._refusals.refuse(topic, kind, fault)

    def _on_failure(self, error: BaseException) -> None:
        if not self.context.ok():
            return  # the middleware went away under a frame that was being published
        self._measures.counts.add("failed")
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self.get_logger().error(f"left out, because it failed: {error}\n{trace}")

    # ---- the executor's thread

    def _post(self, function: Callable[[], None]) -> None:
        executor = self.executor
        if executor is not None:
            executor.create_task(function)

    def _before_reset(self) -> None:
        if self._parts is not None:
            self._parts.images.forget_stamps()
            self._parts.corrections.forget_requests()

    def _on_parameters(self, values: Mapping[str, Any]) -> None:
        parts = self._parts
        if parts is None:
            return
        config, wait = tracker_parameters.lazy_config(values), values["correction_wait"]
        parts.worker.post(lambda: parts.session.configure(config, wait))

    def _report(self) -> None:
        parts = self._parts
        if parts is None:
            return
        statuses = parts.report.statuses(
            device=parts.device,
            received_rate=parts.images.rate.hertz() if parts.images.is_open else 0.0,
            object_ids=parts.session.object_ids,
            open_requests=parts.corrections.open_requests(),
            images_kept=len(parts.history),
            upkeep=parts.session.upkeep,
        )
        now = self.get_clock().now()
        self._diagnostics.publish(diagnostics.diagnostic_array(now, statuses))


class _Outputs:
    """A session's results, passed on to who publishes them (see SessionOutputs)."""

    def __init__(
        self, node: TrackerNode, outputs: TrackerOutputs, corrections: Corrections
    ) -> None:
        self._node = node
        self._outputs = outputs
        self._corrections = corrections
        self.ask_corrector = corrections.ask_corrector
        self.ask_operator = corrections.ask_operator
        self.publish_correction = corrections.publish_correction
        self.refuse = node.refuse

    def publish_frame(
        self,
        frame: ReceivedFrame,
        image: NDArray[np.uint8],
        labels: Labels,
        result: StepResult | None,
    ) -> None:
        from lazyxmem_ros.lazy import TrackState

        self._outputs.publish_frame(frame, image, labels, result)
        self._node.count_frame(frame)
        for change in result.changes if result is not None else ():
            states = (change.before, change.after)
            if TrackState.LOST in states and TrackState.PAUSED not in states:
                name = f"object {change.object_id}" + (change.label and f" ({change.label})")
                what = "is lost" if change.after is TrackState.LOST else "was found again"
                self._node.get_logger().info(f"{name} {what}")


def make_node(**options: Any) -> TrackerNode:
    """The node, started unless `autostart` is false; raises NodeStartError or ParameterError."""
    node = TrackerNode(**options)
    try:
        node.autostart()
    except BaseException:
        node.close()
        node.destroy_node()
        raise
    return node


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until it is asked to end; returns the exit code."""
    return run_node(make_node, arguments)


if __name__ == "__main__":
    sys.exit(main())

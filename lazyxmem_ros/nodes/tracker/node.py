# SPDX-License-Identifier: Apache-2.0
"""Node `lazyxmem_tracker`: images in, label maps and tracks out, help asked for where needed.

A managed lifecycle node that starts itself unless `autostart` is false. This file is its life;
`parts` makes what works while it is configured.
"""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import wraps
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import Trigger

from lazyxmem_ros.basics import reason_of
from lazyxmem_ros.entry import load
from lazyxmem_ros.nodes import diagnostics
from lazyxmem_ros.nodes.logs import warning_of
from lazyxmem_ros.nodes.parameters import Parameters
from lazyxmem_ros.nodes.running import NodeStartError, run_node
from lazyxmem_ros.nodes.services import Services
from lazyxmem_ros.nodes.timers import create_steady_timer, end_timer
from lazyxmem_ros.nodes.tracker import parameters as tracker_parameters
from lazyxmem_ros.nodes.tracker.diagnostics import TrackerMeasures
from lazyxmem_ros.nodes.tracker.failures import Failures
from lazyxmem_ros.nodes.tracker.images import QualityOverrides
from lazyxmem_ros.srv import (
    AddObjects,
    ListObjects,
    PauseObjects,
    RemoveObjects,
    RetractCorrection,
)

if TYPE_CHECKING:
    from lazyxmem_ros.nodes.tracker.parts import TrackerParts

NODE_NAME = "lazyxmem_tracker"
SERVICES = {
    "~/add_objects": AddObjects,
    "~/remove_objects": RemoveObjects,
    "~/pause_objects": PauseObjects,
    "~/list_objects": ListObjects,
    "~/retract_correction": RetractCorrection,
    "~/save_snapshot": Trigger,
    "~/reset": Trigger,
}


Transition = Callable[["TrackerNode", LifecycleState], TransitionCallbackReturn]


def told(transition: Transition) -> Transition:
    """A transition whose failure is counted and logged: rclpy says nothing of what one raises."""

    @wraps(transition)
    def tell(node: TrackerNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception as error:  # noqa: BLE001 - whatever it is, on_error comes next
            node._failures.report(error)
            node.get_logger().error(f"{transition.__name__} failed: the node is unconfigured now")
            return TransitionCallbackReturn.ERROR

    return tell


class TrackerNode(LifecycleNode):
    """The tracker as a managed node.

    Configuring loads the network, activating begins to listen to images, deactivating stops that
    and keeps the objects, cleaning up forgets everything.
    """

    def __init__(self, **options: Any) -> None:
        """options: those of rclpy.node.Node. Raises ParameterError for bad parameters."""
        super().__init__(NODE_NAME, **options)
        self._parts: TrackerParts | None = None
        self._fault = ""
        self._closing = False
        self._measures = TrackerMeasures(diagnostics.Refusals(warning_of(self)))
        self._failures = Failures(self, self._measures)
        self._image_quality = QualityOverrides()
        self._settings = Parameters(
            self,
            tracker_parameters.table(),
            validate=tracker_parameters.fault,
            apply=self._on_parameters,
            may_reconfigure=lambda: self._parts is None,
        )
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._calls = Services(
            self,
            SERVICES,
            unserved="the node is not configured",
            explain=self._failures.explain,
        )

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
        """End the worker, let go of everything, and answer the last calls."""
        self._closing = True
        self._tear_down()
        self._calls.finish()

    def destroy_node(self) -> None:
        """Leave the graph at once.

        rclpy's state machine keeps a destroyed lifecycle node there until Python frees it, and its
        end then takes the topics of a later node of the same name out of the graph.
        """
        super().destroy_node()
        self.__dict__.pop("_state_machine", None)

    # ---- lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the network and open every door but the image topics."""
        if self._closing:
            return TransitionCallbackReturn.FAILURE
        try:
            # What a failed configuration has opened is closed again.
            with ExitStack() as doors:
                self._parts = self._build(doors)
        except Exception as error:  # noqa: BLE001 - whatever it is, the node stays unconfigured
            self._fault = f"the tracker cannot be configured: {reason_of(error)}"
            self.get_logger().error(self._fault)
            if not isinstance(error, (ValueError, OSError)):
                self.get_logger().debug(traceback.format_exc())
            return TransitionCallbackReturn.FAILURE
        self.get_logger().info(f"configured: {self._parts.weights} on {self._parts.device}")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to listen to images."""
        parts = self._parts
        if parts is None:
            return TransitionCallbackReturn.FAILURE  # the node is closing
        try:
            parts.images.open()
        except Exception as error:  # noqa: BLE001 - rclpy has many for bad qos_overrides
            self._fault = f"{parts.images.topic} cannot be subscribed to: {error!r}"
            self.get_logger().error(self._fault)
            return TransitionCallbackReturn.FAILURE
        returned = super().on_activate(state)
        self.get_logger().info(f"tracking {parts.images.topic}")
        return returned

    @told
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening to images; the objects stay."""
        if self._parts is None:
            return TransitionCallbackReturn.FAILURE  # the node is closing
        self._parts.deactivate()
        return super().on_deactivate(state)

    @told
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget everything and free the network."""
        self._tear_down()
        return super().on_cleanup(state)

    @told
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The same, for good."""
        self._tear_down()
        return super().on_shutdown(state)

    @told
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured, from where it can be configured again."""
        self._tear_down()
        return TransitionCallbackReturn.SUCCESS

    # ---- how

    def _build(self, doors: ExitStack) -> TrackerParts:
        # Imported late: whoever only looks at the parameters needs no PyTorch.
        from lazyxmem_ros.nodes.tracker.parts import build_parts

        parts = build_parts(
            self, doors, self._settings, self._calls, self._failures, self._image_quality
        )
        timer = create_steady_timer(self, self._settings["diagnostics_period"], self._report)
        parts.doors.callback(end_timer, self, timer)
        return parts

    def _tear_down(self) -> None:
        parts, self._parts = self._parts, None
        if parts is None:
            return
        parts.doors.close()
        if self.executor is not None:
            # The parts refer to one another: Python would free them, the network's memory and its
            # threads, some configurations later. As yet the executor holds some of them, too.
            self.executor.create_task(gc.collect)

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
            open_requests=parts.corrections.open_requests,
            service_available=parts.client.is_available(),
            images_kept=len(parts.received),
            images_reach=parts.received.reach,
            upkeep=parts.session.upkeep,
            images_fault=parts.images.fault(),
            snapshots=parts.snapshots,
            records=parts.records.status() if parts.records is not None else None,
        )
        now = self.get_clock().now()
        self._diagnostics.publish(diagnostics.diagnostic_array(now, statuses))


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
    load("lazyxmem_ros.nodes.tracker.parts")  # PyTorch takes seconds
    return run_node(make_node, arguments)


if __name__ == "__main__":
    sys.exit(main())

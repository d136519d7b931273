# SPDX-License-Identifier: Apache-2.0
"""The tracker node under test, a correction service that obeys, and how tests talk to both.

The node runs in the tests' process, spun in a thread, on an untrained network: what it finds is of
no account there, what it does with it is.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from node_graph import (
    FIRST_STAMP,
    HEIGHT,
    STEP,
    WAIT_S,
    WIDTH,
    Probe,
    Spinner,
    header,
    parameters,
    scene,
    scene_message,
    stamps,
    wait_for,
)
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger

from lazyxmem_ros.msg import Correction, CorrectionRequest, Prompt, TrackArray
from lazyxmem_ros.nodes.conversions import labels_message, mask_message
from lazyxmem_ros.nodes.tracker.node import TrackerNode, make_node
from lazyxmem_ros.srv import CorrectMask

NS = "/tracker_test"
NODE = f"{NS}/lazyxmem_tracker"
QUIET = {
    "operator_corrections": False,
    "pseudo_corrections": False,
    "correction_wait": 0.0,
    "correction_timeout": 5.0,
    "request_timeout": 10.0,
    "max_open_requests": 3,
    "pseudo_entropy": float("inf"),
    "pseudo_cooldown_frames": 0,
    "operator_entropy": float("inf"),
    "cooldown_frames": 30,
}
OUTPUTS = {
    "mask": Image,
    "tracks": TrackArray,
    "corrected": Correction,
    "correction_request": CorrectionRequest,
}


class Service:
    """A `correct_mask` server of the tests' own: answers with the truth, fails, or keeps silent."""

    def __init__(self, probe: Probe, ns: str = NS) -> None:
        self.ns = ns
        self.requests: list[CorrectMask.Request] = []
        self.mode = "truth"
        self.truth = np.zeros((HEIGHT, WIDTH), bool)
        self.refused: set[int] = set()  # numbers of a request's prompts
        self._probe = probe
        self._gate: Future[None] | None = None
        self._service: Any = None
        self.start()

    def start(self) -> None:
        node = self._probe.node
        self._service = node.create_service(
            CorrectMask,
            f"{self.ns}/correct_mask",
            self._answer,
            callback_group=ReentrantCallbackGroup(),
        )

    def stop(self) -> None:
        if self._service is not None:
            self._probe.node.destroy_service(self._service)
            self._service = None

    async def _answer(
        self, request: CorrectMask.Request, response: CorrectMask.Response
    ) -> CorrectMask.Response:
        self.requests.append(request)
        response.corrector = "truth"
        if self.mode == "silent":
            await Future(executor=self._probe.node.executor)
        if self._gate is not None:
            await self._gate
        if self.mode == "fail":
            response.message = "no idea"
            return response
        mask = self.truth[:-1] if self.mode == "small" else self.truth
        count = len(request.prompts)
        response.success = not self.refused
        response.faults = ["not this one" if i in self.refused else "" for i in range(count)]
        response.scores = [math.inf if self.mode == "boast" else 1.0] * count
        response.masks = [mask_message(mask, request.image.header)] * count
        return response

    def hold(self) -> None:
        """Answer nothing until `release`."""
        self._gate = Future(executor=self._probe.node.executor)

    def release(self) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.set_result(None)
            self._probe.node.executor.create_task(lambda: None)  # wakes it

    @property
    def prompts(self) -> list[Prompt]:
        """Those of all requests."""
        return [prompt for request in self.requests for prompt in request.prompts]


class Tracker:
    """The node under test and how the tests talk to it."""

    def __init__(self, probe: Probe, weights: Path, ns: str = NS, **values: Any) -> None:
        """values: parameters that are not QUIET's."""
        self.probe = probe
        self.ns = ns
        self.name = f"{ns}/lazyxmem_tracker"
        self.service = Service(probe, ns)
        common = {"weights": str(weights), "device": "cpu", "backend": "torch"}
        common |= {"diagnostics_period": 0.1}
        self.node: TrackerNode = make_node(
            cli_args=["--ros-args", "-r", f"__ns:={ns}"],
            parameter_overrides=parameters(**{**common, **QUIET, **values}),
        )
        self._spinner = Spinner(self.node)
        for name, kind in OUTPUTS.items():
            probe.listen(kind, f"{self.name}/{name}")
        self.wait_until_heard()

    def wait_until_heard(self) -> None:
        """Until the probe gets all that the node publishes, and the node has found the service."""
        parts = self.node._parts
        outputs = parts.outputs
        for publisher in (outputs._mask, outputs._tracks, outputs._request, outputs._corrected):
            wait_for(publisher.get_subscription_count, f"the probe on {publisher.topic_name}")
        wait_for(parts.client.is_available, "the correction service")

    def close(self) -> None:
        self._spinner.close()
        self.service.stop()

    def set(self, **values: Any) -> str:
        result = self.node.set_parameters_atomically(parameters(**values))
        return "" if result.successful else str(result.reason)

    def reset(self) -> None:
        response = self.probe.call(Trigger, f"{self.name}/reset", Trigger.Request())
        assert response.success
        assert self.set(**QUIET) == ""
        self.service.mode = "truth"
        self.service.release()
        self.service.refused.clear()
        self.service.requests.clear()
        self.probe.forget()

    def change(self, *transitions: int) -> None:
        """Lifecycle transitions, one after the other."""
        for transition in transitions:
            request = ChangeState.Request(transition=Transition(id=transition))
            assert self.probe.call(ChangeState, f"{self.name}/change_state", request).success

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Within, the worker does nothing."""
        entered, gate = threading.Event(), threading.Event()
        self.node._parts.worker.submit(lambda: (entered.set(), gate.wait(WAIT_S)))
        assert entered.wait(WAIT_S)
        try:
            yield
        finally:
            gate.set()

    def out(self, name: str) -> list[Any]:
        return self.probe.messages(f"{self.name}/{name}")

    def mask_of(self, index: int) -> Any | None:
        """The newest mask published for the scene's frame of that number."""
        wanted = FIRST_STAMP + index * STEP
        found = [
            m
            for m, s in zip(self.out("mask"), stamps(self.out("mask")), strict=True)
            if s == wanted
        ]
        return found[-1] if found else None

    def send(self, index: int, message: Any | None = None) -> Any:
        """Publish a frame and wait for its mask and tracks."""
        message = scene_message(index) if message is None else message
        name = "image/compressed" if isinstance(message, CompressedImage) else "image"
        self.probe.publish(f"{self.ns}/{name}", message)
        stamp = FIRST_STAMP + index * STEP
        wait_for(
            lambda: self.mask_of(index) is not None and stamp in stamps(self.out("tracks")),
            f"the mask and tracks of frame {index}",
        )
        return self.mask_of(index)

    def show_object(self, index: int = 0, object_id: int = 1) -> None:
        """Frame `index`, then its label map."""
        self.send(index)
        labels = scene(index)[1].astype(np.uint16) * object_id
        self.probe.publish(f"{self.name}/init_mask", labels_message(labels, header(index)))
        wait_for(lambda: object_id in self.objects(), f"object {object_id}")

    def objects(self) -> list[int]:
        """The objects on the newest tracks."""
        tracks = self.out("tracks")
        return [track.id for track in tracks[-1].tracks] if tracks else []

    def refusals(self) -> dict[str, int]:
        return self.node._measures.refusals.snapshot()

    def count(self, name: str) -> int:
        return self.node._measures.counts[name]


def sees_service(probe: Probe, node: str) -> bool:
    """Whether a tracker in another process has found the correction service, by its reports."""
    return any(
        (pair.key, pair.value) == ("service available", "True")
        for array in probe.messages("/diagnostics")
        for status in array.status
        if status.name.startswith(f"{node.lstrip('/')}: ")
        for pair in status.values
    )


def click(index: int) -> Point:
    rows, columns = np.nonzero(scene(index)[1])
    return Point(x=float(columns.mean()), y=float(rows.mean()))


def with_fields(message: Any, **fields: Any) -> Any:
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def ask_the_operator(tracker: Tracker) -> CorrectionRequest:
    """A request to the operator about frame 1."""
    tracker.show_object(0)
    assert tracker.set(operator_corrections=True, operator_entropy=0.0, cooldown_frames=0) == ""
    tracker.send(1)
    wait_for(lambda: tracker.out("correction_request"), "the request")
    return tracker.out("correction_request")[0]

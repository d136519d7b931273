# SPDX-License-Identifier: Apache-2.0
"""Node `lazyxmem_simulated_operator`: answers the tracker's requests from a bag's ground truth."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.timer import Timer

from lazyxmem_ros.basics import SECOND, StampRangeError, stamp_of, user_path
from lazyxmem_ros.data.bag_messages import pack_labels, unpack_labels
from lazyxmem_ros.data.bag_reader import BagReader
from lazyxmem_ros.data.errors import BagError, DamagedBagError, because
from lazyxmem_ros.evaluation.simulated_operator import Gesture, OperatorConfig, SimulatedOperator
from lazyxmem_ros.images import ImageError
from lazyxmem_ros.msg import Correction, CorrectionRequest
from lazyxmem_ros.nodes.conversions import read_mask
from lazyxmem_ros.nodes.diagnostics import LogLimiter, Refusals, cut, traced
from lazyxmem_ros.nodes.logs import error_of, info_of, warning_of
from lazyxmem_ros.nodes.parameters import Changes, Parameters, ParameterSpec
from lazyxmem_ros.nodes.prompts import prompt_message
from lazyxmem_ros.nodes.running import NodeStartError, run_node, surviving
from lazyxmem_ros.nodes.timers import end_timer

NODE_NAME = "lazyxmem_simulated_operator"
QUEUE_DEPTH = 64
"""Requests and answers that may come at once: one for each object."""
MAX_PENDING = 64
"""Answers that may wait for their time, which comes never where the ROS clock stands still."""

PARAMETERS = (
    ParameterSpec("bag", "", "Bag that holds the ground truth.", changes=Changes.NEVER),
    ParameterSpec(
        "truth_topic",
        "/ground_truth",
        "The bag's topic of ground-truth label maps (mono8 or mono16).",
        changes=Changes.NEVER,
    ),
    ParameterSpec(
        "gesture",
        Gesture.CLICK.value,
        "How the operator answers.",
        choices=tuple(gesture.value for gesture in Gesture),
        changes=Changes.NEVER,
    ),
    ParameterSpec(
        "reaction_delay",
        1.0,
        "Seconds from a request to its answer.",
        bounds=(0.0, 3600.0),
        changes=Changes.NEVER,
    ),
    ParameterSpec(
        "click_noise",
        0.0,
        "Standard deviation of clicks and box corners, pixels.",
        bounds=(0.0, 1000.0),
        changes=Changes.NEVER,
    ),
    ParameterSpec(
        "seed", 0, "Seed of the noise.", bounds=(0, 1_000_000_000), changes=Changes.NEVER
    ),
    ParameterSpec(
        "clicks",
        1,
        "Most clicks of an answer by largest_error.",
        bounds=(1, 100),
        changes=Changes.NEVER,
    ),
)


class SimulatedOperatorNode(Node):
    """Takes `correction_request`, gives `operator_correction` after the reaction delay."""

    def __init__(self) -> None:
        """Raises NodeStartError where the ground truth cannot be read."""
        super().__init__(NODE_NAME)
        self._settings = Parameters(self, PARAMETERS)
        self._truth = self._read_truth()
        self._operator = SimulatedOperator(
            OperatorConfig(
                gesture=Gesture(self._settings["gesture"]),
                reaction_delay=self._settings["reaction_delay"],
                click_noise=self._settings["click_noise"],
                seed=self._settings["seed"],
                clicks=self._settings["clicks"],
            )
        )
        self._pending: dict[int, Timer] = {}
        self._refusals = Refusals(warning_of(self))
        failures = LogLimiter(error_of(self))
        quality = QoSProfile(depth=QUEUE_DEPTH)
        self._answers = self.create_publisher(Correction, "operator_correction", quality)
        self._requests = self.create_subscription(
            CorrectionRequest,
            "correction_request",
            surviving(
                self._on_request, lambda error: failures.say(type(error).__name__, traced(error))
            ),
            quality,
        )
        self.get_logger().info(f"{len(self._truth)} frames of ground truth: ready")

    def _read_truth(self) -> dict[int, bytes]:
        """Packed label maps by stamp (ns), of the bag as far as it is intact.

        What is wrong is said, as an evaluation does. Raises NodeStartError where there is nothing.
        """
        if not self._settings["bag"]:
            raise NodeStartError("give the bag that holds the truth: --ros-args -p bag:=PATH")
        topic, faults = self._settings["truth_topic"], []
        truth: dict[int, bytes] = {}
        try:
            with BagReader(user_path(self._settings["bag"]), info_of(self)) as bag:
                for stamp, labels in bag.labels_or_faults(topic):
                    if isinstance(labels, str):
                        faults.append(f"{topic}, {stamp} ns: {labels}")
                    else:
                        truth[stamp] = pack_labels(labels)
        except DamagedBagError as error:
            faults.append(str(error))
        except BagError as error:
            raise NodeStartError(str(error)) from error
        if faults and not truth:
            raise NodeStartError(f"there is no ground truth{because(faults)}")
        if faults:
            self.get_logger().warning(cut(f"some ground truth is left out{because(faults)}"))
        return truth

    def _on_request(self, request: CorrectionRequest) -> None:
        now = self.get_clock().now().nanoseconds
        if now < self._operator.asked_at:  # a recording that is played again
            for number in list(self._pending):
                end_timer(self, self._pending.pop(number))
        if len(self._pending) >= MAX_PENDING:
            why = f"{MAX_PENDING} answers wait for their time already: does the clock go on?"
            self._refuse("too many", why)
            self._answers.publish(self._nothing(request, why))
            return
        answer = self._answer_to(request)
        delay = (self._operator.answer_time(now) - now) / SECOND
        number = id(answer)
        self._pending[number] = self.create_timer(delay, partial(self._answer, answer, number))

    def _answer_to(self, request: CorrectionRequest) -> Correction:
        """What the operator does, or says where there is nothing to do."""
        try:
            packed = self._truth.get(stamp_of(request.header.stamp))
        except StampRangeError as error:
            return self._nothing(request, str(error))
        if packed is None:
            return self._nothing(request, "the frame is not annotated")
        truth = unpack_labels(packed)
        try:
            prediction = read_mask(request.mask)
        except ImageError as error:
            self._refuse("image", str(error))
            return self._nothing(request, cut(str(error)))
        if prediction.shape != truth.shape:
            return self._nothing(request, "the mask has another size than the ground truth")
        prompt = self._operator.click(truth == request.id, prediction)
        if prompt is None:
            return self._nothing(request, "the operator saw nothing to correct")
        header = request.header
        return Correction(header=header, id=request.id, prompt=prompt_message(prompt, header))

    def _refuse(self, kind: str, why: str) -> None:
        self._refusals.refuse(self._requests.topic_name, kind, why)

    @staticmethod
    def _nothing(request: CorrectionRequest, why: str) -> Correction:
        return Correction(header=request.header, id=request.id, message=why)

    def _answer(self, answer: Correction, number: int) -> None:
        end_timer(self, self._pending.pop(number))
        self._answers.publish(answer)
        self.get_logger().info(f"answered for object {answer.id} {answer.message}".rstrip())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until it is asked to end; returns the exit code."""
    return run_node(SimulatedOperatorNode, arguments)


if __name__ == "__main__":
    sys.exit(main())

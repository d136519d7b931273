# SPDX-License-Identifier: Apache-2.0
"""Node `lazyxmem_recorder`: writes topics into a rosbag2 bag, for where `ros2 bag` is not at hand.

A topic is subscribed to when somebody publishes it, with the quality of service that is offered,
and its messages are written as they came, byte for byte, by the time they were received.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from lazyxmem_ros.basics import user_path
from lazyxmem_ros.data.bag_messages import message_types
from lazyxmem_ros.data.bag_writer import STORAGES, BagWriter
from lazyxmem_ros.data.errors import BagError
from lazyxmem_ros.data.safe_writer import COMMIT_PERIOD_S
from lazyxmem_ros.nodes.bags.stamped import find_message_type
from lazyxmem_ros.nodes.parameters import Changes, Parameters, ParameterSpec
from lazyxmem_ros.nodes.running import NodeStartError, resolved, run_node
from lazyxmem_ros.nodes.timers import create_steady_timer

NODE_NAME = "lazyxmem_recorder"
QUEUE_DEPTH = 200
DISCOVERY_PERIOD_S = 0.05
UNPUBLISHED_AFTER_S = 5.0
"""Of steady time, after which topics that nobody publishes are named."""

PARAMETERS = (
    ParameterSpec("bag", "", "Folder of the new bag.", changes=Changes.NEVER),
    ParameterSpec("topics", (), "Topics to record.", changes=Changes.NEVER),
    ParameterSpec(
        "storage", "mcap", "Storage of the bag.", choices=tuple(STORAGES), changes=Changes.NEVER
    ),
    ParameterSpec(
        "report_period",
        0.0,
        "Seconds of steady time between log lines that say how many messages were recorded; "
        "0 = none.",
        bounds=(0.0, 3600.0),
        changes=Changes.NEVER,
    ),
)


class RecorderNode(Node):
    """Records until it is ended; the bag is complete once `close` returned."""

    def __init__(self, **options: Any) -> None:
        """options: those of rclpy.node.Node.

        Raises NodeStartError where there is nothing to record or the bag cannot be written.
        """
        super().__init__(NODE_NAME, **options)
        self.exit_code = 0
        self._settings = Parameters(self, PARAMETERS)
        self._waiting = {resolved(self, name, "topics") for name in self._settings["topics"]}
        if not self._settings["bag"] or not self._waiting:
            raise NodeStartError(
                "give the new bag and its topics: --ros-args -p bag:=FOLDER -p topics:=[/a,/b]"
            )
        try:
            self._bag = BagWriter(
                user_path(self._settings["bag"]), storage=self._settings["storage"]
            )
            self._bag.__enter__()
        except BagError as error:
            raise NodeStartError(str(error)) from error
        self._recorded: Counter[str] = Counter()
        self._began: float | None = time.monotonic()
        create_steady_timer(self, DISCOVERY_PERIOD_S, self._discover)
        create_steady_timer(self, COMMIT_PERIOD_S, self._commit)
        if self._settings["report_period"]:
            create_steady_timer(self, self._settings["report_period"], self._report)

    def close(self) -> None:
        """Complete the bag."""
        try:
            self._bag.__exit__(None, None, None)
        except BagError as error:
            self._give_up(error)

    def _discover(self) -> None:
        """Subscribe to the topics that have found a publisher."""
        for topic in sorted(self._waiting):
            offers = self.get_publishers_info_by_topic(topic)
            if not offers:
                continue
            type_name = offers[0].topic_type
            message_type = find_message_type(type_name)
            self._waiting.discard(topic)
            if message_type is None:
                self.get_logger().error(f"{topic}: left out: its type {type_name} is not installed")
                continue
            if type_name not in message_types().types:
                self.get_logger().error(
                    f"{topic}: left out: bags are written without the definition of {type_name}"
                )
                continue
            reliable = all(
                offer.qos_profile.reliability == ReliabilityPolicy.RELIABLE for offer in offers
            )
            latched = all(
                offer.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers
            )
            quality = QoSProfile(
                depth=QUEUE_DEPTH,
                reliability=(
                    ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
                ),
                durability=(
                    DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
                ),
            )
            write = partial(self._write, topic, type_name, latched)
            self.create_subscription(message_type, topic, write, quality, raw=True)
            self.get_logger().info(f"recording {topic}")
        if self._began is not None and time.monotonic() - self._began >= UNPUBLISHED_AFTER_S:
            self._began = None  # it is said once
            if self._waiting:
                self.get_logger().warning(
                    f"nobody publishes {', '.join(sorted(self._waiting))}: recorded as soon as "
                    "somebody does"
                )

    def _write(self, topic: str, type_name: str, latched: bool, data: bytes) -> None:
        now = time.time_ns()
        if self._attempt(
            partial(self._bag.write_raw, topic, type_name, now, data, latched=latched)
        ):
            self._recorded[topic] += 1

    def _commit(self) -> None:
        """Messages may stop coming; what came is not left in memory."""
        self._attempt(self._bag.commit)

    def _attempt(self, write: Callable[[], None]) -> bool:
        """Whether it could be written; the first time that it could not, the node ends."""
        if self.exit_code:
            return False
        try:
            write()
        except BagError as error:
            self._give_up(error)
            self.context.try_shutdown()
            return False
        return True

    def _give_up(self, error: BagError) -> None:
        if self.exit_code:
            return  # it has been said
        self.exit_code = 1
        kept = "The bag holds what was recorded before" if self._bag.is_there() else "It is lost"
        self.get_logger().error(f"{error}. {kept}")

    def _report(self) -> None:
        counts = " ".join(f"{topic}={count}" for topic, count in sorted(self._recorded.items()))
        self.get_logger().info(f"recorded {counts}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Record until the node is asked to end; returns the exit code."""
    return run_node(RecorderNode, arguments)


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Node `lazyxmem_graph_watch`: writes into a file which of a run's nodes are there, and its masks.

`evaluation/graph` starts it beside the nodes, `python -m lazyxmem_ros.nodes.graph_watch`: what is
there is read from the ROS graph, never from logs, whose look is the user's affair.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from lazyxmem_ros.evaluation.graph.names import (
    CONSOLE_NODE,
    CORRECTION_SERVICE,
    MASK_TOPIC,
    OPERATOR_NODE,
    RECORDER_NODE,
    REQUEST_TOPIC,
    STATUS_PERIOD_S,
    TRACKER_TOPICS,
)
from lazyxmem_ros.images.files import write_whole
from lazyxmem_ros.nodes.parameters import Changes, Parameters, ParameterSpec
from lazyxmem_ros.nodes.running import NodeStartError, run_node
from lazyxmem_ros.nodes.timers import create_steady_timer
from lazyxmem_ros.srv import CorrectMask

NODE_NAME = "lazyxmem_graph_watch"
QUEUE_DEPTH = 200

PARAMETERS = (
    ParameterSpec("status", "", "File that is written anew each time.", changes=Changes.NEVER),
    ParameterSpec("console", False, "Whether somebody at its page is.", changes=Changes.NEVER),
    ParameterSpec("operator", False, "Whether an operator is awaited.", changes=Changes.NEVER),
)


class GraphWatchNode(Node):
    """Looks at the graph every STATUS_PERIOD_S."""

    def __init__(self, **options: Any) -> None:
        """options: those of rclpy.node.Node. Raises NodeStartError without a file to write."""
        super().__init__(NODE_NAME, **options)
        settings = Parameters(self, PARAMETERS)
        if not settings["status"]:
            raise NodeStartError("give the file to write: --ros-args -p status:=FILE")
        self._status = Path(settings["status"])
        self._listeners = [(topic, RECORDER_NODE) for topic in TRACKER_TOPICS]
        if settings["operator"]:
            self._listeners.append((REQUEST_TOPIC, OPERATOR_NODE))
        if settings["console"]:
            self._listeners.append((MASK_TOPIC, CONSOLE_NODE))
        self._corrector = self.create_client(CorrectMask, CORRECTION_SERVICE)
        self._masks = 0
        quality = QoSProfile(depth=QUEUE_DEPTH)
        self.create_subscription(Image, MASK_TOPIC, self._on_mask, quality, raw=True)
        create_steady_timer(self, STATUS_PERIOD_S, self._report)

    def _on_mask(self, message: bytes) -> None:
        self._masks += 1

    def _report(self) -> None:
        status = {"missing": self._missing(), "masks": self._masks}
        # Whoever reads it meanwhile gets the one or the other whole.
        write_whole(self._status, json.dumps(status).encode())

    def _missing(self) -> list[str]:
        """What is not there yet, in words."""
        missing = []
        for topic, name in self._listeners:
            if not self.count_publishers(topic):
                missing.append(f"a publisher of {topic}")
            listeners = self.get_subscriptions_info_by_topic(topic)
            if name not in [listener.node_name for listener in listeners]:
                missing.append(f"{name} on {topic}")
        if not self._corrector.service_is_ready():
            missing.append(f"the service {CORRECTION_SERVICE}")
        return missing


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch until the node is asked to end; returns the exit code."""
    return run_node(GraphWatchNode, arguments)


if __name__ == "__main__":
    sys.exit(main())

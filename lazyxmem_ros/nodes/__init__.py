# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 side: thin nodes around the core, and the only place that imports rclpy."""

import sys

from lazyxmem_ros.entry import EXIT_FAULT, ending_at_once, load
from lazyxmem_ros.extras import MissingExtraError

EXECUTABLES = {
    "tracker": "lazyxmem_ros.nodes.tracker.node",
    "correction": "lazyxmem_ros.nodes.corrector",
    "replay": "lazyxmem_ros.nodes.bags.replay",
    "recorder": "lazyxmem_ros.nodes.bags.recorder",
    "operator": "lazyxmem_ros.nodes.operator.node",
    "simulated_operator": "lazyxmem_ros.nodes.simulated_operator",
}
"""`ros2 run lazyxmem_ros NAME` calls `main` of this module."""


def run(name: str) -> int:
    """Import and run the node of a name in EXECUTABLES; returns the exit code."""
    with ending_at_once():
        try:
            return int(load(EXECUTABLES[name]).main())
        except MissingExtraError as error:
            print(f"error: {error}", file=sys.stderr)
            return EXIT_FAULT

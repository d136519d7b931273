# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 side: thin nodes around the core, and the only place that imports rclpy."""

EXECUTABLES = {
    "tracker": "lazyxmem_ros.nodes.tracker.node",
    "correction": "lazyxmem_ros.nodes.corrector",
    "replay": "lazyxmem_ros.nodes.bags.replay",
    "recorder": "lazyxmem_ros.nodes.bags.recorder",
    "simulated_operator": "lazyxmem_ros.nodes.simulated_operator",
}
"""`ros2 run lazyxmem_ros NAME` calls `main` of this module."""

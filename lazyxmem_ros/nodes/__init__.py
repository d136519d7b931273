# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 side: thin nodes around the core, and the only place that imports rclpy."""

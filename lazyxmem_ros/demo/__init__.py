# SPDX-License-Identifier: Apache-2.0
"""Demonstrates the tracker on the real ROS graph: `python -m lazyxmem_ros.demo`."""

# SPDX-License-Identifier: Apache-2.0
"""Runs through the real ROS graph: its processes, and what they publish, scored."""

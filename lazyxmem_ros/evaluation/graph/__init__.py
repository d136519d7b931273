# SPDX-License-Identifier: Apache-2.0
"""Runs through the real ROS graph: processes, what they record, and how that is scored."""

# SPDX-License-Identifier: Apache-2.0
"""Nodes that play and record rosbag2 bags."""

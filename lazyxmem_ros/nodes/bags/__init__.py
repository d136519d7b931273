# SPDX-License-Identifier: Apache-2.0
"""Nodes that play and record rosbag2 bags; they need the extra `evaluation`."""

import importlib

from lazyxmem_ros.extras import needs

with needs("evaluation", "playing and recording bags"):
    importlib.import_module("rosbags")

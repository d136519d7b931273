# SPDX-License-Identifier: Apache-2.0
"""A node of a benchmark, whose callbacks run in a thread of their own."""

from __future__ import annotations

import threading

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node


class Spinner:
    """Spins a node in a thread until it is closed, or the process ends."""

    def __init__(self, node: Node) -> None:
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Call nothing any more."""
        self._executor.shutdown()
        self._thread.join()

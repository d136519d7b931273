# SPDX-License-Identifier: Apache-2.0
"""Says that another node has a node's name, of which ROS itself says nothing."""

from __future__ import annotations

import time

from rclpy.node import Node

from lazyxmem_ros.nodes.offers import LINGERING_S
from lazyxmem_ros.nodes.timers import create_steady_timer

LOOK_PERIOD_S = 1.0


class NamesakeWatch:
    """Looks at the graph, and warns once where a namesake stays."""

    def __init__(self, node: Node, after: float = LINGERING_S) -> None:
        """after: seconds of steady time that a namesake is there before it is said."""
        self._node = node
        self._after = after
        self._since: float | None = None
        self._said = False
        create_steady_timer(node, min(LOOK_PERIOD_S, after), self._look)

    def _look(self) -> None:
        name = self._node.get_name(), self._node.get_namespace()
        if self._node.get_node_names_and_namespaces().count(name) < 2:
            self._since, self._said = None, False
            return
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if not self._said and now - self._since >= self._after:
            self._said = True
            self._node.get_logger().warning(
                f"another node is called {self._node.get_fully_qualified_name()}: both publish, "
                "and calls of a service are answered by either of them; end one, or give it "
                "another namespace (-r __ns:=/NAME)"
            )

# SPDX-License-Identifier: Apache-2.0
"""What the console's link to a tracker makes of the ROS graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from unittest.mock import Mock

import pytest
from node_graph import wait_for
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from lazyxmem_ros.nodes.operator.tracker_link import TrackerLink

TRACKER = "/robot/lazyxmem_tracker"


@pytest.fixture
def spun(ros: None) -> Iterator[tuple[Node, Callable[[], None]]]:
    """A node, and a call of its executor."""
    node = Node("console_link")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    yield node, lambda: executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    node.destroy_node()


def test_a_tracker_that_goes_while_it_is_looked_at_is_absent(
    spun: tuple[Node, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph still names it, and knows nothing of it any more."""
    node, spin_once = spun
    monkeypatch.setattr(
        node, "get_node_names_and_namespaces", lambda: [("lazyxmem_tracker", "/robot")]
    )
    hears, failed = Mock(), Mock()
    link = TrackerLink(node, TRACKER, hears, on_failure=failed)

    def told() -> bool:
        spin_once()
        return failed.called or hears.on_presence.called

    wait_for(told, "who is there")
    failed.assert_not_called()
    assert not hears.on_presence.call_args.args[0].tracker
    link.close()

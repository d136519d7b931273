# SPDX-License-Identifier: Apache-2.0
"""A paced subscription over DDS: what is read of a flood, and what is said of the rest."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from node_graph import Probe, Spinner, offered_by_another, wait_for
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import String

from lazyxmem_ros.nodes.pacing import (
    LOOK_PERIOD_S,
    PAUSE_S,
    READ_BURST,
    READ_RATE,
    PacedSubscription,
)

TOPIC = "/paced"
DEPTH = 1000


class Listener:
    """A node that reads TOPIC, and notes what it reads and what it leaves out."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.left_out: Counter[str] = Counter()
        self.faults: list[str] = []
        self.clock: Callable[[], float] = time.monotonic
        node = Node("listener")
        self.subscription = PacedSubscription(
            node,
            String,
            TOPIC,
            lambda message: self.read.append(message.data),
            depth=DEPTH,
            on_left_out=self._leave_out,
            clock=lambda: self.clock(),
        )
        self.spinner = Spinner(node)

    def _leave_out(self, kind: str, fault: str) -> None:
        self.left_out.update([kind])
        self.faults.append(fault)

    @property
    def seen(self) -> int:
        return len(self.read) + self.left_out.total()


@pytest.fixture
def listener(probe: Probe) -> Iterator[Listener]:
    made = Listener()
    yield made
    made.subscription.close()
    made.spinner.close()


def test_what_comes_now_and_then_is_read_at_once(probe: Probe, listener: Listener) -> None:
    for number in range(int(READ_BURST)):
        probe.publish(TOPIC, String(data=str(number)))
    wait_for(lambda: len(listener.read) == READ_BURST, "every message")
    assert listener.read == [str(number) for number in range(int(READ_BURST))]
    assert not listener.left_out


def test_of_a_flood_the_newest_are_read_and_the_others_counted(
    probe: Probe, listener: Listener
) -> None:
    """The listener's time stands still, so that nothing is read but the burst."""
    begun = time.monotonic()
    listener.clock = lambda: begun
    count = 3 * int(READ_BURST)  # fewer than the probe keeps for whoever is slow
    for number in range(count):
        probe.publish(TOPIC, String(data=str(number)))
    # Where the burst was used up before it came, the newest of all is held until it may be read.
    wait_for(lambda: listener.seen >= count - 1, "all but the newest")
    assert len(listener.read) == READ_BURST
    assert set(listener.left_out) == {"too busy"}
    listener.clock = time.monotonic
    wait_for(lambda: listener.read[-1] == str(count - 1), "the newest")
    assert listener.seen == count
    probe.publish(TOPIC, String(data="later"))
    wait_for(lambda: listener.read[-1] == "later", "a later one")


def test_what_is_no_message_is_said_to_be_none(probe: Probe, listener: Listener) -> None:
    probe.publish(TOPIC, String(data="first"))
    probe._publishers[TOPIC].publish(b"\0\1\0\0\xff\xff\xff\xff")
    probe.publish(TOPIC, String(data="second"))
    wait_for(lambda: listener.read == ["first", "second"], "both messages")
    assert listener.left_out == {"no message": 1}


def test_a_pause_is_shorter_than_what_the_middleware_keeps() -> None:
    """At 200 messages a second, with the depth of 10 that the tracker's topics have."""
    assert 200 * PAUSE_S < 10
    assert READ_RATE * PAUSE_S > 1


def test_a_publisher_that_is_not_heard_is_named_once(probe: Probe, listener: Listener) -> None:
    quality = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    unreliable = probe.node.create_publisher(String, TOPIC, quality)
    wait_for(lambda: listener.faults, "the first one")
    assert "/probe publishes with another quality of service" in listener.faults[0]
    probe.node.destroy_publisher(unreliable)
    named = "/counter publishes std_msgs/msg/Int32, not std_msgs/msg/String"
    with offered_by_another("counter", "std_msgs", "Int32", TOPIC):
        wait_for(lambda: named in listener.faults[-1], "the second one")
        time.sleep(LOOK_PERIOD_S + 0.2)  # in which it would be said again
        assert sum(named in fault for fault in listener.faults) == 1

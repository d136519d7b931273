# SPDX-License-Identifier: Apache-2.0
"""What the tests of the nodes share: a probe in the graph, and a scene to show."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from std_msgs.msg import Header

from lazyxmem_ros.basics import stamp_of
from lazyxmem_ros.nodes.conversions import image_message, time_message

WAIT_S = 60.0
FIRST_STAMP = 1_700_000_000_000_000_000
STEP = 100_000_000
HEIGHT, WIDTH = 64, 96


class Probe:
    """A node that listens, publishes and calls, spun in a thread."""

    def __init__(self) -> None:
        self.node = Node("probe")
        self._lock = threading.Lock()
        self._messages: dict[str, list[Any]] = defaultdict(list)
        self._subscriptions: dict[str, Any] = {}
        self._publishers: dict[str, Any] = {}
        self._clients: dict[str, Any] = {}
        self.spinner = Spinner(self.node)

    def close(self) -> None:
        self.spinner.close()

    def listen(self, message_type: Any, topic: str) -> None:
        """Collect the topic's messages from now on; waits until a publisher has been found."""
        if topic not in self._subscriptions:

            def keep(message: Any) -> None:
                with self._lock:
                    self._messages[topic].append(message)

            quality = QoSProfile(depth=200)
            self._subscriptions[topic] = self.node.create_subscription(
                message_type, topic, keep, quality
            )
        subscription = self._subscriptions[topic]
        wait_for(
            lambda: self.node.count_publishers(topic) and has_found_a_publisher(subscription),
            f"a publisher of {topic}",
        )

    def ignore(self, topic: str) -> None:
        """Unsubscribe."""
        self.node.destroy_subscription(self._subscriptions.pop(topic))

    def messages(self, topic: str) -> list[Any]:
        with self._lock:
            return list(self._messages[topic])

    def forget(self) -> None:
        with self._lock:
            self._messages.clear()

    def publish(self, topic: str, message: Any) -> None:
        """Publish once somebody listens.

        A best-effort subscription of another process may not have found this publisher yet, which
        cannot be seen from here: the first messages to one are repeated (`repeat_until`).
        """
        if topic not in self._publishers:
            publisher = self.node.create_publisher(type(message), topic, QoSProfile(depth=200))
            self._publishers[topic] = publisher
        publisher = self._publishers[topic]
        wait_for(lambda: publisher.get_subscription_count() > 0, f"a subscriber of {topic}")
        wait_for(lambda: is_heard_here(topic), f"this process's subscriber of {topic}")
        publisher.publish(message)

    def ask(self, service_type: Any, name: str, request: Any) -> Any:
        """Call a service; the future gets its response."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(
                service_type, name, qos_profile=QoSProfile(depth=200)
            )
        client = self._clients[name]
        wait_for(client.service_is_ready, f"service {name}")
        return client.call_async(request)

    def call(self, service_type: Any, name: str, request: Any, timeout: float = WAIT_S) -> Any:
        """Call a service and return its response."""
        future = self.ask(service_type, name, request)
        wait_for(future.done, f"the answer of {name}", timeout)
        return future.result()


_spun: list[Node] = []
"""The nodes that are spun in this process."""


def has_found_a_publisher(subscription: Subscription[Any]) -> bool:
    """Whether messages can come; before Jazzy that cannot be known."""
    return bool(getattr(subscription, "get_publisher_count", lambda: 1)())


def is_heard_here(topic: str) -> bool:
    """Whether the topic's subscriptions of this process have each found a publisher.

    The ends of a topic find each other one after the other; what is sent in between is lost where
    the subscription is best effort.
    """
    return all(
        has_found_a_publisher(subscription)
        for node in _spun
        for subscription in node.subscriptions
        if subscription.topic_name == topic
    )


class Spinner:
    """Spins a node in a thread."""

    def __init__(self, node: Node) -> None:
        self.node = node
        _spun.append(node)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self.executor.spin()

    def close(self) -> None:
        self.executor.shutdown()
        self._thread.join(WAIT_S)
        _spun.remove(self.node)
        self.node.executor = None  # else its end would wait for last calls, which nobody makes
        closing = getattr(self.node, "close", None)
        if closing is not None:
            closing()
        self.node.destroy_node()


OFFERS = """
import importlib, sys, time, rclpy
name, package, kind, topic = sys.argv[1:]
rclpy.init()
node = rclpy.create_node(name)
message = getattr(importlib.import_module(package + ".msg"), kind)
publisher = node.create_publisher(message, topic, 10)
time.sleep(600)
"""


@contextlib.contextmanager
def offered_by_another(name: str, package: str, kind: str, topic: str) -> Iterator[None]:
    """Within, a node of that name offers a topic, in a process of its own: one participant knows
    one type of a topic.
    """
    process = subprocess.Popen([sys.executable, "-c", OFFERS, name, package, kind, topic])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def parameters(**values: Any) -> list[Parameter]:
    return [Parameter(name, value=value) for name, value in values.items()]


def wait_for(done: Callable[[], Any], what: str, timeout: float = WAIT_S) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come within {timeout:g} s")
        time.sleep(0.005)


def repeat_until(
    done: Callable[[], Any], act: Callable[[], None], what: str, *, every: float = 0.3
) -> None:
    """Act every so many seconds until it has had its effect.

    What is sent before both ends have found each other is lost.
    """
    deadline = time.monotonic() + WAIT_S
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come within {WAIT_S:g} s")
        act()
        with contextlib.suppress(AssertionError):
            wait_for(done, what, every)


def header(index: int) -> Header:
    """Of the scene's frame of that number."""
    return Header(stamp=time_message(FIRST_STAMP + index * STEP), frame_id="camera")


def scene(index: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A red square that moves over noise: RGB uint8 [H, W, 3] and its mask bool [H, W]."""
    image = np.random.default_rng(1).integers(0, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    left = 8 + index % 50
    mask[20:44, left : left + 24] = True
    image[mask] = (220, 40, 40)
    return image, mask


def scene_message(index: int, encoding: str = "rgb8") -> Any:
    image, _ = scene(index)
    pixels = image if encoding == "rgb8" else image[..., ::-1]
    return image_message(pixels, encoding, header(index))


def show_until_tracked(probe: Probe, ns: str, index: int) -> int:
    """Show a tracker the scene from a frame on until a mask comes; returns the last one's number.

    While nodes find each other images get lost.
    """
    topic = f"{ns}/lazyxmem_tracker/mask"
    before = len(probe.messages(topic))
    shown = itertools.count(index)

    def show() -> None:
        nonlocal index
        index = next(shown)
        probe.publish(f"{ns}/image", scene_message(index))

    repeat_until(lambda: len(probe.messages(topic)) > before, show, f"a mask on {topic}")
    return index


def labels_of(message: Any) -> NDArray[np.uint16]:
    from lazyxmem_ros.nodes.conversions import read_labels

    return read_labels(message)


def stamps(messages: Sequence[Any]) -> list[int]:
    return [stamp_of(message.header.stamp) for message in messages]

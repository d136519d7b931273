# SPDX-License-Identifier: Apache-2.0
"""Waiting for the mask of an image before the next image goes out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image

from lazyxmem_ros.basics import StampRangeError, stamp_of
from lazyxmem_ros.nodes.diagnostics import LogLimiter
from lazyxmem_ros.nodes.logs import warning_of

QUEUE_DEPTH = 20


class Lockstep:
    """Listens to a mask topic in the executor's thread; the player's thread waits here."""

    def __init__(self, node: Node, topic: str, *, timeout: float, first_shows_object: bool) -> None:
        """timeout: seconds of steady time to wait for one mask.

        first_shows_object: whether the first image waits for a mask that shows an object.
        """
        self._limiter = LogLimiter(warning_of(node))
        self._topic = topic
        self._timeout = timeout
        self._needs_object = first_shows_object
        self._changed = threading.Condition()
        self._sent_stamp = -1
        self._seen_stamp, self._seen_object = -1, False
        self._ended = False
        self.missed = 0
        """Masks that did not come in time."""
        node.create_subscription(Image, topic, self._on_mask, QUEUE_DEPTH)

    def end(self) -> None:
        """Let whoever waits go on."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def send(self, stamp: int) -> None:
        """The image of this stamp (ns) goes out next. Where stamps go back, masks of before count
        no more.
        """
        with self._changed:
            if stamp < self._sent_stamp:
                self._seen_stamp, self._seen_object = -1, False
            self._sent_stamp = stamp

    def wait(self, stamp: int) -> float:
        """Wait for the mask of the image of this stamp (ns); returns the seconds that it took."""
        needs_object, self._needs_object = self._needs_object, False
        started = time.monotonic()
        seen = self._seen(stamp, needs_object=needs_object)
        with self._changed:
            in_time = self._changed.wait_for(seen, self._timeout)
        if not in_time:
            self.missed += 1
            self._limiter.say(
                "missed",
                f"no mask of stamp {stamp} on {self._topic} within {self._timeout:g} s; going on",
            )
        return time.monotonic() - started

    def _seen(self, stamp: int, *, needs_object: bool) -> Callable[[], bool]:
        def seen() -> bool:
            if self._ended:
                return True
            return self._seen_stamp >= stamp and (self._seen_object or not needs_object)

        return seen

    def _on_mask(self, message: Image) -> None:
        try:
            stamp = stamp_of(message.header.stamp)
        except StampRangeError:
            return  # it answers no image
        shows_object = bool(np.frombuffer(message.data, np.uint8).any())
        with self._changed:
            if self._seen_stamp <= stamp <= self._sent_stamp:
                self._seen_stamp, self._seen_object = stamp, shows_object
            self._changed.notify_all()

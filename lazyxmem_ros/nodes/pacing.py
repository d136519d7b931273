# SPDX-License-Identifier: Apache-2.0
"""A subscription that a flood of messages cannot keep a node busy with."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message

from lazyxmem_ros.nodes.offers import unheard
from lazyxmem_ros.nodes.timers import create_steady_timer, end_timer

MessageT = TypeVar("MessageT")

READ_RATE = 40.0
"""Messages per second of steady time that are read for long: more than any camera's frames."""
READ_BURST = 64
"""Messages that are read at once where there were few before, as one for each of 64 objects."""
LOOK_PERIOD_S = 1.0
"""How often the topic's publishers are looked at."""
PAUSE_S = 0.04
"""Beyond that the topic is looked at so rarely; the middleware keeps what comes meanwhile."""


class _Gate(CallbackGroup):
    """Lets the executor see a subscription, or not."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = True

    def can_execute(self, entity: Any) -> bool:
        return self.is_open

    def beginning_execution(self, entity: Any) -> bool:
        return True

    def ending_execution(self, entity: Any) -> None:
        pass


class PacedSubscription(Generic[MessageT]):
    """Reads READ_RATE messages a second, READ_BURST at a time; of more than that the newest.

    To take a message out of the middleware costs the executor more than to read it does. So beyond
    these numbers the topic is looked at only every PAUSE_S, and what waits is taken at once.
    """

    def __init__(
        self,
        node: Node,
        message_type: type[MessageT],
        topic: str,
        callback: Callable[[MessageT], None],
        *,
        depth: int,
        on_left_out: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """callback(message): runs in the executor's thread. depth: of the middleware's queue.

        on_left_out(kind, fault): told of each message that was not read, or is none, and once of
        publishers whose messages do not arrive.
        """
        self._node = node
        self._type = message_type
        self._callback = callback
        self._on_left_out = on_left_out
        self._clock = clock
        self._allowed, self._counted_at = float(READ_BURST), clock()
        self._held: bytes | None = None
        """The newest message, where none may be read for now."""
        self._gate = _Gate()
        self._subscription = node.create_subscription(
            message_type,
            topic,
            self._on_message,
            QoSProfile(depth=depth),
            callback_group=self._gate,
            raw=True,
        )
        self._timer = create_steady_timer(node, PAUSE_S, self._end_pause)
        self._timer.cancel()
        self._unheard = ""
        self._look = create_steady_timer(node, LOOK_PERIOD_S, self._look_for_unheard)

    def close(self) -> None:
        """Stop listening."""
        end_timer(self._node, self._look)
        end_timer(self._node, self._timer)
        self._node.destroy_subscription(self._subscription)

    def _look_for_unheard(self) -> None:
        subscription = self._subscription
        found = unheard(self._node, subscription.topic_name, self._type, subscription.qos_profile)
        if found and found != self._unheard:
            self._on_left_out("not heard", found)
        self._unheard = found

    def _on_message(self, data: bytes) -> None:
        self._read_newest([data])

    def _end_pause(self) -> None:
        self._timer.cancel()
        self._gate.is_open = True
        if self._held is not None:
            self._read_newest([])

    def _read_newest(self, waiting: list[bytes]) -> None:
        """Reads as many as may be read, the newest; begins a pause where no more may."""
        now = self._clock()
        self._allowed = min(self._allowed + READ_RATE * (now - self._counted_at), READ_BURST)
        self._counted_at = now
        if self._held is not None:
            waiting.insert(0, self._held)
            self._held = None
        if self._allowed < len(waiting) + 1:
            waiting += self._take_all()
        count = min(int(self._allowed), len(waiting))
        self._allowed -= count
        read = waiting[len(waiting) - count :]
        left = waiting[: len(waiting) - count]
        if not read:
            self._held = left.pop()
        for _ in left:
            self._on_left_out("too busy", f"more than {READ_RATE:g} messages come in a second")
        if self._allowed < 1:
            self._gate.is_open = False
            self._timer.reset()
        for data in read:
            self._read(data)

    def _take_all(self) -> list[bytes]:
        """All that the middleware holds, oldest first."""
        taken: list[bytes] = []
        with self._subscription.handle:
            while (found := self._subscription.handle.take_message(self._type, True)) is not None:
                taken.append(found[0])
        return taken

    def _read(self, data: bytes) -> None:
        try:
            message = deserialize_message(data, self._type)
        except Exception as error:  # noqa: BLE001 - rclpy's own error has no public name
            self._on_left_out("no message", f"what came is no {self._type.__name__}: {error}")
            return
        self._callback(message)

# SPDX-License-Identifier: Apache-2.0
"""Timers of steady time: they go on where the ROS clock stands still, as in a paused recording."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.timer import Timer


def create_steady_timer(
    node: Node, period: float, callback: Callable[[], Any], **options: Any
) -> Timer:
    """A timer of the node's, every `period` seconds. options: those of Node.create_timer."""
    clock = Clock(clock_type=ClockType.STEADY_TIME)
    return node.create_timer(period, callback, clock=clock, **options)


def end_timer(node: Node, timer: Timer) -> None:
    """End a timer of the node's, and let go of what its callback holds.

    Where it has just become due rclpy keeps the timer until Python looks for circles: in the
    traceback of the error by which the executor finds that it has ended.
    """
    node.destroy_timer(timer)
    timer.callback = _nothing


def _nothing() -> None:
    """What an ended timer does."""

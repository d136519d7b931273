# SPDX-License-Identifier: Apache-2.0
"""A node's log as functions that are handed on.

rclpy lets every place in the code log at one severity alone, and raises ValueError at another. So
what is handed on must be a place of its own, and not a logger's method, which logs at the place of
whoever calls it.
"""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node

Log = Callable[[str], None]


def info_of(node: Node) -> Log:
    """Logs a text as INFO."""

    def say(text: str) -> None:
        node.get_logger().info(text)

    return say


def warning_of(node: Node) -> Log:
    """Logs a text as WARN."""

    def say(text: str) -> None:
        node.get_logger().warning(text)

    return say


def error_of(node: Node) -> Log:
    """Logs a text as ERROR."""

    def say(text: str) -> None:
        node.get_logger().error(text)

    return say

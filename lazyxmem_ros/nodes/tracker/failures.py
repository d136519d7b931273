# SPDX-License-Identifier: Apache-2.0
"""What becomes of what goes wrong: it is counted, logged at a bearable pace, and put in words."""

from __future__ import annotations

from concurrent.futures import CancelledError

from rclpy.node import Node

from lazyxmem_ros.nodes.diagnostics import LogLimiter, fault_kind, traced
from lazyxmem_ros.nodes.logs import error_of
from lazyxmem_ros.nodes.services import SHUTTING_DOWN
from lazyxmem_ros.nodes.tracker.diagnostics import TrackerMeasures


class Failures:
    """Takes refusals and failures of the tracker's node, from any thread."""

    def __init__(self, node: Node, measures: TrackerMeasures) -> None:
        self._node = node
        self._limiter = LogLimiter(error_of(node))
        self.measures = measures

    def report(self, error: BaseException) -> None:
        """Something failed though nothing was wrong with it."""
        if not self._node.context.ok():
            return  # the middleware went away under a frame that was being published
        self.measures.count("failed")
        self.measures.last_failure = f"{type(error).__name__}: {error}"
        self._limiter.say(
            type(error).__name__, f"left out, because it failed: {error}\n{traced(error)}"
        )

    def explain(self, source: str, error: BaseException) -> str:
        """Reports what went wrong with a message or call of `source`; returns it in words."""
        if isinstance(error, CancelledError):
            return SHUTTING_DOWN
        if isinstance(error, ValueError):
            # Every refusal is one: of the image, the prompt, the session, the tracker.
            self.measures.refuse(source, fault_kind(error), str(error))
            return str(error)
        self.report(error)
        return f"{type(error).__name__}: {error}"

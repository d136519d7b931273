# SPDX-License-Identifier: Apache-2.0
"""Asks the `correct_mask` service for masks: asynchronously, with a deadline, and survives it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import Image, RegionOfInterest

from lazyxmem_ros.basics import BoolMask
from lazyxmem_ros.nodes.conversions import (
    ImageError,
    mask_message,
    point_messages,
    read_mask,
    region_message,
)
from lazyxmem_ros.nodes.diagnostics import Counts, Latencies
from lazyxmem_ros.nodes.services import SHUTTING_DOWN
from lazyxmem_ros.nodes.timers import create_steady_timer
from lazyxmem_ros.srv import CorrectMask

DEADLINE_CHECK_PERIOD_S = 0.05


@dataclass(frozen=True)
class CorrectionAnswer:
    """What became of one request: a mask bool [H, W], or None and the reason."""

    mask: BoolMask | None
    score: float
    corrector: str
    fault: str = ""


@dataclass(frozen=True)
class CorrectionPrompt:
    """What the service gets beside the image.

    positive [P, 2] and negative [N, 2]: clicks (x, y); box: (x0, y0, x1, y1), half-open, or None;
    prior: rough mask bool [H, W], or None; prior_iou: its expected overlap with the truth, or None.
    """

    positive: NDArray[np.float32]
    negative: NDArray[np.float32]
    box: tuple[int, int, int, int] | None = None
    prior: BoolMask | None = None
    prior_iou: float | None = None


AnswerCallback = Callable[[CorrectionAnswer], None]


@dataclass
class _Pending:
    sent_at: float
    deadline: float
    size: tuple[int, int]
    on_answer: AnswerCallback


class CorrectionClient:
    """A client of `correct_mask` whose every request is answered: by a mask or by a reason.

    A service that is absent, late or failing costs the request it did not serve, nothing else;
    the next request tries again, so a service that comes back is used again.
    """

    def __init__(self, node: Node, *, service: str = "correct_mask") -> None:
        """counts: requests, answered, failed, unavailable, timed_out; latencies of the answered."""
        self._node = node
        self._client = node.create_client(CorrectMask, service)
        self._pending: dict[Future[Any], _Pending] = {}
        self._closed = False
        self.counts = Counts()
        self.latencies = Latencies()
        self.last_fault = ""
        # Steady time: a service that hangs must be noticed even where the ROS clock stands still.
        self._timer = create_steady_timer(node, DEADLINE_CHECK_PERIOD_S, self._expire)

    @property
    def service_name(self) -> str:
        """The service's name after remapping."""
        return str(self._client.srv_name)

    def is_available(self) -> bool:
        """Whether a server is there now."""
        return bool(self._client.service_is_ready())

    def request(
        self, image: Image, prompt: CorrectionPrompt, *, timeout: float, on_answer: AnswerCallback
    ) -> None:
        """Send a request; on_answer is called once, in the executor's thread.

        timeout: seconds of steady time until the answer counts as missing. To be called in the
        executor's thread.
        """
        self.counts.add("requests")
        if self._closed:
            self._fail(on_answer, "failed", SHUTTING_DOWN)
            return
        if not self.is_available():
            self._fail(on_answer, "unavailable", f"service {self.service_name} is not there")
            return
        size = (image.height, image.width)
        request = CorrectMask.Request(
            image=image,
            prior=Image() if prompt.prior is None else mask_message(prompt.prior, image.header),
            prior_iou=prompt.prior_iou or 0.0,
            positive=point_messages(prompt.positive),
            negative=point_messages(prompt.negative),
            has_box=prompt.box is not None,
            box=RegionOfInterest() if prompt.box is None else region_message(prompt.box),
        )
        now = time.monotonic()
        future = self._client.call_async(request)
        self._pending[future] = _Pending(now, now + timeout, size, on_answer)
        future.add_done_callback(self._on_done)

    def close(self) -> None:
        """Answer what is pending with a fault and leave the graph."""
        self._closed = True
        while self._pending:
            future, pending = self._pending.popitem()
            self._client.remove_pending_request(future)
            self._fail(pending.on_answer, "failed", SHUTTING_DOWN)
        self._node.destroy_timer(self._timer)
        self._node.destroy_client(self._client)

    def _on_done(self, future: Future[Any]) -> None:
        pending = self._pending.pop(future, None)
        if pending is None:
            return
        error = future.exception()
        if error is not None:
            self._fail(pending.on_answer, "failed", f"service {self.service_name}: {error}")
            return
        response = future.result()
        if response is None:
            self._fail(pending.on_answer, "failed", f"service {self.service_name} was cancelled")
            return
        if not response.success:
            name = response.corrector or self.service_name
            self._fail(pending.on_answer, "failed", f"{name}: {response.message}")
            return
        try:
            mask = read_mask(response.mask)
        except ImageError as error:
            self._fail(
                pending.on_answer, "failed", f"{self.service_name} sent a broken mask: {error}"
            )
            return
        if mask.shape != pending.size:
            self._fail(
                pending.on_answer,
                "failed",
                f"{self.service_name} sent a mask of {mask.shape[1]}x{mask.shape[0]} "
                f"for an image of {pending.size[1]}x{pending.size[0]}",
            )
            return
        self.counts.add("answered")
        self.last_fault = ""
        self.latencies.add(time.monotonic() - pending.sent_at)
        pending.on_answer(CorrectionAnswer(mask, float(response.score), response.corrector))

    def _expire(self) -> None:
        now = time.monotonic()
        for future, pending in list(self._pending.items()):
            if now < pending.deadline:
                continue
            del self._pending[future]
            self._client.remove_pending_request(future)
            seconds = pending.deadline - pending.sent_at
            self._fail(
                pending.on_answer,
                "timed_out",
                f"service {self.service_name} did not answer within {seconds:g} s",
            )

    def _fail(self, on_answer: AnswerCallback, kind: str, fault: str) -> None:
        self.counts.add(kind)
        self.last_fault = fault
        on_answer(CorrectionAnswer(None, 0.0, "", fault))

# SPDX-License-Identifier: Apache-2.0
"""Asks the `correct_mask` service for masks: asynchronously, with a deadline, and survives it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import Image

from lazyxmem_ros.basics import BoolMask, reason_of
from lazyxmem_ros.correction.base import Prompt
from lazyxmem_ros.nodes.conversions import read_mask
from lazyxmem_ros.nodes.diagnostics import Counts, Latencies
from lazyxmem_ros.nodes.prompts import MAX_PROMPTS, UNKNOWN_IOU, prompt_message
from lazyxmem_ros.nodes.services import CALLS, SHUTTING_DOWN
from lazyxmem_ros.nodes.timers import create_steady_timer, end_timer
from lazyxmem_ros.srv import CorrectMask

DEADLINE_CHECK_PERIOD_S = 0.05
MAX_PENDING = 32
"""Requests that may wait for answers, however long each of them may: more are refused."""


@dataclass(frozen=True)
class CorrectionAnswer:
    """What became of one prompt: a mask bool [H, W], or None and the reason."""

    mask: BoolMask | None
    score: float
    corrector: str
    fault: str = ""


@dataclass
class ServiceMeasures:
    """How the correction service fares.

    counts: prompts by what became of them (requests: all of them; answered, failed, unavailable,
    timed_out, refused: too many waited). latencies: of the requests that were answered.
    last_fault: in words; "" where the last request had none.
    """

    counts: Counts = field(default_factory=Counts)
    latencies: Latencies = field(default_factory=Latencies)
    last_fault: str = ""


AnswersCallback = Callable[[Sequence[CorrectionAnswer]], None]
"""Gets one answer per prompt, in their order."""


@dataclass
class _Pending:
    sent_at: float
    deadline: float
    size: tuple[int, int]
    prompts: int
    on_answers: AnswersCallback


class CorrectionClient:
    """A client of `correct_mask` whose every prompt is answered: by a mask or by a reason.

    A service that is absent, late or failing costs the request it did not serve, nothing else;
    the next request tries again, so a service that comes back is used again.
    """

    def __init__(self, node: Node, *, service: str = "correct_mask") -> None:
        self._node = node
        self._client = node.create_client(CorrectMask, service, qos_profile=CALLS)
        self._pending: dict[Future[Any], _Pending] = {}
        self._closed = False
        self.measures = ServiceMeasures()
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
        self,
        image: Image,
        prompts: Sequence[Prompt],
        *,
        timeout: float,
        on_answers: AnswersCallback,
    ) -> None:
        """Ask for one mask per prompt, in as few requests as may be; on_answers is called once, in
        the executor's thread.

        timeout: seconds of steady time until the answers count as missing. To be called in the
        executor's thread.
        """
        parts = [prompts[i : i + MAX_PROMPTS] for i in range(0, len(prompts), MAX_PROMPTS)]
        parts = parts or [prompts]
        answered: dict[int, Sequence[CorrectionAnswer]] = {}

        def take(number: int, answers: Sequence[CorrectionAnswer]) -> None:
            answered[number] = answers
            if len(answered) == len(parts):
                on_answers([answer for i in range(len(parts)) for answer in answered[i]])

        for number, part in enumerate(parts):
            self._request(image, part, timeout=timeout, on_answers=partial(take, number))

    def _request(
        self,
        image: Image,
        prompts: Sequence[Prompt],
        *,
        timeout: float,
        on_answers: AnswersCallback,
    ) -> None:
        """One request."""
        self.measures.counts.add("requests", len(prompts))
        now = time.monotonic()
        pending = _Pending(
            now, now + timeout, (image.height, image.width), len(prompts), on_answers
        )
        if self._closed:
            self._fail(pending, "failed", SHUTTING_DOWN)
            return
        if len(self._pending) >= MAX_PENDING:
            fault = f"service {self.service_name} has {MAX_PENDING} requests to answer already"
            self._fail(pending, "refused", fault)
            return
        if not self.is_available():
            self._fail(pending, "unavailable", f"service {self.service_name} is not there")
            return
        try:
            request = CorrectMask.Request(
                image=image,
                prompts=[prompt_message(prompt, image.header) for prompt in prompts],
                prior_ious=[prompt.prior_iou or UNKNOWN_IOU for prompt in prompts],
            )
            future = self._client.call_async(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for answers
            fault = f"service {self.service_name} cannot be asked: {reason_of(error)}"
            self._fail(pending, "failed", fault)
            return
        self._pending[future] = pending
        future.add_done_callback(self._on_done)

    def close(self) -> None:
        """Answer what is pending with a fault and leave the graph."""
        self._closed = True
        while self._pending:
            future, pending = self._pending.popitem()
            self._client.remove_pending_request(future)
            self._fail(pending, "failed", SHUTTING_DOWN)
        end_timer(self._node, self._timer)
        self._node.destroy_client(self._client)

    def _on_done(self, future: Future[Any]) -> None:
        pending = self._pending.pop(future, None)
        if pending is None:
            return
        error = future.exception()
        if error is not None:
            self._fail(pending, "failed", f"service {self.service_name}: {error}")
            return
        response = future.result()
        if response is None:
            self._fail(pending, "failed", f"service {self.service_name} was cancelled")
            return
        if not response.success and not response.masks:
            self._fail(pending, "failed", self._named(response, response.message))
            return
        lengths = {len(response.faults), len(response.masks), len(response.scores)}
        if lengths != {pending.prompts}:
            fault = f"sent {len(response.masks)} masks for {pending.prompts} prompts"
            self._fail(pending, "failed", f"{self.service_name} {fault}")
            return
        self.measures.latencies.add(time.monotonic() - pending.sent_at)
        answers = self._answers(response, pending.size)
        self.measures.last_fault = next((answer.fault for answer in answers if answer.fault), "")
        for answer in answers:
            self.measures.counts.add("failed" if answer.mask is None else "answered")
        pending.on_answers(answers)

    def _answers(
        self, response: CorrectMask.Response, size: tuple[int, int]
    ) -> list[CorrectionAnswer]:
        """What became of each prompt, by a response with an entry for each."""
        answers = []
        for fault, message, score in zip(
            response.faults, response.masks, response.scores, strict=True
        ):
            mask = None
            if fault:
                fault = self._named(response, fault)
            else:
                mask, fault = self._mask_of(message, size)
            if mask is not None and not math.isfinite(score):
                mask, fault = None, f"{self.service_name} sent a score of {score}: it is 0 to 1"
            answers.append(CorrectionAnswer(mask, float(score), response.corrector, fault))
        return answers

    def _mask_of(self, message: Image, size: tuple[int, int]) -> tuple[BoolMask | None, str]:
        """A mask bool [H, W] of this size, or None and why it is none."""
        try:
            mask = read_mask(message, size)
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for answers
            return None, f"{self.service_name} sent a broken mask: {reason_of(error)}"
        if mask.shape != size:
            return None, (
                f"{self.service_name} sent a mask of {mask.shape[1]}x{mask.shape[0]} "
                f"for an image of {size[1]}x{size[0]}"
            )
        return mask, ""

    def _named(self, response: CorrectMask.Response, fault: str) -> str:
        return f"{response.corrector or self.service_name}: {fault}"

    def _expire(self) -> None:
        now = time.monotonic()
        for future, pending in list(self._pending.items()):
            if now < pending.deadline:
                continue
            del self._pending[future]
            self._client.remove_pending_request(future)
            seconds = pending.deadline - pending.sent_at
            self._fail(
                pending,
                "timed_out",
                f"service {self.service_name} did not answer within {seconds:g} s",
            )

    def _fail(self, pending: _Pending, kind: str, fault: str) -> None:
        """There is an answer to none of the prompts."""
        self.measures.counts.add(kind, pending.prompts)
        self.measures.last_fault = fault
        pending.on_answers([CorrectionAnswer(None, 0.0, "", fault)] * pending.prompts)

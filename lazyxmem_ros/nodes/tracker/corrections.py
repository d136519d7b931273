# SPDX-License-Identifier: Apache-2.0
"""Corrections on their way: asked of the service or of a person, answered, handed to the worker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Header

from lazyxmem_ros import msg
from lazyxmem_ros.basics import SECOND, BoolMask, Labels, stamp_of
from lazyxmem_ros.correction.base import Prompt, PromptError, objection
from lazyxmem_ros.nodes.conversions import ImageError, time_message
from lazyxmem_ros.nodes.diagnostics import Counts, Refusals
from lazyxmem_ros.nodes.prompts import read_prompt
from lazyxmem_ros.nodes.tracker.corrector_client import (
    AnswersCallback,
    CorrectionAnswer,
    CorrectionClient,
)
from lazyxmem_ros.nodes.tracker.frames import FrameHistory, ReceivedFrame
from lazyxmem_ros.nodes.tracker.publishers import TrackerOutputs
from lazyxmem_ros.nodes.tracker.session_types import InputRefusedError, SessionCorrection
from lazyxmem_ros.nodes.tracker.worker import Worker

if TYPE_CHECKING:
    from lazyxmem_ros.lazy import Outcome, Request, Source
    from lazyxmem_ros.nodes.tracker.session import TrackingSession

QUEUE_DEPTH = 10
NO_DEADLINE = 0


@dataclass(frozen=True)
class _OpenRequest:
    """deadline: ROS time in nanoseconds, or NO_DEADLINE. mask: bool [H, W], what is asked about,
    and its predicted IoU.
    """

    deadline: int
    frame: ReceivedFrame
    mask: BoolMask
    predicted_iou: float | None

    def is_over(self, now: int) -> bool:
        return self.deadline != NO_DEADLINE and now > self.deadline


class Corrections:
    """Everything between a request for help and the mask that answers it.

    Requests come from the worker's thread, answers arrive in the executor's.
    """

    def __init__(
        self,
        node: Node,
        *,
        client: CorrectionClient,
        worker: Worker[ReceivedFrame],
        history: FrameHistory,
        outputs: TrackerOutputs,
        counts: Counts,
        refusals: Refusals,
        setting: Callable[[str], Any],
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        """post(function): run it in the executor's thread. setting(name): a parameter's value."""
        self._node = node
        self._client = client
        self._worker = worker
        self._history = history
        self._outputs = outputs
        self._counts = counts
        self._refusals = refusals
        self._setting = setting
        self._post = post
        self._session: TrackingSession | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._open: dict[tuple[int, int], _OpenRequest] = {}
        self._topic = node.resolve_topic_name("~/operator_correction")
        self._subscription = node.create_subscription(
            msg.Correction,
            "~/operator_correction",
            self._on_operator_correction,
            QoSProfile(depth=QUEUE_DEPTH),
        )

    def attach(self, session: TrackingSession) -> None:
        """The session that answers go to."""
        self._session = session

    def close(self) -> None:
        """Stop listening, and forget what is open and under way."""
        self._closed = True
        self._node.destroy_subscription(self._subscription)
        self.forget_requests()

    def forget_requests(self, object_ids: Collection[int] | None = None) -> None:
        """Forget what people were asked, of all objects or of these."""
        with self._lock:
            self._open = {
                (stamp, object_id): opened
                for (stamp, object_id), opened in self._open.items()
                if object_ids is not None and object_id not in object_ids
            }

    def open_requests(self) -> int:
        """Requests to a person that are neither answered nor past their deadline."""
        now = self._now()
        with self._lock:
            # Those that are over stay while their frames can be named: a late answer is refused.
            self._open = {
                (stamp, object_id): opened
                for (stamp, object_id), opened in self._open.items()
                if not opened.is_over(now) or self._history.find(stamp) is not None
            }
            return sum(not opened.is_over(now) for opened in self._open.values())

    # ---- asking, in the worker's thread

    def ask_corrector(self, frame: ReceivedFrame, requests: Sequence[Request]) -> None:
        """Have the service refine objects of this frame by the tracker's own prompts."""
        from lazyxmem_ros.lazy import Source

        self._counts.add("pseudo requested", len(requests))
        prompts = {request.object_id: request.prompt for request in requests}
        self._post(lambda: self._refine(frame, prompts, Source.PSEUDO))

    def ask_operator(self, frame: ReceivedFrame, request: Request) -> None:
        """Publish a request to a person; it is open until the answer or the deadline."""
        self._counts.add("operator requested")
        # ROS time: a recording that is paused, or played slowly, gives a person the time it shows.
        timeout = round(self._setting("request_timeout") * SECOND)
        deadline = self._now() + timeout if timeout else NO_DEADLINE
        with self._lock:
            self._open[frame.stamp, request.object_id] = _OpenRequest(
                deadline, frame, request.mask, request.prompt.prior_iou
            )
        self._outputs.publish_request(frame, request, deadline)

    def publish_correction(
        self, frame: ReceivedFrame | None, correction: SessionCorrection, outcome: Outcome
    ) -> None:
        """Publish and count what became of a correction."""
        name = correction.source.value
        self._counts.add(f"{name} {'applied' if outcome.applied else 'not applied'}")
        if outcome.applied and name == "operator":
            with self._lock:
                self._open.pop((correction.stamp, correction.object_id), None)
        if not outcome.applied:
            topic = self._topic if name == "operator" else self._client.service_name
            self._refusals.refuse(topic, "not applied", outcome.reason)
        header = self._header(correction.stamp) if frame is None else frame.header
        self._outputs.publish_corrected(
            header,
            correction.object_id,
            correction.mask,
            source=name,
            applied=outcome.applied,
            reason=outcome.reason,
        )

    # ---- answers, in the executor's thread

    def refine(
        self,
        frame: ReceivedFrame,
        prompts: Sequence[Prompt],
        on_answers: AnswersCallback,
    ) -> None:
        """Ask the service for one mask per prompt, all of this frame, in one request.

        on_answers always comes, in the executor's thread.
        """
        try:
            image = frame.image_message()
        except ImageError as error:
            on_answers([CorrectionAnswer(None, 0.0, "", str(error))] * len(prompts))
            return
        timeout = self._setting("correction_timeout")
        self._client.request(image, prompts, timeout=timeout, on_answers=on_answers)

    def _refine(self, frame: ReceivedFrame, prompts: Mapping[int, Prompt], source: Source) -> None:
        """Have objects {id: prompt} refined; each one's answer is applied on its own."""

        def on_answers(answers: Sequence[CorrectionAnswer]) -> None:
            if self._closed:
                return  # there is nobody left to be told
            for (object_id, prompt), answer in zip(prompts.items(), answers, strict=True):
                self._take(frame, object_id, prompt, answer, source)

        self.refine(frame, list(prompts.values()), on_answers)

    def _take(
        self,
        frame: ReceivedFrame,
        object_id: int,
        prompt: Prompt,
        answer: CorrectionAnswer,
        source: Source,
    ) -> None:
        from lazyxmem_ros.lazy import Source

        if answer.mask is None:
            self._fail(frame, object_id, source, answer.fault)
        elif source is Source.PSEUDO and (reason := objection(answer.score, prompt.prior_iou)):
            self._counts.add("pseudo declined")
            self._give_up(frame.header, object_id, source, reason)
        else:
            self._apply(frame.stamp, object_id, answer.mask, source)

    def _apply(self, stamp: int, object_id: int, mask: BoolMask, source: Source) -> None:
        session = self._session
        assert session is not None
        correction = SessionCorrection(stamp, object_id, mask, source)
        self._worker.post(lambda: session.apply(correction))

    def _fail(self, frame: ReceivedFrame, object_id: int, source: Source, fault: str) -> None:
        """The service gave no mask: the correction is lost, nothing else."""
        self._counts.add(f"{source.value} failed")
        self._refusals.refuse(self._client.service_name, "no mask", fault)
        self._give_up(frame.header, object_id, source, fault)

    def _decline(self, message: msg.Correction, *, asked: bool) -> None:
        """A person has nothing to correct; asked: they have been asked about this frame."""
        from lazyxmem_ros.lazy import Source

        self._counts.add("operator declined")
        session, object_id = self._session, message.id
        assert session is not None
        if asked:
            with self._lock:
                self._open.pop((stamp_of(message.header.stamp), object_id), None)
            self._worker.post(lambda: session.dismiss(object_id))
        self._give_up(message.header, object_id, Source.OPERATOR, message.message)

    def _give_up(self, header: Header, object_id: int, source: Source, reason: str) -> None:
        """There will be no mask: the frame waits no longer, and whoever listens is told why."""
        session = self._session
        assert session is not None
        stamp = stamp_of(header.stamp)
        self._worker.post(lambda: session.give_up(stamp, object_id, source))
        self._outputs.publish_corrected(
            header, object_id, None, source=source.value, applied=False, reason=reason
        )

    # ---- a person's answers

    def _on_operator_correction(self, message: msg.Correction) -> None:
        from lazyxmem_ros.lazy import Source

        self._counts.add("operator received")
        stamp = stamp_of(message.header.stamp)
        try:
            frame, opened = self._frame_for(stamp, message.id)
            labels = self._labels_answered(message, frame, opened)
            height, width = labels.shape
            prompt = read_prompt(message.prompt, (height, width))
            if prompt.is_empty and not message.message:
                raise PromptError("the correction has neither a click nor a box nor a mask")
        except (InputRefusedError, PromptError, ImageError) as error:
            self._refusals.refuse(self._topic, "correction", str(error))
            # Of no use, but another answer may come.
            self._give_up(message.header, message.id, Source.OPERATOR, str(error))
            return
        if prompt.is_empty:
            self._decline(message, asked=opened is not None)
        elif prompt.is_only_mask:
            assert prompt.mask is not None
            self._apply(stamp, message.id, prompt.mask, Source.OPERATOR)
        else:
            # Whoever was asked has seen the request's mask; the frame's may have changed since.
            seen = labels == message.id if opened is None else opened.mask
            prompt = prompt.about(seen, None if opened is None else opened.predicted_iou)
            self._refine(frame, {message.id: prompt}, Source.OPERATOR)

    def _frame_for(self, stamp: int, object_id: int) -> tuple[ReceivedFrame, _OpenRequest | None]:
        with self._lock:
            opened = self._open.get((stamp, object_id))
        if stamp == 0:
            fault = "the correction names no frame: its header has no stamp"
            raise InputRefusedError("no stamp", fault)
        frame = opened.frame if opened else self._history.find(stamp)
        if frame is None:
            fault = f"there is no recent frame of stamp {stamp} ns"
            raise InputRefusedError("forgotten stamp", fault)
        return frame, opened

    def _labels_answered(
        self, message: msg.Correction, frame: ReceivedFrame, opened: _OpenRequest | None
    ) -> Labels:
        """The label map of the frame that an answer is about; raises InputRefusedError."""
        known = self._session.object_ids if self._session is not None else ()
        if message.id not in known:
            tracked = ", ".join(str(i) for i in known) or "none"
            fault = f"object {message.id} is not tracked; there is {tracked}"
            raise InputRefusedError("unknown object", fault)
        if opened is not None and opened.is_over(self._now()):
            late = (self._now() - opened.deadline) / SECOND
            fault = f"the answer for object {message.id} came {late:.1f} s too late"
            raise InputRefusedError("too late", fault)
        if frame.labels is None:
            fault = f"the frame of stamp {frame.stamp} ns was not tracked"
            raise InputRefusedError("not tracked", fault)
        return frame.labels

    # ---- how

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    @staticmethod
    def _header(stamp: int) -> Header:
        return Header(stamp=time_message(stamp))

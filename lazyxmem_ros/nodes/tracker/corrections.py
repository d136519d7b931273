# SPDX-License-Identifier: Apache-2.0
"""Corrections on their way: asked of the service or of a person, answered, handed to the worker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Header

from lazyxmem_ros import msg
from lazyxmem_ros.basics import SECOND, BoolMask, stamp_of
from lazyxmem_ros.nodes.conversions import (
    ImageError,
    is_empty,
    read_mask,
    read_points,
    read_region,
    time_message,
)
from lazyxmem_ros.nodes.diagnostics import Counts, Refusals
from lazyxmem_ros.nodes.tracker.corrector_client import (
    CorrectionAnswer,
    CorrectionClient,
    CorrectionPrompt,
)
from lazyxmem_ros.nodes.tracker.frames import FrameHistory, ReceivedFrame
from lazyxmem_ros.nodes.tracker.publishers import TrackerOutputs
from lazyxmem_ros.nodes.tracker.session_types import SessionCorrection
from lazyxmem_ros.nodes.tracker.worker import Worker

if TYPE_CHECKING:
    from lazyxmem_ros.correction.base import Prompt
    from lazyxmem_ros.lazy import Outcome, Request, Source
    from lazyxmem_ros.nodes.tracker.session import TrackingSession

QUEUE_DEPTH = 10
NO_DEADLINE = 0


class PromptFault(ValueError):  # noqa: N818 - it is the fault, not an error of the program
    """Clicks, a box or a mask that do not fit the frame; the text says what is wrong."""


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

    def ask_corrector(self, frame: ReceivedFrame, request: Request) -> None:
        """Have the service refine an object of this frame by the tracker's own prompt."""
        from lazyxmem_ros.lazy import Source

        self._counts.add("pseudo requested")
        prompt = service_prompt(request.prompt)

        def send() -> None:
            self._refine(frame, request.object_id, prompt, Source.PSEUDO)

        self._post(send)

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
        prompt: CorrectionPrompt,
        on_answer: Callable[[CorrectionAnswer], None],
    ) -> None:
        """Ask the service for one mask; on_answer always comes, in the executor's thread."""
        try:
            image = frame.image_message()
        except ImageError as error:
            on_answer(CorrectionAnswer(None, 0.0, "", str(error)))
            return
        timeout = self._setting("correction_timeout")
        self._client.request(image, prompt, timeout=timeout, on_answer=on_answer)

    def _refine(
        self, frame: ReceivedFrame, object_id: int, prompt: CorrectionPrompt, source: Source
    ) -> None:
        from lazyxmem_ros.correction.base import objection
        from lazyxmem_ros.lazy import Source

        def on_answer(answer: CorrectionAnswer) -> None:
            if self._closed:
                return  # there is nobody left to be told
            if answer.mask is None:
                self._fail(frame, object_id, source, answer.fault)
            elif source is Source.PSEUDO and (reason := objection(answer.score, prompt.prior_iou)):
                self._counts.add("pseudo declined")
                self._give_up(frame.header, object_id, source, reason)
            else:
                self._apply(frame.stamp, object_id, answer.mask, source)

        self.refine(frame, prompt, on_answer)

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
            self._check_answer(message, frame, opened)
            if message.message and is_bare(message):
                self._decline(message, asked=opened is not None)
                return
            prompt, mask = self._read_answer(message, frame, opened)
        except (PromptFault, ImageError) as error:
            self._refusals.refuse(self._topic, "correction", str(error))
            # Of no use, but another answer may come.
            self._give_up(message.header, message.id, Source.OPERATOR, str(error))
            return
        if mask is not None:
            self._apply(stamp, message.id, mask, Source.OPERATOR)
        else:
            assert prompt is not None
            self._refine(frame, message.id, prompt, Source.OPERATOR)

    def _frame_for(self, stamp: int, object_id: int) -> tuple[ReceivedFrame, _OpenRequest | None]:
        with self._lock:
            opened = self._open.get((stamp, object_id))
        if stamp == 0:
            raise PromptFault("the correction names no frame: its header has no stamp")
        frame = opened.frame if opened else self._history.find(stamp)
        if frame is None:
            raise PromptFault(f"there is no recent frame of stamp {stamp} ns")
        return frame, opened

    def _check_answer(
        self, message: msg.Correction, frame: ReceivedFrame, opened: _OpenRequest | None
    ) -> None:
        known = self._session.object_ids if self._session is not None else ()
        if message.id not in known:
            tracked = ", ".join(str(i) for i in known) or "none"
            raise PromptFault(f"object {message.id} is not tracked; there is {tracked}")
        if opened is not None and opened.is_over(self._now()):
            late = (self._now() - opened.deadline) / SECOND
            raise PromptFault(f"the answer for object {message.id} came {late:.1f} s too late")
        if frame.labels is None:
            raise PromptFault(f"the frame of stamp {frame.stamp} ns was not tracked")

    def _read_answer(
        self, message: msg.Correction, frame: ReceivedFrame, opened: _OpenRequest | None
    ) -> tuple[CorrectionPrompt | None, BoolMask | None]:
        """Either a prompt for the service or a mask to be used as it is."""
        assert frame.labels is not None
        size = (frame.labels.shape[0], frame.labels.shape[1])
        prompt = read_prompt(message, size)
        if prompt is None:
            raise PromptFault("the correction has neither a click nor a box nor a mask")
        only_mask = not len(prompt.positive) and not len(prompt.negative) and prompt.box is None
        if only_mask:
            return None, prompt.prior
        # A click says that something is wrong with the mask, a box that the object is in there:
        # a lost track's mask beside the box would only mislead.
        if prompt.prior is None and prompt.box is None:
            # Whoever was asked has seen the request's mask; the frame's may have changed since.
            prior = frame.labels == message.id if opened is None else opened.mask
            prior_iou = None if opened is None else opened.predicted_iou
            prompt = CorrectionPrompt(prompt.positive, prompt.negative, None, prior, prior_iou)
        return prompt, None

    # ---- how

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    @staticmethod
    def _header(stamp: int) -> Header:
        return Header(stamp=time_message(stamp))


def is_bare(message: msg.Correction) -> bool:
    """Whether a correction says nothing of where the object is."""
    points = len(message.positive) + len(message.negative)
    return not points and not message.has_box and is_empty(message.mask)


def service_prompt(prompt: Prompt) -> CorrectionPrompt:
    """A prompt of the core as the service's."""
    box = None
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box
        box = (int(x0), int(y0), int(np.ceil(x1)), int(np.ceil(y1)))
    return CorrectionPrompt(prompt.positive, prompt.negative, box, prompt.mask, prompt.prior_iou)


def read_prompt(
    message: msg.Correction | msg.NewObject, size: tuple[int, int]
) -> CorrectionPrompt | None:
    """Clicks, box and mask of a message for a frame of `size` (H, W); None where it has none.

    Raises PromptFault where something does not fit the frame, and ImageError for a broken mask.
    """
    height, width = size
    positive, negative = read_points(message.positive), read_points(message.negative)
    for x, y in [*positive, *negative]:
        if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
            raise PromptFault(
                f"point ({x:g}, {y:g}) lies outside the image of {width}x{height} pixels"
            )
    box = read_region(message.box) if message.has_box else None
    if box is not None and not (box[0] < box[2] <= width and box[1] < box[3] <= height):
        raise PromptFault(
            f"box x {box[0]}..{box[2]}, y {box[1]}..{box[3]} is empty or reaches beyond the image "
            f"of {width}x{height} pixels"
        )
    mask = None if is_empty(message.mask) else read_mask(message.mask)
    if mask is not None and mask.shape != size:
        raise PromptFault(
            f"the mask is {mask.shape[1]}x{mask.shape[0]}, the image {width}x{height} pixels"
        )
    if not len(positive) and not len(negative) and box is None and mask is None:
        return None
    return CorrectionPrompt(positive, negative, box, mask)

# SPDX-License-Identifier: Apache-2.0
"""Corrections: asked of the correction service and of people, answered, and handed to the tracker.

`CorrectionClient` asks the service: asynchronously, with a deadline, and survives it. `Corrections`
runs in the worker's thread like everything that touches the LazyTracker, which also registers what
is open. Answers come back as work of the worker.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lazyxmem_ros import msg
from lazyxmem_ros.basics import (
    SECOND,
    TAKEN_BACK,
    BoolMask,
    StampRangeError,
    reason_of,
    stamp_of,
)
from lazyxmem_ros.correction.base import Prompt, PromptError, objection
from lazyxmem_ros.images import ImageError
from lazyxmem_ros.lazy import Correction, LazyTracker, Outcome, Request, Source, StepResult
from lazyxmem_ros.nodes.conversions import image_message
from lazyxmem_ros.nodes.correction_client import (
    AnswersCallback,
    CorrectionAnswer,
    CorrectionClient,
)
from lazyxmem_ros.nodes.diagnostics import InputRefusedError
from lazyxmem_ros.nodes.pacing import READ_BURST, PacedSubscription
from lazyxmem_ros.nodes.prompts import read_prompt
from lazyxmem_ros.nodes.running import surviving
from lazyxmem_ros.nodes.services import Services, result_of
from lazyxmem_ros.nodes.tracker.diagnostics import TrackerMeasures
from lazyxmem_ros.nodes.tracker.failures import Failures
from lazyxmem_ros.nodes.tracker.publishers import TrackerOutputs
from lazyxmem_ros.nodes.tracker.received_frames import ReceivedFrame, ReceivedFrames, forgotten
from lazyxmem_ros.nodes.tracker.worker import About, NotDoneError, Worker
from lazyxmem_ros.srv import RetractCorrection

TOPIC = "~/operator_correction"
RETRACTION = "~/retract_correction"


class WorkerCorrectionClient(CorrectionClient):
    """The tracker's own client: the worker asks, and answers are work of the worker."""

    def __init__(
        self, node: Node, worker: Worker[ReceivedFrame], *, timeout: Callable[[], float]
    ) -> None:
        """timeout(): seconds of steady time until the answers of a request count as missing."""
        super().__init__(node)
        self._worker = worker
        self.timeout = timeout

    def ask(self, image: Image, prompts: Sequence[Prompt], on_answers: AnswersCallback) -> None:
        """Asks for one mask per prompt, in one request, from the worker's thread, in which
        on_answers is called once: also where the worker has no time for masks, with faults.
        """

        def pass_on(answers: Sequence[CorrectionAnswer]) -> None:
            def leave_out(reason: NotDoneError) -> None:
                on_answers([CorrectionAnswer(None, 0.0, "", str(reason)) for _ in answers])

            self._worker.post_work(lambda: on_answers(answers), on_left_out=leave_out)

        self._in_executor(
            lambda: self.request(image, prompts, timeout=self.timeout(), on_answers=pass_on)
        )

    def _in_executor(self, function: Callable[[], None]) -> None:
        executor = self._node.executor
        if executor is not None:
            executor.create_task(function)


@dataclass(eq=False)
class _Asked:
    """What the service was asked about a frame and has not answered: object id -> prompt."""

    header: Header
    source: Source
    prompts: dict[int, Prompt]


class Corrections:
    """Everything between a request for help and the mask that answers it."""

    def __init__(
        self,
        lazy: LazyTracker,
        received: ReceivedFrames,
        outputs: TrackerOutputs,
        client: WorkerCorrectionClient,
        measures: TrackerMeasures,
        *,
        topic: str,
        retraction_service: str,
    ) -> None:
        """topic: of people's answers; retraction_service: takes them back; both for messages."""
        self._client = client
        self._measures = measures
        self._topic = topic
        self._retraction_service = retraction_service
        self._lazy = lazy
        self._received = received
        self._outputs = outputs
        self._asked: list[_Asked] = []
        self.awaited: set[tuple[int, int]] = set()
        """Answers that the newest frame may wait for: (stamp, object id)."""
        self.open_requests = 0
        """Requests to a person that are open; for other threads to read."""

    # ---- asking

    def ask(self, frame: ReceivedFrame, result: StepResult) -> None:
        """Asks the service, in one request, and people for what a frame's result wants."""
        requests = result.requests
        self.awaited = {(frame.stamp, request.object_id) for request in requests}
        pseudo = [request for request in requests if request.source is Source.PSEUDO]
        if pseudo:
            self._measures.count("pseudo requested", len(pseudo))
            prompts = {request.object_id: request.prompt for request in pseudo}
            image = frame.image_message(pseudo[0].image)
            self._ask_corrector(image, prompts, Source.PSEUDO)
        to_people = [request for request in requests if request.source is Source.OPERATOR]
        uncertainty = result.uncertainty_map() if to_people else None
        for request in to_people:
            assert uncertainty is not None
            self._measures.count("operator requested")
            self._outputs.publish_request(frame.header, request, uncertainty)

    def _ask_corrector(self, image: Image, prompts: Mapping[int, Prompt], source: Source) -> None:
        """Has the service refine objects {id: prompt}; each answer is taken on its own."""
        asked = _Asked(image.header, source, dict(prompts))
        self._asked.append(asked)
        on_answers = partial(self._take_answers, asked, list(prompts))
        self._client.ask(image, list(prompts.values()), on_answers)

    # ---- answers

    def _take_answers(
        self, asked: _Asked, object_ids: Sequence[int], answers: Sequence[CorrectionAnswer]
    ) -> None:
        """Answers about these objects; those that were overtaken are of no use any more."""
        self._asked.remove(asked)
        failure: Exception | None = None
        for object_id, answer in zip(object_ids, answers, strict=True):
            prompt = asked.prompts.get(object_id)
            if prompt is None:
                continue
            try:
                self._take_answer(asked.header, asked.source, object_id, prompt, answer)
            except Exception as error:  # noqa: BLE001 - the answers about other objects are taken
                self.give_up(asked.header, object_id, asked.source, reason_of(error))
                failure = error
        if failure is not None:
            raise failure

    def _take_answer(
        self,
        header: Header,
        source: Source,
        object_id: int,
        prompt: Prompt,
        answer: CorrectionAnswer,
    ) -> None:
        if answer.mask is None:  # the correction is lost, nothing else
            self._measures.count(f"{source.value} failed")
            self._measures.refuse(self._client.service_name, "no mask", answer.fault)
            self.give_up(header, object_id, source, answer.fault)
        elif source is Source.PSEUDO and (why := objection(answer.score, prompt.prior_iou)):
            self._measures.count("pseudo declined")
            self.give_up(header, object_id, source, why)
        else:
            stamp = stamp_of(header.stamp)
            self.apply(Correction(stamp, {object_id: answer.mask}, source))

    def record(self, message: msg.Correction) -> None:
        """Keeps a person's answer, whatever becomes of it; any thread."""
        frame = None
        with contextlib.suppress(StampRangeError):
            frame = self._received.find(stamp_of(message.header.stamp))
        self._outputs.record_answer(message, frame)

    def answer(self, message: msg.Correction) -> None:
        """Takes a person's answer: a mask as it is, clicks and boxes by way of the service."""
        self._measures.count("operator received")
        header, object_id = message.header, message.id
        try:
            stamp = stamp_of(header.stamp)
            request = self._lazy.request(stamp, object_id)
            seen = self._mask_seen(stamp, object_id, request)
            height, width = seen.shape
            prompt = read_prompt(message.prompt, (height, width))
            if prompt.is_empty and not message.message:
                raise PromptError("the correction has neither a click nor a box nor a mask")
        except (StampRangeError, InputRefusedError, PromptError, ImageError) as error:
            self.refuse(message, "correction", str(error))
            return
        if prompt.is_empty:
            self._measures.count("operator declined")
            if request is not None:
                self.dismiss([object_id])
            self.give_up(header, object_id, Source.OPERATOR, message.message)
        elif prompt.is_only_mask:
            assert prompt.mask is not None
            self.apply(Correction(stamp, {object_id: prompt.mask}, Source.OPERATOR))
        else:
            prompt = prompt.about(seen, None if request is None else request.prompt.prior_iou)
            self._ask_corrector(self._image(stamp, request), {object_id: prompt}, Source.OPERATOR)

    def refuse(self, message: msg.Correction, kind: str, reason: str) -> None:
        """A person's answer is of no use; another one may come."""
        self._measures.refuse(self._topic, kind, reason)
        self.give_up(message.header, message.id, Source.OPERATOR, reason)

    def _mask_seen(self, stamp: int, object_id: int, request: Request | None) -> BoolMask:
        """The mask bool [H, W] that an answer is about; raises InputRefusedError.

        Whoever was asked has seen the request's mask; the frame's may have changed since.
        """
        if stamp == 0:
            fault = "the correction names no frame: its header has no stamp"
            raise InputRefusedError("no stamp", fault)
        frame, known = self._received.find(stamp), self._lazy.followed_ids
        if frame is None and request is None:
            raise forgotten(stamp)
        if object_id not in known:
            tracked = ", ".join(str(i) for i in known) or "none"
            fault = f"object {object_id} is not tracked; there is {tracked}"
            raise InputRefusedError("unknown object", fault)
        if request is not None:
            self._check_open(request)
            return request.mask
        assert frame is not None
        labels = frame.labels
        if labels is None:
            fault = f"the frame of stamp {stamp} ns was not tracked"
            raise InputRefusedError("not tracked", fault)
        return labels == object_id

    def _check_open(self, request: Request) -> None:
        if not self._lazy.is_open(request):
            newest = self._received.tracked
            assert newest is not None
            late = (newest.stamp - (request.deadline or request.stamp)) / SECOND
            fault = f"the answer for object {request.object_id} came {late:.1f} s too late"
            raise InputRefusedError("too late", fault)

    def _image(self, stamp: int, request: Request | None) -> Image:
        """The image of a frame that has been tracked."""
        frame = self._received.find(stamp)
        if frame is not None:
            return frame.image_message()
        assert request is not None
        return image_message(request.image, "rgb8", self._received.header(stamp))

    # ---- what becomes of them

    def apply(self, correction: Correction) -> Outcome:
        """Hands corrected masks to the tracker and publishes what became of them."""
        outcome = self._lazy.apply(correction)
        self._correct_frame(outcome, correction.masks)
        source, applied = correction.source, outcome.applied
        self._measures.count(f"{source.value} {'applied' if applied else 'not applied'}")
        if not applied:
            by_person = source is Source.OPERATOR
            topic = self._topic if by_person else self._client.service_name
            self._measures.refuse(topic, "not applied", outcome.reason)
        header = self._received.header(correction.stamp)
        for object_id, mask in correction.masks.items():
            self.awaited.discard((correction.stamp, object_id))
            self._outputs.publish_corrected(
                header, object_id, mask, source=source, applied=applied, reason=outcome.reason
            )
        self.see_open()
        return outcome

    def _correct_frame(self, outcome: Outcome, object_ids: Collection[int]) -> None:
        """Lets the frame that something was said of, or taken back, know its label map."""
        if outcome.applied_stamp is not None and outcome.labels is not None:
            frame = self._received.find(outcome.applied_stamp)
            if frame is not None:
                frame.correct(outcome.labels, object_ids)

    def retract(self, stamp: int, object_id: int) -> Outcome:
        """Takes back a person's correction of the frame of a stamp (ns), and says so."""
        outcome = self._lazy.retract(stamp, object_id)
        if not outcome.applied:
            self._measures.refuse(self._retraction_service, "not taken back", outcome.reason)
            return outcome
        self._correct_frame(outcome, [object_id])
        self._measures.count("operator taken back")
        self._outputs.publish_corrected(
            self._received.header(stamp),
            object_id,
            None,
            source=Source.OPERATOR,
            applied=False,
            reason="; ".join(filter(None, (TAKEN_BACK, outcome.reason))),
        )
        self.see_open()
        return outcome

    def give_up(self, header: Header, object_id: int, source: Source, reason: str) -> None:
        """There will be no mask: the frame waits no longer, and whoever listens is told why.

        The tracker's own request ends there; a person may try again.
        """
        with contextlib.suppress(StampRangeError):  # no frame has such a stamp
            self.awaited.discard((stamp_of(header.stamp), object_id))
        if source is Source.PSEUDO:
            self._lazy.dismiss(object_id, Source.PSEUDO)
        self._outputs.publish_corrected(
            header, object_id, None, source=source, applied=False, reason=reason
        )

    def dismiss(self, object_ids: Collection[int]) -> None:
        """Nobody will answer what people were asked about these objects."""
        for object_id in object_ids:
            self._lazy.dismiss(object_id, Source.OPERATOR)
        self.see_open()

    def stop_waiting(self, object_ids: Collection[int]) -> None:
        """No frame waits for answers about these objects, which will be refused."""
        self.awaited = {item for item in self.awaited if item[1] not in object_ids}
        self.see_open()

    def overtake(self, reason: str, object_ids: Collection[int] | None = None) -> None:
        """What the service has not answered about these objects, None: about all, will not be
        taken, which is said at once; and no frame waits for it.
        """
        for asked in self._asked:
            meant = asked.prompts.keys() if object_ids is None else object_ids
            for object_id in asked.prompts.keys() & meant:
                del asked.prompts[object_id]
                self._measures.count(f"{asked.source.value} not applied")
                self.give_up(asked.header, object_id, asked.source, reason)
        if object_ids is None:
            self.awaited = set()
            self.see_open()
        else:
            self.stop_waiting(object_ids)

    def see_open(self) -> None:
        """Notes how many requests to people are open."""
        sources = [source for _, source in self._lazy.open_requests]
        self.open_requests = sources.count(Source.OPERATOR)


class CorrectionInput:
    """Subscribes to `~/operator_correction` and serves `~/retract_correction`, by the worker."""

    def __init__(
        self,
        node: Node,
        services: Services,
        worker: Worker[ReceivedFrame],
        corrections: Corrections,
        *,
        is_active: Callable[[], bool],
        failures: Failures,
    ) -> None:
        """is_active: whether answers are taken at the moment."""
        self._node = node
        self._worker = worker
        self._corrections = corrections
        self._is_active = is_active
        self._measures = failures.measures
        self._topic = node.resolve_topic_name(TOPIC)
        self._subscription = PacedSubscription(
            node,
            msg.Correction,
            TOPIC,
            surviving(self._on_answer, failures.report),
            depth=READ_BURST,
            on_left_out=self._leave_out,
        )
        services.serve(RETRACTION, self._on_retraction)

    def close(self) -> None:
        """Stop listening."""
        self._subscription.close()

    def _leave_out(self, kind: str, fault: str) -> None:
        self._measures.count("operator received")
        self._measures.refuse(self._topic, kind, fault)

    async def _on_retraction(
        self, request: RetractCorrection.Request, response: RetractCorrection.Response
    ) -> None:
        stamp, object_id = stamp_of(request.stamp), int(request.id)
        work = self._worker.submit(lambda: self._corrections.retract(stamp, object_id))
        outcome = await result_of(self._node, work)
        response.accepted, response.reason = outcome.applied, outcome.reason

    def _on_answer(self, message: msg.Correction) -> None:
        self._corrections.record(message)
        if not self._is_active():
            self._worker.post(
                lambda: self._corrections.refuse(message, "inactive", "the node is not active")
            )
            return
        stamp = message.header.stamp
        self._worker.post_work(
            lambda: self._answer(message),
            # Not `stamp_of`: a stamp that is none is refused in its turn, in words.
            About("answer", frozenset({message.id}), SECOND * stamp.sec + stamp.nanosec),
            on_left_out=lambda why: self._corrections.refuse(message, why.kind, str(why)),
        )

    def _answer(self, message: msg.Correction) -> None:
        try:
            self._corrections.answer(message)
        except Exception as error:
            reason = reason_of(error)
            self._corrections.give_up(message.header, message.id, Source.OPERATOR, reason)
            raise

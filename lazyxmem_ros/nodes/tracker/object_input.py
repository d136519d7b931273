# SPDX-License-Identifier: Apache-2.0
"""Reads, in the executor's thread, what people and programs say about objects.

`Objects` does it, in the worker's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from rclpy.node import Node
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from lazyxmem_ros import msg
from lazyxmem_ros.basics import BoolMask, StampRangeError, stamp_of
from lazyxmem_ros.correction.base import Prompt, PromptError, validate_prompt
from lazyxmem_ros.images import ImageError
from lazyxmem_ros.lazy import check_labels
from lazyxmem_ros.nodes.conversions import read_object_masks, time_message
from lazyxmem_ros.nodes.correction_client import CorrectionAnswer
from lazyxmem_ros.nodes.diagnostics import InputRefusedError
from lazyxmem_ros.nodes.pacing import PacedSubscription
from lazyxmem_ros.nodes.prompts import read_prompt
from lazyxmem_ros.nodes.running import surviving
from lazyxmem_ros.nodes.services import Services, result_of
from lazyxmem_ros.nodes.tracker.corrections import WorkerCorrectionClient
from lazyxmem_ros.nodes.tracker.failures import Failures
from lazyxmem_ros.nodes.tracker.images import ImageInput
from lazyxmem_ros.nodes.tracker.objects import WAS_REMOVED, WAS_RESET, Objects
from lazyxmem_ros.nodes.tracker.publishers import track_messages
from lazyxmem_ros.nodes.tracker.received_frames import ReceivedFrame
from lazyxmem_ros.nodes.tracker.reservations import Reservation
from lazyxmem_ros.nodes.tracker.session import GivenMasks, TrackingSession
from lazyxmem_ros.nodes.tracker.worker import About, Worker
from lazyxmem_ros.srv import AddObjects, ListObjects, PauseObjects, RemoveObjects

QUEUE_DEPTH = 10
ADDING = "~/add_objects"
REMOVING = "~/remove_objects"
PAUSING = "~/pause_objects"
LISTING = "~/list_objects"
RESETTING = "~/reset"
ResultT = TypeVar("ResultT")


class MaskInput:
    """Subscribes to `~/init_mask`."""

    def __init__(
        self,
        node: Node,
        *,
        worker: Worker[ReceivedFrame],
        objects: Objects,
        images: ImageInput,
        failures: Failures,
        max_objects: int,
        max_pixels: int,
    ) -> None:
        """max_objects, max_pixels: of a label map; one with more is refused before masks are
        made.
        """
        self._worker = worker
        self._objects = objects
        self._images = images
        self._failures = failures
        self._max_objects = max_objects
        self._max_pixels = max_pixels
        self._topic = node.resolve_topic_name("~/init_mask")
        self._subscription = PacedSubscription(
            node,
            Image,
            "~/init_mask",
            surviving(self._on_mask, failures.report),
            depth=QUEUE_DEPTH,
            on_left_out=self._leave_out,
        )

    def close(self) -> None:
        """Stop listening."""
        self._subscription.close()

    def _leave_out(self, kind: str, fault: str) -> None:
        measures = self._failures.measures
        measures.count("init masks received")
        measures.refuse(self._topic, kind, fault)

    def _on_mask(self, message: Image) -> None:
        measures = self._failures.measures
        measures.count("init masks received")
        try:
            stamp = stamp_of(message.header.stamp)
            masks = read_object_masks(
                message, max_objects=self._max_objects, max_pixels=self._max_pixels
            )
        except StampRangeError as error:
            measures.refuse(self._topic, error.kind, str(error))
            return
        except ImageError as error:
            measures.refuse(self._topic, "image", str(error))
            return
        if not self._images.is_open:
            measures.refuse(self._topic, "inactive", "the node is not active")
            return
        given = GivenMasks(stamp, masks, topic=self._topic)
        work = self._worker.submit_work(
            lambda: self._objects.give_masks(given), About("masks", frozenset(masks), stamp)
        )
        work.add_done_callback(self._after_mask)

    def _after_mask(self, work: Future[str]) -> None:
        if work.cancelled():
            return
        error = work.exception()
        if error is None:
            self._failures.measures.count("init masks taken")
        else:
            self._failures.explain(self._topic, error)


class ObjectServices:
    """Serves the calls about objects."""

    def __init__(
        self,
        node: Node,
        services: Services,
        *,
        worker: Worker[ReceivedFrame],
        objects: Objects,
        session: TrackingSession,
        images: ImageInput,
        client: WorkerCorrectionClient,
    ) -> None:
        self._node = node
        self._worker = worker
        self._objects = objects
        self._session = session
        self._images = images
        self._client = client
        services.serve(ADDING, self._on_add)
        services.serve(REMOVING, self._on_remove)
        services.serve(PAUSING, self._on_pause)
        services.serve(LISTING, self._on_list)
        services.serve(RESETTING, self._on_reset)

    # ---- objects come

    async def _on_add(self, request: AddObjects.Request, response: AddObjects.Response) -> None:
        if not self._images.is_open:
            raise InputRefusedError("inactive", "the node is not active")
        if not request.objects:
            raise InputRefusedError("no object", "the request names no object")
        stamp, wanted = stamp_of(request.header.stamp), [new.id for new in request.objects]
        reservation = await self._in_worker(lambda: self._objects.reserve(wanted, stamp))
        try:
            response.message = await self._add(reservation, request.objects)
        finally:
            self._worker.post(lambda: self._objects.release(reservation))
        response.ids, response.success = list(reservation.ids), True

    async def _add(self, reservation: Reservation, objects: Sequence[msg.NewObject]) -> str:
        """How they were added if that was not simply as asked, else ""."""
        labels = {i: new.label for i, new in zip(reservation.ids, objects, strict=True)}
        check_labels(labels)  # before masks are made
        shown = await self._masks_of(reservation, [new.prompt for new in objects])
        given = GivenMasks(
            reservation.frame.stamp,
            masks=dict(zip(reservation.ids, shown, strict=True)),
            labels=labels,
            topic=self._node.resolve_service_name(ADDING),
        )
        work = self._worker.submit_work(lambda: self._objects.add_reserved(reservation, given))
        return await reservation.result_of(self._node, work)

    async def _masks_of(
        self, reservation: Reservation, messages: Sequence[msg.Prompt]
    ) -> list[BoolMask]:
        """The objects' masks bool [H, W]: as given, or made by the service, in one request."""
        height, width = reservation.frame.size
        prompts = [read_prompt(message, (height, width)) for message in messages]
        for prompt in prompts:
            if prompt.is_empty:
                raise PromptError("an object has neither a click nor a box nor a mask")
            if not prompt.is_only_mask:
                validate_prompt(prompt, (height, width))
        given = {i: p.mask for i, p in enumerate(prompts) if p.is_only_mask and p.mask is not None}
        asked = {i: p for i, p in enumerate(prompts) if i not in given}
        answers = await self._refined(reservation, list(asked.values())) if asked else ()
        found = {i: _mask_found(answer) for i, answer in zip(asked, answers, strict=True)}
        return [mask for _, mask in sorted({**given, **found}.items())]

    async def _refined(
        self, reservation: Reservation, prompts: Sequence[Prompt]
    ) -> Sequence[CorrectionAnswer]:
        answered: Future[Sequence[CorrectionAnswer]] = Future()

        def take(answers: Sequence[CorrectionAnswer]) -> None:
            if answered.set_running_or_notify_cancel():  # False: the call was overtaken
                answered.set_result(answers)

        self._client.request(
            reservation.frame.image_message(),
            prompts,
            timeout=self._client.timeout(),
            on_answers=take,
        )
        return await reservation.result_of(self._node, answered)

    # ---- objects rest and go

    async def _on_remove(
        self, request: RemoveObjects.Request, response: RemoveObjects.Response
    ) -> None:
        ids = [int(object_id) for object_id in request.ids]
        before = self._worker.work_count

        def remove() -> tuple[int, ...]:
            removed = self._objects.remove(ids)
            self._worker.drop_work(WAS_REMOVED, object_ids=ids or None, before=before)
            return removed

        response.removed = list(await self._in_worker(remove))
        response.success = True

    async def _on_pause(
        self, request: PauseObjects.Request, response: PauseObjects.Response
    ) -> None:
        ids, pause = [int(object_id) for object_id in request.ids], bool(request.pause)
        response.ids = list(
            await self._in_worker(lambda: self._objects.pause_objects(ids, pause=pause))
        )
        response.success = True

    async def _on_list(self, request: ListObjects.Request, response: ListObjects.Response) -> None:
        published = self._session.published
        response.stamp = time_message(published.stamp)
        response.objects = track_messages(published.tracks)

    async def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> None:
        self._images.forget_stamps()
        self._worker.drop_work(WAS_RESET)
        await self._in_worker(self._objects.reset)
        response.success = True

    async def _in_worker(self, command: Callable[[], ResultT]) -> ResultT:
        """The result of a command in the worker's thread, or what it raised."""
        return await result_of(self._node, self._worker.submit(command))


def _mask_found(answer: CorrectionAnswer) -> BoolMask:
    """The mask bool [H, W] of an answer; raises PromptError where it is none, or empty."""
    if answer.mask is None:
        raise PromptError(f"no mask was made of the prompt: {answer.fault}")
    if not answer.mask.any():
        raise PromptError(f"{answer.corrector} found nothing at the prompt")
    return answer.mask

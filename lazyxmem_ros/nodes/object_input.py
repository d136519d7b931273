# SPDX-License-Identifier: Apache-2.0
"""How objects come and go: the `~/init_mask` topic and the services."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import Future as WorkerFuture
from typing import TYPE_CHECKING, Any, TypeVar

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from lazyxmem_ros import msg
from lazyxmem_ros.nodes.conversions import (
    ImageError,
    MaskArray,
    masks_of_labels,
    read_labels,
    stamp_of,
    time_message,
)
from lazyxmem_ros.nodes.correction_client import CorrectionAnswer, CorrectionPrompt
from lazyxmem_ros.nodes.corrections import Corrections, PromptFault, read_prompt
from lazyxmem_ros.nodes.diagnostics import Counts, Refusals
from lazyxmem_ros.nodes.frames import ReceivedFrame
from lazyxmem_ros.nodes.tracker_outputs import track_message
from lazyxmem_ros.nodes.worker import Worker
from lazyxmem_ros.srv import AddObjects, ListObjects, PauseObjects, RemoveObjects

if TYPE_CHECKING:
    from lazyxmem_ros.nodes.session import TrackingSession

QUEUE_DEPTH = 10
ResultT = TypeVar("ResultT")


class ObjectInput:
    """Reads what people and programs say about objects and has the worker do it."""

    def __init__(
        self,
        node: Node,
        *,
        worker: Worker[ReceivedFrame],
        session: TrackingSession,
        corrections: Corrections,
        counts: Counts,
        refusals: Refusals,
        is_active: Callable[[], bool],
        on_reset: Callable[[], None],
    ) -> None:
        """is_active: whether frames are coming in; on_reset: called before a reset is queued."""
        self._node = node
        self._worker = worker
        self._session = session
        self._corrections = corrections
        self._counts = counts
        self._refusals = refusals
        self._is_active = is_active
        self._on_reset = on_reset
        self._init_topic = node.resolve_topic_name("~/init_mask")
        self._subscription = node.create_subscription(
            Image, "~/init_mask", self._on_init_mask, QoSProfile(depth=QUEUE_DEPTH)
        )
        # A group of their own: one request at a time, and while it waits for the worker or the
        # correction service everything else of the node goes on.
        group = MutuallyExclusiveCallbackGroup()
        self._services = [
            node.create_service(service_type, name, callback, callback_group=group)
            for service_type, name, callback in (
                (AddObjects, "~/add_objects", self._on_add_objects),
                (RemoveObjects, "~/remove_objects", self._on_remove_objects),
                (PauseObjects, "~/pause_objects", self._on_pause_objects),
                (Trigger, "~/reset", self._on_reset_request),
            )
        ]
        # Not of that group: it waits for nobody.
        self._services.append(
            node.create_service(ListObjects, "~/list_objects", self._on_list_objects)
        )

    def close(self) -> None:
        """Stop listening and serving."""
        self._node.destroy_subscription(self._subscription)
        for service in self._services:
            self._node.destroy_service(service)
        self._services = []

    # ---- topic

    def _on_init_mask(self, message: Image) -> None:
        from lazyxmem_ros.nodes.session import GivenMasks

        self._counts.add("init masks received")
        try:
            masks = masks_of_labels(read_labels(message))
        except ImageError as error:
            self._refusals.refuse(self._init_topic, "image", str(error))
            return
        if not self._is_active():
            self._refusals.refuse(self._init_topic, "inactive", "the node is not active")
            return
        given = GivenMasks(stamp_of(message.header.stamp), masks, topic=self._init_topic)
        future = self._worker.submit(lambda: self._session.give_masks(given))
        future.add_done_callback(self._after_init_mask)

    def _after_init_mask(self, future: WorkerFuture[str]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._counts.add("init masks taken")
            return
        kind = getattr(error, "kind", type(error).__name__)
        self._refusals.refuse(self._init_topic, kind, str(error))

    # ---- services

    async def _on_add_objects(
        self, request: AddObjects.Request, response: AddObjects.Response
    ) -> AddObjects.Response:
        try:
            response.ids, response.message = await self._add_objects(request)
            response.success = True
        except (ValueError, CancelledError) as error:
            # Every refusal is a ValueError: of the image, the prompt, the session, the tracker.
            self._say_refused("~/add_objects", error)
            response.message = str(error) or "the node is shutting down"
        return response

    async def _add_objects(self, request: AddObjects.Request) -> tuple[list[int], str]:
        """The objects' ids, and how they were added if that was not simply as asked."""
        from lazyxmem_ros.nodes.session import GivenMasks

        if not self._is_active():
            raise PromptFault("the node is not active")
        if not request.objects:
            raise PromptFault("the request names no object")
        stamp = stamp_of(request.header.stamp)
        frame = await self._in_worker(lambda: self._session.find_frame(stamp))
        ids = await self._in_worker(lambda: self._choose_ids(request.objects, frame.stamp))
        size = frame.rgb().shape[:2]
        masks = {}
        for object_id, new in zip(ids, request.objects, strict=True):
            masks[object_id] = await self._mask_of(frame, new, size)
        labels = {object_id: new.label for object_id, new in zip(ids, request.objects, strict=True)}
        topic = self._node.resolve_service_name("~/add_objects")
        given = GivenMasks(frame.stamp, masks, labels, topic)
        return ids, await self._in_worker(lambda: self._session.give_masks(given))

    def _choose_ids(self, objects: list[msg.NewObject], stamp: int) -> list[int]:
        wanted = [new.id for new in objects if new.id]
        twice = sorted({object_id for object_id in wanted if wanted.count(object_id) > 1})
        if twice:
            raise PromptFault(f"id {twice[0]} is given to more than one object")
        tracked = sorted(set(wanted) & set(self._session.object_ids))
        if tracked:
            raise PromptFault(
                f"object {tracked[0]} is tracked already; correct it or remove it first"
            )
        free = iter(self._session.free_ids(len(objects) - len(wanted), wanted, stamp=stamp))
        return [new.id or next(free) for new in objects]

    async def _mask_of(
        self, frame: ReceivedFrame, new: msg.NewObject, size: tuple[int, ...]
    ) -> MaskArray:
        """The object's mask bool [H, W]: as given, or made by the service from clicks or a box."""
        prompt = read_prompt(new, (size[0], size[1]))
        if prompt is None:
            raise PromptFault("an object has neither a click nor a box nor a mask")
        if prompt.prior is not None and not len(prompt.positive) and not len(prompt.negative):
            return prompt.prior
        answer = await self._refined(frame, prompt)
        if answer.mask is None:
            raise PromptFault(f"no mask was made of the prompt: {answer.fault}")
        if not answer.mask.any():
            raise PromptFault(f"{answer.corrector} found nothing at the prompt")
        return answer.mask

    async def _refined(self, frame: ReceivedFrame, prompt: CorrectionPrompt) -> CorrectionAnswer:
        answered: Future[CorrectionAnswer] = Future(executor=self._node.executor)
        self._corrections.refine(frame, prompt, answered.set_result)
        answer = await answered
        assert answer is not None
        return answer

    async def _on_remove_objects(
        self, request: RemoveObjects.Request, response: RemoveObjects.Response
    ) -> RemoveObjects.Response:
        ids = [int(object_id) for object_id in request.ids]
        try:
            response.removed = list(await self._in_worker(lambda: self._session.remove(ids)))
            response.success = True
            self._corrections.forget_requests(response.removed)
        except (ValueError, CancelledError) as error:
            self._say_refused("~/remove_objects", error)
            response.message = str(error) or "the node is shutting down"
        return response

    async def _on_pause_objects(
        self, request: PauseObjects.Request, response: PauseObjects.Response
    ) -> PauseObjects.Response:
        ids, pause = [int(object_id) for object_id in request.ids], bool(request.pause)
        try:
            meant = await self._in_worker(lambda: self._session.pause_objects(ids, pause=pause))
            response.ids = list(meant)
            response.success = True
            if pause:
                self._corrections.forget_requests(meant)
        except (ValueError, CancelledError) as error:
            self._say_refused("~/pause_objects", error)
            response.message = str(error) or "the node is shutting down"
        return response

    def _on_list_objects(
        self, request: ListObjects.Request, response: ListObjects.Response
    ) -> ListObjects.Response:
        published = self._session.published
        response.stamp = time_message(published.stamp)
        response.objects = [track_message(track) for track in published.tracks]
        return response

    async def _on_reset_request(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        self._on_reset()
        try:
            await self._in_worker(self._session.reset)
            response.success = True
        except CancelledError:
            response.message = "the node is shutting down"
        return response

    # ---- how

    def _say_refused(self, service: str, error: BaseException) -> None:
        kind = getattr(error, "kind", type(error).__name__)
        self._refusals.refuse(self._node.resolve_service_name(service), kind, str(error))

    async def _in_worker(self, command: Callable[[], ResultT]) -> ResultT:
        """The result of a command in the worker's thread, or what it raised."""
        executor = self._node.executor
        done: Future[Any] = Future(executor=executor)

        def finish(finished: WorkerFuture[ResultT]) -> None:
            done.set_result(finished)
            # The executor looks at coroutines when it wakes, and another thread's result is no
            # reason for it to.
            executor.create_task(_nothing)

        self._worker.submit(command).add_done_callback(finish)
        finished = await done
        assert finished is not None
        result: ResultT = finished.result()
        return result


def _nothing() -> None:
    """A task that is there to wake the executor."""

# SPDX-License-Identifier: Apache-2.0
"""How objects come and go: the `~/init_mask` topic and the services."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import Future as WorkerFuture
from typing import TYPE_CHECKING, TypeVar

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from lazyxmem_ros import msg
from lazyxmem_ros.basics import BoolMask, StampRangeError, stamp_of
from lazyxmem_ros.correction.base import Prompt, PromptError, validate_prompt
from lazyxmem_ros.images import ImageError
from lazyxmem_ros.nodes.conversions import read_object_masks, time_message
from lazyxmem_ros.nodes.diagnostics import InputRefusedError, fault_kind
from lazyxmem_ros.nodes.prompts import read_prompt
from lazyxmem_ros.nodes.running import surviving
from lazyxmem_ros.nodes.services import SHUTTING_DOWN, Services, result_of
from lazyxmem_ros.nodes.tracker.corrector_client import CorrectionAnswer
from lazyxmem_ros.nodes.tracker.frames import GivenMasks, ReceivedFrame
from lazyxmem_ros.nodes.tracker.images import ImageInput
from lazyxmem_ros.nodes.tracker.publishers import TrackerOutputs, track_messages
from lazyxmem_ros.nodes.tracker.worker import Worker
from lazyxmem_ros.srv import AddObjects, ListObjects, PauseObjects, RemoveObjects

if TYPE_CHECKING:
    from lazyxmem_ros.nodes.tracker.session import TrackingSession

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
        images: ImageInput,
        outputs: TrackerOutputs,
        max_objects: int,
        max_pixels: int,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """max_objects, max_pixels: of a label map; one with more is refused before masks are made.

        on_failure(error): gets what goes wrong and is no refusal.
        """
        self._max_objects = max_objects
        self._max_pixels = max_pixels
        self._node = node
        self._worker = worker
        self._session = session
        self._images = images
        self._outputs = outputs
        self._on_failure = on_failure
        self._init_topic = node.resolve_topic_name("~/init_mask")
        self._subscription = node.create_subscription(
            Image,
            "~/init_mask",
            surviving(self._on_init_mask, on_failure),
            QoSProfile(depth=QUEUE_DEPTH),
        )
        self._services = Services(node, self._explained)
        self._services.serve(AddObjects, "~/add_objects", self._on_add_objects)
        self._services.serve(RemoveObjects, "~/remove_objects", self._on_remove_objects)
        self._services.serve(PauseObjects, "~/pause_objects", self._on_pause_objects)
        self._services.serve(Trigger, "~/reset", self._on_reset_request)
        # Not one of those: it waits for nobody.
        self._list = node.create_service(ListObjects, "~/list_objects", self._on_list_objects)

    def close(self) -> None:
        """Stop listening and serving; what is being served is answered."""
        self._node.destroy_subscription(self._subscription)
        self._node.destroy_service(self._list)
        self._services.close()

    # ---- topic

    def _on_init_mask(self, message: Image) -> None:
        self._outputs.count("init masks received")
        try:
            stamp = stamp_of(message.header.stamp)
            masks = read_object_masks(
                message, max_objects=self._max_objects, max_pixels=self._max_pixels
            )
        except StampRangeError as error:
            self._outputs.refuse(self._init_topic, error.kind, str(error))
            return
        except ImageError as error:
            self._outputs.refuse(self._init_topic, "image", str(error))
            return
        if not self._images.is_open:
            self._outputs.refuse(self._init_topic, "inactive", "the node is not active")
            return
        given = GivenMasks(stamp, masks, topic=self._init_topic)
        future = self._worker.submit_work(
            lambda: self._session.give_masks(given),
            key=("masks", stamp, frozenset(masks)),
            objects=("masks", frozenset(masks)),
        )
        future.add_done_callback(self._after_init_mask)

    def _after_init_mask(self, future: WorkerFuture[str]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._outputs.count("init masks taken")
        else:
            self._explained(self._init_topic, error)

    # ---- services

    async def _on_add_objects(
        self, request: AddObjects.Request, response: AddObjects.Response
    ) -> None:
        response.ids, response.message = await self._add_objects(request)
        response.success = True

    async def _add_objects(self, request: AddObjects.Request) -> tuple[list[int], str]:
        """The objects' ids, and how they were added if that was not simply as asked."""
        if not self._images.is_open:
            raise InputRefusedError("inactive", "the node is not active")
        if not request.objects:
            raise InputRefusedError("no object", "the request names no object")
        stamp = stamp_of(request.header.stamp)
        frame = await self._in_worker(lambda: self._session.find_frame(stamp))
        ids = await self._in_worker(lambda: self._choose_ids(request.objects, frame.stamp))
        self._session.check_room(ids)
        shown = await self._masks_of(frame, [new.prompt for new in request.objects])
        masks = dict(zip(ids, shown, strict=True))
        labels = {object_id: new.label for object_id, new in zip(ids, request.objects, strict=True)}
        topic = self._node.resolve_service_name("~/add_objects")
        given = GivenMasks(frame.stamp, masks, labels, topic)
        work = self._worker.submit_work(lambda: self._session.give_masks(given))
        return ids, await result_of(self._node, work)

    def _choose_ids(self, objects: list[msg.NewObject], stamp: int) -> list[int]:
        wanted = [new.id for new in objects if new.id]
        twice = sorted({object_id for object_id in wanted if wanted.count(object_id) > 1})
        if twice:
            fault = f"id {twice[0]} is given to more than one object"
            raise InputRefusedError("same id twice", fault)
        tracked = sorted(set(wanted) & set(self._session.object_ids))
        if tracked:
            fault = f"object {tracked[0]} is tracked already; correct it or remove it first"
            raise InputRefusedError("tracked already", fault)
        free = iter(self._session.free_ids(len(objects) - len(wanted), wanted, stamp=stamp))
        return [new.id or next(free) for new in objects]

    async def _masks_of(
        self, frame: ReceivedFrame, messages: Sequence[msg.Prompt]
    ) -> list[BoolMask]:
        """The objects' masks bool [H, W]: as given, or made by the service, in one request."""
        height, width = frame.rgb().shape[:2]
        prompts = [read_prompt(message, (height, width)) for message in messages]
        for prompt in prompts:
            if prompt.is_empty:
                raise PromptError("an object has neither a click nor a box nor a mask")
            if not prompt.is_only_mask:
                validate_prompt(prompt, (height, width))
        given = {i: p.mask for i, p in enumerate(prompts) if p.is_only_mask and p.mask is not None}
        asked = {i: p for i, p in enumerate(prompts) if i not in given}
        answers = await self._refined(frame, list(asked.values())) if asked else ()
        found = {i: _mask_found(answer) for i, answer in zip(asked, answers, strict=True)}
        return [mask for _, mask in sorted({**given, **found}.items())]

    async def _refined(
        self, frame: ReceivedFrame, prompts: Sequence[Prompt]
    ) -> Sequence[CorrectionAnswer]:
        answered: Future[Sequence[CorrectionAnswer]] = Future(executor=self._node.executor)
        self._outputs.refine(frame.image_message(), prompts, answered.set_result)
        answers = await answered
        assert answers is not None
        return answers

    async def _on_remove_objects(
        self, request: RemoveObjects.Request, response: RemoveObjects.Response
    ) -> None:
        ids = [int(object_id) for object_id in request.ids]
        response.removed = list(await self._in_worker(lambda: self._session.remove(ids)))
        response.success = True

    async def _on_pause_objects(
        self, request: PauseObjects.Request, response: PauseObjects.Response
    ) -> None:
        ids, pause = [int(object_id) for object_id in request.ids], bool(request.pause)
        response.ids = list(
            await self._in_worker(lambda: self._session.pause_objects(ids, pause=pause))
        )
        response.success = True

    def _on_list_objects(
        self, request: ListObjects.Request, response: ListObjects.Response
    ) -> ListObjects.Response:
        published = self._session.published
        response.stamp = time_message(published.stamp)
        response.objects = track_messages(published.tracks)
        return response

    async def _on_reset_request(self, request: Trigger.Request, response: Trigger.Response) -> None:
        self._images.forget_stamps()
        self._worker.drop_work("the tracker was reset")
        await self._in_worker(self._session.reset)
        response.success = True

    # ---- how

    def _explained(self, source: str, error: BaseException) -> str:
        """Reports what went wrong with a request or message; returns it in words."""
        if isinstance(error, CancelledError):
            return SHUTTING_DOWN
        if isinstance(error, ValueError):
            # Every refusal is one: of the image, the prompt, the session, the tracker.
            self._outputs.refuse(source, fault_kind(error), str(error))
            return str(error)
        self._on_failure(error)
        return f"{type(error).__name__}: {error}"

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

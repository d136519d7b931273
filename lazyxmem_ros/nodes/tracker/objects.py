# SPDX-License-Identifier: Apache-2.0
"""How objects come and go: the `~/init_mask` topic and the services.

`ObjectInput` reads what is said about them in the executor's thread; `Objects` does it in the
worker's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import Future as WorkerFuture
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import TypeVar

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from lazyxmem_ros import msg
from lazyxmem_ros.basics import BoolMask, StampRangeError, stamp_of
from lazyxmem_ros.correction.base import Prompt, PromptError, validate_prompt
from lazyxmem_ros.data.label_maps import MAX_OBJECTS
from lazyxmem_ros.images import ImageError
from lazyxmem_ros.lazy import LazyTracker
from lazyxmem_ros.nodes.conversions import masks_of_labels, read_object_masks, time_message
from lazyxmem_ros.nodes.correction_client import CorrectionAnswer
from lazyxmem_ros.nodes.diagnostics import InputRefusedError, fault_kind
from lazyxmem_ros.nodes.prompts import read_prompt
from lazyxmem_ros.nodes.running import surviving
from lazyxmem_ros.nodes.services import SHUTTING_DOWN, Services, result_of
from lazyxmem_ros.nodes.tracker.corrections import Corrections, WorkerCorrectionClient
from lazyxmem_ros.nodes.tracker.diagnostics import TrackerMeasures
from lazyxmem_ros.nodes.tracker.images import ImageInput, ReceivedFrame, ReceivedFrames
from lazyxmem_ros.nodes.tracker.publishers import track_messages
from lazyxmem_ros.nodes.tracker.session import GivenMasks, TrackingSession
from lazyxmem_ros.nodes.tracker.worker import Worker
from lazyxmem_ros.srv import AddObjects, ListObjects, PauseObjects, RemoveObjects
from lazyxmem_ros.xmem import TrackerError, XMemTracker

QUEUE_DEPTH = 10
MAX_EARLY_MASKS = 8
"""Masks that may wait for their frames."""
ResultT = TypeVar("ResultT")


class EarlyMasks:
    """Masks that were shown on frames which have yet to arrive: the newest MAX_EARLY_MASKS."""

    def __init__(self, refuse: Callable[[str, str, str], None]) -> None:
        """refuse(topic, kind, fault): counts and reports masks that are dropped."""
        self._refuse = refuse
        self._early: list[GivenMasks] = []

    def keep(self, given: GivenMasks) -> None:
        """Keep masks; newer ones of the same objects and frame take the place of older ones, and
        the oldest are dropped where there are too many.
        """
        same = (given.stamp, given.masks.keys())
        self._early = [kept for kept in self._early if (kept.stamp, kept.masks.keys()) != same]
        if len(self._early) >= MAX_EARLY_MASKS:
            self.drop(self._early.pop(0))
        self._early.append(given)

    def due(self, stamp: int) -> list[tuple[int, list[GivenMasks]]]:
        """Takes those of the frames up to `stamp` (ns), by their frames' stamps, oldest first."""
        due = sorted((g for g in self._early if g.stamp <= stamp), key=attrgetter("stamp"))
        self._early = [given for given in self._early if given.stamp > stamp]
        return [(wanted, list(same)) for wanted, same in groupby(due, key=attrgetter("stamp"))]

    def drop(self, given: GivenMasks) -> None:
        """Report masks as dropped for want of their frame."""
        self._refuse(
            given.topic,
            "frame never came",
            f"the frame of stamp {given.stamp} ns did not arrive in time; its masks are dropped",
        )

    def clear(self) -> None:
        """Forget them all."""
        self._early.clear()


class Objects:
    """How objects come and go, in the worker's thread, and the frames with those shown on them."""

    def __init__(
        self,
        lazy: LazyTracker,
        received: ReceivedFrames,
        session: TrackingSession,
        corrections: Corrections,
        measures: TrackerMeasures,
        *,
        make_tracker: Callable[[], XMemTracker],
        max_objects: int = MAX_OBJECTS,
        may_work: Callable[[], bool] = lambda: True,
    ) -> None:
        """make_tracker: makes an empty tracker with the same network.

        max_objects: that are followed; masks that would make them more are refused.

        may_work(): whether masks that came before their frame may make it dearer (see Worker).
        """
        self._lazy = lazy
        self._received = received
        self._session = session
        self._corrections = corrections
        self._measures = measures
        self._make_tracker = make_tracker
        self._max_objects = max_objects
        self._may_work = may_work
        self._early = EarlyMasks(measures.refuse)

    # ---- frames

    def process(self, frame: ReceivedFrame) -> bool:
        """Track one frame and publish it; the frames that early masks were waiting for go first.

        Returns False where it was dropped: a newer one was tracked before it, or everything was
        forgotten meanwhile.
        """
        started = time.monotonic()
        tracked = self._process(frame)
        if not tracked:
            self._measures.count("dropped")
        self._measures.tracking.add(time.monotonic() - started)
        return tracked

    def _process(self, frame: ReceivedFrame) -> bool:
        resets = self._session.resets
        for stamp, masks in self._early.due(frame.stamp):
            self._show_early(frame if stamp == frame.stamp else self._received.find(stamp), masks)
        if self._session.resets == resets and frame.stamp > self._session.processed:
            self._session.track(frame)
            return self._session.resets == resets
        return frame.labels is not None

    def _show_early(self, frame: ReceivedFrame | None, early: Sequence[GivenMasks]) -> None:
        """Show masks that came before a frame; None: it is not there."""
        if frame is None:
            for given in early:
                self._early.drop(given)
        elif self._lazy.followed_ids and not self._may_work():
            for given in early:
                self._measures.refuse(
                    given.topic,
                    "too busy",
                    f"the tracker is busy; masks of the frame of {given.stamp} ns are left out",
                )
        elif frame.stamp > self._session.processed:
            fitting = [given for given in early if self._done(given, self._check_given, frame)]
            if fitting:
                self._session.track(frame, fitting)
        else:  # other masks were shown on it before
            for given in early:
                self._done(given, self.give_masks)

    def _done(self, given: GivenMasks, do: Callable[..., object], *arguments: object) -> bool:
        """Whether `do(given, ...)` went well; what it refuses is reported."""
        try:
            do(given, *arguments)
        except (InputRefusedError, ImageError, TrackerError) as error:
            self._measures.refuse(given.topic, fault_kind(error), str(error))
            return False
        return True

    # ---- objects

    def give_masks(self, given: GivenMasks) -> str:
        """Show objects on a frame: now, or when the frame of that stamp arrives.

        Objects that are tracked already get the mask as the truth of that frame. Returns how it
        was done if that was not simply as asked, else "". Raises InputRefusedError or a
        TrackerError, with nothing changed.
        """
        if not given.masks:
            raise InputRefusedError("no object", "the label map names no object: every value is 0")
        self.check_room(given.masks)
        newest = self._received.tracked
        stamp = given.stamp or self.find_frame(0).stamp
        given = replace(given, stamp=stamp)
        if stamp > self._session.processed and self._received.find(stamp) is None:
            self._early.keep(given)
            return f"the frame of stamp {stamp} ns has not come yet: shown when it does"
        frame = self.find_frame(stamp)
        self._check_sizes(given, frame)
        note = ""
        if stamp > self._session.processed:
            self._session.track(frame, [given])
        elif newest is not None and stamp == newest.stamp and self._lazy.followed_ids:
            self._session.add_to_newest(given)
        elif not self._lazy.followed_ids:
            # Nothing is tracked, so nothing is lost by starting at that frame.
            self._lazy.reset()
            self._session.track(frame, [given])
        else:
            assert newest is not None
            note = self._add_to_past(given, frame, newest)
        self._session.see_objects()
        if not set(given.masks) <= set(self._session.object_ids):
            raise InputRefusedError(
                "not added", f"the objects could not be added at stamp {stamp} ns"
            )
        return note

    def free_ids(self, count: int, taken: Sequence[int] = (), *, stamp: int = 0) -> list[int]:
        """The lowest `count` object ids that are neither followed nor in `taken`.

        stamp: of a past frame (ns) on which they will be shown: no object had them since.
        """
        used = {*self._lazy.followed_ids, *taken, *(self._lazy.ids_since(stamp) if stamp else ())}
        ids: list[int] = []
        candidate = 1
        while len(ids) < count:
            if candidate not in used:
                ids.append(candidate)
            candidate += 1
        return ids

    def remove(self, object_ids: Sequence[int]) -> tuple[int, ...]:
        """Forget objects (all where none is named); raises a TrackerError for an unknown one."""
        ids = tuple(object_ids) or self._lazy.followed_ids
        self._lazy.remove_objects(list(ids))
        self._corrections.stop_waiting(ids)
        self._session.see_objects()
        return ids

    def pause_objects(self, object_ids: Sequence[int], *, pause: bool) -> tuple[int, ...]:
        """Pause objects or resume them (all where none is named); returns which were meant.

        Raises a TrackerError for an unknown one, with nothing changed.
        """
        ids = tuple(dict.fromkeys(object_ids)) or self._lazy.followed_ids
        if pause:
            self._lazy.pause_objects(ids)
            self._corrections.stop_waiting(ids)
        else:
            self._lazy.resume_objects(ids)
        return ids

    def reset(self) -> None:
        """Forget every object, early mask and frame; any stamp and size may follow."""
        self._early.clear()
        self._session.reset()

    def begin_again(self, tracking: bool) -> None:
        """Stamps begin again: go on with the objects that there are, and forget past frames.

        Recent images are the caller's to forget: newer ones may have come.
        """
        self._early.clear()
        if tracking:
            self._session.change_clock()
        else:
            self._session.reset(images=False)

    # ---- how

    def find_frame(self, stamp: int) -> ReceivedFrame:
        """The frame of this stamp, or the newest tracked one for 0; raises InputRefusedError."""
        if stamp == 0:
            newest = self._received.tracked or self._received.newest()
            if newest is None:
                raise InputRefusedError("no frame", "no frame has been received yet")
            return newest
        frame = self._received.find(stamp)
        if frame is None:
            raise InputRefusedError(
                "forgotten stamp", f"there is no recent frame of stamp {stamp} ns"
            )
        return frame

    def _add_to_past(self, given: GivenMasks, frame: ReceivedFrame, newest: ReceivedFrame) -> str:
        """Shows objects on a frame that has passed; returns how."""
        if not self._lazy.keeps(frame.stamp):
            tracked = frame.labels is not None
            self._session.add_to_newest(self._carried_forward(given, frame, newest))
            why = "'s features are not kept" if tracked else " was never tracked"
            return (
                f"that frame{why}: the objects were found again in the newest one, and begin there"
            )
        outcome = self._lazy.add_to_past(given.masks, frame.stamp, dict(given.labels))
        frame.labels = outcome.labels
        self._session.see_upkeep()
        return outcome.reason

    def _carried_forward(
        self, given: GivenMasks, frame: ReceivedFrame, newest: ReceivedFrame
    ) -> GivenMasks:
        """The masks of an older frame as the network finds them in the newest one.

        A tracker of its own segments the older frame with the masks and then the newest: other
        objects keep their memory, at the price of two more frames' work.
        """
        tracker = self._make_tracker()
        # What else was there keeps the new objects from spreading over it.
        others = {} if frame.labels is None else masks_of_labels(frame.labels)
        tracker.memorize(tracker.segment(frame.rgb(), {**others, **given.masks}, stamp=frame.stamp))
        labels = tracker.segment(newest.rgb(), stamp=newest.stamp).labels()
        masks = {object_id: labels == object_id for object_id in given.masks}
        gone = [str(object_id) for object_id, mask in masks.items() if not mask.any()]
        if gone:
            raise InputRefusedError(
                "gone", f"object {', '.join(gone)} was not found again in the newest frame"
            )
        return replace(given, stamp=newest.stamp, masks=masks)

    def check_room(self, object_ids: Iterable[int]) -> None:
        """Raises InputRefusedError unless all of these may be followed, too; any thread."""
        count = len({*self._session.object_ids, *object_ids})
        if count > self._max_objects:
            raise InputRefusedError(
                "too many objects",
                f"there would be {count} objects; up to {self._max_objects} are followed "
                "(max_objects)",
            )

    def _check_given(self, given: GivenMasks, frame: ReceivedFrame) -> None:
        self.check_room(given.masks)
        self._check_sizes(given, frame)

    def _check_sizes(self, given: GivenMasks, frame: ReceivedFrame) -> None:
        size = frame.rgb().shape[:2]
        for object_id, mask in given.masks.items():
            if mask.shape != size:
                raise InputRefusedError(
                    "size",
                    f"the mask of object {object_id} is {mask.shape[1]}x{mask.shape[0]}, "
                    f"the frame {size[1]}x{size[0]} pixels",
                )


class ObjectInput:
    """Reads what people and programs say about objects and has the worker do it."""

    def __init__(
        self,
        node: Node,
        *,
        worker: Worker[ReceivedFrame],
        objects: Objects,
        session: TrackingSession,
        images: ImageInput,
        client: WorkerCorrectionClient,
        measures: TrackerMeasures,
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
        self._objects = objects
        self._session = session
        self._images = images
        self._client = client
        self._measures = measures
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
        self._measures.count("init masks received")
        try:
            stamp = stamp_of(message.header.stamp)
            masks = read_object_masks(
                message, max_objects=self._max_objects, max_pixels=self._max_pixels
            )
        except StampRangeError as error:
            self._measures.refuse(self._init_topic, error.kind, str(error))
            return
        except ImageError as error:
            self._measures.refuse(self._init_topic, "image", str(error))
            return
        if not self._images.is_open:
            self._measures.refuse(self._init_topic, "inactive", "the node is not active")
            return
        given = GivenMasks(stamp, masks, topic=self._init_topic)
        future = self._worker.submit_work(
            lambda: self._objects.give_masks(given),
            key=("masks", stamp, frozenset(masks)),
            objects=("masks", frozenset(masks)),
        )
        future.add_done_callback(self._after_init_mask)

    def _after_init_mask(self, future: WorkerFuture[str]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._measures.count("init masks taken")
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
        frame = await self._in_worker(lambda: self._objects.find_frame(stamp))
        ids = await self._in_worker(lambda: self._choose_ids(request.objects, frame.stamp))
        self._objects.check_room(ids)
        shown = await self._masks_of(frame, [new.prompt for new in request.objects])
        masks = dict(zip(ids, shown, strict=True))
        labels = {object_id: new.label for object_id, new in zip(ids, request.objects, strict=True)}
        topic = self._node.resolve_service_name("~/add_objects")
        given = GivenMasks(frame.stamp, masks, labels, topic)
        work = self._worker.submit_work(lambda: self._objects.give_masks(given))
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
        free = iter(self._objects.free_ids(len(objects) - len(wanted), wanted, stamp=stamp))
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
        self._client.request(
            frame.image_message(),
            prompts,
            timeout=self._client.timeout(),
            on_answers=answered.set_result,
        )
        answers = await answered
        assert answers is not None
        return answers

    async def _on_remove_objects(
        self, request: RemoveObjects.Request, response: RemoveObjects.Response
    ) -> None:
        ids = [int(object_id) for object_id in request.ids]
        response.removed = list(await self._in_worker(lambda: self._objects.remove(ids)))
        response.success = True

    async def _on_pause_objects(
        self, request: PauseObjects.Request, response: PauseObjects.Response
    ) -> None:
        ids, pause = [int(object_id) for object_id in request.ids], bool(request.pause)
        response.ids = list(
            await self._in_worker(lambda: self._objects.pause_objects(ids, pause=pause))
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
        await self._in_worker(self._objects.reset)
        response.success = True

    # ---- how

    def _explained(self, source: str, error: BaseException) -> str:
        """Reports what went wrong with a request or message; returns it in words."""
        if isinstance(error, CancelledError):
            return SHUTTING_DOWN
        if isinstance(error, ValueError):
            # Every refusal is one: of the image, the prompt, the session, the tracker.
            self._measures.refuse(source, fault_kind(error), str(error))
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

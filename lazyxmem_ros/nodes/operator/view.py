# SPDX-License-Identifier: Apache-2.0
"""What the console knows of one tracker, and what people do there; in the server's thread."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header

from lazyxmem_ros import msg
from lazyxmem_ros.basics import BoolMask, StampRangeError, stamp_of
from lazyxmem_ros.correction.base import Prompt, PromptError, validate_prompt
from lazyxmem_ros.images import ImageError
from lazyxmem_ros.images.drawing import object_colour
from lazyxmem_ros.nodes.conversions import time_message
from lazyxmem_ros.nodes.correction_client import CorrectionAnswer
from lazyxmem_ros.nodes.diagnostics import Counts, Rate
from lazyxmem_ros.nodes.operator import messages
from lazyxmem_ros.nodes.operator.curves import Curves
from lazyxmem_ros.nodes.operator.past import PastFrames
from lazyxmem_ros.nodes.operator.pictures import (
    EncodedFrame,
    EncodedRequest,
    encode_frame,
    encode_request,
    resized,
)
from lazyxmem_ros.nodes.operator.requests import (
    Asked,
    Finished,
    NotOpenError,
    Operator,
    Outcome,
    RequestDesk,
)
from lazyxmem_ros.nodes.operator.runs import RunsError, pack_mask, unpack_mask
from lazyxmem_ros.nodes.operator.tracker_link import (
    NotThereError,
    Presence,
    SeenFrame,
    TrackerLink,
)
from lazyxmem_ros.nodes.prompts import prompt_message
from lazyxmem_ros.srv import AddObjects, PauseObjects, RemoveObjects, RetractCorrection

SERVICE_TIMEOUT_S = 10.0
FRESH_S = 3.0
"""Of steady time: frames and tracks that are older are not of now."""
PAST_PERIOD_S = 0.2
"""Steady time between two frames that are kept although no browser is ready for one."""
UNWATCH_AFTER_S = 5.0
"""Who reloads the page finds the past as it was."""
STATES = {
    msg.Track.TRACKED: "tracked",
    msg.Track.UNCERTAIN: "uncertain",
    msg.Track.LOST: "lost",
    msg.Track.PAUSED: "paused",
}
DISMISSED = "an operator dismissed the request"
QUIET = "an operator asked for quiet"


class RefusedError(ValueError):
    """Something that a person asked for and does not get. `code`: for the page's texts."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(detail or code)
        self.code = code
        self.detail = detail


class Viewer(Protocol):
    """A browser that looks at the tracker."""

    heat: bool
    is_ready: bool
    """Whether it has drawn what it was sent."""
    shown: int
    """The number of what it was sent last."""

    def show(self, number: int, picture: bytes) -> None:
        """Send a live picture; it is not ready then."""


@dataclass(frozen=True)
class ViewSettings:
    """max_width: pixels of a picture. quality: of JPEG, 1..100. max_rate: live pictures a second.
    past_s, past_bytes: bounds of the frames that are kept.
    """

    max_width: int
    quality: int
    max_rate: float
    past_s: float
    past_bytes: int


class TrackerView:
    """One tracker."""

    def __init__(
        self,
        name: str,
        settings: ViewSettings,
        *,
        pool: Executor,
        counts: Counts,
        changed: Callable[[], None],
        refuse: Callable[[str, str], None],
    ) -> None:
        """name: the tracker's full node name. pool: encodes. changed(): the state is another.

        refuse(kind, fault): counts and reports a broken message of the tracker's.
        """
        self.name = name
        self.title = title_of(name)
        self.desk = RequestDesk()
        self.curves = Curves()
        self.past = PastFrames(max_seconds=settings.past_s, max_bytes=settings.past_bytes)
        self.link: TrackerLink
        self._settings = settings
        self._pool = pool
        self._counts = counts
        self._changed = changed
        self._refuse = refuse
        self._presence = Presence()
        self._complaint = ""
        self._objects: list[messages.ObjectState] = []
        self._newest = 0
        self._tracked_at = self._frame_at = -math.inf
        self._rate = Rate()
        self._quiet_until = -math.inf
        self._viewers: set[Viewer] = set()
        self._frame: SeenFrame | None = None
        self._number = 0
        self._picture: tuple[int, bytes] = (0, b"")
        self._wake = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._unwatch: asyncio.TimerHandle | None = None
        self._requests: dict[str, EncodedRequest] = {}

    # ---- what the tracker says

    def on_presence(self, presence: Presence) -> None:
        """Who is there."""
        if presence != self._presence:
            self._presence = presence
            self._changed()

    def on_complaint(self, text: str) -> None:
        """What the tracker's diagnostics complain about."""
        if text != self._complaint:
            self._complaint = text
            self._changed()

    def on_frame(self, frame: SeenFrame) -> None:
        """A new frame."""
        self._frame_at = time.monotonic()
        self._frame = frame
        self._number += 1
        self._wake.set()

    def on_tracks(self, message: msg.TrackArray) -> None:
        """The objects of the newest frame."""
        try:
            stamp = stamp_of(message.header.stamp)
        except StampRangeError as error:
            self._refuse("tracks", str(error))
            return
        self._objects = [_object_state(track) for track in message.tracks]
        if stamp != self._newest:
            self._rate.add()
        self._newest = stamp
        self._tracked_at = time.monotonic()
        self.curves.add(stamp, self._objects)
        self.desk.see(
            stamp,
            {each.id for each in self._objects if each.state == "paused"},
            {each.id for each in self._objects},
        )
        self._forget_pictures()
        self._changed()

    def on_request(self, message: msg.CorrectionRequest) -> None:
        """Somebody's help is wanted."""
        try:
            stamp, deadline = stamp_of(message.header.stamp), stamp_of(message.deadline)
        except StampRangeError as error:
            self._refuse("correction_request", str(error))
            return
        asked = Asked(
            self._key(stamp, message.id),
            stamp,
            message.id,
            message.label,
            message.reason,
            message.uncertainty,
            deadline,
            message,
        )
        if self.desk.add(asked) and self.quiet_s > 0:
            self._hush(asked, None)
        self._changed()

    def on_answer(self, message: msg.Correction) -> None:
        """An answer of anybody's; a word alone ends a request, whoever says it."""
        prompt = message.prompt
        if not (prompt.positive or prompt.negative or prompt.has_box or prompt.mask.data):
            with contextlib.suppress(StampRangeError):
                key = self._key(stamp_of(message.header.stamp), message.id)
                self.desk.declined_elsewhere(key, message.message)
                self._changed()

    def on_corrected(self, message: msg.Correction) -> None:
        """What became of a correction."""
        if message.source != "operator":
            return
        with contextlib.suppress(StampRangeError):
            key = self._key(stamp_of(message.header.stamp), message.id)
            self.desk.corrected(key, applied=message.applied, detail=message.message)
            self._changed()

    # ---- what there is to know

    @property
    def quiet_s(self) -> float:
        """Seconds for which nothing is asked."""
        return max(0.0, self._quiet_until - time.monotonic())

    def state(self, session: str) -> messages.TrackerState:
        """All of it, for one browser."""
        now = time.monotonic()
        presence = self._presence
        picture = "waiting"
        if now - max(self._frame_at, self._tracked_at) < FRESH_S:
            picture = "present"
        elif not presence.camera:
            picture = "absent"
        node = "absent"
        if presence.tracker:
            node = "present" if presence.listening else "inactive"
        oldest, newest = self.past.oldest, self.past.newest
        return messages.TrackerState(
            tracker=self.name,
            title=self.title,
            node=node,
            picture=picture,
            corrector="present" if presence.corrector else "absent",
            takes_back=presence.takes_back,
            detail=self._complaint if presence.tracker else "",
            newest=str(newest.stamp) if newest is not None else "",
            oldest=str(oldest.stamp) if oldest is not None else "",
            rate=self._rate.hertz(),
            quiet_s=self.quiet_s,
            objects=self._objects,
            requests=[self._request_state(asked, session) for asked in self.desk.open()],
            finished=[_finished_state(each, session, now) for each in self.desk.finished],
        )

    def _request_state(self, asked: Asked, session: str) -> messages.RequestState:
        holder = self.desk.holder(asked.key)
        return messages.RequestState(
            key=asked.key,
            object_id=asked.object_id,
            label=asked.label,
            reason=asked.reason,
            uncertainty=asked.uncertainty,
            stamp=str(asked.stamp),
            left_s=asked.left_s(max(self._newest, asked.stamp)),
            taken_by="" if holder is None else holder.name,
            mine=holder is not None and holder.session == session,
        )

    def _key(self, stamp: int, object_id: int) -> str:
        return f"{self.name}|{self.desk.key(stamp, object_id)}"

    # ---- live pictures

    def add_viewer(self, viewer: Viewer) -> None:
        """Somebody looks, or looks at something else."""
        self._viewers.add(viewer)
        if self._unwatch is not None:
            self._unwatch.cancel()
            self._unwatch = None
        if self._pump is None:
            self._pump = asyncio.create_task(self._keep_showing())
        self._watch()
        self.look_again()

    def remove_viewer(self, viewer: Viewer) -> None:
        """Somebody looks no longer."""
        self._viewers.discard(viewer)
        if self._viewers:
            self._watch()
        elif self._unwatch is None:
            loop = asyncio.get_running_loop()
            self._unwatch = loop.call_later(UNWATCH_AFTER_S, self._stop_watching)

    def look_again(self) -> None:
        """A viewer may have become ready."""
        self._wake.set()

    async def close(self) -> None:
        """Ends what runs."""
        if self._unwatch is not None:
            self._unwatch.cancel()
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump

    def _watch(self) -> None:
        self.link.watch(pictures=True, entropy=any(viewer.heat for viewer in self._viewers))

    def _stop_watching(self) -> None:
        self._unwatch = None
        self.link.watch(pictures=False, entropy=False)
        self._frame = None
        self.past.clear()

    async def _keep_showing(self) -> None:
        """Encodes the newest frame when somebody is ready for it, once for all, and shows it."""
        encoded_at, kept_at, failed = -math.inf, -math.inf, 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(encoded_at + 1 / self._settings.max_rate - time.monotonic())
            frame, number = self._frame, self._number
            if frame is None or not self._viewers or number == failed:
                continue
            if number != self._picture[0]:
                now = time.monotonic()
                is_wanted = any(viewer.is_ready for viewer in self._viewers)
                if not is_wanted and now - kept_at < PAST_PERIOD_S:
                    continue
                encoded_at = kept_at = now
                try:
                    encoded = await self._in_pool(partial(self._encode, frame))
                except (ImageError, MemoryError) as error:
                    failed = number
                    self._refuse("image", str(error) or "out of memory")
                    continue
                self._counts.add("frames encoded")
                if self._frame is not None:
                    self.past.add(encoded)
                self._picture = (number, self._frame_message("live", encoded, number))
            number, picture = self._picture
            for viewer in self._viewers:
                if viewer.is_ready and viewer.shown != number:
                    viewer.show(number, picture)

    def _encode(self, frame: SeenFrame) -> EncodedFrame:
        settings = self._settings
        return encode_frame(frame, max_width=settings.max_width, quality=settings.quality)

    def _frame_message(self, kind: str, frame: EncodedFrame, number: int = 0) -> bytes:
        return messages.write_message(
            messages.Picture(
                kind=kind,
                number=number,
                tracker=self.name,
                stamp=str(frame.stamp),
                request="",
                width=frame.size[1],
                height=frame.size[0],
                full_width=frame.full_size[1],
                full_height=frame.full_size[0],
                ids=list(frame.ids),
                tracked=frame.tracked,
                parts=[len(frame.jpeg), len(frame.runs), len(frame.heat)],
            ),
            frame.jpeg,
            frame.runs,
            frame.heat,
        )

    async def _in_pool(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    # ---- single pictures

    def past_picture(self, stamp: int, step: int) -> bytes:
        """A frame of the past; raises RefusedError."""
        frame = self.past.near(stamp, step)
        if frame is None:
            raise RefusedError("no_past")
        return self._frame_message("past", frame)

    async def request_picture(self, key: str) -> bytes:
        """What a request is about; raises RefusedError."""
        asked = self.desk.find(key)
        if asked is None:
            raise RefusedError("not_open")
        made = self._requests.get(key)
        if made is None:
            request, settings = asked.content, self._settings
            try:
                made = await self._in_pool(
                    lambda: encode_request(
                        request.image,
                        request.mask,
                        request.uncertainty_map,
                        max_width=settings.max_width,
                        quality=settings.quality,
                    )
                )
            except (ImageError, MemoryError) as error:
                self._refuse("correction_request", str(error))
                raise RefusedError("broken_request", str(error)) from error
            self._requests[key] = made
        return messages.write_message(
            messages.Picture(
                kind="request",
                number=0,
                tracker=self.name,
                stamp=str(asked.stamp),
                request=key,
                width=made.size[1],
                height=made.size[0],
                full_width=made.size[1],
                full_height=made.size[0],
                ids=[asked.object_id],
                tracked=True,
                parts=[len(made.jpeg), len(made.runs), len(made.heat)],
            ),
            made.jpeg,
            made.runs,
            made.heat,
        )

    def _forget_pictures(self) -> None:
        for key in [key for key in self._requests if self.desk.find(key) is None]:
            del self._requests[key]

    # ---- what people do

    async def refine(
        self, asked_for: messages.Refine, runs: bytes
    ) -> tuple[CorrectionAnswer, bytes]:
        """A mask of clicks and a box, and its runs; raises RefusedError."""
        if asked_for.request:
            asked = self.desk.find(asked_for.request)
            if asked is None:
                raise RefusedError("not_open")
            image = asked.content.image
            full_size = size = (image.height, image.width)
        else:
            frame = self._past_frame(asked_for.stamp)
            image = await self._in_pool(frame.image_message)
            full_size, size = frame.full_size, frame.size
        prior = _mask(runs, full_size) if runs else None
        prompt = _scaled_prompt(asked_for, prior, full_size, size)
        answer = await self._refine(image, prompt)
        if answer.mask is None:
            raise RefusedError("no_mask", answer.fault)
        return answer, pack_mask(resized(answer.mask, full_size))

    async def _refine(self, image: Any, prompt: Prompt) -> CorrectionAnswer:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[CorrectionAnswer] = loop.create_future()

        def finish(answer: CorrectionAnswer) -> None:
            if not done.done():
                done.set_result(answer)

        def pass_on(answers: Sequence[CorrectionAnswer]) -> None:
            with contextlib.suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(finish, answers[0])

        self.link.refine(image, prompt, timeout=SERVICE_TIMEOUT_S, on_answers=pass_on)
        return await done

    def answer(self, given: messages.Answer, runs: bytes, operator: Operator) -> messages.Done:
        """A person's answer to a request: the first one counts. Raises RefusedError."""
        asked = self.desk.find(given.request)
        mask: BoolMask = np.zeros((0, 0), bool)
        if asked is not None and given.outcome != "dismissed":
            size = (asked.content.image.height, asked.content.image.width)
            mask = _mask(runs, size) if given.outcome == "mask" else np.zeros(size, bool)
        outcome = Outcome.DISMISSED if given.outcome == "dismissed" else Outcome.SENT
        try:
            asked = self.desk.answer(given.request, operator, outcome)
        except NotOpenError as error:
            raise RefusedError(f"first_{error.code}", error.by) from error
        if outcome is Outcome.DISMISSED:
            self._say(asked, DISMISSED)
        else:
            self._send_mask(asked.content.header, asked.object_id, mask)
        self._changed()
        return messages.Done(given.seq, True, given.outcome)

    def correct(
        self, given: messages.CorrectObject, runs: bytes, operator: Operator
    ) -> messages.Done:
        """A person shows where an object is, unasked; raises RefusedError."""
        frame = self._past_frame(given.stamp)
        if not frame.tracked:
            raise RefusedError("not_tracked")
        if given.object_id not in {each.id for each in self._objects}:
            raise RefusedError("no_object")
        mask = _mask(runs, frame.full_size)
        key = self._key(frame.stamp, given.object_id)
        asked = self.desk.find(key)
        if asked is not None:
            self.desk.answer(key, operator, Outcome.SENT)
        else:
            label = next(each.label for each in self._objects if each.id == given.object_id)
            self.desk.note(
                Finished(
                    key,
                    frame.stamp,
                    given.object_id,
                    label,
                    Outcome.SENT,
                    operator,
                    time.monotonic(),
                )
            )
        self._send_mask(frame.header, given.object_id, mask)
        self._changed()
        return messages.Done(given.seq, True, "corrected")

    async def add(self, given: messages.AddObject, runs: bytes) -> messages.Done:
        """A new object; raises RefusedError."""
        frame = self._past_frame(given.stamp)
        mask = _mask(runs, frame.full_size)
        if not mask.any():
            raise RefusedError("empty_mask")
        prompt = prompt_message(Prompt(mask=mask), frame.header)
        request = AddObjects.Request(
            header=frame.header, objects=[msg.NewObject(label=given.label, prompt=prompt)]
        )
        response = await self._call(AddObjects, request)
        return messages.Done(given.seq, True, "added", response.message)

    async def remove(self, given: messages.RemoveObjects) -> messages.Done:
        """Forget objects; raises RefusedError."""
        await self._call(RemoveObjects, RemoveObjects.Request(ids=given.ids))
        self.desk.withdraw(given.ids)
        return messages.Done(given.seq, True, "removed")

    async def pause(self, given: messages.PauseObjects) -> messages.Done:
        """Let objects rest, or end that; raises RefusedError."""
        await self._call(PauseObjects, PauseObjects.Request(ids=given.ids, pause=given.pause))
        if given.pause:
            self.desk.withdraw(given.ids)
        return messages.Done(given.seq, True, "paused" if given.pause else "resumed")

    async def take_back(self, given: messages.TakeBack) -> messages.Done:
        """Undo a correction, exactly; raises RefusedError."""
        done = next((each for each in self.desk.finished if each.key == given.answer), None)
        if done is None or done.outcome is not Outcome.APPLIED:
            raise RefusedError("not_applied")
        request = RetractCorrection.Request(stamp=time_message(done.stamp), id=done.object_id)
        response = await self._response(RetractCorrection, request)
        if not response.accepted:
            raise RefusedError("refused", response.reason)
        done.outcome, done.at = Outcome.TAKEN_BACK, time.monotonic()
        self._changed()
        return messages.Done(given.seq, True, "taken_back", response.reason)

    def quiet(self, given: messages.Quiet, operator: Operator) -> messages.Done:
        """Decline everything for a while; 0 ends that."""
        self._quiet_until = time.monotonic() + given.seconds
        if given.seconds > 0:
            for asked in self.desk.open():
                self._hush(asked, operator)
        self._changed()
        return messages.Done(given.seq, True, "quiet" if given.seconds else "quiet_ended")

    # ---- how

    def _hush(self, asked: Asked, operator: Operator | None) -> None:
        """Nothing is to be asked now."""
        self.desk.answer(asked.key, operator, Outcome.QUIET)
        self._say(asked, QUIET)

    def _say(self, asked: Asked, why: str) -> None:
        """Tells the tracker that nothing is to be corrected, so that it may ask again later."""
        self.link.answer(
            msg.Correction(header=asked.content.header, id=asked.object_id, message=why)
        )

    def _send_mask(self, header: Header, object_id: int, mask: BoolMask) -> None:
        prompt = prompt_message(Prompt(mask=mask), header)
        self.link.answer(msg.Correction(header=header, id=object_id, prompt=prompt))
        self._counts.add("answers")

    def _past_frame(self, stamp: str) -> EncodedFrame:
        frame = self.past.find(int(stamp))
        if frame is None:
            raise RefusedError("forgotten_frame")
        return frame

    async def _call(self, kind: Any, request: Any) -> Any:
        """Calls a service of the tracker's; raises RefusedError where it gives no success."""
        response = await self._response(kind, request)
        if not response.success:
            raise RefusedError("refused", response.message)
        return response

    async def _response(self, kind: Any, request: Any) -> Any:
        """The response of a service of the tracker's; raises RefusedError where none comes."""
        called = asyncio.wrap_future(self.link.call(kind, request))
        try:
            return await asyncio.wait_for(called, SERVICE_TIMEOUT_S)
        except NotThereError as error:
            raise RefusedError("no_tracker", str(error)) from error
        except asyncio.TimeoutError as error:
            raise RefusedError("no_answer") from error


def title_of(name: str) -> str:
    """What people call a tracker: its namespace, or its own name where it has none."""
    namespace, _, own = name.rpartition("/")
    return namespace.strip("/") or own


def _object_state(track: msg.Track) -> messages.ObjectState:
    red, green, blue = object_colour(track.id)
    iou = float(track.predicted_iou)
    return messages.ObjectState(
        id=track.id,
        label=track.label,
        state=STATES.get(track.state, "tracked"),
        uncertainty=float(track.uncertainty),
        predicted_iou=None if math.isnan(iou) else iou,
        colour=f"#{red:02x}{green:02x}{blue:02x}",
    )


def _finished_state(done: Finished, session: str, now: float) -> messages.FinishedRequest:
    return messages.FinishedRequest(
        key=done.key,
        object_id=done.object_id,
        label=done.label,
        outcome=done.outcome.value,
        detail=done.detail,
        by="" if done.by is None else done.by.name,
        mine=done.by is not None and done.by.session == session,
        ago_s=now - done.at,
    )


def _mask(runs: bytes, size: tuple[int, int]) -> BoolMask:
    try:
        return unpack_mask(runs, size)
    except RunsError as error:
        raise RefusedError("broken_mask", str(error)) from error


def _scaled_prompt(
    given: messages.Refine,
    prior: BoolMask | None,
    full_size: tuple[int, int],
    size: tuple[int, int],
) -> Prompt:
    """The prompt in the pixels of an image of `size`, given in those of one of `full_size`."""
    scale = np.array([size[1] / full_size[1], size[0] / full_size[0]], np.float32)

    def points(given: list[messages.Point]) -> NDArray[np.float32]:
        return (np.array(given, np.float32).reshape(-1, 2) + 0.5) * scale - np.float32(0.5)

    box = None
    if given.box is not None:
        x0, y0, x1, y1 = given.box
        box = (
            max(0.0, x0 * scale[0]),
            max(0.0, y0 * scale[1]),
            min(x1 * scale[0], float(size[1])),
            min(y1 * scale[1], float(size[0])),
        )
    # Beside a box a mask would only mislead: the box says where the whole object is.
    mask = None
    if prior is not None and prior.any() and box is None:
        mask = resized(prior, size)
    prompt = Prompt(points(given.positive), points(given.negative), box, mask)
    try:
        validate_prompt(prompt, size)
    except PromptError as error:
        raise RefusedError("bad_prompt", str(error)) from error
    return prompt

# SPDX-License-Identifier: Apache-2.0
"""What people want of one tracker: masks, answers, objects; in the server's thread."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header

from lazyxmem_ros import msg
from lazyxmem_ros.basics import BoolMask
from lazyxmem_ros.correction.base import Prompt, PromptError, validate_prompt
from lazyxmem_ros.nodes.conversions import time_message
from lazyxmem_ros.nodes.correction_client import CorrectionAnswer
from lazyxmem_ros.nodes.diagnostics import Counts
from lazyxmem_ros.nodes.operator import messages
from lazyxmem_ros.nodes.operator.errors import RefusedError
from lazyxmem_ros.nodes.operator.pictures import resized
from lazyxmem_ros.nodes.operator.requests import Finished, NotOpenError, Operator, Outcome
from lazyxmem_ros.nodes.operator.runs import RunsError, pack_mask, unpack_mask
from lazyxmem_ros.nodes.operator.tracker_link import NotThereError
from lazyxmem_ros.nodes.operator.view import TrackerView
from lazyxmem_ros.nodes.prompts import prompt_message
from lazyxmem_ros.srv import AddObjects, PauseObjects, RemoveObjects, RetractCorrection

SERVICE_TIMEOUT_S = 10.0
DISMISSED = "an operator dismissed the request"


class Orders:
    """Carries out what people want, or raises RefusedError, which says why not."""

    def __init__(self, view: TrackerView, counts: Counts) -> None:
        self._view = view
        self._counts = counts

    async def obey(
        self, command: messages.Command, payload: bytes, operator: Operator
    ) -> messages.Done:
        """Does what a command says; `payload` is the mask that came with it, as runs."""
        if isinstance(command, messages.Answer):
            return self._answer(command, payload, operator)
        if isinstance(command, messages.AddObject):
            return await self._add(command, payload)
        if isinstance(command, messages.CorrectObject):
            return self._correct(command, payload, operator)
        if isinstance(command, messages.RemoveObjects):
            return await self._remove(command)
        if isinstance(command, messages.PauseObjects):
            return await self._pause(command)
        if isinstance(command, messages.TakeBack):
            return await self._take_back(command)
        assert isinstance(command, messages.Quiet)
        return self._quiet(command, operator)

    async def refine(self, asked_for: messages.Refine, runs: bytes) -> bytes:
        """The runs of a mask of clicks and a box; raises RefusedError."""
        if asked_for.request:
            asked = self._view.desk.find(asked_for.request)
            if asked is None:
                raise RefusedError("not_open")
            image = asked.content.image
            full_size = size = (image.height, image.width)
        else:
            frame = self._view.gallery.past_frame(asked_for.stamp)
            image = await self._view.gallery.in_pool(frame.image_message)
            full_size, size = frame.full_size, frame.size
        prior = _mask(runs, full_size) if runs else None
        prompt = _scaled_prompt(asked_for, prior, full_size, size)
        answer = await self._refine(image, prompt)
        if answer.mask is None:
            raise RefusedError("no_mask", answer.fault)
        return pack_mask(resized(answer.mask, full_size))

    async def _refine(self, image: Any, prompt: Prompt) -> CorrectionAnswer:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[CorrectionAnswer] = loop.create_future()

        def finish(answer: CorrectionAnswer) -> None:
            if not done.done():
                done.set_result(answer)

        def pass_on(answers: Sequence[CorrectionAnswer]) -> None:
            with contextlib.suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(finish, answers[0])

        self._view.link.refine(image, prompt, timeout=SERVICE_TIMEOUT_S, on_answers=pass_on)
        return await done

    def _answer(self, given: messages.Answer, runs: bytes, operator: Operator) -> messages.Done:
        """A person's answer to a request: the first one counts. Raises RefusedError."""
        asked = self._view.desk.find(given.request)
        mask: BoolMask = np.zeros((0, 0), bool)
        if asked is not None and given.outcome != "dismissed":
            size = (asked.content.image.height, asked.content.image.width)
            mask = _mask(runs, size) if given.outcome == "mask" else np.zeros(size, bool)
        outcome = Outcome.DISMISSED if given.outcome == "dismissed" else Outcome.SENT
        try:
            asked = self._view.desk.answer(given.request, operator, outcome)
        except NotOpenError as error:
            raise RefusedError(f"first_{error.code}", error.by) from error
        if outcome is Outcome.DISMISSED:
            self._view.decline(asked, DISMISSED)
        else:
            self._send_mask(asked.content.header, asked.object_id, mask)
        self._view.changed()
        return messages.Done(given.seq, True, given.outcome)

    def _correct(
        self, given: messages.CorrectObject, runs: bytes, operator: Operator
    ) -> messages.Done:
        """A person shows where an object is, unasked; raises RefusedError."""
        frame = self._view.gallery.past_frame(given.stamp)
        if not frame.tracked:
            raise RefusedError("not_tracked")
        if given.object_id not in {each.id for each in self._view.objects}:
            raise RefusedError("no_object")
        mask = _mask(runs, frame.full_size)
        key = self._view.key(frame.stamp, given.object_id)
        asked = self._view.desk.find(key)
        if asked is not None:
            self._view.desk.answer(key, operator, Outcome.SENT)
        else:
            label = next(each.label for each in self._view.objects if each.id == given.object_id)
            self._view.desk.note(
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
        self._view.changed()
        return messages.Done(given.seq, True, "corrected")

    async def _add(self, given: messages.AddObject, runs: bytes) -> messages.Done:
        """A new object; raises RefusedError."""
        frame = self._view.gallery.past_frame(given.stamp)
        mask = _mask(runs, frame.full_size)
        if not mask.any():
            raise RefusedError("empty_mask")
        prompt = prompt_message(Prompt(mask=mask), frame.header)
        request = AddObjects.Request(
            header=frame.header, objects=[msg.NewObject(label=given.label, prompt=prompt)]
        )
        response = await self._call(AddObjects, request)
        return messages.Done(given.seq, True, "added", response.message)

    async def _remove(self, given: messages.RemoveObjects) -> messages.Done:
        """Forget objects; raises RefusedError."""
        await self._call(RemoveObjects, RemoveObjects.Request(ids=given.ids))
        self._view.desk.withdraw(given.ids)
        return messages.Done(given.seq, True, "removed")

    async def _pause(self, given: messages.PauseObjects) -> messages.Done:
        """Let objects rest, or end that; raises RefusedError."""
        await self._call(PauseObjects, PauseObjects.Request(ids=given.ids, pause=given.pause))
        if given.pause:
            self._view.desk.withdraw(given.ids)
        return messages.Done(given.seq, True, "paused" if given.pause else "resumed")

    async def _take_back(self, given: messages.TakeBack) -> messages.Done:
        """Undo a correction, exactly; raises RefusedError."""
        desk = self._view.desk
        done = next((each for each in desk.finished if each.key == given.answer), None)
        if done is None or done.outcome is not Outcome.APPLIED or done.leaving:
            raise RefusedError("not_applied")
        if desk.last_taken(done.about) is not done:
            raise RefusedError("newer_answer")
        request = RetractCorrection.Request(stamp=time_message(done.stamp), id=done.object_id)
        done.leaving = True  # a second time another one would be taken back
        try:
            response = await self._response(RetractCorrection, request)
        finally:
            done.leaving = False
        if not response.accepted:
            raise RefusedError("refused", response.reason)
        done.outcome, done.at = Outcome.TAKEN_BACK, time.monotonic()
        self._view.changed()
        return messages.Done(given.seq, True, "taken_back", response.reason)

    def _quiet(self, given: messages.Quiet, operator: Operator) -> messages.Done:
        """Decline everything for a while; 0 ends that."""
        self._view.be_quiet(given.seconds, operator)
        return messages.Done(given.seq, True, "quiet" if given.seconds else "quiet_ended")

    # ---- how

    def _send_mask(self, header: Header, object_id: int, mask: BoolMask) -> None:
        prompt = prompt_message(Prompt(mask=mask), header)
        self._view.link.answer(msg.Correction(header=header, id=object_id, prompt=prompt))
        self._counts.add("answers")

    async def _call(self, kind: Any, request: Any) -> Any:
        """Calls a service of the tracker's; raises RefusedError where it gives no success."""
        response = await self._response(kind, request)
        if not response.success:
            raise RefusedError("refused", response.message)
        return response

    async def _response(self, kind: Any, request: Any) -> Any:
        """The response of a service of the tracker's; raises RefusedError where none comes."""
        called = asyncio.wrap_future(self._view.link.call(kind, request))
        try:
            return await asyncio.wait_for(called, SERVICE_TIMEOUT_S)
        except NotThereError as error:
            raise RefusedError("no_tracker", str(error)) from error
        except asyncio.TimeoutError as error:
            raise RefusedError("no_answer") from error


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

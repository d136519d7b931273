# SPDX-License-Identifier: Apache-2.0
"""The client of `correct_mask`, with services that never answer, or more than there is room for."""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import Mock

import numpy as np
import pytest
from node_graph import HEIGHT, WIDTH, Probe, Spinner, scene_message, wait_for
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future

from lazyxmem_ros.correction.base import Prompt
from lazyxmem_ros.nodes import correction_client
from lazyxmem_ros.nodes.conversions import mask_message
from lazyxmem_ros.nodes.correction_client import MAX_PENDING, CorrectionAnswer, CorrectionClient
from lazyxmem_ros.nodes.prompts import MAX_PROMPTS
from lazyxmem_ros.srv import CorrectMask


def test_only_so_many_requests_wait_however_long_each_may(probe: Probe) -> None:
    async def keep_silent(
        request: CorrectMask.Request, response: CorrectMask.Response
    ) -> CorrectMask.Response:
        await Future(executor=probe.node.executor)
        return response

    probe.node.create_service(CorrectMask, "/silent/correct_mask", keep_silent)
    node = Node("client", namespace="/silent")
    client = CorrectionClient(node)
    wait_for(client.is_available, "the service")
    answers: list[CorrectionAnswer] = []

    def take(given: Sequence[CorrectionAnswer]) -> None:
        answers.extend(given)

    prompt = Prompt(positive=np.array([[3.0, 3.0]], np.float32))
    for _ in range(MAX_PENDING + 5):
        client.request(scene_message(0), [prompt], timeout=3600.0, on_answers=take)
    assert [answer.fault for answer in answers] == [
        f"service correct_mask has {MAX_PENDING} requests to answer already"
    ] * 5
    assert client.measures.counts["refused"] == 5
    client.close()
    assert len(answers) == MAX_PENDING + 5
    node.destroy_node()


def test_what_there_is_no_room_for_is_answered(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request, which ends nothing but itself, and the mask of a response."""

    def answer(
        request: CorrectMask.Request, response: CorrectMask.Response
    ) -> CorrectMask.Response:
        response.success = True
        response.masks, response.faults, response.scores = [request.image], [""], [1.0]
        return response

    probe.node.create_service(
        CorrectMask, "/no_room/correct_mask", answer, callback_group=ReentrantCallbackGroup()
    )
    node = Node("client", namespace="/no_room")
    client = CorrectionClient(node)
    spinner = Spinner(node)
    wait_for(client.is_available, "the service")
    answers: list[CorrectionAnswer] = []
    prompt = Prompt(positive=np.array([[3.0, 3.0]], np.float32))

    def ask() -> None:
        client.request(scene_message(0), [prompt], timeout=3600.0, on_answers=answers.extend)

    no_room = Mock(side_effect=MemoryError)
    monkeypatch.setattr(correction_client, "read_mask", no_room)
    spinner.executor.create_task(ask)
    wait_for(lambda: len(answers) == 1, "what became of the response")
    monkeypatch.setattr(client._client, "call_async", no_room)
    spinner.executor.create_task(ask)
    wait_for(lambda: len(answers) == 2, "what became of the request")
    assert [answer.mask for answer in answers] == [None, None]
    assert all("MemoryError" in answer.fault for answer in answers)
    assert client.measures.counts["failed"] == 2
    client.close()
    spinner.close()


def test_more_prompts_than_a_request_may_have_are_sent_in_several(probe: Probe) -> None:
    """As where each of very many objects asks on one frame."""
    sizes: list[int] = []

    def answer(
        request: CorrectMask.Request, response: CorrectMask.Response
    ) -> CorrectMask.Response:
        sizes.append(len(request.prompts))
        response.success = True
        response.faults = [""] * sizes[-1]
        response.masks = [mask_message(np.ones((HEIGHT, WIDTH), bool), request.image.header)]
        response.masks *= sizes[-1]
        response.scores = [prompt.positive[0].x / 100 for prompt in request.prompts]
        return response

    service = probe.node.create_service(
        CorrectMask, "/many/correct_mask", answer, callback_group=ReentrantCallbackGroup()
    )
    node = Node("client", namespace="/many")
    client = CorrectionClient(node)
    spinner = Spinner(node)
    wait_for(client.is_available, "the service")
    count, answers = MAX_PROMPTS + 6, list[Sequence[CorrectionAnswer]]()
    prompts = [Prompt(positive=np.array([[i, 3.0]], np.float32)) for i in range(count)]
    spinner.executor.create_task(
        lambda: client.request(scene_message(0), prompts, timeout=60.0, on_answers=answers.append)
    )
    wait_for(lambda: answers, "the answers")
    assert sizes == [MAX_PROMPTS, 6]
    [together] = answers
    assert [round(100 * each.score) for each in together] == list(range(count))
    client.close()
    spinner.close()
    probe.node.destroy_service(service)

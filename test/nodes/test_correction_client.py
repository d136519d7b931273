# SPDX-License-Identifier: Apache-2.0
"""The client of `correct_mask`, with a service that never answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from node_graph import Probe, scene_message, wait_for
from rclpy.node import Node
from rclpy.task import Future

from lazyxmem_ros.correction.base import Prompt
from lazyxmem_ros.nodes.correction_client import MAX_PENDING, CorrectionAnswer, CorrectionClient
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

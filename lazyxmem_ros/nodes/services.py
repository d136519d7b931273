# SPDX-License-Identifier: Apache-2.0
"""Services whose callbacks may wait, and which leave nobody without an answer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future as WorkerFuture
from functools import partial
from typing import Any, TypeVar

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future

SHUTTING_DOWN = "the node was cleaned up or is shutting down"
CALLS = QoSProfile(depth=200)
"""Of services and their clients: so many calls may come while a node is busy, as with a change of
its state. rclpy keeps 10, and leaves the others without an answer."""
MAX_UNDER_WAY = 64
"""Calls that may wait at a time; more are refused."""
LAST_CALLS_S = 0.2
"""How long the end of a node goes on with answering."""
ResultT = TypeVar("ResultT")
Callback = Callable[[Any, Any], Awaitable[None]]
"""callback(request, response): fills in the response; what it raises is answered."""


class Services:
    """Services that are there as long as their node, and answer every call.

    While a call waits, other calls and everything else of the node go on. A call is refused where
    nobody serves it at the moment, where too many wait, and by what its callback raises. It is
    refused by the response's `success` and `message`, or `accepted` and `reason`; a response that
    has neither stays empty.
    """

    def __init__(
        self,
        node: Node,
        types: Mapping[str, Any],
        *,
        unserved: str,
        explain: Callable[[str, Exception], str],
    ) -> None:
        """types: name -> service type. unserved: why a call is refused while nobody serves it.

        explain(service, error): reports what a callback raised; returns what is answered.
        """
        self._node = node
        self._unserved = unserved
        self._explain = explain
        self._callbacks: dict[str, Callback] = {}
        self._reasons: dict[str, str] = {}
        self._under_way = 0
        group = ReentrantCallbackGroup()
        for name, service_type in types.items():
            node.create_service(
                service_type,
                name,
                partial(self._answer, name),
                qos_profile=CALLS,
                callback_group=group,
            )

    def serve(self, name: str, callback: Callback) -> None:
        """From now on the callback answers the calls of the service of this name."""
        self._callbacks[name] = callback

    def refuse(self, name: str, reason: str) -> None:
        """From now on calls of the service of this name are refused for this reason."""
        self._reasons[name] = reason

    def withdraw(self) -> None:
        """Nobody serves any of them from now on; calls under way go on."""
        self._callbacks.clear()
        self._reasons.clear()

    def finish(self) -> None:
        """Spin the node once more, so that calls under way and the last ones get their answers."""
        until = time.monotonic() + LAST_CALLS_S
        executor = self._node.executor
        while executor is not None and (left := until - time.monotonic()) > 0:
            if not self._node.context.ok():
                return
            executor.spin_once(left)

    async def _answer(self, name: str, request: Any, response: Any) -> Any:
        callback = self._callbacks.get(name)
        if callback is None:
            return _refused(response, self._reasons.get(name, self._unserved))
        if self._under_way >= MAX_UNDER_WAY:
            return _refused(response, f"{MAX_UNDER_WAY} other calls are under way: try again")
        self._under_way += 1
        try:
            await callback(request, response)
        except Exception as error:  # noqa: BLE001 - whatever it is, the node outlives it
            return _refused(response, self._explain(self._node.resolve_service_name(name), error))
        finally:
            self._under_way -= 1
        return response


def _refused(response: Any, reason: str) -> Any:
    for answer, words in (("success", "message"), ("accepted", "reason")):
        if hasattr(response, answer):
            setattr(response, answer, False)
            setattr(response, words, reason)
    return response


async def result_of(node: Node, awaited: WorkerFuture[ResultT]) -> ResultT:
    """The result of what another thread does, or what it raised; for a callback of the node."""
    executor = node.executor
    done: Future[Any] = Future(executor=executor)

    def finish(finished: WorkerFuture[ResultT]) -> None:
        done.set_result(finished)
        # The executor looks at coroutines when it wakes, and another thread's result is no
        # reason for it to.
        executor.create_task(_nothing)

    awaited.add_done_callback(finish)
    finished = await done
    assert finished is not None
    result: ResultT = finished.result()
    return result


def _nothing() -> None:
    """A task that is there to wake the executor."""

# SPDX-License-Identifier: Apache-2.0
"""Services whose callbacks may wait, and which leave nobody without an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import Future as WorkerFuture
from typing import Any, TypeVar

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.task import Future

SHUTTING_DOWN = "the node is shutting down"
ResultT = TypeVar("ResultT")


class Services:
    """Serves one request at a time; while it waits, everything else of the node goes on.

    Responses have `success` and `message`. What a callback raises is answered, not passed on to
    the executor, which would end with it.
    """

    def __init__(self, node: Node, explain: Callable[[str, Exception], str]) -> None:
        """explain(service, error): reports what a callback raised; returns what is answered."""
        self._node = node
        self._explain = explain
        self._group = MutuallyExclusiveCallbackGroup()
        self._services: list[Any] = []
        self._under_way = 0
        self._closed = False

    def serve(
        self, service_type: Any, name: str, callback: Callable[[Any, Any], Awaitable[None]]
    ) -> None:
        """callback(request, response): fills in the response."""
        service_name = self._node.resolve_service_name(name)

        async def answer(request: Any, response: Any) -> Any:
            self._under_way += 1
            try:
                await callback(request, response)
            except Exception as error:  # noqa: BLE001 - whatever it is, the node outlives it
                response.success = False
                response.message = self._explain(service_name, error)
            self._under_way -= 1
            if self._closed and not self._under_way and self._node.executor is not None:
                self._node.executor.create_task(self._destroy)
            return response

        self._services.append(
            self._node.create_service(service_type, name, answer, callback_group=self._group)
        )

    def close(self) -> None:
        """Stop serving, once what is being served has been answered."""
        self._closed = True
        if not self._under_way:
            self._destroy()

    def _destroy(self) -> None:
        for service in self._services:
            self._node.destroy_service(service)
        self._services = []


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

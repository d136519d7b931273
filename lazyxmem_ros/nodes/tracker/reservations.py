# SPDX-License-Identifier: Apache-2.0
"""Ids of objects whose masks are still being made, for calls of `~/add_objects` under way."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

from rclpy.node import Node

from lazyxmem_ros.nodes.diagnostics import InputRefusedError
from lazyxmem_ros.nodes.services import result_of
from lazyxmem_ros.nodes.tracker.received_frames import ReceivedFrame

ResultT = TypeVar("ResultT")


@dataclass(eq=False)
class Reservation:
    """The ids that a call will give to its objects, on a frame.

    overtaken: why the call can give them no more; "" while it can.
    """

    ids: tuple[int, ...]
    frame: ReceivedFrame
    overtaken: str = ""
    _awaited: Future[Any] | None = None

    def overtake(self, reason: str) -> None:
        """Ends the call, from the worker's thread: what it waits for is of no use any more."""
        self.overtaken = reason
        if self._awaited is not None:
            self._awaited.cancel()

    async def result_of(self, node: Node, awaited: Future[ResultT]) -> ResultT:
        """As `services.result_of`, but raises InputRefusedError as soon as it is overtaken."""
        self._awaited = awaited
        if self.overtaken:
            awaited.cancel()
        try:
            return await result_of(node, awaited)
        except CancelledError:
            self.check()
            raise

    def check(self) -> None:
        """Raises InputRefusedError where the call has been overtaken."""
        if self.overtaken:
            raise InputRefusedError("overtaken", self.overtaken)


class Reservations:
    """Those of the calls under way; for the worker's thread."""

    def __init__(self) -> None:
        self._open: list[Reservation] = []

    def __bool__(self) -> bool:
        return bool(self._open)

    @property
    def ids(self) -> set[int]:
        """All that are reserved."""
        return {object_id for kept in self._open for object_id in kept.ids}

    def choose(
        self, wanted: Sequence[int], *, followed: Collection[int], taken: Collection[int]
    ) -> tuple[int, ...]:
        """Ids for new objects: those that are wanted, and for 0 the lowest that nobody has.

        followed: ids that no new object can have. taken: those that are given to none by itself.
        Raises InputRefusedError.
        """
        named = [object_id for object_id in wanted if object_id]
        twice = sorted({object_id for object_id in named if named.count(object_id) > 1})
        if twice:
            fault = f"id {twice[0]} is given to more than one object"
            raise InputRefusedError("same id twice", fault)
        tracked = sorted(set(named).intersection(followed))
        if tracked:
            fault = f"object {tracked[0]} is tracked already; correct it or remove it first"
            raise InputRefusedError("tracked already", fault)
        used = {*taken, *named, *self.ids}
        free = (object_id for object_id in count(1) if object_id not in used)
        return tuple(object_id or next(free) for object_id in wanted)

    def keep(self, reservation: Reservation) -> None:
        """Its ids are reserved until it is released or overtaken."""
        self._open.append(reservation)

    def release(self, reservation: Reservation) -> None:
        """The call is over, or its objects are followed; twice is fine."""
        if reservation in self._open:
            self._open.remove(reservation)

    def check(self, object_ids: Collection[int]) -> None:
        """Raises InputRefusedError where one of these ids is reserved."""
        reserved = sorted(self.ids.intersection(object_ids))
        if reserved:
            raise InputRefusedError(
                "reserved",
                f"object {reserved[0]} is being added by a call that is under way: choose another "
                "id, or wait until the call is answered",
            )

    def overtake(self, reason: str, object_ids: Collection[int] | None = None) -> None:
        """Ends the calls that would give one of these ids; None: all of them."""
        for reservation in list(self._open):
            if object_ids is None or set(reservation.ids).intersection(object_ids):
                self.release(reservation)
                reservation.overtake(reason)

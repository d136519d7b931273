# SPDX-License-Identifier: Apache-2.0
"""How what a link hears comes into the server's thread."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp (requirements-operator.txt)")

from lazyxmem_ros.nodes.operator.node import InServerThread


def interrupted(function: Callable[[], None], after: int, by: Callable[[], None]) -> bool:
    """Runs a function of Python, and another one after so many of its instructions, as a thread
    may; returns whether there were so many.
    """
    left, done = after, False

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left, done
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                sys.settrace(None)
                frame.f_trace = None
                done = True
                by()
        return trace if left > 0 else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return done


class Way:
    """Of frames from a link to a view."""

    def __init__(self) -> None:
        self.shown: list[Any] = []
        self._calls: list[Callable[[], None]] = []
        view: Any = SimpleNamespace(gallery=SimpleNamespace(on_frame=self.shown.append))
        self._hears = InServerThread(view, self._calls.append)

    def give(self, frame: Any) -> None:
        """In the executor's thread."""
        self._hears.on_frame(frame)

    def take(self) -> None:
        """In the server's thread, what was called there first."""
        if self._calls:
            self._calls.pop(0)()

    def newest(self) -> Any:
        """What is shown in the end."""
        while self._calls:
            self.take()
        return self.shown[-1]


@pytest.mark.parametrize("taken", [True, False], ids=["while one is taken", "while one is given"])
def test_the_newest_frame_is_shown_whenever_it_comes(taken: bool) -> None:
    """Frames are given in one thread and taken in another."""
    after, goes_on = 1, True
    while goes_on:
        way = Way()
        way.give(1)
        if taken:
            goes_on = interrupted(way.take, after, partial(way.give, 2))
        else:
            goes_on = interrupted(partial(way.give, 2), after, way.take)
        assert way.newest() == (2 if goes_on or not taken else 1), f"after {after} instructions"
        way.give(3)
        assert way.newest() == 3, f"after {after} instructions"
        assert way.shown == sorted(set(way.shown))
        after += 1
    assert after > 10

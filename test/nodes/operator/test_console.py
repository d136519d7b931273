# SPDX-License-Identifier: Apache-2.0
"""What becomes of what browsers ask for, whatever becomes of their connections; without a graph."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("msgspec", reason="needs msgspec (requirements-operator.txt)")

from lazyxmem_ros.nodes.diagnostics import Counts
from lazyxmem_ros.nodes.operator import browser as browser_module
from lazyxmem_ros.nodes.operator import console as console_module
from lazyxmem_ros.nodes.operator import messages
from lazyxmem_ros.nodes.operator.browser import Browser
from lazyxmem_ros.nodes.operator.console import Console
from lazyxmem_ros.nodes.operator.orders import Orders
from lazyxmem_ros.nodes.operator.requests import Finished, Outcome, RequestDesk
from lazyxmem_ros.srv import RetractCorrection

SESSION = "0123456789abcdef"
PAUSE = {"type": "pause_objects", "seq": 1, "tracker": "/tracker", "ids": [1], "pause": True}
WAIT_S = 60.0


class Socket:
    """A WebSocket that keeps what it is given."""

    def __init__(self) -> None:
        self.closed: list[int] = []

    async def send_bytes(self, data: bytes) -> None: ...

    async def send_str(self, data: str) -> None: ...

    async def close(self, *, code: int, message: bytes) -> bool:
        self.closed.append(code)
        return True


class View:
    """A tracker of which nothing is shown."""

    name = "/tracker"


class Rig:
    """A console of one tracker; what fails in it is kept."""

    def __init__(self) -> None:
        self.failed: list[BaseException] = []
        self.console = Console(
            counts=Counts(), refuse=lambda kind, fault: None, fail=self.failed.append
        )
        self.console.add_view(View())  # type: ignore[arg-type]

    def connect(self, session: str = SESSION) -> Browser:
        browser = Browser(self.console, Socket(), max_message=1 << 20)
        self.console.browsers.add(browser)
        say(browser, {"type": "hello", "protocol": messages.PROTOCOL, "session": session})
        return browser


def say(browser: Browser, message: dict[str, Any]) -> None:
    browser.hear(json.dumps(message))


def replies(browser: Browser, kind: str) -> list[dict[str, Any]]:
    """What was answered, of a kind."""
    found = []
    for data in browser._replies:
        text: bytes | str = data
        if isinstance(data, bytes):
            (length,) = struct.unpack_from("<I", data)
            text = data[4 : 4 + length]
        found.append(json.loads(text))
    return [each for each in found if each["type"] == kind]


async def until(done: Callable[[], Any]) -> None:
    async def look() -> None:
        while not done():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(look(), WAIT_S)


def obeying(monkeypatch: pytest.MonkeyPatch, what: Callable[[], Awaitable[None]]) -> None:
    """Commands are done once `what` is."""

    async def obey(self: Orders, command: Any, payload: bytes, operator: Any) -> messages.Done:
        await what()
        return messages.Done(command.seq, True, "paused")

    monkeypatch.setattr(Orders, "obey", obey)


def test_a_command_whose_connection_is_lost_is_answered_on_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The tracker takes its time, and does it once."""

    async def run() -> None:
        begun, gate = [], asyncio.Event()

        async def work() -> None:
            begun.append(1)
            await gate.wait()

        obeying(monkeypatch, work)
        rig = Rig()
        first = rig.connect()
        say(first, PAUSE)
        await until(lambda: begun)
        rig.console.leave(first)
        second = rig.connect()
        say(second, PAUSE)  # again: it may have been lost
        gate.set()
        await until(lambda: replies(second, "done"))
        assert [done["ok"] for done in replies(second, "done")] == [True]
        assert len(begun) == 1
        assert not rig.failed

    asyncio.run(run())


def test_a_page_that_stays_is_heeded_however_many_come_and_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        obeying(monkeypatch, lambda: asyncio.sleep(0))
        rig = Rig()
        stays = rig.connect()
        for number in range(2 * console_module.MAX_SESSIONS):
            rig.console.leave(rig.connect(f"{number:016x}"))
        assert len(rig.console._sessions) <= console_module.MAX_SESSIONS
        say(stays, PAUSE)
        await until(lambda: replies(stays, "done"))

    asyncio.run(run())


def test_a_connection_has_one_session() -> None:
    """Else one that names ever new ones would have the console remember all of them."""

    async def run() -> None:
        rig = Rig()
        browser = rig.connect()
        hello = {"type": "hello", "protocol": messages.PROTOCOL}
        with pytest.raises(messages.MessageError, match="one session"):
            say(browser, {**hello, "session": SESSION[::-1]})
        say(browser, {**hello, "session": SESSION, "name": "Anna"})  # another name is none
        assert {each.operator.name for each in rig.console._sessions.values()} == {"Anna"}

    asyncio.run(run())


def test_an_answer_is_taken_back_once_however_many_ask_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second time the tracker would take back the answer before it, which was right."""
    desk = RequestDesk()
    before, wrong = (
        Finished("/tracker|0|5|1", 5, 1, "cup", Outcome.APPLIED, None, 0.0) for _ in range(2)
    )
    desk.note(before)
    desk.note(wrong)

    async def run() -> None:
        gate, asked = asyncio.Event(), []

        async def respond(self: Orders, kind: Any, request: Any) -> Any:
            asked.append(request)
            await gate.wait()
            return RetractCorrection.Response(accepted=True)

        monkeypatch.setattr(Orders, "_response", respond)
        monkeypatch.setattr(View, "desk", desk, raising=False)
        monkeypatch.setattr(View, "changed", lambda self: None, raising=False)
        rig = Rig()
        first, second = rig.connect(), rig.connect(SESSION[::-1])
        take = {"type": "take_back", "seq": 1, "tracker": "/tracker"}
        say(first, {**take, "answer": before.key})
        await until(lambda: replies(first, "done"))
        assert replies(first, "done")[-1]["code"] == "newer_answer"
        say(first, {**take, "seq": 2, "answer": wrong.key})
        say(first, {**take, "seq": 3, "answer": wrong.key})  # a double click
        say(second, {**take, "answer": wrong.key})
        await until(lambda: asked and replies(second, "done"))
        assert [each["code"] for each in replies(second, "done")] == ["not_applied"]
        gate.set()
        await until(lambda: len(replies(first, "done")) == 3)
        assert [each["code"] for each in replies(first, "done")[1:]] == [
            "not_applied",
            "taken_back",
        ]
        assert len(asked) == 1
        assert (before.outcome, wrong.outcome) == (Outcome.APPLIED, Outcome.TAKEN_BACK)
        assert not rig.failed

    asyncio.run(run())


REFINE = {"type": "refine", "tracker": "/tracker", "stamp": "1", "positive": [[1, 1]]}


def test_a_mask_that_cannot_be_made_is_answered_whatever_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A page waits for it."""

    async def refine(self: Orders, message: Any, payload: bytes) -> Any:
        raise MemoryError

    monkeypatch.setattr(Orders, "refine", refine)

    async def run() -> None:
        rig = Rig()
        browser = rig.connect()
        say(browser, {**REFINE, "seq": 7})
        await until(lambda: replies(browser, "refined"))
        [refined] = replies(browser, "refined")
        assert (refined["seq"], refined["ok"]) == (7, False)
        assert (refined["code"], refined["detail"]) == ("failed", "MemoryError: ")
        assert [type(error) for error in rig.failed] == [MemoryError]

    asyncio.run(run())


def test_one_browser_s_masks_are_few_at_a_time_and_all_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where all that it asks for comes at once."""

    async def run() -> None:
        begun, gate = [], asyncio.Event()

        async def refine(self: Orders, message: Any, payload: bytes) -> Any:
            begun.append(message.seq)
            await gate.wait()
            raise MemoryError

        monkeypatch.setattr(Orders, "refine", refine)
        rig = Rig()
        browser = rig.connect()
        most = browser_module.MAX_REFINING
        for seq in range(1, most + 3):
            say(browser, {**REFINE, "seq": seq})
        await until(lambda: len(begun) >= most)
        refused = [(each["seq"], each["code"]) for each in replies(browser, "refined")]
        assert refused == [(most + 1, "too_many_masks"), (most + 2, "too_many_masks")]
        gate.set()
        await until(lambda: len(replies(browser, "refined")) == most + 2)
        assert len(begun) == most
        say(browser, {**REFINE, "seq": most + 3})
        await until(lambda: len(begun) == most + 1)

    asyncio.run(run())


def test_who_reads_no_outcomes_is_cut_off_and_stays_the_same_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under another one the page would send its commands again, to be done again."""

    async def run() -> None:
        async def work() -> None:
            monkeypatch.setattr(browser_module, "MAX_REPLIES", 0)

        obeying(monkeypatch, work)
        rig = Rig()
        browser = rig.connect()
        say(browser, PAUSE)
        socket = browser._socket
        assert isinstance(socket, Socket)
        await until(lambda: socket.closed)
        assert socket.closed == [1008]
        assert not rig.failed

    asyncio.run(run())

# SPDX-License-Identifier: Apache-2.0
"""One browser's connection: what it says is done, what it has to know is sent at its own pace."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol

from aiohttp import WSCloseCode

from lazyxmem_ros.nodes.operator import messages
from lazyxmem_ros.nodes.operator.console import Console, FloodError
from lazyxmem_ros.nodes.operator.errors import RefusedError
from lazyxmem_ros.nodes.operator.orders import Orders
from lazyxmem_ros.nodes.operator.requests import Operator
from lazyxmem_ros.nodes.operator.view import TrackerView

STATE_PERIOD_S = 0.15
"""Least time between two messages of state."""
HEARTBEAT_S = 1.0
"""Longest time between two: a page that hears nothing for longer knows that it is cut off."""
MAX_REPLIES = 64
"""Replies that wait for a browser; one that asks on without reading is let go."""
MESSAGE_RATE, MESSAGE_BURST = 60.0, 200.0
"""Messages a second, and at once after a pause."""
MAX_REFINING = 4
"""Masks that are being made for one browser at once."""


CLOSE_TIMEOUT_S = 1.0
REPLACED = 4001
"""The WebSocket's close code for a session that another connection has taken over."""


class Socket(Protocol):
    """What is needed of a WebSocket."""

    async def send_bytes(self, data: bytes) -> None:
        """Returns once the browser keeps up."""

    async def send_str(self, data: str) -> None:
        """The same."""

    async def close(self, *, code: int, message: bytes) -> bool:
        """Ends the connection."""


class Allowance:
    """How many messages may still come: so many a second, with a burst."""

    def __init__(self, rate: float = MESSAGE_RATE, burst: float = MESSAGE_BURST) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._at = burst, time.monotonic()

    def take(self) -> bool:
        """Whether one more may come."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Browser:
    """A connection. It is a Viewer of at most one tracker."""

    def __init__(
        self, console: Console, socket: Socket, max_message: int, session: str = ""
    ) -> None:
        """max_message: bytes that it may send at once. session: of the page, where it is known
        before the page says hello.
        """
        self.session = session
        self._max_message = max_message
        self._console = console
        self._socket = socket
        self._replies: deque[bytes | str] = deque()
        self._wake = asyncio.Event()
        self._dirty = True
        self._allowance = Allowance()
        self._refining = 0
        self._samples_seen: dict[str, tuple[int, int]] = {}
        self.shown = 0
        self._view: TrackerView | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.heat = False
        self.is_ready = False
        self.operator: Operator | None = None

    # ---- what the server has for it

    def changed(self) -> None:
        """There is a newer state."""
        self._dirty = True
        self._wake.set()

    def reply(self, data: bytes | str) -> None:
        """Queues an answer; raises FloodError where too many wait."""
        if len(self._replies) >= MAX_REPLIES:
            raise FloodError(f"{MAX_REPLIES} replies wait for it")
        self._replies.append(data)
        self._wake.set()

    def show(self, number: int, picture: bytes) -> None:
        """Queues a live picture; there is at most one under way."""
        self.shown, self.is_ready = number, False
        self._replies.append(picture)
        self._wake.set()
        self._console.counts.add("frames sent")

    async def write(self) -> None:
        """Sends what there is, for ever; nothing waits but replies, however slow the browser is."""
        state_at = 0.0
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), HEARTBEAT_S)
            self._wake.clear()
            while self._replies:
                data = self._replies.popleft()
                await (
                    self._socket.send_str(data)
                    if isinstance(data, str)
                    else self._socket.send_bytes(data)
                )
            now = time.monotonic()
            if self.operator is None:
                continue
            wait = state_at + STATE_PERIOD_S - now
            if self._dirty and wait > 0:
                # Replies must not wait for it.
                asyncio.get_running_loop().call_later(wait, self._wake.set)
            elif self._dirty or now - state_at >= HEARTBEAT_S:
                state_at, self._dirty = now, False
                await self._send_state()

    async def _send_state(self) -> None:
        assert self.operator is not None
        # The curves go first: that of an object that is gone is not to be shown for its successor.
        for view in self._console.views.values():
            generation, count = self._samples_seen.get(view.name, (-1, 0))
            restart = generation != view.curves.generation
            samples = view.curves.since(0 if restart else count)
            self._samples_seen[view.name] = (view.curves.generation, view.curves.count)
            if samples or restart:
                made = messages.Samples(view.name, restart, samples)
                await self._socket.send_str(messages.write_text(made))
        state = self._console.state(self.operator.session)
        await self._socket.send_str(messages.write_text(state))

    # ---- what it says

    def hear(self, data: bytes | str) -> None:
        """Does what a message asks for. Raises MessageError, RefusedError or FloodError."""
        if not self._allowance.take():
            raise FloodError(f"more than {MESSAGE_RATE:g} messages a second")
        message, payload = messages.read_message(data)
        if isinstance(message, messages.Hello):
            self._greet(message)
        elif self.operator is None:
            raise messages.MessageError("the first message has to be hello")
        elif isinstance(message, messages.Shown):
            if message.number == self.shown and self._view is not None:
                self.is_ready = True
                self._view.gallery.look_again()
        elif isinstance(message, messages.Watch):
            self._watch(message)
        elif isinstance(message, messages.Take):
            self._console.take(message, self.operator)
        elif isinstance(message, messages.OpenPast):
            view = self._console.view(message.tracker)
            self.reply(view.gallery.past_picture(int(message.stamp), message.step))
        elif isinstance(message, messages.OpenRequest):
            self._start(self._open_request(message))
        else:
            self._command(message, payload)

    def _greet(self, message: messages.Hello) -> None:
        if message.protocol != messages.PROTOCOL:
            raise RefusedError("protocol", f"the page speaks protocol {message.protocol}")
        if self.session and message.session != self.session:
            # Sessions without a connection are forgotten when there are too many; those that one
            # connection had left behind would all seem to have it.
            raise messages.MessageError("a connection has one session")
        self.session = message.session
        self.operator = self._console.greet(self, message)
        welcome = messages.Welcome(self.operator.name, self._console.quiet_s, self._max_message)
        self.reply(messages.write_text(welcome))
        self._console.changed()

    def _watch(self, message: messages.Watch) -> None:
        view = None if message.tracker is None else self._console.view(message.tracker)
        self.heat = message.heat
        if self._view is not None and self._view is not view:
            self._view.gallery.remove_viewer(self)
        if self._view is not view:
            self.is_ready, self.shown = True, 0
        self._view = view
        if view is not None:
            view.gallery.add_viewer(self)

    async def _open_request(self, message: messages.OpenRequest) -> None:
        try:
            view = self._console.view_of_request(message.request)
            self.reply(await view.gallery.request_picture(message.request))
        except RefusedError as error:
            self.reply(
                messages.write_text(messages.Refused(error.code, error.detail, message.request))
            )

    def _command(self, message: messages.Command, payload: bytes) -> None:
        assert self.operator is not None
        if not isinstance(message, messages.Refine):
            self._console.obey(message, payload, self.operator)
        elif self._refining >= MAX_REFINING:
            self._make_no_mask(message, "too_many_masks")
        else:
            self._refining += 1  # at once: many may come before the first of them is begun
            self._start(self._refine(message, payload))

    async def _refine(self, message: messages.Refine, payload: bytes) -> None:
        try:
            view = self._console.view(message.tracker)
            runs = await Orders(view, self._console.counts).refine(message, payload)
        except RefusedError as error:
            self._make_no_mask(message, error.code, error.detail)
        except Exception as error:
            self._make_no_mask(message, "failed", f"{type(error).__name__}: {error}")
            raise
        else:
            self.reply(messages.write_message(messages.Refined(message.seq, True), runs))
        finally:
            self._refining -= 1

    def _make_no_mask(self, message: messages.Refine, code: str, detail: str = "") -> None:
        """The page is told, which waits."""
        refined = messages.Refined(message.seq, False, code, detail)
        self.reply(messages.write_message(refined))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._survive(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _survive(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except FloodError as error:
            self._console.refuse("flood", str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the console outlives it
            self._console.fail(error)

    async def hang_up(self, code: int, why: str) -> None:
        """End the connection, as far as the browser does not keep it up."""
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
            closing = self._socket.close(code=code, message=why.encode()[:120])
            await asyncio.wait_for(closing, CLOSE_TIMEOUT_S)

    def replace(self) -> None:
        """Another connection of the same session has come."""
        self._start(self.hang_up(REPLACED, "opened again"))

    def let_go(self, why: str) -> None:
        """It does not read what it asked for. The page comes back, as the same session."""
        self._start(self.hang_up(WSCloseCode.POLICY_VIOLATION, why))

    def close(self) -> None:
        """The connection is over."""
        if self._view is not None:
            self._view.gallery.remove_viewer(self)
        for task in self._tasks:
            task.cancel()

# SPDX-License-Identifier: Apache-2.0
"""All trackers and all browsers of a console, and what its operators have commanded."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from lazyxmem_ros.nodes.diagnostics import Counts
from lazyxmem_ros.nodes.operator import messages
from lazyxmem_ros.nodes.operator.errors import RefusedError
from lazyxmem_ros.nodes.operator.orders import Orders
from lazyxmem_ros.nodes.operator.requests import NotOpenError, Operator
from lazyxmem_ros.nodes.operator.view import TrackerView

MAX_SESSIONS = 64
"""Of which it is known what was commanded; of those without a connection the oldest go."""
MAX_COMMANDS = 100
"""Of a session, whose outcome is known in case the page has missed it."""
QUIET_S = 60.0


class FloodError(RuntimeError):
    """A browser that sends more than it may, or does not read what it asked for."""


class Client(Protocol):
    """A browser's connection."""

    operator: Operator | None
    session: str

    def changed(self) -> None:
        """There is a newer state."""

    def reply(self, data: bytes | str) -> None:
        """Queues an answer; raises FloodError where too many wait."""

    def replace(self) -> None:
        """Another connection of the same session has come."""

    def let_go(self, why: str) -> None:
        """End the connection, soon."""

    async def hang_up(self, code: int, why: str) -> None:
        """End the connection."""

    def close(self) -> None:
        """The connection is over."""


@dataclass
class Session:
    """One page, over all of its connections."""

    operator: Operator
    browser: Client | None = None
    outcomes: OrderedDict[int, messages.Done | None] = field(default_factory=OrderedDict)
    """By the command's number; None while it is being done."""


class Console:
    """Everything that lives in the server's thread."""

    def __init__(
        self,
        *,
        counts: Counts,
        refuse: Callable[[str, str], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        """refuse(kind, fault): counts and reports; fail(error): reports what is no refusal."""
        self.counts = counts
        self.refuse = refuse
        self.fail = fail
        self.quiet_s = QUIET_S
        self.browsers: set[Client] = set()
        self._views: dict[str, TrackerView] = {}
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._greeted = 0
        self._commands: set[asyncio.Task[None]] = set()

    @property
    def views(self) -> Mapping[str, TrackerView]:
        """By the trackers' full names."""
        return self._views

    def add_view(self, view: TrackerView) -> None:
        """One more tracker."""
        self._views[view.name] = view

    def view(self, name: str) -> TrackerView:
        """A tracker's; raises RefusedError."""
        view = self._views.get(name)
        if view is None:
            raise RefusedError("unknown_tracker", name)
        return view

    def view_of_request(self, key: str) -> TrackerView:
        """The tracker's whose request has this key; raises RefusedError."""
        return self.view(key.partition("|")[0])

    def changed(self) -> None:
        """Everybody is to know the new state."""
        for browser in self.browsers:
            browser.changed()

    def state(self, session: str) -> messages.State:
        """All there is to know, for one browser."""
        return messages.State([view.state(session) for view in self._views.values()])

    # ---- operators

    def greet(self, browser: Client, hello: messages.Hello) -> Operator:
        """A page says who it is, at first or under another name; a connection that its session has
        already is replaced by this one.
        """
        session = self._sessions.get(hello.session)
        if session is not None and session.browser not in (None, browser):
            # Two pages with one number, of which one was copied; or one whose old connection is
            # not known to be lost.
            assert session.browser is not None
            session.browser.replace()
        name = " ".join(hello.name.split())
        if not name:
            known = session.operator.name if session is not None else ""
            name = known or self._new_name()
        operator = Operator(hello.session, name)
        if session is None:
            session = self._sessions[hello.session] = Session(operator)
        session.operator, session.browser = operator, browser
        self._sessions.move_to_end(hello.session)
        gone = [key for key, each in self._sessions.items() if each.browser is None]
        for key in gone[: max(0, len(self._sessions) - MAX_SESSIONS)]:
            del self._sessions[key]
        return operator

    def leave(self, browser: Client) -> None:
        """A connection is over. Who comes back within the time that a request is held goes on."""
        self.browsers.discard(browser)
        browser.close()
        operator = browser.operator
        if operator is not None:
            session = self._sessions.get(operator.session)
            if session is not None and session.browser is browser:
                session.browser = None
        self.changed()

    def _new_name(self) -> str:
        self._greeted += 1
        return f"Operator {self._greeted}"

    # ---- commands

    def take(self, message: messages.Take, operator: Operator) -> None:
        """Somebody begins to answer a request, or leaves it."""
        desk = self.view_of_request(message.request).desk
        if message.hold:
            try:
                desk.take(message.request, operator)
            except NotOpenError:
                return  # the page sees by the state what became of it
        else:
            desk.give_back(message.request, operator.session)
        self.changed()

    def obey(self, command: messages.Command, payload: bytes, operator: Operator) -> None:
        """Does a command once, however often it comes, and says what became of it: also where the
        connection is lost meanwhile.
        """
        task = asyncio.create_task(self._obey(command, payload, operator))
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)

    async def _obey(self, command: messages.Command, payload: bytes, operator: Operator) -> None:
        session = self._sessions.get(operator.session)
        if session is None:
            return  # forgotten for newer ones
        if command.seq in session.outcomes:
            done = session.outcomes[command.seq]
            if done is not None:
                _tell(session, done)
            return
        session.outcomes[command.seq] = None
        while len(session.outcomes) > MAX_COMMANDS:
            session.outcomes.popitem(last=False)
        try:
            done = await self._do(command, payload, operator)
        except RefusedError as error:
            done = messages.Done(command.seq, False, error.code, error.detail)
        except Exception as error:  # noqa: BLE001 - the page has to know
            self.fail(error)
            done = messages.Done(command.seq, False, "failed", f"{type(error).__name__}: {error}")
        session.outcomes[command.seq] = done
        _tell(session, done)

    async def _do(
        self, command: messages.Command, payload: bytes, operator: Operator
    ) -> messages.Done:
        if isinstance(command, messages.Answer):
            view = self.view_of_request(command.request)
        else:
            assert isinstance(command, messages.TrackerCommand)
            view = self.view(command.tracker)
        return await Orders(view, self.counts).obey(command, payload, operator)


def _tell(session: Session, done: messages.Done) -> None:
    """Says what became of a command to the session's browser, if there is one now."""
    if session.browser is not None:
        try:
            session.browser.reply(messages.write_text(done))
        except FloodError as error:
            session.browser.let_go(str(error))

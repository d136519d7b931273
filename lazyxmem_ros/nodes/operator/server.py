# SPDX-License-Identifier: Apache-2.0
"""The web server of the console: its page, its WebSocket, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from socket import socket as Socket

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from lazyxmem_ros.nodes.operator.access import HEADERS, Access
from lazyxmem_ros.nodes.operator.browser import Browser
from lazyxmem_ros.nodes.operator.console import Console, FloodError
from lazyxmem_ros.nodes.operator.errors import RefusedError
from lazyxmem_ros.nodes.operator.messages import MessageError, Refused, refused_command, write_text

PAGE = "lazyxmem_ros.nodes.operator.page"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
MAX_LOGIN_BYTES = 4096
LOGINS_PER_MINUTE = 30
"""Wrong tokens, of all browsers together; beyond, everybody waits."""
PING_PERIOD_S = 60.0
"""A browser that does not answer within half of it is gone; a slow one first gets its picture."""
MAX_MALFORMED = 20
"""Messages of one connection that are none; then it is closed."""
SHUTDOWN_S = 2.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class ServerSettings:
    """max_message: bytes of one message of a browser. max_browsers: connections at once."""

    max_message: int
    max_browsers: int


@dataclass(frozen=True)
class Refusal:
    """Why a page may not connect. status: of HTTP. kind, fault: what is counted and reported."""

    status: int
    kind: str
    fault: str


class Server:
    """Serves the page on sockets that are bound already, in a thread of its own."""

    def __init__(
        self,
        sockets: Sequence[Socket],
        access: Access,
        settings: ServerSettings,
        *,
        tls: ssl.SSLContext | None,
        make_console: Callable[[], Console],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """make_console(): called in the server's thread."""
        self._sockets = sockets
        self._access = access
        self._settings = settings
        self._tls = tls
        self._make_console = make_console
        self._on_failure = on_failure
        self._files = page_files()
        self._wrong_logins: list[float] = []
        self._console: Console
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="console-server", daemon=True)

    def start(self) -> None:
        """Begin to serve; returns once it does."""
        self._thread.start()
        self._started.wait()

    def stop(self) -> None:
        """Close every connection and end the thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(2 * SHUTDOWN_S + 1)

    def call(self, function: Callable[..., None], *arguments: object) -> None:
        """Run a function in the server's thread, soon."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(function, *arguments)

    # ---- the thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001 - the node has to know
            self._on_failure(error)
        finally:
            self._started.set()
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.close()

    async def _serve(self) -> None:
        self._console = self._make_console()
        application = web.Application(client_max_size=MAX_LOGIN_BYTES, middlewares=[self._guard])
        application.router.add_post("/session", self._log_in)
        application.router.add_get("/session", self._say_whether_it_may_connect)
        application.router.add_get("/connect", self._connect)
        application.router.add_get("/", self._file)
        application.router.add_get("/{name}", self._file)
        runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_S
        )
        await runner.setup()
        for socket in self._sockets:
            await web.SockSite(runner, socket, ssl_context=self._tls).start()
        self._started.set()
        await self._stopping.wait()
        await asyncio.gather(
            *(
                browser.hang_up(WSCloseCode.GOING_AWAY, "the console is ending")
                for browser in self._console.browsers
            )
        )
        await runner.cleanup()
        for view in self._console.views.values():
            await view.gallery.close()

    # ---- HTTP

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answers whoever knows this console's name; what a handler raises costs no other."""
        try:
            host = request.headers.get("Host", "")
            if not self._access.is_host(host):
                self._console.refuse("host", f"this console is not {host[:100]!r}")
                response: web.StreamResponse = web.Response(
                    status=421, text="This console is not known by that name (allowed_hosts)."
                )
            else:
                response = await handler(request)
        except web.HTTPException as error:
            response = web.Response(status=error.status, text=error.reason)
        except Exception as error:  # noqa: BLE001
            self._console.fail(error)
            response = web.Response(status=500, text="The console failed; see its log.")
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name") or "index.html"
        found = self._files.get(name)
        if found is None:
            raise web.HTTPNotFound
        content_type, body = found
        return web.Response(body=body, content_type=content_type, charset="utf-8")

    async def _log_in(self, request: web.Request) -> web.Response:
        """The page shows the token of its address, once, and gets a cookie for it."""
        origin = request.headers.get("Origin", "")
        if not self._access.is_origin(origin, request.headers.get("Host", "")):
            self._console.refuse("origin", f"a page of {origin[:100]!r} wanted to log in")
            raise web.HTTPForbidden
        now = time.monotonic()
        self._wrong_logins = [at for at in self._wrong_logins if now - at < 60]
        if len(self._wrong_logins) >= LOGINS_PER_MINUTE:
            raise web.HTTPTooManyRequests
        given = (await request.read()).decode(errors="replace")
        if not self._access.knows_token(given):
            self._wrong_logins.append(now)
            self._console.refuse("token", "somebody does not know the token")
            raise web.HTTPForbidden
        response = web.Response(status=204)
        response.set_cookie(
            self._access.cookie_name,
            self._access.cookie,
            httponly=True,
            samesite="Strict",
            secure=self._access.secure,
            path="/",
        )
        return response

    async def _say_whether_it_may_connect(self, request: web.Request) -> web.Response:
        """A page is not told why its WebSocket was refused. It names its origin, since what it asks
        for here has no such header.
        """
        refusal = self._refusal(request, request.query.get("origin", ""))
        return web.Response(status=refusal.status if refusal else 204)

    def _has_cookie(self, request: web.Request) -> bool:
        return self._access.has_cookie(request.cookies.get(self._access.cookie_name, ""))

    # ---- the WebSocket

    def _refusal(self, request: web.Request, origin: str) -> Refusal | None:
        """Why a page of this origin may not connect; None where it may. It names its session."""
        session = request.query.get("session", "")
        if not self._access.is_origin(origin, request.headers.get("Host", "")):
            return Refusal(403, "origin", f"a page of {origin[:100]!r} wanted to connect")
        if not self._has_cookie(request):
            return Refusal(401, "no token", "somebody without the token wanted to connect")
        # Who comes back may be here before their lost connection is known to be lost.
        mine = sum(each.session == session for each in self._console.browsers if session)
        count = len(self._console.browsers) - min(mine, 1)
        if count >= self._settings.max_browsers:
            return Refusal(503, "too many browsers", f"{count} are connected")
        return None

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        console = self._console
        refusal = self._refusal(request, request.headers.get("Origin", ""))
        if refusal is not None:
            console.refuse(refusal.kind, refusal.fault)
            return web.Response(status=refusal.status)
        socket = web.WebSocketResponse(
            max_msg_size=self._settings.max_message, heartbeat=PING_PERIOD_S, compress=False
        )
        await socket.prepare(request)
        browser = Browser(
            console, socket, self._settings.max_message, request.query.get("session", "")
        )
        console.browsers.add(browser)
        console.counts.add("browsers")
        writing = asyncio.create_task(_until_lost(browser))
        try:
            await self._read(browser, socket)
        finally:
            writing.cancel()
            console.leave(browser)
        return socket

    async def _read(self, browser: Browser, socket: web.WebSocketResponse) -> None:
        console, malformed = self._console, 0
        async for message in socket:
            if message.type is WSMsgType.ERROR:
                console.refuse("message", str(socket.exception()))
                return
            try:
                malformed += not self._hear(browser, _data_of(message))
            except FloodError as error:
                console.refuse("flood", str(error))
                await browser.hang_up(WSCloseCode.POLICY_VIOLATION, str(error))
                return
            if malformed >= MAX_MALFORMED:
                await browser.hang_up(WSCloseCode.POLICY_VIOLATION, "malformed messages")
                return

    def _hear(self, browser: Browser, data: bytes | str) -> bool:
        """Does what a message asks for, or says why not; returns whether it was well formed. Raises
        FloodError.
        """
        try:
            browser.hear(data)
        except RefusedError as error:
            self._console.refuse(error.code, str(error))
            browser.reply(write_text(Refused(error.code, error.detail)))
        except MessageError as error:
            self._console.refuse("malformed", str(error))
            told = refused_command(data, str(error))
            browser.reply(told or write_text(Refused("malformed", str(error))))
            return False
        return True


async def _until_lost(browser: Browser) -> None:
    with contextlib.suppress(ConnectionError):
        await browser.write()


def _data_of(message: WSMessage) -> bytes | str:
    data: bytes | str = message.data
    return data


def page_files() -> dict[str, tuple[str, bytes]]:
    """Name -> content type and content of everything that is served: read once, and looked up.

    No part of a request becomes a path.
    """
    found = {}
    for entry in resources.files(PAGE).iterdir():
        suffix = "." + entry.name.rpartition(".")[2]
        if suffix in TYPES:
            found[entry.name] = (TYPES[suffix], entry.read_bytes())
    return found

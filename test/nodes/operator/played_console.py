# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser, and a test that plays its console, without a graph."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from lazyxmem_ros.nodes.operator import messages, server
from lazyxmem_ros.nodes.operator.runs import pack_values

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route, WebSocketRoute

URL = "http://localhost/"
TRACKER = "/robot/tracker"
WIDTH, HEIGHT = 96, 64
NEWEST = 60_000_000_000
LOOK_MS = 20
PATIENT = """async () => {
  const { page } = await import("/page.js");
  page.connection.checkSilence = () => {};
}"""
"""Has the page take no silence for a lost connection: a test says nothing while it waits."""


def tracked(object_id: int, label: str = "") -> messages.ObjectState:
    """An object that is followed."""
    return messages.ObjectState(object_id, label, "tracked", 0.1, 0.9, "#ff8800")


def asked(object_id: int, **values: Any) -> messages.RequestState:
    """A request about an object."""
    request = {
        "key": request_key(object_id),
        "object_id": object_id,
        "label": "",
        "reason": "its edge is unclear",
        "left_s": 30.0,
        "taken_by": "",
        "mine": False,
        **values,
    }
    return messages.RequestState(**request)


def request_key(object_id: int) -> str:
    """What the requests about an object are known by."""
    return f"{TRACKER}|0|{NEWEST}|{object_id}"


@dataclass
class PlayedConsole:
    """What it answers by itself: who it is, its state, and pictures of requests."""

    page: Page
    objects: list[messages.ObjectState] = field(default_factory=list)
    requests: list[messages.RequestState] = field(default_factory=list)
    trackers: Sequence[str] = (TRACKER,)
    """Of which the first has the objects and requests."""
    max_message: int = 1 << 20
    """Bytes."""
    oldest: int = NEWEST - 10_000_000_000
    lets_in: bool = True
    session_status: int = 204
    """What is answered to who asks whether it is let in."""
    heard: list[dict[str, Any]] = field(default_factory=list)
    """What the page said, the oldest first."""
    connections: int = 0
    _socket: WebSocketRoute | None = None

    def open(self) -> None:
        """Load the page; returns once it is connected."""
        self.page.route(f"{URL}**", self._serve)
        self.page.route_web_socket("**/connect?*", self._connect)
        self.page.goto(URL)
        if self.lets_in:
            self.until(lambda: self.said("watch"), "the page's connection")
            self.page.evaluate(PATIENT)
            self.show_live()

    # ---- what the page says

    def said(self, kind: str) -> list[dict[str, Any]]:
        """The messages of a kind, the oldest first."""
        return [message for message in self.heard if message["type"] == kind]

    def until(self, holds: Callable[[], Any], what: str) -> None:
        """Wait for something; meanwhile the page is heard."""
        for _ in range(60_000 // LOOK_MS):
            if holds():
                return
            self.page.wait_for_timeout(LOOK_MS)
        raise AssertionError(f"it did not come: {what}")

    def settle(self, ms: float = 300) -> None:
        """Let pass what the page does at once."""
        self.page.wait_for_timeout(ms)

    # ---- what it is told

    def send(self, message: messages.ToPage, *parts: bytes) -> None:
        assert self._socket is not None
        if parts:
            self._socket.send(messages.write_message(message, *parts))
        else:
            self._socket.send(messages.write_text(message))

    def send_state(self) -> None:
        """The state."""
        tracker = {
            "tracker": TRACKER,
            "title": TRACKER,
            "node": "present",
            "picture": "present",
            "fault": "",
            "corrector": "present",
            "takes_back": True,
            "detail": "",
            "newest": str(NEWEST),
            "oldest": str(self.oldest),
            "rate": 10.0,
            "quiet_s": 0.0,
            "objects": self.objects,
            "requests": self.requests,
            "finished": [],
        }
        nothing = {"objects": [], "requests": []}
        others = [{**tracker, "tracker": name, **nothing} for name in self.trackers[1:]]
        self.send(messages.State([messages.TrackerState(**each) for each in (tracker, *others)]))

    def show_live(self) -> None:
        """The newest frame, with each object as a square."""
        self._send_picture("live", NEWEST, [each.id for each in self.objects], number=1)

    def show_past(self, stamp: int) -> None:
        self._send_picture("past", stamp, [each.id for each in self.objects])

    def show_request(self, key: str) -> None:
        """The picture of a request."""
        self._send_picture("request", NEWEST, [int(key.rpartition("|")[2])], request=key)

    def ask(self, *requests: messages.RequestState) -> None:
        """These requests are open, and no others."""
        self.requests = list(requests)
        self.send_state()

    def done(self, command: dict[str, Any], code: str) -> None:
        """Say what became of a command."""
        self.send(messages.Done(command["seq"], True, code))

    def refined(self, question: dict[str, Any], left: int = 60) -> None:
        """A square, as the answer to a question."""
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[10:30, left : left + 20] = 1
        self.send(messages.Refined(question["seq"], True), pack_values(mask))

    def refine_refused(self, question: dict[str, Any], code: str, detail: str) -> None:
        """There is no outline."""
        self.send(messages.Refined(question["seq"], False, code, detail))

    # ---- how

    def _send_picture(
        self,
        kind: str,
        stamp: int,
        ids: list[int],
        *,
        number: int = 0,
        request: str = "",
    ) -> None:
        image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        for value in range(1, len(ids) + 1):
            labels[20:40, 24 * value - 20 : 24 * value] = value
        jpeg = cv2.imencode(".jpg", image)[1].tobytes()
        runs = pack_values(labels)
        picture = messages.Picture(
            kind=kind,
            number=number,
            tracker=TRACKER,
            stamp=str(stamp),
            request=request,
            width=WIDTH,
            height=HEIGHT,
            full_width=WIDTH,
            full_height=HEIGHT,
            ids=ids,
            tracked=True,
            parts=[len(jpeg), len(runs), 0],
        )
        self.send(picture, jpeg, runs)

    def _serve(self, route: Route) -> None:
        path = route.request.url.removeprefix(URL).partition("?")[0] or "index.html"
        if path == "session":
            route.fulfill(status=self.session_status)
            return
        kind = server.TYPES["." + path.rpartition(".")[2]]
        body = (resources.files(server.PAGE) / path).read_bytes()
        route.fulfill(body=body, content_type=f"{kind}; charset=utf-8")

    def _connect(self, socket: WebSocketRoute) -> None:
        self.connections += 1
        if not self.lets_in:
            socket.close()
            return
        self._socket = socket
        socket.on_message(self._hear)

    def _hear(self, data: str | bytes) -> None:
        if isinstance(data, bytes):
            (length,) = struct.unpack_from("<I", data)
            data = data[4 : 4 + length].decode()
        message = json.loads(data)
        self.heard.append(message)
        if message["type"] == "hello":
            name = message["name"] or "Operator 1"
            self.send(messages.Welcome(name, 60.0, self.max_message))
            self.send_state()
        elif message["type"] == "open_request":
            self.show_request(message["request"])

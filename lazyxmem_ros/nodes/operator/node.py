# SPDX-License-Identifier: Apache-2.0
"""Node `lazyxmem_operator`: serves a web page on which people watch trackers and answer them."""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from lazyxmem_ros.basics import MEBIBYTE
from lazyxmem_ros.nodes import diagnostics
from lazyxmem_ros.nodes.logs import error_of, warning_of
from lazyxmem_ros.nodes.operator.access import (
    Access,
    AccessError,
    is_loopback,
    make_token,
    read_token,
    tls_context,
)
from lazyxmem_ros.nodes.operator.console import Console
from lazyxmem_ros.nodes.operator.gallery import PictureSettings
from lazyxmem_ros.nodes.operator.parameters import PARAMETERS
from lazyxmem_ros.nodes.operator.server import Server, ServerSettings
from lazyxmem_ros.nodes.operator.tracker_link import Presence, SeenFrame, TrackerLink
from lazyxmem_ros.nodes.operator.view import TrackerView
from lazyxmem_ros.nodes.parameters import Parameters
from lazyxmem_ros.nodes.running import NodeStartError, resolved, run_node
from lazyxmem_ros.nodes.timers import create_steady_timer

NODE_NAME = "lazyxmem_operator"
DIAGNOSTICS_PERIOD_S = 1.0
NICENESS = 5
"""Pictures for people wait for the tracker, not the other way round."""


class OperatorNode(Node):
    """The executor's thread listens to the trackers, the server's serves browsers."""

    def __init__(self, **options: Any) -> None:
        """options: those of rclpy.node.Node.

        Raises ParameterError for bad parameters, and NodeStartError where the page cannot be
        served.
        """
        super().__init__(NODE_NAME, **options)
        self._settings = Parameters(self, PARAMETERS)
        self._counts = diagnostics.Counts()
        self._refusals = diagnostics.Refusals(warning_of(self))
        self._failures = diagnostics.LogLimiter(error_of(self))
        self._pool = ThreadPoolExecutor(1, "console-encoder")
        self._links: list[TrackerLink] = []
        self._views: list[TrackerView] = []
        self._server: Server | None = None
        try:
            self._open()
        except AccessError as error:
            raise NodeStartError(str(error)) from error
        self._publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        create_steady_timer(self, DIAGNOSTICS_PERIOD_S, self._report)

    def close(self) -> None:
        """End the server, then leave the trackers."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
        for link in self._links:
            link.close()
        self._links = []
        self._pool.shutdown(cancel_futures=True)

    @property
    def url(self) -> str:
        """Where the page is, without the token."""
        host = self._settings["address"]
        if host in ("0.0.0.0", "::"):
            host = socket.gethostname()
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self._secure else 'http'}://{host}:{self.port}/"

    # ---- how

    def _open(self) -> None:
        settings = self._settings
        names = (resolved(self, name, "trackers") for name in settings["trackers"])
        self._trackers = tuple(dict.fromkeys(names))
        address: str = settings["address"]
        tls = tls_context(settings["certificate"], settings["key"])
        self._secure = tls is not None
        token = ""
        if settings["token_file"]:
            token = read_token(Path(settings["token_file"]))
        elif not is_loopback(address):
            token = make_token()
        bound = _bound(address, settings["port"])
        self.port: int = bound.getsockname()[1]
        access = Access.of(
            address, self.port, token=token, secure=self._secure, names=settings["allowed_hosts"]
        )
        server = self._server = Server(
            [bound],
            access,
            ServerSettings(
                round(settings["max_message_megabytes"] * MEBIBYTE), settings["max_browsers"]
            ),
            tls=tls,
            make_console=self._make_console,
            on_failure=self._fail,
        )
        self._failed: BaseException | None = None
        server.start()
        if self._failed is not None:
            raise NodeStartError(f"the page cannot be served: {self._failed}")
        self._announce(address, token)

    def _announce(self, address: str, token: str) -> None:
        """Says where the page is: the token once, on the terminal, and never in the log."""
        self.get_logger().info(f"the operator's page is at {self.url}")
        if not is_loopback(address) and not self._secure:
            self.get_logger().warning(
                "pictures and answers travel unencrypted: set certificate and key, or use a "
                "network that is trusted"
            )
        if token:
            # One of token_file may have characters that mean something in an address.
            print(f"Open {self.url}#token={quote(token, safe='')}", flush=True)

    def _make_console(self) -> Console:
        """Called in the server's thread."""
        settings = self._settings
        console = Console(counts=self._counts, refuse=self._refuse, fail=self._fail)
        picture_settings = PictureSettings(
            max_width=settings["max_width"],
            quality=settings["jpeg_quality"],
            max_rate=settings["max_rate"],
            past_s=settings["past_time"],
            past_bytes=settings["past_megabytes"] * MEBIBYTE,
            max_pixels=settings["max_pixels"],
        )
        for name in self._trackers:
            view = TrackerView(
                name,
                picture_settings,
                pool=self._pool,
                counts=self._counts,
                changed=console.changed,
                refuse=partial(self._refusals.refuse, name),
            )
            assert self._server is not None
            hears = InServerThread(view, self._server.call)
            view.link = TrackerLink(self, name, hears, on_failure=self._fail)
            self._links.append(view.link)
            self._views.append(view)
            console.add_view(view)
        return console

    def _refuse(self, kind: str, fault: str) -> None:
        self._refusals.refuse("browser", kind, fault)

    def _fail(self, error: BaseException) -> None:
        self._failed = error
        self._counts.add("failed")
        self._failures.say(type(error).__name__, diagnostics.traced(error))

    def _report(self) -> None:
        counts = self._counts.snapshot()
        faults = [f"{v.name}: {fault}" for v in self._views if (fault := v.gallery.fault)]
        status = diagnostics.status(
            diagnostics.status_name(self.get_fully_qualified_name(), "console"),
            {**counts, **self._refusals.snapshot()},
            level=diagnostics.WARN if faults else diagnostics.OK,
            message="; ".join(faults) or "ok",
            hardware_id=diagnostics.hardware(),
        )
        now = self.get_clock().now()
        self._publisher.publish(diagnostics.diagnostic_array(now, [status]))


class InServerThread:
    """Passes on what a link hears to a view, which lives in the server's thread."""

    def __init__(self, view: TrackerView, call: Callable[..., None]) -> None:
        self._view = view
        self._call = call
        self._newest: deque[SeenFrame] = deque(maxlen=1)

    def on_frame(self, frame: SeenFrame) -> None:
        """Of frames only the newest waits."""
        self._newest.append(frame)
        # For each: whether another waits is not known, since it may just be taken.
        self._call(self._take_frame)

    def _take_frame(self) -> None:
        if self._newest:  # else an earlier call has taken it
            self._view.gallery.on_frame(self._newest.pop())

    def on_presence(self, presence: Presence) -> None:
        """Who is there."""
        self._call(self._view.on_presence, presence)

    def on_tracks(self, message: Any) -> None:
        """The objects of the newest frame."""
        self._call(self._view.on_tracks, message)

    def on_request(self, message: Any) -> None:
        """Somebody's help is wanted."""
        self._call(self._view.on_request, message)

    def on_answer(self, message: Any) -> None:
        """An answer of anybody's."""
        self._call(self._view.on_answer, message)

    def on_corrected(self, message: Any) -> None:
        """What became of a correction."""
        self._call(self._view.on_corrected, message)

    def on_complaint(self, text: str) -> None:
        """What the tracker complains about."""
        self._call(self._view.on_complaint, text)


def _bound(address: str, port: int) -> socket.socket:
    """A socket that listens; raises NodeStartError."""
    try:
        family, kind, _, _, target = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(target)
        bound.listen()
    except (OSError, UnicodeError) as error:
        raise NodeStartError(
            f"nothing can be served on address {address}, port {port}: {error}; "
            "set `address` and `port` to others"
        ) from error
    return bound


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until it is asked to end; returns the exit code."""
    os.nice(NICENESS)
    cv2.setNumThreads(1)
    return run_node(OperatorNode, arguments)


if __name__ == "__main__":
    sys.exit(main())

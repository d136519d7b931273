# SPDX-License-Identifier: Apache-2.0
"""The console under test, a camera that runs, and a wire that can be cut."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from node_graph import (
    FIRST_STAMP,
    HEIGHT,
    STEP,
    WIDTH,
    Spinner,
    header,
    labels_of,
    parameters,
    scene,
    scene_message,
    stamps,
    wait_for,
)
from tracker_harness import Tracker

from lazyxmem_ros.msg import CorrectionRequest
from lazyxmem_ros.nodes.conversions import labels_message
from lazyxmem_ros.nodes.operator.node import OperatorNode

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

CAMERA_PERIOD_S = 0.1
_beginnings = itertools.count(0, 10_000)
"""A camera's first frames: far from those of the test before, of which some may yet come."""
_consoles = itertools.count()
"""Each has its own name: an earlier one may still be in the graph."""
PATIENCE_MS = 60_000
"""How long a page may take for anything while other programs use the machine."""


class Console:
    """The node, spun in a thread."""

    def __init__(self, trackers: Sequence[str], **values: Any) -> None:
        values = {"port": 0, "max_rate": 30.0, **values}
        namespace = f"/console_test{next(_consoles)}"
        self.node = OperatorNode(
            cli_args=["--ros-args", "-r", f"__ns:={namespace}"],
            parameter_overrides=parameters(trackers=list(trackers), **values),
        )
        self._spinner = Spinner(self.node)
        self.url = self.node.url

    def close(self) -> None:
        self._spinner.close()

    def count(self, name: str) -> int:
        return self.node._counts[name]

    def refusals(self) -> dict[str, int]:
        return self.node._refusals.snapshot()


class Camera:
    """Publishes the scene's frames, one after the other, in a thread."""

    def __init__(self, tracker: Tracker, period: float = CAMERA_PERIOD_S) -> None:
        self.tracker = tracker
        self.period = period
        self.index = self.first = next(_beginnings)
        self._running = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.go()

    def go(self) -> None:
        self._running.set()

    def stop(self) -> None:
        self._running.clear()

    def close(self) -> None:
        self._ended.set()
        self._running.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._ended.is_set():
            self._running.wait()
            topic = f"{self.tracker.ns}/image"
            self.tracker.probe.publish(topic, scene_message(self.index))
            self.index += 1
            time.sleep(self.period)

    def tracked(self) -> int:
        """The number of the newest frame that was tracked, -1 before the first."""
        seen = stamps(self.tracker.out("mask"))
        newest = (seen[-1] - FIRST_STAMP) // STEP if seen else -1
        return newest if newest >= self.first else -1

    def show_object(self, object_id: int = 1) -> None:
        """Show the tracker the square on its newest frame."""
        tracker = self.tracker
        wait_for(lambda: self.tracked() >= 0, "a mask")
        index = self.tracked()
        labels = scene(index)[1].astype(np.uint16) * object_id
        tracker.probe.publish(f"{tracker.name}/init_mask", labels_message(labels, header(index)))
        wait_for(lambda: object_id in tracker.objects(), f"object {object_id}")

    def ask(self, **values: Any) -> CorrectionRequest:
        """Have the tracker ask about its object, once."""
        tracker = self.tracker
        before = len(tracker.out("correction_request"))
        asking = {"operator_corrections": True, "operator_entropy": 0.0, "cooldown_frames": 0}
        assert tracker.set(**asking, **values) == ""
        wait_for(lambda: len(tracker.out("correction_request")) > before, "the request")
        assert tracker.set(cooldown_frames=10_000) == ""
        return tracker.out("correction_request")[-1]

    def corrected(self) -> list[Any]:
        return [c for c in self.tracker.out("corrected") if c.source == "operator"]

    def wait_corrected(self, count: int = 1) -> Any:
        wait_for(lambda: len(self.corrected()) >= count, "the correction")
        return self.corrected()[count - 1]


def mask_of(correction: Any) -> np.ndarray:
    """The mask bool [H, W] that a correction applied."""
    return labels_of(correction.prompt.mask) > 0


class Wire:
    """Passes TCP connections on to a port, until it is cut or stalls."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._flows = threading.Event()
        self._flows.set()
        self._is_cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def cut(self) -> None:
        """End every connection and let none in."""
        self._is_cut = True
        pairs, self._pairs = self._pairs, []
        for end in (end for pair in pairs for end in pair):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._is_cut = False

    def stall(self) -> None:
        """Nothing comes through, and nobody is told."""
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()

    def close(self) -> None:
        self._listener.close()
        self.flow()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self._is_cut:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._target))
                self._pairs.append((near, far))
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._flows.wait()
                data = source.recv(1 << 16)
                if not data:
                    break
                self._flows.wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


# ---- what people see and do


def place(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the scene is on the screen."""
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    scale = min(box["width"] / WIDTH, box["height"] / HEIGHT)
    left = box["x"] + (box["width"] - WIDTH * scale) / 2
    top = box["y"] + (box["height"] - HEIGHT * scale) / 2
    return left + (x + 0.5) * scale, top + (y + 0.5) * scale


def click(page: Page, x: float, y: float, button: Any = "left") -> None:
    page.mouse.click(*place(page, x, y), button=button)


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*place(page, *start))
    page.mouse.down()
    page.mouse.move(*place(page, *end), steps=6)
    page.mouse.up()


def serious(page: Page, axe: str) -> list[str]:
    """What axe-core finds that is serious or worse, with where it is."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{fault['id']}: {node['html'][:200]} {node.get('failureSummary', '')[:300]}"
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


def blue(page: Page, x: float, y: float) -> float:
    """The mean blue, 0..255, that is shown in the 5x5 pixels of the scene around one."""
    left, top = place(page, x - 2.5, y - 2.5)
    right, bottom = place(page, x + 2.5, y + 2.5)
    shown: float = page.evaluate(
        """async (corners) => {
          await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
          const canvas = document.getElementById("canvas");
          const area = canvas.getBoundingClientRect();
          const ratio = canvas.width / area.width;
          const origin = [area.left, area.top];
          const [x0, y0, x1, y1] = corners.map((at, i) => (at - origin[i % 2]) * ratio);
          const pixels = canvas.getContext("2d").getImageData(x0, y0, x1 - x0, y1 - y0).data;
          let sum = 0;
          for (let i = 2; i < pixels.length; i += 4) sum += pixels[i];
          return sum / (pixels.length / 4);
        }""",
        [left, top, right, bottom],
    )
    return shown


def is_tinted(page: Page, x: float, y: float) -> bool:
    """Whether the mask of an answer, which is blue, covers a place of the scene.

    Bare, the scene's mean blue is at most 60; under a mask it is 113 or more.
    """
    return blue(page, x, y) > 88


def headline(page: Page) -> Locator:
    return page.locator("#headline")


def wait_until_seen(page: Page) -> None:
    """Until what is on the stage can be answered: somebody may have looked at it."""
    page.evaluate(
        """async () => {
          const { page } = await import("/page.js");
          const { isSeen } = await import("/answering.js");
          while (!isSeen(page.draft)) await new Promise((done) => setTimeout(done, 20));
        }"""
    )


def look_at(page: Page, words: str) -> None:
    """Until an answer under this headline is on the stage and can be given."""
    from playwright.sync_api import expect

    expect(headline(page)).to_have_text(words)
    wait_until_seen(page)


def tool(page: Page, name: str) -> Locator:
    return page.locator(f"#tool-{name}")


def known(page: Page, what: str) -> Any:
    """What the page knows: an expression of JavaScript about `page` of page.js."""
    return page.evaluate(
        f"async () => {{ const {{ page }} = await import('/page.js'); return {what}; }}"
    )


def wait_in_page(page: Page, holds: str, *args: Any) -> None:
    """Until a function of JavaScript is true, however briefly: the page itself looks, often.

    Playwright's `wait_for_function` evaluates text again and again, which the page's
    content-security policy forbids.
    """
    page.evaluate(
        f"""(args) => new Promise((done, fail) => {{
          const holds = {holds};
          const end = performance.now() + {PATIENCE_MS};
          const look = () => {{
            if (holds(...args)) done();
            else if (performance.now() > end) fail(new Error("it did not come"));
            else setTimeout(look, 20);
          }};
          look();
        }})""",
        list(args),
    )


def wait_for_words(page: Page, selector: str, words: str) -> None:
    """Until an element shows words, however briefly."""
    shows = """(selector, words) => {
      const element = document.querySelector(selector);
      return element && !element.hidden && element.textContent.includes(words);
    }"""
    wait_in_page(page, shows, selector, words)

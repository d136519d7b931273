# SPDX-License-Identifier: Apache-2.0
"""The console as a person meets it: real models, real processes, a real browser.

With LAZYXMEM_SCREENSHOTS=FOLDER it leaves pictures of the page there; docs/pictures has them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp (requirements-operator.txt)")
pytest.importorskip("playwright", reason="needs playwright (requirements-dev.txt)")

from console_harness import look_at, mask_of, tool
from node_graph import FIRST_STAMP, Probe, labels_of, wait_for
from playwright.sync_api import expect
from rcl_interfaces.srv import SetParameters
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lazyxmem_ros.basics import SECOND, stamp_of
from lazyxmem_ros.correction.base import Prompt, mask_iou
from lazyxmem_ros.data.pond import TARGET_ID, Scene, SceneConfig
from lazyxmem_ros.msg import Correction, NewObject, TrackArray
from lazyxmem_ros.nodes.conversions import image_message, time_message
from lazyxmem_ros.nodes.prompts import prompt_message
from lazyxmem_ros.srv import AddObjects

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NS = "/pond"
TRACKER = f"{NS}/lazyxmem_tracker"
SHOTS = os.environ.get("LAZYXMEM_SCREENSHOTS")
SHOWN = 14
"""Frames before the camera jumps."""
JUMP = 86
"""The number of the frame that it jumps to: the koi is elsewhere, beside a look-alike."""
STRETCH = 24
"""Frames that are shown from there on, to and fro."""
PERIOD_S = 0.6


class Pond:
    """Publishes the pond's frames slowly, with a jump when it is told to; then to and fro."""

    def __init__(self, probe: Probe) -> None:
        scene = Scene(SceneConfig())
        before = [scene.render(number) for number in range(SHOWN)]
        there = [scene.render(number) for number in range(JUMP, JUMP + STRETCH)]
        self.frames = [*before, *there, *(20 * [*there[-2:0:-1], *there])]
        self.probe = probe
        self.number = 0
        self.may_jump = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def header(self, number: int) -> Header:
        stamp = FIRST_STAMP + number * SECOND // 10
        return Header(stamp=time_message(stamp), frame_id="camera")

    def truth(self, stamp: int) -> np.ndarray:
        """The koi's mask bool [H, W] in a frame."""
        number = (stamp - FIRST_STAMP) * 10 // SECOND
        return np.asarray(self.frames[number].labels == TARGET_ID)

    def close(self) -> None:
        self._ended.set()
        self.may_jump.set()
        self._thread.join(10)

    def _run(self) -> None:
        for number, frame in enumerate(self.frames):
            if number == SHOWN:
                self.may_jump.wait()
            if self._ended.wait(PERIOD_S):
                return
            message = image_message(frame.image, "rgb8", self.header(number))
            self.probe.publish(f"{NS}/image", message)
            self.number = number


@pytest.fixture
def pond(probe: Probe) -> Iterator[Pond]:
    made = Pond(probe)
    yield made
    made.close()


def set_parameters(probe: Probe, **values: Any) -> None:
    from node_graph import parameters

    request = SetParameters.Request(
        parameters=[each.to_parameter_msg() for each in parameters(**values)]
    )
    response = probe.call(SetParameters, f"{TRACKER}/set_parameters", request)
    assert all(result.successful for result in response.results)


def tail_of(mask: np.ndarray) -> np.ndarray:
    """The left two fifths of a mask bool [H, W]."""
    columns = np.flatnonzero(mask.any(axis=0))
    end = columns[0] + round(0.4 * len(columns))
    return mask & (np.arange(mask.shape[1]) < end)


def on_screen(page: Page, size: tuple[int, ...], x: float, y: float) -> tuple[float, float]:
    """Where a pixel of a picture of `size` (H, W) is on the screen."""
    height, width = size
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    scale = min(box["width"] / width, box["height"] / height)
    left = box["x"] + (box["width"] - width * scale) / 2
    top = box["y"] + (box["height"] - height * scale) / 2
    return left + (x + 0.5) * scale, top + (y + 0.5) * scale


def shoot(page: Page, name: str) -> None:
    """Leave a picture, where they are wanted; JPEG, since most of it is a photograph."""
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.mouse.move(1, 1)
        page.wait_for_timeout(300)
        page.screenshot(path=Path(SHOTS) / f"operator_{name}.jpg", type="jpeg", quality=82)


def test_a_stranger_answers_the_first_request(
    probe: Probe, pond: Pond, start: Callable[..., Any], chromium: Any, tmp_path: Path
) -> None:
    """And the next masks are the better for it.

    The tracker was shown the tail of the koi alone; the stranger drags a box around all of it.
    """
    namespace = ("-r", f"__ns:={NS}")
    start("correction", {"device": "cpu"}, *namespace)
    timing = {"request_timeout": 60.0, "correction_horizon": 60.0, "history_time": 60.0}
    asking = {"operator_iou": 0.0, "operator_rate": float("inf"), "cooldown_frames": 10_000}
    asking |= {"pseudo_corrections": False, "max_open_requests": 1}
    start("tracker", {"device": "cpu", **timing, **asking}, *namespace)
    console = start("operator", {"port": 0}, *namespace)
    masks: dict[int, np.ndarray] = {}
    probe.listen(Image, f"{TRACKER}/mask")
    probe.listen(TrackArray, f"{TRACKER}/tracks")
    probe.listen(Correction, f"{TRACKER}/corrected")
    wait_for(lambda: "page is at http" in console.log, "the page")
    url = console.log.split("page is at ")[1].split()[0]
    page = chromium.new_context(
        viewport={"width": 1360, "height": 850}, color_scheme="dark"
    ).new_page()
    page.goto(url)

    wait_for(lambda: probe.messages(f"{TRACKER}/mask"), "a mask")
    first = probe.messages(f"{TRACKER}/mask")[-1].header
    prompt = prompt_message(Prompt(mask=tail_of(pond.truth(stamp_of(first.stamp)))), first)
    request = AddObjects.Request(header=first, objects=[NewObject(label="koi", prompt=prompt)])
    response = probe.call(AddObjects, f"{TRACKER}/add_objects", request)
    assert response.success, response.message
    wait_for(lambda: pond.number == SHOWN - 1, "the frames before the jump")
    expect(page.locator("#objects .object strong")).to_have_text("koi")
    shoot(page, "watching")

    pond.may_jump.set()
    jumped = FIRST_STAMP + (SHOWN + 1) * SECOND // 10

    def seen() -> dict[int, np.ndarray]:
        for message in probe.messages(f"{TRACKER}/mask"):
            masks[stamp_of(message.header.stamp)] = labels_of(message) == 1
        return {stamp: mask for stamp, mask in masks.items() if stamp >= jumped}

    wait_for(lambda: len(seen()) >= 2, "masks after the jump")
    set_parameters(probe, operator_entropy=0.0, cooldown_frames=0)
    look_at(page, "Where is koi?")
    set_parameters(probe, cooldown_frames=10_000)
    expect(page.get_by_role("img", name="What koi looked like")).to_be_visible()
    shoot(page, "request")
    page.keyboard.down("h")
    expect(page.locator("#badge")).to_contain_text("Uncertainty")
    shoot(page, "heat")
    page.keyboard.up("h")

    key = page.evaluate("document.querySelector('#requests li').dataset.key")
    stamp = int(key.split("|")[2])
    truth = pond.truth(stamp)
    rows, columns = (np.flatnonzero(truth.any(axis=axis)) for axis in (1, 0))
    page.mouse.move(*on_screen(page, truth.shape, columns[0] - 3, rows[0] - 3))
    page.mouse.down()
    page.mouse.move(*on_screen(page, truth.shape, columns[-1] + 3, rows[-1] + 3), steps=8)
    page.mouse.up()
    expect(page.locator("#hint")).to_contain_text("Accept when the outline is right")
    shoot(page, "refined")
    tool(page, "accept").click()
    wait_for(lambda: probe.messages(f"{TRACKER}/corrected"), "the correction")
    [corrected] = probe.messages(f"{TRACKER}/corrected")
    assert corrected.applied, corrected.message
    before, after = mask_iou(seen()[stamp], truth), mask_iou(mask_of(corrected), truth)
    assert after > max(0.6, before + 0.1), (before, after)

    answered = max(masks)

    def better() -> bool:
        """Whether the last three masks are, on average; the past has to be gone through first."""
        later = [s for s in sorted(seen()) if s > answered]
        return (
            len(later) > 3
            and np.mean([mask_iou(seen()[s], pond.truth(s)) for s in later[-3:]]) > before
        )

    wait_for(better, "better masks")
    expect(page.locator("#recent .done-outcome").first).to_contain_text("applied")
    shoot(page, "answered")
    page.emulate_media(color_scheme="light")
    shoot(page, "light")
    page.set_viewport_size({"width": 820, "height": 1180})
    shoot(page, "tablet")

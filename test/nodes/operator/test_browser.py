# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser, with the real tracker behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp (requirements-operator.txt)")
pytest.importorskip("playwright", reason="needs playwright (requirements-dev.txt)")

from console_harness import Camera, Console, click, headline, is_tinted, mask_of, tool
from node_graph import HEIGHT, WIDTH, wait_for
from playwright.sync_api import expect
from tracker_harness import Tracker

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenPage = Callable[..., "Page"]
WHERE = "Where is Object 1?"


def truth_at(left: int) -> np.ndarray:
    """A square somewhere: what the correction service answers."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:30, left : left + 20] = True
    return mask


def test_a_request_is_answered_by_a_click(
    answering: Tracker, camera: Camera, open_page: OpenPage
) -> None:
    """It opens by itself; a click refines the mask, Enter accepts it, the tracker takes it."""
    page = open_page()
    camera.show_object()
    answering.service.truth = truth_at(60)
    request = camera.ask()
    expect(headline(page)).to_have_text(WHERE)
    expect(page.locator("#requests .request")).to_have_count(1)
    click(page, 70, 20)
    expect(page.locator("#hint")).to_contain_text("Accept when the outline is right")
    assert is_tinted(page, 70, 20)
    assert not is_tinted(page, 50, 20)
    assert not is_tinted(page, 70, 50)
    [prompt] = answering.service.prompts
    assert (round(prompt.positive[0].x), round(prompt.positive[0].y)) == (70, 20)
    page.keyboard.press("Enter")
    corrected = camera.wait_corrected()
    assert (corrected.applied, corrected.header.stamp) == (True, request.header.stamp)
    np.testing.assert_array_equal(mask_of(corrected), truth_at(60))
    expect(headline(page)).to_have_text("Watching")
    expect(page.locator("#recent .done-outcome").first).to_contain_text("applied")


def test_the_keyboard_alone_is_enough(
    answering: Tracker, camera: Camera, open_page: OpenPage
) -> None:
    page = open_page()
    camera.show_object()
    answering.service.truth = truth_at(30)
    camera.ask()
    expect(headline(page)).to_have_text(WHERE)
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp", "a", "Shift+ArrowRight", "s"):
        page.keyboard.press(key)
    wait_for(lambda: answering.service.prompts and answering.service.prompts[-1].negative, "both")
    last = answering.service.prompts[-1]
    assert [(p.x, p.y) for p in last.positive] == [(WIDTH // 2 - 10, HEIGHT // 2 - 5)]
    assert [(p.x, p.y) for p in last.negative] == [(WIDTH // 2 + 15, HEIGHT // 2 - 5)]
    page.keyboard.press("u")
    expect(tool(page, "undo")).to_be_enabled()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Accept the outline")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("Enter")
    assert camera.wait_corrected().applied


@pytest.mark.parametrize("key", ["v", "Escape"])
def test_one_key_says_that_there_is_nothing(camera: Camera, open_page: OpenPage, key: str) -> None:
    page = open_page()
    camera.show_object()
    camera.ask()
    expect(headline(page)).to_have_text(WHERE)
    page.keyboard.press(key)
    corrected = camera.wait_corrected()
    expect(headline(page)).to_have_text("Watching")
    if key == "v":
        assert corrected.applied
        assert not mask_of(corrected).any()
    else:
        assert (corrected.applied, corrected.message) == (
            False,
            "an operator dismissed the request",
        )


def test_two_operators_and_one_request(
    answering: Tracker, camera: Camera, open_page: OpenPage
) -> None:
    """Who begins first is shown; the first answer counts; the other one is told."""
    anna, ben = open_page(name="Anna"), open_page(name="Ben")
    camera.show_object()
    answering.service.truth = truth_at(60)
    camera.ask()
    for page in (anna, ben):
        expect(headline(page)).to_have_text(WHERE)
    click(anna, 70, 20)
    expect(ben.locator("#hint")).to_contain_text("Anna is answering")
    expect(ben.locator(".request-note")).to_have_text("Anna is answering")
    click(ben, 70, 20)
    expect(tool(ben, "undo")).to_be_enabled()
    ben.keyboard.press("Enter")
    expect(anna.locator("#verdict")).to_contain_text("Ben answered first")
    expect(anna.locator("#recent .done-outcome").first).to_contain_text("Ben")
    assert camera.wait_corrected().applied
    assert len(camera.corrected()) == 1


def test_a_dropped_connection_loses_nothing(
    answering: Tracker, camera: Camera, console: Console, open_page: OpenPage
) -> None:
    from console_harness import Wire

    wire = Wire(console.node.port)
    try:
        page = open_page(wire.url)
        camera.show_object()
        answering.service.truth = truth_at(60)
        camera.ask()
        expect(headline(page)).to_have_text(WHERE)
        click(page, 70, 20)
        expect(tool(page, "undo")).to_be_enabled()
        wire.cut()
        expect(page.locator(".notice")).to_contain_text("connection to the console is lost")
        click(page, 5, 5, button="right")  # while nobody hears
        page.keyboard.press("Enter")
        wire.mend()
        corrected = camera.wait_corrected()
        assert corrected.applied
        last = answering.service.prompts[-1]
        assert (len(last.positive), len(last.negative)) == (1, 1)
        np.testing.assert_array_equal(mask_of(corrected), truth_at(60))
        expect(page.locator(".notice")).to_have_count(0)
        assert len(camera.corrected()) == 1
    finally:
        wire.close()


def test_it_says_what_is_not_there(answering: Tracker, camera: Camera, open_page: OpenPage) -> None:
    page = open_page()
    expect(page.locator("#health")).to_contain_text("pictures/s")
    expect(page.locator(".notice")).to_have_count(0)
    answering.service.stop()
    try:
        expect(page.locator(".notice")).to_contain_text("correction service is not there")
        camera.stop()
        expect(page.locator("#notices")).to_contain_text("No picture has come from the robot")
    finally:
        answering.service.start()
    camera.go()
    expect(page.locator(".notice")).to_have_count(0)

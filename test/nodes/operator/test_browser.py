# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser, with the real tracker behind it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp (requirements-operator.txt)")
pytest.importorskip("playwright", reason="needs playwright (requirements-dev.txt)")

from console_harness import (
    Camera,
    Console,
    Wire,
    click,
    drag,
    headline,
    is_tinted,
    known,
    look_at,
    mask_of,
    place,
    serious,
    tool,
    wait_for_words,
    wait_in_page,
    wait_until_seen,
)
from diagnostic_msgs.msg import DiagnosticArray
from node_graph import FIRST_STAMP, HEIGHT, STEP, WAIT_S, WIDTH, header, wait_for
from playwright.sync_api import expect
from tracker_harness import Tracker

from lazyxmem_ros.basics import stamp_of
from lazyxmem_ros.images import ImageError
from lazyxmem_ros.nodes.conversions import labels_message
from lazyxmem_ros.nodes.diagnostics import WARN, status_name
from lazyxmem_ros.nodes.operator import gallery, messages
from lazyxmem_ros.nodes.operator.requests import HOLD_S
from lazyxmem_ros.srv import RetractCorrection

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from lazyxmem_ros.msg import CorrectionRequest

OpenPage = Callable[..., "Page"]
WHERE = "Where is Object 1?"


def truth_at(left: int) -> np.ndarray:
    """A square somewhere: what the correction service answers."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:30, left : left + 20] = True
    return mask


def ask_about_two(page: Page, camera: Camera) -> Locator:
    """The tracker asks about two objects; returns the requests in the list."""
    camera.show_object(1)
    camera.show_object(2)
    assert camera.tracker.set(max_open_requests=3) == ""
    camera.ask()
    cards = page.locator("#requests .request")
    expect(cards).to_have_count(2)
    return cards


def open_card(page: Page, number: int) -> None:
    """Have a request on the stage, by its place in the list."""
    page.keyboard.press(str(number))
    card = page.locator("#requests .request").nth(number - 1)
    expect(card).to_have_attribute("aria-current", "true")
    wait_until_seen(page)


def press_at_once(page: Page, *keys: str) -> None:
    """One after the other, before anything is drawn or heard."""
    page.evaluate(
        """(keys) => {
          for (const key of keys)
            document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
        }""",
        keys,
    )


def test_a_request_is_answered_by_a_click(
    answering: Tracker, camera: Camera, open_page: OpenPage
) -> None:
    """It opens by itself; a click refines the mask, Enter accepts it, the tracker takes it."""
    page = open_page()
    camera.show_object()
    answering.service.truth = truth_at(60)
    request = camera.ask()
    look_at(page, WHERE)
    expect(page.locator("#requests .request")).to_have_count(1)
    impression = request.reason.partition(":")[0].rstrip("?.")
    expect(page.locator("#hint")).to_contain_text(impression, ignore_case=True)
    click(page, 70, 20)
    expect(page.locator("#hint")).to_contain_text("Accept when the outline is right")
    wait_for(lambda: is_tinted(page, 70, 20), "the answer's mask")
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
    look_at(page, WHERE)
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


def test_a_held_key_answers_one_request(camera: Camera, open_page: OpenPage) -> None:
    """The next one opens meanwhile, and nobody has seen it yet."""
    page = open_page()
    cards = ask_about_two(page, camera)
    open_card(page, 1)
    page.keyboard.down("Enter")
    expect(cards).to_have_count(1)
    expect(cards).to_have_attribute("aria-current", "true")
    for _ in range(5):
        page.keyboard.down("Enter")  # what a keyboard does while a key is held
    page.keyboard.up("Enter")
    wait_until_seen(page)
    page.keyboard.press("Escape")
    camera.wait_corrected(2)
    assert [corrected.applied for corrected in camera.corrected()] == [True, False]


def open_keys(open_page: OpenPage, console: Console) -> tuple[Page, list[tuple[str, str]]]:
    """A page that does nothing but list what was pressed, and each action with a key of its."""
    page = open_page(f"{console.url}text.js")
    rows = page.evaluate(
        """async () => {
          const { listen, KEYS } = await import("/keys.js");
          window.pressed = [];
          listen({ press: (action) => window.pressed.push(action), hold: () => {} });
          return KEYS.filter((row) => !row.hold).map(({ action, keys }) => [action, keys[0]]);
        }"""
    )
    return page, rows


def test_only_what_makes_sense_is_repeated_while_a_key_is_held(
    console: Console, open_page: OpenPage
) -> None:
    page, rows = open_keys(open_page, console)
    repeated = []
    for action, key in rows:
        page.evaluate("window.pressed = []")
        for _ in range(3):
            page.keyboard.down(key)
        page.keyboard.up(key)
        pressed = page.evaluate("window.pressed")
        assert pressed in ([action], 3 * [action])
        repeated += [action] if len(pressed) == 3 else []
    assert repeated == ["brush", "arrows", "zoom", "undo", "step"]


def test_a_button_is_pressed_once_while_enter_is_held(
    console: Console, open_page: OpenPage
) -> None:
    """The first press of Remove asks, the second one removes."""
    page, _ = open_keys(open_page, console)
    page.evaluate(
        """() => {
          const button = document.createElement("button");
          button.onclick = () => window.pressed.push("button");
          document.body.append(button);
          button.focus();
        }"""
    )
    for _ in range(3):
        page.keyboard.down("Enter")
    page.keyboard.up("Enter")
    assert page.evaluate("window.pressed") == ["button"]


def test_keys_of_an_input_method_are_not_the_page_s(console: Console, open_page: OpenPage) -> None:
    page, _ = open_keys(open_page, console)
    for composing in ("isComposing: true", "keyCode: 229"):
        page.evaluate(
            f"""() => document.body.dispatchEvent(
              new KeyboardEvent("keydown", {{ key: "Enter", bubbles: true, {composing} }}))"""
        )
    assert page.evaluate("window.pressed") == []


def test_the_field_of_the_own_name_keeps_its_keys(
    camera: Camera, console: Console, open_page: OpenPage
) -> None:
    """They do not answer a request that opened before it was written."""
    page = open_page()
    camera.show_object()
    camera.ask()
    look_at(page, WHERE)
    name = page.get_by_label("Your name")
    name.fill("Anna")
    name.press("Escape")
    name.press("Enter")
    expect(name).not_to_be_focused()
    browsers = console.node._server._console.browsers
    wait_for(lambda: [b.operator.name for b in browsers] == ["Anna"], "the name")
    look_at(page, WHERE)
    page.keyboard.press("Enter")
    camera.wait_corrected()
    assert [corrected.applied for corrected in camera.corrected()] == [True]


@pytest.mark.parametrize("key", ["v", "Escape"])
def test_one_key_says_that_there_is_nothing(camera: Camera, open_page: OpenPage, key: str) -> None:
    page = open_page()
    camera.show_object()
    camera.ask()
    look_at(page, WHERE)
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
        look_at(page, WHERE)
    click(anna, 70, 20)
    expect(ben.locator("#hint")).to_contain_text("Anna is answering")
    expect(ben.locator(".request-note")).to_have_text("Anna is answering")
    click(ben, 70, 20)
    expect(tool(ben, "undo")).to_be_enabled()
    ben.keyboard.press("Enter")
    wait_for_words(anna, "#verdict", "Object 1: Ben answered first")
    expect(anna.locator("#recent .done-outcome").first).to_contain_text("Ben")
    assert camera.wait_corrected().applied
    assert len(camera.corrected()) == 1


def test_a_page_that_is_closed_leaves_its_request_to_the_others(
    camera: Camera, open_page: OpenPage
) -> None:
    anna, ben = open_page(name="Anna"), open_page(name="Ben")
    camera.show_object()
    camera.ask()
    for page in (anna, ben):
        look_at(page, WHERE)
    click(anna, 70, 20)
    note = ben.locator(".request-note")
    expect(note).to_have_text("Anna is answering")
    anna.close()
    expect(note).not_to_contain_text("Anna", timeout=1000 * HOLD_S / 3)


def test_a_dropped_connection_loses_nothing(
    answering: Tracker, camera: Camera, console: Console, open_page: OpenPage
) -> None:
    wire = Wire(console.node.port)
    try:
        page = open_page(wire.url)
        camera.show_object()
        answering.service.truth = truth_at(60)
        camera.ask()
        look_at(page, WHERE)
        click(page, 70, 20)
        expect(tool(page, "undo")).to_be_enabled()
        wire.cut()
        expect(page.locator("#notices")).to_contain_text("connection to the console is lost")
        click(page, 5, 5, button="right")  # while nobody hears
        page.keyboard.press("Enter")
        wire.mend()
        corrected = camera.wait_corrected()
        assert corrected.applied
        last = answering.service.prompts[-1]
        assert (len(last.positive), len(last.negative)) == (1, 1)
        np.testing.assert_array_equal(mask_of(corrected), truth_at(60))
        expect(page.locator("#notices")).not_to_contain_text("connection")
        assert len(camera.corrected()) == 1
    finally:
        wire.close()


def test_a_page_that_the_console_does_not_understand_says_so_and_stops(
    console: Console, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The console was updated while it was open."""
    monkeypatch.setattr(messages, "PROTOCOL", messages.PROTOCOL + 1)
    before = console.count("browsers")
    page = open_page()
    notice = page.locator("#notices .notice.bad")
    expect(notice).to_have_text("The console was updated. Reload this page.")
    wait_for(lambda: not console.node._server._console.browsers, "the connection's end")
    page.evaluate("window.dispatchEvent(new Event('online'))")
    page.wait_for_timeout(1000)  # after less a lost connection is made again
    assert console.count("browsers") == before + 1
    expect(notice).to_have_text("The console was updated. Reload this page.")


@pytest.mark.parametrize(
    "viewport", [{"width": 1280, "height": 800}, {"width": 820, "height": 1180}]
)
def test_it_says_what_is_not_there_and_moves_no_picture(
    answering: Tracker, camera: Camera, open_page: OpenPage, viewport: dict[str, int]
) -> None:
    page = open_page(viewport=viewport)
    expect(page.locator("#health")).to_contain_text("pictures/s")
    expect(page.locator(".notice.bad")).to_have_count(0)
    before = page.locator("#canvas").bounding_box()
    answering.service.stop()
    try:
        expect(page.locator("#remarks")).to_contain_text("correction service is not there")
        camera.stop()
        expect(page.locator("#notices")).to_contain_text("No picture has come from the robot")
        assert page.locator("#canvas").bounding_box() == before
    finally:
        answering.service.start()
    camera.go()
    expect(page.locator(".notice.bad")).to_have_count(0)


@pytest.mark.parametrize(
    "viewport", [{"width": 1280, "height": 800}, {"width": 820, "height": 1180}]
)
def test_a_click_that_is_under_way_when_a_notice_comes_lands_where_it_was_aimed(
    answering: Tracker,
    camera: Camera,
    console: Console,
    open_page: OpenPage,
    viewport: dict[str, int],
) -> None:
    """Also below the notice."""
    wire = Wire(console.node.port)
    try:
        page = open_page(wire.url, viewport=viewport)
        camera.show_object()
        camera.ask()
        look_at(page, WHERE)
        before = page.locator("#canvas").bounding_box()
        aim = place(page, 48, 0)
        wire.cut()
        notice = page.locator("#notices .notice")
        expect(notice).to_contain_text("connection to the console is lost")
        assert page.locator("#canvas").bounding_box() == before
        covered = notice.bounding_box()
        assert covered is not None
        assert covered["y"] <= aim[1] <= covered["y"] + covered["height"]
        page.mouse.click(*aim)
        clicks = known(page, "page.draft.clicks")
        assert [(round(click["x"]), round(click["y"])) for click in clicks] == [(48, 0)]
    finally:
        wire.close()


def test_pictures_beyond_the_console_s_limit_are_explained(
    answering: Tracker, camera: Camera, open_page: OpenPage
) -> None:
    """On the page, over the picture's place, and on /diagnostics."""
    small = Console([answering.name], max_pixels=HEIGHT * WIDTH - 1)
    try:
        page = open_page(small.url)
        notice = page.locator("#notices .notice.bad")
        expect(notice).to_contain_text(f"the image claims {WIDTH}x{HEIGHT} pixels")
        expect(notice).to_contain_text("(max_pixels)")
        probe, name = answering.probe, small.node.get_fully_qualified_name()
        probe.listen(DiagnosticArray, "/diagnostics")

        def complaints() -> list[str]:
            statuses = [s for m in probe.messages("/diagnostics") for s in m.status]
            ours = [s for s in statuses if s.name == status_name(name, "console")]
            return [s.message for s in ours if s.level == WARN]

        wait_for(complaints, "the console's complaint")
        assert complaints()[-1].startswith(f"{answering.name}: the console cannot read it: ")
    finally:
        small.close()


def test_a_complaint_is_shown_and_moves_no_picture(
    answering: Tracker, camera: Camera, open_page: OpenPage
) -> None:
    """Somebody may be about to click into it."""
    page = open_page()
    expect(page.locator("#badge")).to_have_text("Live")
    complaint = page.locator("#complaint")
    expect(complaint).to_be_hidden()
    before = page.locator("#canvas").bounding_box()
    nothing = labels_message(np.zeros((9, 9), np.uint16), header(0))
    topic = f"{answering.name}/init_mask"
    wait_for(
        lambda: answering.probe.publish(topic, nothing) or complaint.is_visible(), "the complaint"
    )
    expect(complaint).to_contain_text("The tracker says: ")
    expect(complaint).to_contain_text("refused since the last report")
    assert page.locator("#canvas").bounding_box() == before
    expect(page.locator("#health .complains")).to_have_count(1)
    expect(complaint).to_be_hidden()


# ---- marking


def test_a_box_is_dragged(answering: Tracker, camera: Camera, open_page: OpenPage) -> None:
    page = open_page()
    camera.show_object()
    answering.service.truth = truth_at(60)
    camera.ask()
    look_at(page, WHERE)
    drag(page, (58, 8), (82, 33))
    expect(tool(page, "undo")).to_be_enabled()
    wait_for(lambda: answering.service.prompts, "the box")
    [prompt] = answering.service.prompts
    box = prompt.box
    assert prompt.has_box
    assert (box.x_offset, box.y_offset, box.width, box.height) == (58, 8, 25, 26)
    assert not prompt.mask.data  # beside a box a lost track's mask would mislead
    page.keyboard.press("Enter")
    np.testing.assert_array_equal(mask_of(camera.wait_corrected()), truth_at(60))


def test_it_is_painted_and_erased_and_undone(
    answering: Tracker, camera: Camera, open_page: OpenPage
) -> None:
    page = open_page()
    camera.show_object()
    answering.service.truth = truth_at(60)
    camera.ask()
    look_at(page, WHERE)
    click(page, 70, 20)
    expect(page.locator("#hint")).to_contain_text("Accept when the outline is right")
    page.keyboard.press("p")
    expect(tool(page, "paint")).to_have_attribute("aria-pressed", "true")
    for _ in range(5):
        page.keyboard.press("[")
    drag(page, (20, 50), (40, 50))
    wait_for(lambda: is_tinted(page, 30, 50), "paint")
    page.keyboard.press("e")
    drag(page, (62, 20), (78, 20))
    wait_for(lambda: not is_tinted(page, 70, 20), "what was erased")
    page.keyboard.press("Control+z")
    wait_for(lambda: is_tinted(page, 70, 20), "it again")
    page.keyboard.press("Enter")
    mask = mask_of(camera.wait_corrected())
    assert mask[50, 30]
    assert mask[20, 70]
    assert not mask[40, 70]


@pytest.mark.parametrize("gesture", ["stroke", "box", "click"])
def test_what_is_half_done_on_one_request_does_not_go_on_in_the_next(
    camera: Camera, open_page: OpenPage, gesture: str
) -> None:
    page = open_page()
    ask_about_two(page, camera)
    open_card(page, 1)
    if gesture == "stroke":
        page.keyboard.press("p")
    page.mouse.move(*place(page, 20, 20))
    page.mouse.down()
    if gesture != "click":
        page.mouse.move(*place(page, 40, 40), steps=4)
    open_card(page, 2)
    if gesture != "click":
        page.mouse.move(*place(page, 70, 50), steps=4)
    page.mouse.up()
    for number in (2, 1):  # nor does half of it stay where it was begun
        open_card(page, number)
        assert known(page, "[page.draft.history.length, page.draft.clicks]") == [0, []]


def test_a_mark_is_about_the_picture_that_is_seen(camera: Camera, open_page: OpenPage) -> None:
    """Not about that of the next request, which is known and not drawn yet."""
    page = open_page()
    ask_about_two(page, camera)
    open_card(page, 2)
    open_card(page, 1)
    page.keyboard.press("ArrowLeft")
    press_at_once(page, "2", "a")
    open_card(page, 2)
    assert known(page, "page.draft.clicks") == []


def test_a_stroke_that_is_undone_while_it_is_painted_ends(
    camera: Camera, open_page: OpenPage
) -> None:
    page = open_page()
    camera.show_object()
    camera.ask()
    look_at(page, WHERE)
    painted = "page.draft.mask.reduce((sum, value) => sum + value, 0)"
    before = known(page, painted)
    page.keyboard.press("e")
    page.mouse.move(*place(page, 48, 32))
    page.mouse.down()
    page.mouse.move(*place(page, 58, 32))
    assert known(page, painted) < before
    page.keyboard.press("u")
    page.mouse.move(*place(page, 68, 32))
    page.mouse.up()
    assert known(page, f"[{painted}, page.draft.history.length]") == [before, 0]


def test_fingers_move_the_picture_that_they_were_put_on(
    camera: Camera, open_page: OpenPage
) -> None:
    page = open_page(has_touch=True)
    ask_about_two(page, camera)
    open_card(page, 1)
    zoom = "(await import('/showing.js')).stage.look.zoom"
    touch = page.context.new_cdp_session(page)
    x, y = place(page, WIDTH / 2, HEIGHT / 2)

    def fingers(kind: str, *apart: float) -> None:
        points = [{"x": x + dx, "y": y, "id": number} for number, dx in enumerate(apart)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", 0)
    fingers("touchStart", 0, 20)
    fingers("touchMove", 0, 60)
    assert known(page, zoom) == pytest.approx(3, abs=0.1)
    open_card(page, 2)
    fingers("touchMove", 0, 100)
    assert known(page, zoom) == 1
    fingers("touchEnd")
    fingers("touchStart", 0)
    fingers("touchStart", 0, 20)
    fingers("touchMove", 0, 40)
    assert known(page, zoom) == pytest.approx(2, abs=0.1)


def test_an_outline_that_comes_when_another_request_is_on_the_stage_is_not_accepted(
    answering: Tracker, camera: Camera, open_page: OpenPage
) -> None:
    """Nobody would see what is sent."""
    page = open_page()
    ask_about_two(page, camera)
    answering.service.hold()
    open_card(page, 1)
    click(page, 70, 20)
    page.keyboard.press("Enter")
    expect(page.locator("#hint")).to_have_text("Accepting …")
    open_card(page, 2)
    answering.service.release()
    refining = "[...page.drafts.values()].some((draft) => draft.isRefining)"
    wait_for(lambda: not known(page, refining), "the outline")
    open_card(page, 1)
    expect(page.locator("#hint")).to_contain_text("Accept when the outline is right")
    assert not camera.corrected()


def test_keys_and_fingers_zoom(answering: Tracker, camera: Camera, open_page: OpenPage) -> None:
    page = open_page(has_touch=True)
    camera.show_object()
    answering.service.truth = truth_at(60)
    camera.ask()
    look_at(page, WHERE)
    for _ in range(4):
        page.keyboard.press("+")
    click(page, 70, 20)  # which was there
    wait_for(lambda: answering.service.prompts, "the click")
    [point] = answering.service.prompts[-1].positive
    middle, zoom = np.array([WIDTH, HEIGHT]) / 2 - 0.5, 1.25**4
    expected = middle + ([70, 20] - middle) / zoom
    np.testing.assert_allclose([point.x, point.y], expected, atol=1)
    page.keyboard.press("u")
    touch = page.context.new_cdp_session(page)
    x, y = place(page, WIDTH / 2, HEIGHT / 2)
    gesture = [("touchStart", 0), ("touchStart", 0, 200), ("touchMove", 0, 20), ("touchEnd",)]
    for kind, *apart in gesture:
        points = [{"x": x + dx, "y": y, "id": number} for number, dx in enumerate(apart)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    before = len(answering.service.prompts)
    page.touchscreen.tap(*place(page, 70, 20))
    wait_for(lambda: len(answering.service.prompts) > before, "the tap")
    [point] = answering.service.prompts[-1].positive
    np.testing.assert_allclose([point.x, point.y], [70, 20], atol=1)


def test_keys_that_are_held_show_more(
    answering: Tracker, camera: Camera, open_page: OpenPage
) -> None:
    page = open_page()
    camera.show_object()
    camera.ask()
    look_at(page, WHERE)
    badge = page.locator("#badge")
    expect(badge).to_contain_text("s ago")
    page.keyboard.down("h")
    expect(badge).to_contain_text("Uncertainty")
    page.keyboard.up("h")
    page.keyboard.down("c")
    expect(badge).to_have_text("The newest picture")
    page.keyboard.press("a")
    assert known(page, "page.draft.clicks") == []  # it is not of the request
    page.keyboard.up("c")
    expect(badge).to_contain_text("s ago")
    page.keyboard.press("Escape")
    expect(headline(page)).to_have_text("Watching")
    page.keyboard.down("h")  # of the live frames, which are asked for with it
    expect(badge).to_contain_text("Uncertainty")
    assert answering.node._parts.outputs.uncertainty_maps_made
    page.keyboard.up("h")
    expect(badge).to_have_text("Live")


# ---- requests


def test_a_request_that_nobody_answers_says_so(camera: Camera, open_page: OpenPage) -> None:
    page = open_page()
    camera.show_object()
    expect(page.locator("#badge")).to_have_text("Live")
    camera.ask(request_timeout=8.0)  # of the camera's time, some of which passes while this asks
    camera.stop()  # and with it the time that is left
    look_at(page, WHERE)
    expect(page.locator("#clock-text")).to_contain_text("s left")
    camera.go()
    wait_for_words(page, "#verdict", "Object 1: Nobody answered in time")
    expect(page.locator("#recent .done-outcome").first).to_have_text("nobody answered in time")
    expect(headline(page)).to_have_text("Watching")


def test_the_most_urgent_request_is_first(camera: Camera, open_page: OpenPage) -> None:
    page = open_page()
    camera.show_object(1)
    camera.show_object(2)
    assert camera.tracker.set(max_open_requests=3) == ""
    camera.ask(request_timeout=60.0)
    cards = page.locator("#requests .request strong")
    expect(cards).to_have_count(2)
    page.keyboard.press("2")
    expect(page.locator("#requests .request").nth(1)).to_have_attribute("aria-current", "true")
    wait_until_seen(page)
    page.keyboard.press("Escape")
    expect(cards).to_have_count(1)
    expect(page.locator("#requests .request")).to_have_attribute("aria-current", "true")


def test_a_request_whose_picture_is_broken_keeps_no_other_from_being_opened(
    camera: Camera, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, broken = gallery.encode_request, []

    def fail_for_the_first(image: Any, mask: Any, *rest: Any, **settings: int) -> Any:
        broken.append(bytes(mask.data))
        if broken[0] == broken[-1]:
            raise ImageError("no picture")
        return encode(image, mask, *rest, **settings)

    monkeypatch.setattr(gallery, "encode_request", fail_for_the_first)
    page = open_page()
    camera.show_object(1)
    camera.show_object(2)
    assert camera.tracker.set(max_open_requests=3) == ""
    camera.ask()
    expect(page.locator("#requests .request")).to_have_count(2)
    expect(page.locator("#requests .request").nth(1)).to_have_attribute("aria-current", "true")
    expect(page.locator("#toasts .toast")).to_have_count(1)


def test_quiet_declines_what_is_asked_until_it_is_ended(
    camera: Camera, open_page: OpenPage
) -> None:
    page = open_page()
    camera.show_object()
    camera.ask()
    look_at(page, WHERE)
    page.keyboard.press("m")
    assert camera.wait_corrected().message == "an operator asked for quiet"
    expect(page.locator("#remarks")).to_contain_text("asks nothing for")
    expect(headline(page)).to_have_text("Watching")
    assert camera.tracker.set(cooldown_frames=0) == ""
    camera.wait_corrected(3)  # it goes on asking, and is told
    expect(page.locator("#requests .request")).to_have_count(0)
    page.get_by_role("button", name="Ask again").click()
    look_at(page, WHERE)


def test_how_long_quiet_is_the_console_says(
    answering: Tracker, console: Console, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = console.node._server._console
    monkeypatch.setattr(made, "quiet_s", 120.0)
    page = open_page()
    expect(tool(page, "quiet")).to_contain_text("Quiet 2 min")
    tool(page, "quiet").click()
    expect(tool(page, "quiet")).to_have_attribute("aria-pressed", "true")
    assert 60 < made.views[answering.name].quiet_s <= 120
    tool(page, "quiet").click()
    expect(tool(page, "quiet")).to_have_attribute("aria-pressed", "false")


def test_answers_to_requests_that_went_while_nobody_listened_are_given_up(
    answering: Tracker, camera: Camera, console: Console, open_page: OpenPage
) -> None:
    """The one on the stage, and one that was put aside."""
    view = console.node._server._console.views[answering.name]
    wire = Wire(console.node.port)
    try:
        page = open_page(wire.url)
        camera.show_object(1)
        camera.show_object(2)
        assert camera.tracker.set(max_open_requests=3) == ""
        camera.ask(request_timeout=60.0)
        for number in ("1", "2"):
            card = page.locator("#requests .request").nth(int(number) - 1)
            page.keyboard.press(number)
            expect(card).to_have_attribute("aria-current", "true")
            click(page, 5, 5)
            expect(tool(page, "undo")).to_be_enabled()
        assert known(page, "page.drafts.size") == 2
        wire.cut()
        expect(page.locator("#notices")).to_contain_text("connection to the console is lost")
        view.desk._open.clear()
        view.desk._finished.clear()
        wire.mend()
        wait_for_words(page, "#verdict", "The request is not known any more")
        wait_for(lambda: known(page, "page.drafts.size") == 0, "the end of both answers")
        expect(headline(page)).to_have_text("Watching")
    finally:
        wire.close()


# ---- objects


def test_an_object_is_added_named_paused_found_again_and_removed(
    answering: Tracker, camera: Camera, open_page: OpenPage
) -> None:
    page = open_page()
    expect(page.locator("#objects")).to_have_text("Nothing is followed yet.")
    answering.service.truth = truth_at(60)
    expect(page.locator("#badge")).to_have_text("Live")
    page.keyboard.press("n")
    look_at(page, "New object")
    click(page, 70, 20)
    expect(tool(page, "undo")).to_be_enabled()
    page.get_by_label("Name", exact=True).fill("red cup")
    page.keyboard.press("Enter")
    card = page.locator("#objects .object")
    expect(card.locator("strong")).to_have_text("red cup")
    [track] = answering.out("tracks")[-1].tracks
    assert (track.id, track.label) == (1, "red cup")
    card.get_by_role("button", name="Pause: red cup").click()
    expect(card.locator(".state")).to_have_text("paused")
    card.get_by_role("button", name="Resume: red cup").click()
    expect(card.locator(".state")).not_to_have_text("paused")
    card.get_by_role("button", name="Show again: red cup").click()
    look_at(page, "Show where red cup is")
    answering.service.truth = truth_at(20)
    click(page, 30, 20)
    page.keyboard.press("Enter")
    corrected = camera.wait_corrected()
    assert corrected.applied
    np.testing.assert_array_equal(mask_of(corrected), truth_at(20))
    remove = card.get_by_role("button", name="Remove: red cup")
    remove.click()
    expect(card).to_have_count(1)  # it asks first
    card.get_by_role("button", name="Really remove?: red cup").click()
    expect(card).to_have_count(0)
    wait_for(lambda: not answering.objects(), "the object's end")


def test_an_object_is_shown_on_a_frame_of_the_past(
    answering: Tracker, camera: Camera, console: Console, open_page: OpenPage
) -> None:
    past = console.node._server._console.views[answering.name].gallery.past
    first = FIRST_STAMP + camera.first * STEP
    page = open_page()
    answering.service.truth = truth_at(60)
    expect(page.locator("#badge")).to_have_text("Live")
    length = "() => -Number(document.getElementById('past').min) / 1000"
    # Another camera's frames, which may still be kept, go with this one's first.
    wait_for(lambda: len(past) > 1 and past.oldest.stamp >= first, "frames of this camera")
    wait_in_page(page, f"() => ({length})() > 1")
    camera.stop()  # what is seconds ago stays so
    page.keyboard.press(",")
    expect(headline(page)).to_have_text("The recent past")
    expect(page.locator("#past-text")).to_contain_text("seconds ago")
    page.get_by_label("Recent past").press("Home")
    shown = "() => parseFloat(document.getElementById('past-text').textContent)"
    # A busy console keeps few frames: the one before the newest may be the oldest already.
    wait_in_page(page, f"() => Math.abs(({shown})() - ({length})()) < 0.1")
    last = camera.tracked()
    camera.go()
    page.keyboard.press("n")
    look_at(page, "New object")
    click(page, 70, 20)
    page.keyboard.press("Enter")
    wait_for(lambda: answering.service.requests, "the question")
    asked = stamp_of(answering.service.requests[0].image.header.stamp)
    assert asked < FIRST_STAMP + last * STEP
    wait_for(lambda: answering.objects() == [1], "the object")
    expect(page.locator("#objects .object strong")).to_have_text("Object 1")


@pytest.mark.parametrize("keys", ["l", "n Escape"], ids=["back to now", "an object begun"])
def test_a_picture_of_the_past_that_is_not_wanted_any_more_is_not_shown(
    camera: Camera, open_page: OpenPage, keys: str
) -> None:
    """It was on its way when something else was pressed."""
    page = open_page()
    expect(page.locator("#badge")).to_have_text("Live")
    press_at_once(page, ",", *keys.split())
    wait_for(lambda: known(page, "page.pastAsked === null"), "the picture of the past")
    assert known(page, "page.past === null")
    press_at_once(page, ",", *keys.split(), ",")  # the newest wish counts
    expect(headline(page)).to_have_text("The recent past")


def test_a_request_does_not_take_the_stage_from_what_was_begun_since(
    camera: Camera, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its picture was on its way."""
    gate, asked, sent = threading.Event(), threading.Event(), threading.Event()
    request_picture = gallery.Gallery.request_picture

    async def send_later(self: gallery.Gallery, key: str) -> bytes:
        asked.set()
        await asyncio.to_thread(gate.wait, WAIT_S)
        picture = await request_picture(self, key)
        sent.set()
        return picture

    monkeypatch.setattr(gallery.Gallery, "request_picture", send_later)
    page = open_page()
    camera.show_object()
    camera.ask()
    wait_for(asked.is_set, "the page's question")
    expect(page.locator("#badge")).to_have_text("Live")  # there is a picture to show one on
    page.keyboard.press("n")
    look_at(page, "New object")
    gate.set()
    wait_for(sent.is_set, "the request's picture")
    page.wait_for_timeout(500)
    look_at(page, "New object")
    page.keyboard.press("Escape")
    look_at(page, WHERE)


def test_an_object_that_is_shown_twice_on_a_frame_has_two_answers(
    answering: Tracker, camera: Camera, console: Console, open_page: OpenPage
) -> None:
    """And no more of them, however often they are drawn."""
    view = console.node._server._console.views[answering.name]
    page = open_page()
    camera.show_object()
    expect(page.locator("#objects .object strong")).to_have_text("Object 1")
    expect(page.locator("#badge")).to_have_text("Live")
    camera.close()
    last = FIRST_STAMP + (camera.index - 1) * STEP
    past = view.gallery.past
    wait_for(lambda: past.newest and past.newest.stamp == last and past.newest.tracked, "the last")
    shows = "(number) => Number(document.getElementById('canvas').dataset.number) === number"
    wait_in_page(page, shows, view.gallery._number)
    for number, left in enumerate((60, 20), 1):
        answering.service.truth = truth_at(left)
        page.get_by_role("button", name="Show again: Object 1").click()
        look_at(page, "Show where Object 1 is")
        click(page, left + 10, 20)
        page.keyboard.press("Enter")
        camera.wait_corrected(number)
    first, second = view.desk.finished[:2]
    assert first.about == second.about
    assert first.key != second.key
    seconds = "() => parseInt(document.querySelector('#recent .done-time').textContent)"
    wait_in_page(page, f"() => ({seconds})() >= 2")
    shown = min(6, len(view.desk.finished))
    expect(page.locator("#recent .done")).to_have_count(shown, timeout=1000)


def answered(page: Page, camera: Camera) -> tuple[CorrectionRequest, Locator]:
    """The tracker asks, the page answers; returns the request and the answer in the list."""
    camera.show_object()
    request = camera.ask()
    look_at(page, WHERE)
    page.keyboard.press("Enter")
    assert camera.wait_corrected().applied
    # Below it may lie an answer of the test before.
    newest = page.locator("#recent li").first
    expect(newest).to_contain_text(f"applied · {page.locator('#operator').input_value()}")
    return request, newest


def test_an_answer_is_taken_back(answering: Tracker, camera: Camera, open_page: OpenPage) -> None:
    """By a stand-in for the service where the tracker has none."""
    node, name = answering.probe.node, f"{answering.name}/retract_correction"
    asked: list[RetractCorrection.Request] = []

    def accept(
        request: RetractCorrection.Request, response: RetractCorrection.Response
    ) -> RetractCorrection.Response:
        asked.append(request)
        response.accepted = True
        return response

    has_it = node.create_client(RetractCorrection, name).wait_for_service(1.0)
    service = None if has_it else node.create_service(RetractCorrection, name, accept)
    try:
        request, newest = answered(open_page(), camera)
        newest.get_by_role("button", name="Take back: Object 1").click()
        expect(newest).to_contain_text("taken back")
    finally:
        if service is not None:
            node.destroy_service(service)
    assert has_it or (asked[0].stamp, asked[0].id) == (request.header.stamp, 1)


def test_it_is_shown_that_another_program_took_an_answer_back(
    answering: Tracker, camera: Camera, open_page: OpenPage
) -> None:
    request, newest = answered(open_page(), camera)
    taken = RetractCorrection.Request(stamp=request.header.stamp, id=1)
    name = f"{answering.name}/retract_correction"
    assert answering.probe.call(RetractCorrection, name, taken).accepted
    expect(newest).to_contain_text("taken back")
    expect(newest.get_by_role("button", name="Take back")).to_have_count(0)


def test_what_stays_is_not_moved_where_something_goes(open_page: OpenPage) -> None:
    """A click on what is taken out and put back meanwhile would be lost."""
    moved = open_page().evaluate(
        """async () => {
          const { showNotices } = await import("/panels.js");
          const list = document.createElement("div");
          const notices = ["a", "b", "c"].map((key) => ({ key, words: key }));
          showNotices(list, notices);
          const seen = [];
          const observer = new MutationObserver((changes) => seen.push(...changes));
          observer.observe(list, { childList: true });
          showNotices(list, notices.slice(1));
          await new Promise((done) => setTimeout(done));
          return seen.flatMap((change) => [...change.addedNodes]).length;
        }"""
    )
    assert moved == 0


def test_a_removal_that_is_refused_may_be_asked_for_again(open_page: OpenPage) -> None:
    """The button is as it was before the first press."""
    looks = open_page().evaluate(
        """async () => {
          const { Curves, showObjects } = await import("/panels.js");
          const list = document.createElement("ul");
          document.body.append(list);
          const object = { id: 1, label: "", state: "lost", uncertainty: 0, predicted_iou: 1 };
          let asked = 0;
          const show = () =>
            showObjects(list, [object], new Curves(), { remove: () => (asked += 1) });
          show();
          const button = list.querySelector("[data-action=remove]");
          const look = () => [button.textContent, button.classList.contains("armed"), asked];
          const looks = [look()];
          for (let press = 0; press < 3; press += 1) {
            button.click();
            show(); // the tracker still has the object
            looks.push(look());
          }
          return looks;
        }"""
    )
    at_rest, armed = ["Remove", False], ["Really remove?", True]
    assert looks == [[*at_rest, 0], [*armed, 0], [*at_rest, 1], [*armed, 1]]


def test_curves_of_objects_that_are_long_gone_are_forgotten(open_page: OpenPage) -> None:
    """An object a second, for hours."""
    kept = open_page().evaluate(
        """async () => {
          const { Curves } = await import("/panels.js");
          const curves = new Curves();
          for (let at = 1; at <= 10000; at += 1) {
            curves.add({ restart: at === 1, samples: [[at, at, 0.5, null]] });
          }
          return curves.samples.size;
        }"""
    )
    assert 60 <= kept <= 61


# ---- many, and slow ones


def test_two_trackers_in_one_page(
    answering: Tracker, camera: Camera, open_page: OpenPage, own_tracker: Callable[..., Tracker]
) -> None:
    other = own_tracker()
    both = Console([answering.name, other.name])
    second = Camera(other)
    try:
        page = open_page(both.url)
        buttons = page.locator("#trackers button")
        expect(buttons).to_have_count(2)
        expect(page.locator("#badge")).to_have_text("Live")
        second.show_object(7)
        page.keyboard.press("t")
        expect(buttons.nth(1)).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#objects .object strong")).to_have_text("Object 7")
        camera.show_object()
        camera.ask()
        expect(buttons.nth(0).locator(".count")).to_have_text("1")
        buttons.nth(0).click()
        look_at(page, WHERE)
    finally:
        second.close()
        both.close()


def test_a_stalled_browser_gets_no_queue_and_holds_up_nobody(
    camera: Camera, console: Console, open_page: OpenPage
) -> None:
    """A dialog keeps its page busy; then it goes on with the newest frame."""
    stalled, other = open_page(), open_page()
    for page in (stalled, other):
        expect(page.locator("#badge")).to_have_text("Live")
    browsers = console.node._server._console.browsers
    with stalled.expect_event("dialog") as opened:
        stalled.evaluate("() => { setTimeout(() => alert('busy'), 0); }")
    wait_for(lambda: not all(browser.is_ready for browser in browsers), "frames that are not drawn")
    sent, tracked = console.count("frames sent"), camera.tracked()
    wait_for(lambda: console.count("frames sent") > sent + 10, "the other one's frames")
    wait_for(lambda: camera.tracked() > tracked + 10, "the tracker's")
    passed = console.count("frames sent") - sent
    assert passed <= camera.tracked() - tracked + 3, "one browser's share"
    assert all(len(browser._replies) <= 1 for browser in browsers)
    opened.value.accept()
    newest = camera.tracked()
    shown = "() => Number(document.getElementById('canvas').dataset.number || 0)"
    before = stalled.evaluate(shown)
    wait_in_page(stalled, f"(before) => ({shown})() > before", before)
    assert camera.tracked() >= newest


# ---- for everybody


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(
    camera: Camera, open_page: OpenPage, axe: str, scheme: str
) -> None:
    page = open_page(color_scheme=scheme)
    camera.show_object()
    expect(page.locator("#objects .object")).to_have_count(1)
    assert serious(page, axe) == []
    camera.ask()
    look_at(page, WHERE)
    click(page, 70, 20)
    expect(tool(page, "undo")).to_be_enabled()
    assert serious(page, axe) == []
    page.keyboard.press("?")
    assert serious(page, axe) == []


def test_a_tablet_held_upright_shows_and_takes_all(
    answering: Tracker, camera: Camera, open_page: OpenPage
) -> None:
    page = open_page(viewport={"width": 820, "height": 1180}, has_touch=True)
    camera.show_object()
    answering.service.truth = truth_at(60)
    camera.ask()
    look_at(page, WHERE)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tool(page, "other").tap()
    page.touchscreen.tap(*place(page, 20, 50))
    tool(page, "object").tap()
    page.touchscreen.tap(*place(page, 70, 20))
    wait_for(lambda: answering.service.prompts and answering.service.prompts[-1].negative, "both")
    wait_for(lambda: answering.service.prompts[-1].positive, "both")
    expect(page.locator("#hint")).to_contain_text("Accept when the outline is right")
    tool(page, "accept").tap()
    assert camera.wait_corrected().applied

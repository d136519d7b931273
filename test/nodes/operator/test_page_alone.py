# SPDX-License-Identifier: Apache-2.0
"""What the page does with what it is told, with a console that the test plays."""

from __future__ import annotations

import pytest

pytest.importorskip("msgspec", reason="needs msgspec (requirements-operator.txt)")
pytest.importorskip("playwright", reason="needs playwright (requirements-dev.txt)")

from console_harness import click, drag, headline, known, look_at
from played_console import NEWEST, TRACKER, PlayedConsole, asked, request_key, tracked
from playwright.sync_api import Page, expect

from lazyxmem_ros.nodes.operator import messages

MASKED = "[...page.draft.mask.keys()].filter((at) => page.draft.mask[at])"
"""Where the mask of what is on the stage is: numbers of pixels."""

# ---- requests


def asked_about(played: PlayedConsole, *ids: int) -> Page:
    """The page, which has shown the first of the requests about these objects."""
    played.objects = [tracked(object_id) for object_id in ids]
    played.open()
    played.ask(*(asked(object_id) for object_id in ids))
    look_at(played.page, f"Where is Object {ids[0]}?")
    return played.page


@pytest.mark.parametrize("key", ["Enter", "v", "Escape"])
def test_a_second_press_does_not_answer_the_next_request(played: PlayedConsole, key: str) -> None:
    """It opens at once, and nobody has seen it yet."""
    page = asked_about(played, 1, 2)
    page.keyboard.press(key)
    played.until(lambda: played.said("answer"), "the answer")
    played.requests = [asked(2)]
    played.send_state()
    played.done(played.said("answer")[0], "mask")
    expect(headline(page)).to_have_text("Where is Object 2?")
    page.keyboard.press(key)
    played.settle()
    assert [each["request"] for each in played.said("answer")] == [request_key(1)]
    look_at(page, "Where is Object 2?")
    page.keyboard.press(key)
    played.until(lambda: len(played.said("answer")) == 2, "the second answer")


def test_others_see_whether_a_request_is_being_answered(played: PlayedConsole) -> None:
    """Also after it was left, and taken up again before the first word of it would be repeated."""
    page = asked_about(played, 1, 2)
    page.keyboard.press("2")  # nothing was begun
    look_at(page, "Where is Object 2?")
    click(page, 70, 20)
    page.keyboard.press("1")
    look_at(page, "Where is Object 1?")
    page.keyboard.press("2")
    look_at(page, "Where is Object 2?")
    click(page, 70, 30)
    takes = [True, False, True]
    played.until(lambda: len(played.said("take")) >= len(takes), "what the others are told")
    told = [(each["request"], each.get("hold", True)) for each in played.said("take")]
    assert told == [(request_key(2), hold) for hold in takes]


def test_comparing_keeps_the_section_and_what_was_begun_by_keys(played: PlayedConsole) -> None:
    page = asked_about(played, 1, 2)
    look = "[{ ...(await import('/showing.js')).stage.look }, page.draft.look][%d]"
    for key in ("+", "+", "ArrowLeft", "b", "Shift+ArrowRight"):
        page.keyboard.press(key)
    before = known(page, look % 1)
    assert before["zoom"] > 1.5
    assert before["crosshair"]
    assert before["corner"]
    page.keyboard.down("c")
    expect(page.locator("#badge")).to_have_text("The newest picture")
    assert known(page, look % 0) == before
    page.keyboard.press("b")  # it is no corner of the picture that is seen
    page.keyboard.up("c")
    page.keyboard.press("2")
    look_at(page, "Where is Object 2?")
    fresh = known(page, look % 1)
    assert (fresh["zoom"], fresh["crosshair"], fresh["corner"]) == (1, None, None)
    page.keyboard.press("1")
    look_at(page, "Where is Object 1?")
    assert known(page, look % 0) == before


@pytest.mark.parametrize("key", ["a", "s", "b"])
def test_a_first_key_only_shows_where_it_would_mark(played: PlayedConsole, key: str) -> None:
    page = asked_about(played, 1)
    page.keyboard.press(key)
    look = known(page, "page.draft.look")
    assert (look["crosshair"], look["corner"]) == ({"x": 48, "y": 32}, None)
    assert not known(page, "page.draft.touched")
    page.keyboard.press(key)
    assert known(page, "page.draft.touched || page.draft.look.corner !== null")


def test_one_outline_is_asked_for_at_a_time_however_much_is_undone(played: PlayedConsole) -> None:
    """The correction service is slow; of what it answers only what is marked now counts."""
    page = asked_about(played, 1)
    for x in (60, 64, 68, 72, 76, 80):
        click(page, x, 20)
    for _ in range(4):
        page.keyboard.press("u")
    expect(page.locator("#hint")).to_have_text("Finding the outline …")
    first, *others = played.said("refine")
    assert not others
    before = known(page, MASKED)
    played.refined(first, left=0)
    played.until(lambda: len(played.said("refine")) == 2, "the next question")
    assert known(page, MASKED) == before
    question = played.said("refine")[1]
    assert [round(x) for x, _ in question["positive"]] == [60, 64]
    played.refined(question)
    expect(page.locator("#hint")).to_contain_text("Accept when the outline is right")
    assert known(page, MASKED) != before


def test_why_there_is_no_outline_is_said_in_the_page_s_words(played: PlayedConsole) -> None:
    """And in red, for a request as for any other answer."""
    page = asked_about(played, 1)
    click(page, 70, 20)
    played.until(lambda: played.said("refine"), "the question")
    played.refine_refused(played.said("refine")[0], "bad_prompt", "a prompt needs a click")
    hint = page.locator("#hint")
    expect(hint).to_have_text("Click on the object first.")
    bad = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--bad')")
    expect(hint).to_have_css("color", f"rgb({', '.join(str(c) for c in bytes.fromhex(bad[1:]))})")


def test_a_mask_that_is_too_large_is_not_sent_and_keeps_nobody_waiting(
    played: PlayedConsole,
) -> None:
    """It would end the connection, and be sent again on the next."""
    played.max_message = 20
    page = asked_about(played, 1)
    page.keyboard.press("Enter")
    expect(page.locator("#toasts")).to_contain_text("The mask is too large for the console")
    assert not known(page, "page.draft.sending")
    click(page, 70, 20)
    expect(page.locator("#hint")).to_contain_text("The mask is too large for the console")
    page.keyboard.press("v")  # has no mask
    played.until(lambda: played.said("answer"), "the answer")
    assert [answer["outcome"] for answer in played.said("answer")] == ["not_in_view"]
    assert not played.said("refine")


def test_more_clicks_than_the_console_takes_are_not_made(played: PlayedConsole) -> None:
    page = asked_about(played, 1)
    page.evaluate(
        """async (most) => {
          const { page } = await import("/page.js");
          for (let i = 0; i <= most; i += 1) page.draft.click(i % 90, 10, true);
        }""",
        messages.MAX_POINTS,
    )
    assert known(page, "page.draft.clicks.length") == messages.MAX_POINTS
    expect(page.locator("#hint")).to_contain_text("There are too many clicks")


@pytest.mark.parametrize("button", [1, 3, 4, 5])
def test_other_buttons_than_left_and_right_mark_nothing(played: PlayedConsole, button: int) -> None:
    """Back and forth of a mouse, the eraser of a pen."""
    page = asked_about(played, 1)
    page.evaluate(
        """(button) => {
          const canvas = document.querySelector("#stage canvas");
          canvas.setPointerCapture = () => {};
          const { left, top, width, height } = canvas.getBoundingClientRect();
          const at = { clientX: left + 0.7 * width, clientY: top + height / 2, pointerId: 7 };
          for (const kind of ["pointerdown", "pointerup"]) {
            canvas.dispatchEvent(new PointerEvent(kind, { ...at, button, bubbles: true }));
          }
        }""",
        button,
    )
    assert not known(page, "page.draft.touched")


def test_the_past_begins_with_the_oldest_picture(played: PlayedConsole) -> None:
    """Whose stamp is no whole number of milliseconds."""
    played.oldest += 400_000
    played.open()
    past = played.page.locator("#past")
    expect(past).to_be_enabled()
    past.evaluate("(slider) => { slider.value = slider.min; slider.oninput({ target: slider }); }")
    played.until(lambda: played.said("open_past"), "the question")
    assert played.said("open_past")[0]["stamp"] == str(played.oldest)


def test_paint_is_not_painted_over_by_what_was_asked_before(played: PlayedConsole) -> None:
    page = asked_about(played, 1)
    click(page, 70, 20)
    played.until(lambda: played.said("refine"), "the question")
    page.keyboard.press("p")
    drag(page, (70, 50), (80, 50))
    painted = known(page, MASKED)
    page.keyboard.press("Enter")
    played.until(lambda: played.said("answer"), "the answer, which waits for no outline")
    played.refined(played.said("refine")[0])
    played.settle()
    assert known(page, MASKED) == painted


def test_requests_that_others_answer_count_as_open(played: PlayedConsole) -> None:
    """They are not opened by themselves; somebody has to know of them all the same."""
    played.objects = [tracked(1)]
    played.open()
    hint = played.page.locator("#hint")
    expect(hint).to_contain_text("Nobody needs help")
    played.ask(asked(1, taken_by="Ben"))
    expect(hint).to_contain_text("One request is open")
    played.ask()
    expect(hint).to_contain_text("Nobody needs help")


@pytest.mark.parametrize("key", ["Enter", "Escape"])
def test_the_name_is_written_when_its_key_says_so(played: PlayedConsole, key: str) -> None:
    """What is pressed then is the page's."""
    played.objects = [tracked(1)]
    played.open()
    page = played.page
    name = page.get_by_label("Your name")
    name.fill("Anna")
    page.keyboard.press(key)
    expect(name).not_to_be_focused()
    played.until(lambda: played.said("hello")[-1]["name"] == "Anna", "the name")
    played.ask(asked(1))
    look_at(page, "Where is Object 1?")
    page.keyboard.press("v")
    played.until(lambda: played.said("answer"), "the answer")
    assert name.input_value() == "Anna"


# ---- the recent past


def test_steps_that_are_quicker_than_pictures_come_add_up(played: PlayedConsole) -> None:
    played.open()
    page = played.page
    expect(page.locator("#badge")).to_have_text("Live")
    for key in (",", ",", ",", ",", "."):
        page.keyboard.press(key)
    played.until(lambda: played.said("open_past"), "a first picture")
    played.show_past(NEWEST - 1_000_000_000)
    played.until(lambda: len(played.said("open_past")) == 2, "the one that is wanted")
    played.show_past(NEWEST - 3_000_000_000)
    expect(page.locator("#past-text")).to_have_text("3.0 seconds ago")
    page.keyboard.press(",")
    played.until(lambda: len(played.said("open_past")) == 3, "the one before it")
    asked_for = [(int(each["stamp"]), each["step"]) for each in played.said("open_past")]
    assert asked_for == [(NEWEST, -1), (NEWEST, -3), (NEWEST - 3_000_000_000, -1)]


# ---- the connection


def test_a_picture_may_take_longer_than_a_connection_may_be_silent(played: PlayedConsole) -> None:
    """Else a slow one would be cut and made again for ever; one that has recovered is watched as
    before.
    """
    played.lets_in = False
    played.open()
    limits = played.page.evaluate(
        """async () => {
          let now = 0;
          performance.now = () => now;
          const sockets = [];
          window.WebSocket = class {
            constructor() { sockets.push(this); }
            send() {}
            close() { this.closed = true; }
          };
          const { Connection } = await import("/connection.js");
          const on = { message() {}, open() {}, closed() {} };
          const connection = new Connection(on, "");
          const hear = (message) =>
            connection.socket.onmessage({ data: JSON.stringify(message) });
          const silent = () => {  // seconds until it is cut, at most a minute
            const { socket } = connection;
            for (let s = 1; s < 60; s += 1) {
              now += 1000;
              connection.checkSilence();
              if (socket.closed) return s;
            }
          };
          const limits = [];
          for (let round = 0; round < 6; round += 1) {
            connection.connect();
            hear({ type: "welcome" });
            limits.push(silent());
          }
          for (const took of [9000, 100]) {
            connection.connect();
            hear({ type: "welcome" });
            now += took;
            hear({ type: "picture" });
            limits.push(silent());
          }
          connection.connect();  // to a console that is not there
          limits.push(silent());
          return limits;
        }"""
    )
    assert limits == [4, 8, 16, 30, 30, 30, 18, 4, 8]


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "with the token"), (403, "allowed_hosts"), (503, "max_browsers")],
)
def test_why_the_console_lets_a_page_in_no_more_is_said_until_it_does(
    played: PlayedConsole, status: int, words: str
) -> None:
    """Once, however often it is tried: it is read aloud."""
    played.session_status, played.lets_in = status, False
    played.open()
    page = played.page
    notice = page.locator("#notices .notice")
    expect(notice).to_contain_text(words)
    page.evaluate(
        """() => {
          window.changes = 0;
          const observer = new MutationObserver(() => (window.changes += 1));
          const parts = { childList: true, subtree: true, characterData: true };
          observer.observe(document.getElementById("notices"), parts);
        }"""
    )
    before = played.connections
    played.until(lambda: played.connections >= before + 2, "further attempts")
    assert page.evaluate("window.changes") == 0
    played.lets_in = True
    expect(notice).to_have_count(0)


# ---- objects


def test_an_object_that_is_shown_again_twice_is_shown_once(played: PlayedConsole) -> None:
    """The outline that comes is that of the answer on the stage."""
    played.objects = [tracked(1)]
    played.open()
    page = played.page
    expect(page.locator("#badge")).to_have_text("Live")
    again = page.get_by_role("button", name="Show again: Object 1")
    again.dblclick()
    look_at(page, "Show where Object 1 is")
    again.click()
    click(page, 70, 20)
    played.until(lambda: played.said("refine"), "the question")
    played.refined(played.said("refine")[0])
    expect(page.locator("#hint")).to_contain_text("Accept when the outline is right")
    assert known(page, "page.drafts.size") == 1


@pytest.mark.parametrize("label", ["cup", ""], ids=["another name", "none in between"])
def test_an_object_is_not_shown_as_another_one_looked_before_it(
    played: PlayedConsole, label: str
) -> None:
    """It has got the id of one that was removed, while another tracker was looked at."""
    played.objects = [tracked(1)]
    played.trackers = (TRACKER, "/another/tracker")
    played.open()
    page = played.page
    portraits = f"page.portraits.get('{TRACKER}').known.size"
    played.until(lambda: known(page, f"page.portraits.size && {portraits}"), "a portrait")
    page.keyboard.press("t")
    if not label:
        played.objects = []
        played.send_state()
    played.objects = [tracked(1, label)]
    played.send_state()
    played.settle()
    assert known(page, portraits) == 0


# ---- light and dark


def test_it_is_light_or_dark_as_the_browser_until_somebody_chooses(played: PlayedConsole) -> None:
    page = played.page
    page.emulate_media(color_scheme="dark")
    played.open()
    ground = page.locator("body")
    dark, light = "rgb(13, 17, 23)", "rgb(238, 241, 245)"
    expect(ground).to_have_css("background-color", dark)
    page.emulate_media(color_scheme="light")
    expect(ground).to_have_css("background-color", light)
    page.keyboard.press("d")
    expect(ground).to_have_css("background-color", dark)
    page.emulate_media(color_scheme="dark")
    page.emulate_media(color_scheme="light")
    expect(ground).to_have_css("background-color", dark)

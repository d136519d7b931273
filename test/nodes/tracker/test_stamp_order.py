# SPDX-License-Identifier: Apache-2.0
"""Which stamps are taken: of one clock, of another, of none."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lazyxmem_ros.nodes.tracker.stamp_order import AGREEING_STAMPS, Order, StampOrder

SECOND, HOUR = 10**9, 3600 * 10**9
START = 1_700_000_000 * SECOND
STEP = SECOND // 10


class Steady:
    """Steady time that goes on by one step with each image."""

    now = 100.0

    def __call__(self) -> float:
        self.now += STEP / SECOND
        return self.now


def orders(stamps: Sequence[int], *, tracking: bool = True) -> str:
    """One letter for each: taken, refused, gone back, gone ahead."""
    letters = {Order.TAKEN: "t", Order.REFUSED: "r", Order.GONE_BACK: "b", Order.GONE_AHEAD: "a"}
    order = StampOrder(Steady())
    return "".join(letters[order.judge(stamp, tracking=tracking).order] for stamp in stamps)


def run(count: int, start: int = START, step: int = STEP) -> list[int]:
    return [start + index * step for index in range(count)]


@pytest.mark.parametrize("odd", [START + HOUR, START - HOUR, START + STEP, START + 2 * STEP])
def test_a_stray_stamp_is_refused_alone(odd: int) -> None:
    after = run(4, START + 3 * STEP)
    assert orders([*run(3), odd, *after]) == "tttrtttt"
    assert orders([*run(3), odd, after[0], odd + STEP, *after[1:], odd + 2 * STEP])[-1] == "r"


@pytest.mark.parametrize(("jump", "letter"), [(-HOUR, "b"), (HOUR, "a"), (-STEP * 20, "b")])
def test_another_clock_is_followed_once_its_stamps_agree(jump: int, letter: str) -> None:
    refused = "r" * (AGREEING_STAMPS - 1)
    first = run(20)
    assert orders([*first, *run(6, first[-1] + jump)]) == "t" * 20 + refused + letter + "ttt"
    back = run(4, first[-1] + STEP)
    there_and_back = [*first, *run(6, first[-1] + jump), *back]
    other = "a" if letter == "b" else "b"
    if abs(jump) == HOUR:
        assert orders(there_and_back).endswith(refused + other + "t")


def test_stamps_that_do_not_agree_with_one_another_are_never_followed() -> None:
    strays = [START - HOUR, START - 3 * HOUR, START - HOUR - SECOND, START + 9 * HOUR]
    assert orders([*run(3), *strays * 5]) == "ttt" + "r" * 20


def test_an_image_that_comes_twice_is_no_agreement() -> None:
    odd = START - HOUR
    assert orders([*run(3), odd, odd, odd, odd + STEP]) == "tttrrrr"


def test_the_first_image_may_be_the_stray_one() -> None:
    assert orders([START + HOUR, *run(5)]) == "trrbtt"
    assert orders([START, START + HOUR, *run(5, START + STEP)]) == "ttrrbtt"


def test_slow_images_and_pauses_are_one_clock() -> None:
    minutes = run(6, step=90 * SECOND)
    assert orders(minutes) == "tttttt"
    assert orders([*run(3), START + 50 * SECOND, START + 51 * SECOND]) == "ttttt"
    order, steady = StampOrder(clock := Steady()), clock
    for stamp in run(3):
        order.judge(stamp, tracking=True)
    steady.now += 3600
    assert order.judge(START + HOUR, tracking=True).order is Order.TAKEN


def test_without_objects_any_clock_is_followed_at_once() -> None:
    stamps = [*run(3), START - HOUR, START - HOUR + STEP, START, START + 5 * HOUR]
    assert orders(stamps, tracking=False) == "tttbttt"


def test_what_is_odd_is_said() -> None:
    order = StampOrder(Steady())
    for stamp in run(3):
        order.judge(stamp, tracking=True)
    ahead = order.judge(START + HOUR, tracking=True)
    assert (ahead.kind, ahead.text[:46]) == (
        "stamp far ahead",
        "the stamp is 3599.800 s after the newest one; ",
    )
    assert order.judge(START, tracking=True).kind == "stamp runs backwards"

# SPDX-License-Identifier: Apache-2.0
"""The short way, by which a late answer shows before the past has been gone through again."""

from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
from late_runs import (
    CONFIG,
    FIRST,
    NEVER,
    SECOND_ONE,
    Instant,
    add,
    answer,
    answered_at_once,
    catch_up,
    correction,
    run,
    same,
    start,
    step,
)
from random_clip import mask

from lazyxmem_ros.lazy.replay import FRAMES_AT_LEAST
from lazyxmem_ros.xmem import XMem, XMemTracker


def test_until_it_shows_tracking_goes_on_as_before(small_network: XMem) -> None:
    late = start(small_network)
    results = run(late, {20: [correction(5, FIRST)]}, 21)
    assert not any(r.caught_up for r in results.values())
    assert results[21].catching_up > 0
    assert same(answered_at_once(small_network, NEVER), late)


@pytest.mark.parametrize("delay", [12, 45])
def test_it_shows_on_the_second_new_frame_whatever_the_delay(
    delay: int, small_network: XMem
) -> None:
    """Long before the frames since have been gone through."""
    late = start(small_network)
    last = 5 + delay + 2
    results = run(late, {5 + delay: [correction(5, FIRST)]}, last)
    assert results[last].catching_up > 0
    assert not same(answered_at_once(small_network, NEVER), late)
    memory = late.tracker.state().memory
    assert memory is not None
    assert set(memory.told) == {5}


def test_on_the_short_way_no_more_frames_are_gone_through_than_otherwise(
    small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = start(small_network)
    run(late, {40: [correction(5, FIRST)]}, 40)
    seen = []
    resegment = XMemTracker.resegment

    def counted(self: XMemTracker, past):
        seen[-1] += 1
        return resegment(self, past)

    monkeypatch.setattr(XMemTracker, "resegment", counted)
    for index in range(41, 50):
        seen.append(0)
        step(late, index)
    assert max(seen) <= FRAMES_AT_LEAST


def test_the_short_way_makes_no_copies_of_memory(
    small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every frame has one, so that its stations have, too."""
    late = start(small_network, replace(CONFIG, state_period=0))
    run(late, {40: [correction(5, FIRST)]}, 40)
    late.close()
    copied = Mock(side_effect=AssertionError("a copy"))
    monkeypatch.setattr(XMemTracker, "state", copied)
    for _ in range(2):
        assert late.catch_up(0.0) > 0
    memory = late.tracker._now.memory
    assert memory is not None
    assert memory.told_frames == {5: {1}}


def test_an_object_that_came_meanwhile_is_on_the_short_way(small_network: XMem) -> None:
    third = {12: {3: mask(30, 40)}}
    late = start(small_network)
    run(late, {25: [correction(5, FIRST)]}, 28, at12={"masks": third[12]})
    assert late.frames_behind > 0
    assert late.object_ids == (1, 2, 3)
    memory = late.tracker.state().memory
    assert memory is not None
    assert {5, 12} <= set(memory.working)
    catch_up(late, 29)
    assert same(Instant(start(small_network), {5: [answer(5, FIRST)]}, third), late)


def test_an_object_that_comes_while_the_short_way_is_gone_is_on_it(
    small_network: XMem,
) -> None:
    third = {25: {3: mask(30, 40)}}
    late = start(small_network)
    run(late, {25: [correction(5, FIRST)]}, 25, at25={"masks": third[25]})
    results = catch_up(late, 26)
    assert all([t.object_id for t in r.tracks] == [1, 2, 3] for r in results.values())
    assert same(Instant(start(small_network), {5: [answer(5, FIRST)]}, third), late)


def test_an_object_added_on_the_closed_newest_frame_after_the_short_way(
    small_network: XMem,
) -> None:
    late, third = start(small_network), {3: mask(30, 40)}
    run(late, {25: [correction(5, FIRST)]}, 26)
    late.close()
    step(late, 27)
    late.catch_up(0.0)  # it arrives on a frame that is closed
    assert late.frames_behind > 0
    late.add_objects(third)
    catch_up(late, 28)
    assert late.object_ids == (1, 2, 3)
    acts = {5: [answer(5, FIRST)], 27: [add(third)]}
    assert same(Instant(start(small_network), acts), late)


@pytest.mark.parametrize("part", ["fork", "skip"])
def test_a_short_way_that_fails_is_left_to_the_replay(
    part: str, small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    instant = Instant(start(small_network), {5: [answer(5, FIRST)], 30: [answer(30, SECOND_ONE)]})
    late = start(small_network)
    run(late, {40: [correction(5, FIRST)], 44: [correction(30, SECOND_ONE)]}, 44)
    late.close()
    with monkeypatch.context() as patch:
        patch.setattr(XMemTracker, part, Mock(side_effect=torch.OutOfMemoryError("full")))
        step(late, 45)
    catch_up(late, 46)
    assert same(instant, late)

# SPDX-License-Identifier: Apache-2.0
"""What happens on one frame holds in the order in which it comes, at once and late."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from late_runs import (
    CALIBRATION,
    CONFIG,
    FIRST,
    FRAME_TIME,
    NEVER,
    SECOND_ONE,
    Act,
    Instant,
    add,
    answer,
    answered_at_once,
    catch_up,
    correction,
    remove,
    run,
    same,
    start,
    step,
)
from random_clip import mask

from lazyxmem_ros.lazy import LazyConfig, LazyTracker
from lazyxmem_ros.lazy.policy import ObjectHistory
from lazyxmem_ros.xmem import XMem

ELSEWHERE, BESIDE = {1: mask(30, 40)}, {2: mask(30, 18)}
THIRD = {3: mask(4, 44)}


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def gone_through_again(
    lazy: LazyTracker,
    acts: Sequence[Act],
    *,
    closed: bool = False,
    shown: Mapping[int, np.ndarray] | None = None,
) -> tuple[LazyTracker, Instant]:
    """The tracker with acts on frame 10, and frame 5 corrected late; and the same all at once.

    shown: masks with which frame 10 is opened.
    """
    instant = Instant(
        start(lazy.tracker.network, lazy.config, lazy._state.iou_predictor),
        {5: [answer(5, FIRST)], 10: [LazyTracker.close, *acts] if closed else acts},
        {10: shown},
    )
    run(lazy, {}, 10, at10={"masks": shown})
    for act in [LazyTracker.close, *acts] if closed else acts:
        act(lazy)
    for index in range(11, 14):
        step(lazy, index)
    assert lazy.apply(correction(5, FIRST)).applied
    catch_up(lazy, 14)
    return lazy, instant


def found(lazy: LazyTracker) -> dict[int, ObjectHistory]:
    """What was seen of each object; when somebody was asked is as it was."""
    items = lazy._state.objects.items()
    return {i: replace(item.history, operator_index=None) for i, item in items}


ANOTHERS = "removed, then its id is another's"
ORDERS: dict[str, Sequence[Act]] = {
    "corrected, then shown": [answer(10, ELSEWHERE), add(FIRST)],
    "shown, then corrected": [add(FIRST), answer(10, ELSEWHERE)],
    "corrected, then another one shown there": [answer(10, ELSEWHERE), add({3: mask(26, 44)})],
    "shown and removed": [add(THIRD), remove(3)],
    "corrected and removed": [answer(10, FIRST), answer(10, BESIDE), remove(2)],
    "removed": [remove(2)],
    ANOTHERS: [remove(2), add({2: mask(4, 44)})],
    "said to be absent, then shown": [answer(10, {1: np.zeros((48, 64), bool)}), add(FIRST)],
}


@pytest.mark.parametrize(
    ("order", "closed"),
    [*((order, False) for order in ORDERS), ("removed", True), (ANOTHERS, True)],
)
def test_it_is_so_the_second_time(order: str, closed: bool, small_network: XMem) -> None:
    late, instant = gone_through_again(
        start(small_network, CONFIG, CALIBRATION), ORDERS[order], closed=closed
    )
    assert same(instant, late)
    assert found(instant.lazy) == found(late)


OPENED = {
    "removed": [remove(3)],
    "known, then removed": [remove(2)],
    "removed, then its id is another's": [remove(3), add({3: mask(4, 44)})],
    "another one shown there": [add({4: mask(26, 44)})],
}


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("order", OPENED)
def test_a_frame_that_was_opened_with_masks_is_opened_with_them_again(
    order: str, closed: bool, small_network: XMem
) -> None:
    """Whatever becomes of their objects on it."""
    shown = {2: mask(10, 4)} if "known" in order else THIRD
    lazy = start(small_network, CONFIG, CALIBRATION)
    late, instant = gone_through_again(lazy, OPENED[order], closed=closed, shown=shown)
    assert same(instant, late)
    assert found(instant.lazy) == found(late)


def test_a_given_mask_holds_instead_of_an_earlier_correction(small_network: XMem) -> None:
    lazy = start(small_network)
    run(lazy, {4: [correction(4, ELSEWHERE)]}, 4)
    labels = lazy.add_objects(FIRST).labels
    assert np.array_equal(labels == 1, FIRST[1])
    lazy.close()
    assert lazy.tracker.frame is not None
    assert overlap(lazy.tracker.frame.labels() == 1, FIRST[1]) > 0.9


def test_so_it_does_late(small_network: XMem) -> None:
    late = start(small_network)
    run(late, {7: [correction(4, ELSEWHERE)]}, 7)
    outcome = late.add_to_past(FIRST, 4 * FRAME_TIME)
    assert outcome.labels is not None
    assert np.array_equal(outcome.labels == 1, FIRST[1])
    catch_up(late, 8)
    acts = {4: [answer(4, ELSEWHERE), add(FIRST)]}
    assert same(Instant(start(small_network), acts), late)


def test_a_correction_that_was_superseded_may_be_taken_back(small_network: XMem) -> None:
    lazy = start(small_network)
    run(lazy, {4: [correction(4, ELSEWHERE)]}, 4)
    lazy.add_objects(FIRST)
    assert lazy.retract(4 * FRAME_TIME, 1).applied
    for index in range(5, 12):
        step(lazy, index)
    assert same(Instant(start(small_network), {4: [add(FIRST)]}), lazy)


def test_what_a_removed_object_had_taken_is_given_back(small_network: XMem) -> None:
    lazy = start(small_network)
    run(lazy, {4: [correction(4, FIRST), correction(4, {2: mask(30, 18)})]}, 4)
    lazy.remove_objects([2])
    assert np.array_equal(lazy._state.to_learn()[1], FIRST[1])


def test_an_object_that_was_shown_and_removed_at_once_lets_no_frame_in(
    small_network: XMem,
) -> None:
    holding = replace(CONFIG, hold_entropy=0.0)
    never, shown = (start(small_network, holding) for _ in range(2))
    for lazy in (never, shown):
        run(lazy, {}, 6)
    shown.add_objects(THIRD)
    shown.remove_objects([3])
    for lazy in (never, shown):
        for index in range(7, 10):
            step(lazy, index)
    assert never.tracker.state().clock == shown.tracker.state().clock


@pytest.mark.parametrize("hold_entropy", [1.55, 1.6, 1.62])
@pytest.mark.parametrize("when", [7, 9])
def test_a_frame_on_which_an_object_is_removed_is_decided_with_it(
    hold_entropy: float, when: int, small_network: XMem
) -> None:
    config = replace(CONFIG, hold_entropy=hold_entropy)
    late = start(small_network, config)
    for index in range(1, 12):
        step(late, index)
        if index == when:
            late.remove_objects([2])
    assert late.apply(correction(5, FIRST)).applied
    catch_up(late, 12)
    acts = {5: [answer(5, FIRST)], when: [remove(2)]}
    assert same(Instant(start(small_network, config), acts), late)


# ---- settings that change while frames can be gone through again


def with_settings(change: Callable[[LazyConfig], LazyConfig]) -> Act:
    def act(lazy: LazyTracker) -> None:
        lazy.config = change(lazy.config)

    return act


def test_what_was_learnt_stays_learnt_where_another_correction_is_taken_back(
    small_network: XMem,
) -> None:
    lazy = start(small_network)
    run(lazy, {4: [correction(4, FIRST), correction(4, SECOND_ONE)]}, 6)
    lazy.config = replace(lazy.config, update_from_operator=False)
    assert lazy.retract(4 * FRAME_TIME, 1).applied
    catch_up(lazy, 7)
    assert same(Instant(start(small_network), {4: [answer(4, SECOND_ONE)]}), lazy)


def test_a_fork_has_the_gates_of_the_tracker(small_network: XMem) -> None:
    late = start(small_network)
    run(late, {24: [correction(3, FIRST)]}, 28)
    assert late._past.replay is not None
    fork = late._past.replay._fork
    assert fork is not None
    late.config = replace(late.config, gate_radius=0.0)
    step(late, 29)
    assert fork.frame is not None
    assert not fork.frame.places


# ---- ids


def test_an_objects_memory_is_not_another_ones_whose_id_it_has(small_network: XMem) -> None:
    late = start(small_network)
    run(late, {}, 14)
    late.remove_objects([2])
    step(late, 15)
    late.add_objects({2: mask(4, 44)})
    for index in range(16, 19):
        step(late, index)
    late.add_to_past({3: mask(30, 40)}, 9 * FRAME_TIME)
    step(late, 19)
    assert late.arriving_ids == (3,)
    snapshot = late.snapshot()
    assert snapshot.tracker.births == {1: 0, 2: 15, 3: 9}
    assert snapshot.objects.keys() == {1, 2, 3}


def test_what_was_said_of_an_earlier_object_of_its_id_still_holds(small_network: XMem) -> None:
    late, third = start(small_network), {3: mask(30, 40)}
    acts = {8: [add(third)], 12: [remove(3)]}
    for index in range(1, 19):
        step(late, index)
        for act in acts.get(index, ()):
            act(late)
    late.add_to_past(THIRD, 14 * FRAME_TIME)
    late.remove_objects([3])
    assert late.apply(correction(5, FIRST)).applied
    catch_up(late, 19)
    assert same(Instant(start(small_network), {5: [answer(5, FIRST)], **acts}), late)


def test_an_object_that_is_shown_earlier_and_removed_was_there_from_where_it_was_known(
    small_network: XMem,
) -> None:
    late = start(small_network)
    for index in range(1, 17):
        step(late, index, masks=THIRD if index == 12 else None)
    late.add_to_past({3: mask(26, 40)}, 7 * FRAME_TIME)
    late.remove_objects([3])
    catch_up(late, 17)
    assert same(Instant(start(small_network), {16: [remove(3)]}, {12: THIRD}), late)


def test_no_short_way_is_gone_on_with_while_an_object_is_arriving(small_network: XMem) -> None:
    late = start(small_network)
    run(late, {25: [correction(3, FIRST)]}, 26)
    late.add_to_past({3: mask(30, 40)}, 25 * FRAME_TIME)
    results = catch_up(late, 27)
    caught_up = min(index for index, result in results.items() if result.caught_up)
    assert all((len(r.tracks) == 3) == (index >= caught_up) for index, r in results.items())


def test_that_those_tests_can_fail(small_network: XMem) -> None:
    late = start(small_network)
    run(late, {}, 10)
    assert not same(answered_at_once(small_network, 5), late)
    assert same(answered_at_once(small_network, NEVER), late)

# SPDX-License-Identifier: Apache-2.0
"""The policy as a table: an object's entropies in, one decision per frame out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.lazy import OFF, HoldRule, LazyConfig, Source, TrackState
from lazyxmem_ros.lazy.policy import (
    Decision,
    ObjectHistory,
    Observation,
    decide,
    decide_together,
    expire,
    hold_frame,
)
from lazyxmem_ros.settings import ConfigError

USER, PSEUDO = Source.OPERATOR, Source.PSEUDO
TRACKED, UNCERTAIN, LOST = TrackState.TRACKED, TrackState.UNCERTAIN, TrackState.LOST
PAUSED = TrackState.PAUSED
FREE = LazyConfig.paper(lost_after=2 * SECOND)
"""The paper's thresholds; nothing limits asking, but objects can be lost."""
BIG = 500
TICK = SECOND // 10


def play(config, entropies, *, areas=None, answer=(), given=(0,), waiting=0, tick=TICK):
    """Decisions of one object over frames; `answer`: frames answered at once."""
    history = ObjectHistory()
    decisions = []
    for index, entropy in enumerate(entropies):
        area = BIG if areas is None else areas[index]
        stamp = index * tick
        history, _ = expire(config, history, stamp)
        seen = Observation(index, stamp, area, entropy, given=index in given)
        decision, history = decide(config, history, seen, waiting=waiting)
        decisions.append(decision)
        if index in answer and decision.request is not None:
            history = history.corrected(decision.request, index=index, stamp=stamp, in_view=True)
    return decisions


def requests(config, entropies, **options):
    return [decision.request for decision in play(config, entropies, **options)]


# ---- the table of spec section 4

TABLE = [
    # settings, entropy before, entropy now, wanted
    ({}, 0.1, 0.2, None),
    ({}, 0.1, 0.31, PSEUDO),  # rate 0.21 > delta_p
    ({}, 0.1, 0.61, USER),  # rate 0.51 > delta_u
    ({}, 0.125, 0.625, PSEUDO),  # rate exactly delta_u is not above it
    ({}, 0.9, 0.1, None),  # falling
    ({}, 0.95, 0.99, None),  # high but steady: tau_u and tau_p are off
    ({"operator_entropy": 0.8}, 0.85, 0.9, USER),
    ({"operator_entropy": 0.8}, 0.7, 0.8, None),  # exactly tau_u is not above it
    ({"operator_entropy": 0.8}, 0.6, 0.79, None),
    ({"pseudo_entropy": 0.5}, 0.55, 0.6, PSEUDO),
    ({"pseudo_entropy": 0.5, "operator_entropy": 0.55}, 0.55, 0.6, USER),  # the person goes first
    ({"operator_rate": OFF}, 0.1, 0.9, PSEUDO),  # without delta_u nothing bounds delta_p
    ({"pseudo_rate": OFF}, 0.1, 0.4, None),
    ({"pseudo_rate": OFF, "operator_rate": OFF}, 0.1, 1.2, None),
    ({"operator_corrections": False}, 0.1, 0.9, PSEUDO),
    ({"pseudo_corrections": False}, 0.1, 0.4, None),
    ({"pseudo_corrections": False}, 0.1, 0.9, USER),
    ({"operator_corrections": False, "pseudo_corrections": False}, 0.1, 1.0, None),
    ({"operator_corrections": False, "operator_entropy": 0.1}, 0.2, 0.3, None),
]


@pytest.mark.parametrize(("settings", "before", "now", "wanted"), TABLE)
def test_conditions(settings, before, now, wanted):
    config = replace(FREE, **settings)
    fresh = ObjectHistory(entropy=before, seen_stamp=0)
    decision, after = decide(config, fresh, Observation(2, 2 * TICK, BIG, now), waiting=0)
    assert decision.request is wanted
    assert decision.rate == pytest.approx(now - before)
    assert after.is_open(USER) == (wanted is USER)
    assert after.is_open(PSEUDO) == (wanted is PSEUDO)
    assert (decision.reason != "") == (wanted is not None)


@pytest.mark.parametrize("entropy", [0.0, 0.5, 1.3])
def test_no_correction_on_the_introducing_frame(entropy):
    config = replace(FREE, operator_entropy=0.1)
    decision = play(config, [entropy], given=(0,))[0]
    assert decision.request is None
    assert decision.rate is None
    # Not even where the introduction itself is not known as one.
    assert play(config, [entropy], given=())[0].request is None


def test_no_correction_where_a_mask_is_given_again():
    config = replace(FREE, operator_entropy=0.1)
    assert requests(config, [0.0, 0.05, 0.9, 0.9], given=(0, 2)) == [None, None, None, USER]


def test_the_rate_is_the_difference_to_the_frame_before():
    decisions = play(FREE, [0.1, 0.15, 0.05])
    assert [d.rate for d in decisions] == [None, pytest.approx(0.05), pytest.approx(-0.1)]


def test_reasons_name_value_and_limit():
    rose = play(FREE, [0.1, 0.7])[1]
    assert "0.60" in rose.reason
    assert "0.50" in rose.reason
    above = play(replace(FREE, operator_entropy=0.8, operator_rate=OFF), [0.1, 0.9])[1]
    assert "0.90" in above.reason
    assert "0.80" in above.reason


# ---- nobody is flooded


def test_an_open_request_is_not_repeated():
    config = replace(FREE, operator_entropy=0.8)
    decisions = play(config, [0.1, 0.9, 0.9, 0.9])
    assert [d.request for d in decisions] == [None, USER, None, None]
    assert [d.suppressed for d in decisions] == [False, False, True, True]
    assert "open" in decisions[2].reason


def test_without_a_cooldown_an_answered_object_may_ask_at_once():
    config = replace(FREE, operator_entropy=0.8)
    assert requests(config, [0.1, 0.9, 0.9, 0.9], answer=range(9)) == [None, USER, USER, USER]


@pytest.mark.parametrize("cooldown", [1, 2, 5])
def test_cooldown_counts_frames_from_the_answer(cooldown):
    config = replace(FREE, operator_entropy=0.8, cooldown_frames=cooldown)
    asked = requests(config, [0.1] + [0.9] * 12, answer=range(99))
    frames = [index for index, kind in enumerate(asked) if kind]
    # The mask that it was given on frame 0 was a person's word as well.
    assert frames == list(range(cooldown + 1, 13, cooldown + 1))


def test_the_two_kinds_cool_down_apart():
    config = replace(FREE, pseudo_cooldown_frames=3, pseudo_entropy=0.5, operator_entropy=0.8)
    asked = requests(config, [0.1, 0.6, 0.6, 0.6, 0.6, 0.6, 0.9, 0.6, 0.6], answer=range(9))
    assert asked == [*[None] * 4, PSEUDO, None, USER, None, PSEUDO]  # its mask was given at first


def test_the_limit_counts_requests_to_persons_only():
    config = replace(FREE, max_open_requests=2, operator_entropy=0.8, pseudo_entropy=0.5)
    assert requests(config, [0.1, 0.9], waiting=1)[1] is USER
    refused = play(config, [0.1, 0.9], waiting=2)[1]
    assert refused.request is None
    assert refused.suppressed
    assert "2 questions are open" in refused.reason
    assert refused.state is UNCERTAIN
    assert requests(config, [0.1, 0.6], waiting=2)[1] is PSEUDO
    assert requests(replace(config, max_open_requests=0), [0.1, 0.9], waiting=99)[1] is USER


def test_one_question_is_about_so_many_objects_at_most():
    config = replace(FREE, operator_rate=OFF, operator_entropy=0.5, joint_margin=0.2)
    before = {i: ObjectHistory(entropy=0.1, seen_stamp=0) for i in range(1, 9)}
    seen = {i: Observation(2, 2 * TICK, BIG, 0.3 + 0.05 * i) for i in before}  # 0.35 .. 0.7

    def asked(config):
        decided = decide_together(config, before, seen, waiting=0)
        return {i for i, (decision, _) in decided.items() if decision.request is USER}

    assert asked(replace(config, joint_margin=0.0)) == {5, 6, 7, 8}
    assert asked(config) == set(before)
    assert asked(replace(config, max_open_requests=1)) == {8, 7, 6, 5, 4}


def test_what_is_off_is_not_asked_along_with_others():
    config = replace(FREE, operator_iou=0.5, operator_rate=OFF, joint_margin=0.2)
    before = dict.fromkeys([1, 2, 3], ObjectHistory(entropy=0.1, seen_stamp=0))
    seen = {
        1: Observation(2, 2, BIG, 0.9, predicted_iou=0.4),
        2: Observation(2, 2, BIG, 0.9, predicted_iou=0.75),
        3: Observation(2, 2, BIG, 0.9, predicted_iou=0.65),
    }
    decided = decide_together(config, before, seen, waiting=0)
    assert {i for i, (decision, _) in decided.items() if decision.request is USER} == {1, 3}
    for off in ({"operator_iou": 0.0}, {"operator_corrections": False}):
        decided = decide_together(replace(config, **off), before, seen, waiting=0)
        assert all(decision.request is not USER for decision, _ in decided.values())


def test_a_request_times_out():
    config = replace(FREE, operator_entropy=0.8, request_timeout=3 * TICK)
    asked = requests(config, [0.1] + [0.9] * 9)
    assert [index for index, kind in enumerate(asked) if kind] == [1, 5, 9]
    assert requests(replace(config, request_timeout=0), [0.1] + [0.9] * 9).count(USER) == 1


def test_expire_names_what_was_given_up():
    history = ObjectHistory().asked(USER, 3, 3 * TICK).asked(PSEUDO, 5, 5 * TICK)
    config = replace(FREE, request_timeout=2 * TICK)
    same, late = expire(config, history, 5 * TICK)
    assert (same, late) == (history, [])
    after, late = expire(config, history, 6 * TICK)
    assert late == [USER]
    assert after.open == ((PSEUDO, 5 * TICK),)


def test_answers_close_requests():
    history = ObjectHistory().asked(USER, 1, TICK).asked(PSEUDO, 1, TICK)
    now = {"index": 2, "stamp": 2 * TICK, "in_view": True}
    assert history.corrected(USER, **now).open == ()
    assert history.corrected(PSEUDO, **now).open == ((USER, TICK),)
    assert history.corrected(PSEUDO, **now).pseudo_index == 2
    assert history.corrected(PSEUDO, **now).operator_index == 1


# ---- states


@pytest.mark.parametrize(
    ("entropies", "areas", "states"),
    [
        ([0.1, 0.1, 0.1], [BIG] * 3, [TRACKED] * 3),
        ([0.1, 0.7, 0.7], [BIG] * 3, [TRACKED, UNCERTAIN, TRACKED]),  # asks, then settles
        ([0.1, 0.2, 0.9, 0.9], [BIG] * 4, [TRACKED, TRACKED, UNCERTAIN, UNCERTAIN]),
        ([0.1, 0.0, 0.1], [BIG, 0, BIG], [TRACKED, UNCERTAIN, TRACKED]),  # out of view
        ([0.1, 0.0, 0.0], [BIG, 16, 17], [TRACKED, UNCERTAIN, TRACKED]),  # tiny is out of view
    ],
)
def test_tracked_and_uncertain(entropies, areas, states):
    assert [d.state for d in play(FREE, entropies, areas=areas)] == states


def absent(frames):
    return [BIG] + [0] * frames


def test_lost_after_a_time_out_of_view():
    decisions = play(FREE, [0.0] * 25, areas=absent(24))
    states = [d.state for d in decisions]
    # Last seen at 0; 2 s are 20 frames.
    assert states == [TRACKED] + [UNCERTAIN] * 20 + [LOST] * 4


def test_lost_after_a_restart_with_a_clock_that_is_behind():
    history, states = ObjectHistory(entropy=0.0, seen_stamp=3600 * SECOND), []
    for index in range(25):
        seen = Observation(index, index * TICK, 0, 0.0)
        decision, history = decide(FREE, history, seen, waiting=0)
        states.append(decision.state)
    assert states == [UNCERTAIN] * 21 + [LOST] * 4


def test_lost_can_be_turned_off():
    decisions = play(replace(FREE, lost_after=0), [0.0] * 60, areas=absent(59))
    assert LOST not in [d.state for d in decisions]


def test_a_lost_object_does_not_ask():
    """Flickering specks would ask at every flicker."""
    flicker = [0.0, 0.9] * 20
    areas = [BIG] + [0] * 24 + [0, 5] * 8
    entropies = [0.1] + [0.0] * 24 + [0.0, 0.9] * 8
    decisions = play(FREE, entropies, areas=areas, answer=range(99))
    assert decisions[-1].state is LOST
    assert all(d.request is None for d in decisions if d.state is LOST)
    assert not any(d.suppressed for d in decisions if d.state is LOST)
    # The same flicker in an object that cannot be lost asks again and again.
    never = replace(FREE, lost_after=0)
    asked = requests(never, [0.1, *flicker], areas=[BIG, *[0, 5] * 20], answer=range(99))
    assert asked.count(USER) > 10


def test_found_after_some_credible_frames():
    areas = absent(22) + [BIG] * 5
    decisions = play(replace(FREE, found_frames=3), [0.0] * 28, areas=areas)
    assert [d.state for d in decisions[22:]] == [LOST, LOST, LOST, TRACKED, TRACKED, TRACKED]


def test_an_incredible_frame_starts_the_count_again():
    areas = absent(22) + [BIG] * 7
    entropies = [0.0] * 23 + [0.1, 0.1, 0.95, 0.1, 0.1, 0.1, 0.1]
    states = [d.state for d in play(FREE, entropies, areas=areas)]
    assert states[23:] == [LOST] * 5 + [TRACKED] * 2


def test_a_found_object_can_be_lost_again_only_after_the_full_time():
    areas = absent(22) + [BIG] * 3 + [0] * 25
    states = [d.state for d in play(FREE, [0.0] * len(areas), areas=areas)]
    assert states[25] is TRACKED
    assert states[26:46] == [UNCERTAIN] * 20
    assert states[46] is LOST


def test_a_given_mask_finds_a_lost_object():
    states = [d.state for d in play(FREE, [0.0] * 25, areas=[*absent(22), BIG, BIG], given=(0, 23))]
    assert states[22:] == [LOST, TRACKED, TRACKED]


def test_a_correction_finds_a_lost_object():
    history = ObjectHistory(state=LOST, entropy=0.0, seen_stamp=0)
    shown = history.corrected(USER, index=9, stamp=9 * TICK, in_view=True)
    assert (shown.state, shown.seen_stamp) == (TRACKED, 9 * TICK)
    denied = history.corrected(USER, index=9, stamp=9 * TICK, in_view=False)
    assert (denied.state, denied.seen_stamp) == (LOST, 0)


# ---- memory


def decision_with(**changes) -> Decision:
    plain = Decision(
        state=TRACKED,
        rate=0.0,
        request=None,
        reason="",
        suppressed=False,
        doubtful=False,
        in_view=True,
        left_out=False,
        credible=True,
    )
    return replace(plain, **changes)


SURE, DOUBTFUL = decision_with(), decision_with(doubtful=True, state=UNCERTAIN)
RESTING = decision_with(state=PAUSED)
UNSEEN = {"in_view": False, "credible": False}
GONE, ABSENT = decision_with(state=LOST, **UNSEEN), decision_with(**UNSEEN)
POOR = decision_with(credible=False)
SELF = decision_with(request=PSEUDO)
ASKED = decision_with(request=USER)


@pytest.mark.parametrize(
    ("decisions", "held_by_any", "held_by_all"),
    [
        ([], False, False),
        ([SURE], False, False),
        ([DOUBTFUL], True, True),
        ([SURE, DOUBTFUL], True, False),
        ([DOUBTFUL, DOUBTFUL], True, True),
        ([DOUBTFUL, ABSENT], True, True),
        ([DOUBTFUL, GONE], True, True),
        ([SURE, GONE], False, False),
        ([GONE], True, True),  # nothing in view: nothing to learn
        ([GONE, ABSENT], True, True),
        ([POOR], True, True),  # nothing credible in view
        ([POOR, ABSENT], True, True),
        ([POOR, SURE], False, False),  # the other one is to be learnt
        ([DOUBTFUL, RESTING], True, True),
        ([SURE, RESTING], False, False),
        ([RESTING], False, False),
        ([ABSENT], True, True),
        ([SURE, SELF], True, True),
        ([ASKED], False, False),  # asking a person alone does not hold the frame
    ],
)
def test_hold_frame(decisions, held_by_any, held_by_all):
    assert hold_frame(LazyConfig(hold_rule=HoldRule.ANY), decisions) is held_by_any
    assert hold_frame(LazyConfig(hold_rule=HoldRule.ALL), decisions) is held_by_all


def test_frames_that_show_nothing_may_be_learnt():
    for decisions in ([GONE], [ABSENT]):
        assert not hold_frame(LazyConfig(hold_unseen=False), decisions)
    assert not hold_frame(LazyConfig(), [])


def test_what_is_probably_wrong_is_not_learnt_even_if_frames_without_objects_are():
    assert hold_frame(LazyConfig(hold_unseen=False), [POOR, ABSENT])


@pytest.mark.parametrize(
    ("limit", "expected", "credible"),
    [(0.5, 0.49, False), (0.5, 0.5, True), (0.0, 0.0, True), (0.5, None, True)],
)
def test_an_object_is_credible_from_a_predicted_iou_on(limit, expected, credible):
    seen = Observation(index=1, stamp=TICK, area=500, entropy=0.1, predicted_iou=expected)
    decision, _ = decide(LazyConfig(hold_iou=limit), ObjectHistory(), seen, waiting=0)
    assert decision.credible is credible
    unseen, _ = decide(
        LazyConfig(hold_iou=limit), ObjectHistory(), replace(seen, area=3), waiting=0
    )
    assert not unseen.credible


def followed(config, expected, *, given=()):
    """Decisions on one object of so high a predicted IoU, frame by frame."""
    history, decisions = ObjectHistory(), []
    for index, iou in enumerate(expected):
        seen = Observation(index, index * TICK, BIG, 0.1, given=index in given, predicted_iou=iou)
        history, _ = expire(config, history, seen.stamp)
        decision, history = decide(config, history, seen, waiting=0)
        decisions.append(decision)
    return decisions


def test_what_is_probably_something_else_counts_as_out_of_view():
    config = replace(FREE, show_iou=0.4)
    states = [d.state for d in followed(config, [0.9] + [0.3] * 24 + [0.4] * 4)]
    assert states == [TRACKED] + [UNCERTAIN] * 20 + [LOST] * 6 + [TRACKED] * 2
    without = followed(FREE, [0.9] + [0.3] * 24 + [0.4] * 4)
    assert {d.state for d in without} == {TRACKED}
    unknown = followed(config, [None] * 25)
    assert {d.state for d in unknown} == {TRACKED}, "without a calibration nothing changes"
    given = followed(config, [0.3] * 3, given=(0, 1, 2))
    assert {d.state for d in given} == {TRACKED}


@pytest.mark.parametrize("cooldown", [0, 30])
def test_what_is_probably_something_else_is_asked_about_as_before_also_once_it_is_lost(
    cooldown: int,
):
    asking = replace(FREE, operator_iou=0.5, cooldown_frames=cooldown, request_timeout=SECOND)
    expected = [0.9] + [0.3] * 70
    hiding = followed(replace(asking, show_iou=0.4), expected)
    assert [d.request for d in hiding] == [d.request for d in followed(asking, expected)]
    assert hiding[-1].state is LOST
    assert USER in [d.request for d in hiding[22:]]
    assert all(d.reason.startswith("out of view?") for d in hiding if d.request)


@pytest.mark.parametrize(("now", "found"), [(0.2, True), (0.9, False)])
def test_nobody_is_asked_about_a_past_frame_but_what_looks_wrong_there_is_not_found(
    now: float, found: bool
) -> None:
    before = ObjectHistory(entropy=0.1, seen_stamp=0, absences=2)
    seen = Observation(index=5, stamp=5 * TICK, area=BIG, entropy=now)
    decision, history = decide(FREE, before, seen, ask=False)
    assert (decision.request, decision.reason, history.open) == (None, "", ())
    assert history.operator_index is None
    assert history.absences == (0 if found else 2)


def asked_about(config, expected, answers):
    """The frames on which a person was asked, who says at once whether the object is there."""
    history, asked = ObjectHistory(), []
    for index, iou in enumerate(expected):
        seen = Observation(index, index * TICK, BIG, 0.1, given=index == 0, predicted_iou=iou)
        decision, history = decide(config, history, seen, waiting=0)
        if decision.request is USER:
            asked.append(index)
            there = answers(index)
            history = history.corrected(USER, index=index, stamp=seen.stamp, in_view=there)
    return asked


def test_who_says_again_that_it_is_not_there_is_asked_less_and_less():
    config = replace(FREE, operator_iou=0.5, show_iou=0.4, cooldown_frames=10)
    gone = [0.9] + [0.3] * 4000

    def never(index: int) -> bool:
        return False

    gaps = np.diff(asked_about(config, gone, never))
    assert gaps.tolist() == [11, 21, 41, 81, 161, 321, *[641] * 5]
    found = [0.9] + [0.3] * 50 + [0.9] * 3 + [0.3] * 50
    gaps = np.diff(asked_about(config, found, never)).tolist()
    assert gaps[:2] == [11, 21]
    assert gaps[3:] == [11, 21], "found in between, it is asked about as at first"
    shown = asked_about(config, gone[:200], lambda index: index > 50)
    assert np.diff(shown).tolist()[3:] == [11] * (len(shown) - 4), "a person has shown it"


def test_memory_learns_no_more_of_what_is_left_out_once_it_is_lost():
    """What is doubtful of a lost object has a say where it is probably something else."""
    config = replace(FREE, show_iou=0.4, hold_entropy=1.2)
    history = ObjectHistory(state=LOST, entropy=1.5, seen_stamp=0)
    for rule in HoldRule:
        for expected, held in ((0.3, True), (0.5, False)):
            seen = Observation(30, 30 * TICK, BIG, 1.5, predicted_iou=expected)
            decision, _ = decide(config, history, seen, waiting=0)
            assert decision.state is LOST
            credible = replace(decision, state=TRACKED, doubtful=False, credible=True)
            both = [decision] if rule is HoldRule.ALL else [decision, credible]
            config = replace(config, hold_rule=rule, hold_iou=0.0)
            assert hold_frame(config, both) is held


def test_own_corrections_may_be_learnt():
    assert not hold_frame(LazyConfig(update_from_pseudo=True), [SELF])


@pytest.mark.parametrize(
    ("limit", "entropy", "held"), [(0.8, 0.81, True), (0.8, 0.8, False), (OFF, 5.0, False)]
)
def test_hold_threshold(limit, entropy, held):
    config = replace(FREE, hold_entropy=limit, pseudo_rate=OFF)
    assert play(config, [entropy, entropy])[1].doubtful is held


def test_a_lost_object_never_holds_memory_back():
    areas = [*absent(24), 5, 5]
    decisions = play(FREE, [0.0] * 25 + [0.95, 0.95], areas=areas)
    assert decisions[-1].state is LOST
    assert decisions[-1].doubtful
    assert not hold_frame(FREE, [decisions[-1], SURE])


# ---- paused


def pause_at(config, entropies, paused, *, areas=None):
    """Decisions of one object over frames, paused before the frames of `paused`."""
    history = ObjectHistory()
    decisions = []
    for index, entropy in enumerate(entropies):
        area = BIG if areas is None else areas[index]
        if index in paused:
            history = history.paused()
        seen = Observation(index, index * TICK, area, entropy, given=index == 0)
        decision, history = decide(config, history, seen, waiting=0)
        decisions.append(decision)
    return decisions, history


@pytest.mark.parametrize("settings", [{}, {"operator_entropy": 0.0}, {"pseudo_entropy": 0.0}])
def test_a_paused_object_asks_for_nothing(settings):
    config = replace(FREE, **settings)
    assert requests(config, [0.0, 0.9, 0.1, 0.95])[1] is not None
    decisions, history = pause_at(config, [0.0, 0.9, 0.1, 0.95], {1})
    assert all(d.request is None and not d.suppressed and not d.reason for d in decisions)
    assert [d.state for d in decisions] == [TRACKED] + [PAUSED] * 3
    assert history.open == ()


def test_what_a_paused_object_is_measured_at_is_still_told():
    decisions, _ = pause_at(FREE, [0.1, 0.9, 0.4], {1})
    assert [d.rate for d in decisions] == [None, pytest.approx(0.8), pytest.approx(-0.5)]


def test_a_paused_object_is_not_declared_lost():
    assert play(FREE, [0.0] * 60, areas=absent(60))[-1].state is LOST
    decisions, _ = pause_at(FREE, [0.0] * 60, {10}, areas=absent(60))
    assert all(d.state is PAUSED for d in decisions[10:])


def test_pausing_dismisses_open_requests():
    history = ObjectHistory().asked(USER, 3, 3 * TICK).asked(PSEUDO, 4, 4 * TICK)
    assert history.paused().open == ()


@pytest.mark.parametrize("in_view", [True, False])
def test_a_correction_does_not_end_a_pause(in_view):
    corrected = ObjectHistory().paused().corrected(USER, index=4, stamp=4 * TICK, in_view=in_view)
    assert corrected.state is PAUSED


# ---- settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("operator_entropy", -0.1),
        ("operator_rate", math.nan),
        ("cooldown_frames", -1),
        ("request_timeout", -5),
        ("late_overlap", 1.5),
        ("found_frames", 0),
        ("history_frames", 0),
    ],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(ConfigError, match=name):
        LazyConfig(**{name: value})


def test_the_papers_best_run():
    config = LazyConfig.paper()
    assert (config.operator_entropy, config.operator_rate) == (OFF, 0.5)
    assert (config.pseudo_entropy, config.pseudo_rate, config.hold_entropy) == (OFF, 0.2, 0.8)
    assert config.update_from_operator
    assert not config.update_from_pseudo
    assert LazyConfig.paper(operator_rate=OFF).operator_rate == OFF


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (Observation(5, 5, 10, 0.1, predicted_iou=0.3, share=1.0), "out of view?"),
        (Observation(5, 5, 900, 0.1, predicted_iou=0.3, share=1.0), "out of view?"),
        (Observation(5, 5, 900, 0.7, predicted_iou=0.4, share=1.0), "its edge is unclear"),
        (Observation(5, 5, 900, 0.1, predicted_iou=0.4, share=1.0), "may have jumped"),
        (Observation(5, 5, 900, 0.1, predicted_iou=0.4), "may have jumped"),
    ],
)
def test_a_question_says_what_is_seen(seen: Observation, words: str) -> None:
    before = ObjectHistory(entropy=0.4, seen_stamp=0)
    decision, _ = decide(LazyConfig(), before, seen, waiting=0)
    assert decision.request is USER
    assert decision.reason.startswith(words)
    assert f"{seen.predicted_iou:.2f}" in decision.reason


def test_nobody_is_asked_about_what_is_nearly_hidden_until_it_is_well_in_view_again() -> None:
    config, history = LazyConfig(least_view=0.25), ObjectHistory(entropy=0.1, seen_stamp=0)
    asked = []
    for index, share in enumerate([0.2, 0.1, 0.24, 0.6, 0.9], start=1):
        seen = Observation(index, index, 100, 0.1, predicted_iou=0.3, share=share)
        decision, history = decide(config, history, seen, waiting=0)
        asked.append(decision.request is USER)
        if share < config.least_view:
            assert decision.suppressed
            assert "nearly hidden" in decision.reason
    assert asked == [False, False, False, True, False]
    seen = Observation(1, 1, 100, 0.1, predicted_iou=0.3, share=0.1)
    before = ObjectHistory(entropy=0.1, seen_stamp=0)
    decision, _ = decide(replace(config, least_view=0.0), before, seen, waiting=0)
    assert decision.request is USER


@pytest.mark.parametrize("asks", [True, False])
def test_a_person_is_asked_which_of_two_it_is(*, asks: bool) -> None:
    """However certain the tracker is."""
    config = LazyConfig(operator_lookalikes=asks)
    history = ObjectHistory(entropy=0.1, trusted_index=5)
    seen = Observation(6, 6 * TICK, BIG, 0.1, predicted_iou=0.95, mistakable=True)
    decision, _ = decide(config, history, seen, waiting=0)
    assert decision.request is (USER if asks else None)
    assert ("there are two of them" in decision.reason) == asks


def test_that_there_are_two_of_them_is_news_once_whatever_was_asked_before() -> None:
    history = ObjectHistory(entropy=0.1, trusted_index=5, operator_index=4)
    wanted = []
    for index in (5, 6, 7):
        seen = Observation(index, index * TICK, BIG, 0.1, mistakable=index > 5)
        decision, history = decide(LazyConfig(), history, seen, waiting=0)
        history = history.closed(USER)  # waved off
        wanted.append(decision.request)
    assert wanted == [None, USER, None]

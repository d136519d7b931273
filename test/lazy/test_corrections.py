# SPDX-License-Identifier: Apache-2.0
"""LazyTracker on scripted uncertainty: what corrections change, and which are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scripted_tracker import SIZE, ScriptedTracker, square
from tracker_runs import EMPTY, HERE, OPERATOR, PSEUDO, QUIET, THERE, advance, one, stamp_of, start

from lazyxmem_ros.lazy import (
    Correction,
    LazyConfig,
    LazyTracker,
    Source,
    StampError,
)

# ---- of the newest frame


def test_a_frame_that_corrects_itself_is_not_learnt():
    """Whether the answer comes at once or never."""
    for answered in (True, False):
        lazy, tracker = start(one(0.0, 0.3, 0.3), LazyConfig.paper())
        assert advance(lazy, 1).held
        if answered:
            assert lazy.apply(Correction(stamp_of(1), {1: THERE}, PSEUDO)).applied
        advance(lazy, 2)
        assert tracker.calls == [("memorize", 0), ("hold", 1)]


def test_pseudo_corrections_refine_the_published_mask():
    lazy, _ = start(one(0.0, 0.3), LazyConfig.paper())
    advance(lazy, 1)
    outcome = lazy.apply(Correction(stamp_of(1), {1: THERE}, PSEUDO))
    assert outcome.applied
    assert outcome.applied_stamp == outcome.stamp == stamp_of(1)
    assert np.array_equal(outcome.labels == 1, THERE)
    assert lazy.open_requests == []


def test_pseudo_corrections_enter_memory_if_told_so():
    lazy, tracker = start(one(0.0, 0.3), LazyConfig.paper(update_from_pseudo=True))
    assert not advance(lazy, 1).held
    lazy.apply(Correction(stamp_of(1), {1: THERE}, PSEUDO))
    lazy.close()
    kind, index, masks = tracker.calls[-1]
    assert (kind, index) == ("correct", 1)
    assert np.array_equal(masks[1], THERE)


def test_a_persons_correction_enters_memory_even_where_the_frame_was_doubtful():
    lazy, tracker = start(one(0.0, 0.95), LazyConfig.paper())
    assert advance(lazy, 1).held
    outcome = lazy.apply(Correction(stamp_of(1), {1: THERE}, OPERATOR))
    assert np.array_equal(outcome.labels == 1, THERE)
    lazy.close()
    kind, index, masks = tracker.calls[-1]
    assert (kind, index) == ("correct", 1)
    assert np.array_equal(masks[1], THERE)
    assert lazy.open_requests == []


def test_without_idu_a_persons_correction_is_published_only():
    lazy, tracker = start(one(0.0, 0.6), LazyConfig.paper(update_from_operator=False))
    advance(lazy, 1)
    outcome = lazy.apply(Correction(stamp_of(1), {1: THERE}, OPERATOR))
    assert np.array_equal(outcome.labels == 1, THERE)
    lazy.close()
    assert tracker.calls[-1] == ("hold", 1)


def test_both_kinds_on_one_frame():
    """A person's word is learnt, the tracker's own stays out, both are published."""
    script = [{1: (HERE, 0.0), 2: (THERE, 0.0)}, {1: (HERE, 0.3), 2: (THERE, 0.7)}]
    lazy, tracker = start(script, LazyConfig.paper())
    advance(lazy, 1)
    own, theirs = square(10, 12), square(44, 20)
    assert lazy.apply(Correction(stamp_of(1), {1: own}, PSEUDO)).applied
    outcome = lazy.apply(Correction(stamp_of(1), {2: theirs}, OPERATOR))
    assert np.array_equal(outcome.labels == 1, own)
    assert np.array_equal(outcome.labels == 2, theirs)
    lazy.close()
    kind, _, masks = tracker.calls[-1]
    assert kind == "correct"
    assert set(masks) == {2}


def test_overlapping_corrections():
    script = [{1: (HERE, 0.0), 2: (THERE, 0.0)}, {1: (HERE, 0.3), 2: (THERE, 0.3)}]
    wide = square(20, side=24)
    # A person's later mask takes from an earlier one.
    lazy, _ = start(script)
    advance(lazy, 1)
    lazy.apply(Correction(stamp_of(1), {1: wide}, OPERATOR))
    outcome = lazy.apply(Correction(stamp_of(1), {2: THERE}, OPERATOR))
    assert np.array_equal(outcome.labels == 2, THERE)
    assert np.array_equal(outcome.labels == 1, wide & ~THERE)
    # The tracker's own takes nothing from a person's.
    lazy, _ = start(script)
    advance(lazy, 1)
    lazy.apply(Correction(stamp_of(1), {2: THERE}, OPERATOR))
    outcome = lazy.apply(Correction(stamp_of(1), {1: wide}, PSEUDO))
    assert np.array_equal(outcome.labels == 2, THERE)
    assert np.array_equal(outcome.labels == 1, wide & ~THERE)
    refused = lazy.apply(Correction(stamp_of(1), {1: THERE}, PSEUDO))
    assert not refused.applied
    assert "operator" in refused.reason


def test_a_person_may_correct_a_correction():
    lazy, tracker = start(one(0.0, 0.6), LazyConfig.paper())
    advance(lazy, 1)
    lazy.apply(Correction(stamp_of(1), {1: THERE}, OPERATOR))
    better = square(30)
    assert lazy.apply(Correction(stamp_of(1), {1: better}, OPERATOR)).applied
    lazy.close()
    corrections = [call for call in tracker.calls if call[0] == "correct"]
    assert len(corrections) == 1
    assert np.array_equal(corrections[0][2][1], better)


def test_a_person_may_say_that_the_object_is_not_in_view():
    lazy, tracker = start(one(0.0, 0.6), LazyConfig.paper())
    advance(lazy, 1)
    outcome = lazy.apply(Correction(stamp_of(1), {1: np.zeros(SIZE, bool)}, OPERATOR))
    assert outcome.applied
    assert not (outcome.labels == 1).any()
    lazy.close()
    assert tracker.calls[-1][0] == "correct"


def test_a_correction_of_the_newest_frame_after_it_was_closed():
    lazy, tracker = start(one(0.0, 0.6), LazyConfig.paper())
    advance(lazy, 1)
    lazy.close()
    outcome = lazy.apply(Correction(stamp_of(1), {1: THERE}, OPERATOR))
    assert outcome.applied
    assert [kind for kind, *_ in tracker.calls] == ["memorize", "memorize", "correct"]
    assert np.array_equal(outcome.labels == 1, THERE)


def test_corrections_count_for_the_cooldown():
    script = one(0.0, *[0.9] * 12)
    config = LazyConfig.paper(operator_entropy=0.8, cooldown_frames=3, operator_rate=math.inf)
    lazy, _ = start(script, config)
    asked = []
    for index in range(1, 13):
        result = advance(lazy, index)
        asked += [index] if result.requests else []
        if index == 6:  # unasked for
            lazy.apply(Correction(stamp_of(6), {1: HERE}, OPERATOR))
    assert asked == [4, 10]  # the given mask of frame 0 counts as well


def test_a_dismissed_request_makes_room():
    script = [{1: (HERE, 0.0), 2: (THERE, 0.0)}, *[{1: (HERE, 0.9), 2: (THERE, 0.85)}] * 3]
    config = LazyConfig.paper(operator_entropy=0.8, max_open_requests=1)
    lazy, _ = start(script, config)
    assert [r.object_id for r in advance(lazy, 1).requests] == [1, 2]
    lazy.dismiss(1, Source.OPERATOR)
    lazy.dismiss(99, Source.OPERATOR)
    assert advance(lazy, 2).requests == []  # half of the question is still open
    lazy.dismiss(2, Source.OPERATOR)
    assert [r.object_id for r in advance(lazy, 3).requests] == [1, 2]


# ---- late corrections


def still(frames):
    return [{1: (HERE, 0.0)}, *[{1: (square(8 + (i > 0)), 0.2)} for i in range(frames)]]


def test_a_late_correction_of_a_still_object_goes_to_the_newest_frame():
    lazy, tracker = start(still(5), LazyConfig.paper())
    for index in range(1, 5):
        advance(lazy, index)
    better = square(7)
    outcome = lazy.apply(Correction(stamp_of(1), {1: better}, OPERATOR))
    assert outcome.applied
    assert outcome.stamp == stamp_of(1)
    assert outcome.applied_stamp == stamp_of(4)
    assert "3 frames late" in outcome.reason
    assert np.array_equal(outcome.labels == 1, better)
    lazy.close()
    assert tracker.calls[-1][:2] == ("correct", 4)


def test_a_late_correction_of_an_object_that_moved_is_refused():
    script = [{1: (square(4 + 5 * i), 0.1)} for i in range(6)]
    lazy, tracker = start(script, LazyConfig.paper())
    for index in range(1, 5):
        advance(lazy, index)
    outcome = lazy.apply(Correction(stamp_of(1), {1: HERE}, OPERATOR))
    assert not outcome.applied
    assert outcome.labels is None
    assert "moved" in outcome.reason
    assert "0.03" in outcome.reason
    lazy.close()
    assert tracker.calls[-1] == ("memorize", 4)


def test_an_older_correction_does_not_undo_a_newer_one():
    lazy, _ = start(still(6), LazyConfig.paper())
    for index in range(1, 5):
        advance(lazy, index)
    assert lazy.apply(Correction(stamp_of(3), {1: square(7)}, OPERATOR)).applied
    refused = lazy.apply(Correction(stamp_of(2), {1: square(5)}, OPERATOR))
    assert not refused.applied
    assert "newer" in refused.reason
    guess = lazy.apply(Correction(stamp_of(3), {1: square(5)}, PSEUDO))
    assert not guess.applied
    assert "operator" in guess.reason


def test_corrections_out_of_order_of_different_objects():
    script = [{1: (HERE, 0.1), 2: (THERE, 0.1)}] * 6
    lazy, _ = start(script, LazyConfig.paper())
    for index in range(1, 5):
        advance(lazy, index)
    assert lazy.apply(Correction(stamp_of(3), {1: square(9)}, OPERATOR)).applied
    outcome = lazy.apply(Correction(stamp_of(2), {2: square(41)}, OPERATOR))
    assert outcome.applied
    assert np.array_equal(outcome.labels == 1, square(9))
    assert np.array_equal(outcome.labels == 2, square(41))


# ---- refusals: an Outcome, never an exception, and nothing changes

REFUSED = [
    ("unknown object", Correction(stamp_of(3), {9: HERE}), "no object 9 is tracked; there is 1"),
    ("no mask", Correction(stamp_of(3), {}), "no mask"),
    ("another size", Correction(stamp_of(3), {1: np.ones((5, 6), bool)}), r"[5, 6]"),
    ("three dimensions", Correction(stamp_of(3), {1: np.ones((*SIZE, 1), bool)}), "shape"),
    ("no array", Correction(stamp_of(3), {1: None}), "shape"),
    ("chances", Correction(stamp_of(3), {1: HERE * 0.3}), "float64, and not of 0 and 1"),
    ("not a number", Correction(stamp_of(3), {1: HERE * math.nan}), "of 0 and 1"),
    ("texts", Correction(stamp_of(3), {1: HERE.astype(str)}), "of 0 and 1"),
    ("fields", Correction(stamp_of(3), {1: np.zeros(SIZE, [("a", int)])}), "of 0 and 1"),
    ("no stamp", Correction(None, {1: HERE}), "whole number of nanoseconds, not None"),
    ("seconds for nanoseconds", Correction(0.1, {1: HERE}), "whole number of nanoseconds"),
    ("masks without ids", Correction(stamp_of(3), HERE), "by object id"),
    ("id of text", Correction(stamp_of(3), {"1": HERE}), "whole number, not '1'"),
    ("a source of text", Correction(stamp_of(3), {1: HERE}, "operator"), "Source.OPERATOR"),
    ("ragged", Correction(stamp_of(3), {1: [[1], [1, 2]]}), "no array"),
    ("future stamp", Correction(stamp_of(9), {1: HERE}), "has been tracked yet"),
    ("no such stamp", Correction(stamp_of(2) + 1, {1: HERE}), "there was no frame"),
    ("forgotten stamp", Correction(5, {1: HERE}), "forgotten"),
    ("found nothing", Correction(stamp_of(3), {1: EMPTY}, PSEUDO), "found nothing"),
    ("one of two unknown", Correction(stamp_of(3), {1: HERE, 9: HERE}), "no object 9"),
    ("removed", Correction(stamp_of(3), {2: HERE}), "has been removed"),
]


@pytest.mark.parametrize(
    ("correction", "reason"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_refusals(correction, reason):
    lazy, tracker = start([{1: (HERE, 0.1), 2: (THERE, 0.1)}] * 5, LazyConfig.paper())
    for index in range(1, 4):
        advance(lazy, index)
    lazy.remove_objects([2])
    before = list(tracker.calls)
    outcome = lazy.apply(correction)
    assert not outcome.applied
    assert reason in outcome.reason
    assert outcome.labels is None
    assert outcome.stamp == correction.stamp
    assert tracker.calls == before
    assert np.array_equal(advance(lazy, 4).labels == 1, HERE)
    assert tracker.calls == [*before, ("memorize", 3)]


def test_a_mask_of_zeros_and_ones_is_one_of_any_type():
    for late in (0, 1):
        for kind in (np.uint8, np.int64, np.float32):
            lazy, _ = start(one(0.0), LazyConfig.paper())
            advance(lazy, 1)
            outcome = lazy.apply(Correction(stamp_of(1 - late), {1: square(9).astype(kind)}))
            assert outcome.applied, outcome.reason


def test_before_the_first_frame_everything_is_refused():
    lazy = LazyTracker(ScriptedTracker(one(0.0)), QUIET)
    assert "no frame" in lazy.apply(Correction(1, {1: HERE})).reason
    with pytest.raises(StampError, match="no frame"):
        lazy.add_objects({1: HERE})
    lazy.close()


def test_a_duplicate_is_refused_and_costs_nothing():
    lazy, tracker = start(one(0.0, 0.6), LazyConfig.paper())
    advance(lazy, 1)
    assert lazy.apply(Correction(stamp_of(1), {1: THERE})).applied
    again = lazy.apply(Correction(stamp_of(1), {1: THERE.copy()}))
    assert not again.applied
    assert "duplicate" in again.reason
    lazy.close()
    assert [kind for kind, *_ in tracker.calls] == ["memorize", "correct"]


def test_the_tracker_does_not_overrule_a_person():
    lazy, _ = start(one(0.0, 0.3), LazyConfig.paper())
    advance(lazy, 1)
    lazy.apply(Correction(stamp_of(1), {1: THERE}, OPERATOR))
    guess = lazy.apply(Correction(stamp_of(1), {1: HERE}, PSEUDO))
    assert not guess.applied
    assert "operator" in guess.reason


def test_a_frame_from_before_the_object_is_refused():
    lazy, _ = start([{1: (HERE, 0.0), 2: (THERE, 0.0)}] * 4, masks={1: HERE})
    advance(lazy, 1)
    advance(lazy, 2, masks={2: THERE})
    refused = lazy.apply(Correction(stamp_of(1), {2: THERE}))
    assert not refused.applied
    assert "not tracked yet" in refused.reason


def test_a_removed_object_that_came_back_is_a_new_one():
    lazy, _ = start([{1: (HERE, 0.0), 2: (THERE, 0.0)}] * 6)
    advance(lazy, 1)
    lazy.remove_objects([2])
    advance(lazy, 2)
    advance(lazy, 3, masks={2: THERE})
    assert "not tracked yet" in lazy.apply(Correction(stamp_of(1), {2: THERE})).reason
    assert lazy.apply(Correction(stamp_of(3), {2: square(42)})).applied


def test_a_useless_answer_ends_a_pseudo_request_only():
    script = [{1: (HERE, 0.0), 2: (THERE, 0.0)}, {1: (HERE, 0.3), 2: (THERE, 0.7)}]
    lazy, _ = start(script, LazyConfig.paper())
    advance(lazy, 1)
    wrong = np.ones((3, 3), bool)
    lazy.apply(Correction(stamp_of(1), {1: wrong}, PSEUDO))
    lazy.apply(Correction(stamp_of(1), {2: wrong}, OPERATOR))
    assert lazy.open_requests == [(2, Source.OPERATOR)]

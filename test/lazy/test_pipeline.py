# SPDX-License-Identifier: Apache-2.0
"""LazyTracker on scripted uncertainty: what is asked, what memory learns, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scripted_tracker import FRAME_TIME, SECOND, SIZE, ScriptedTracker, square

from lazyxmem_ros.lazy import (
    Correction,
    HoldRule,
    LazyConfig,
    LazyTracker,
    RequestKind,
    Source,
    StampError,
    TrackState,
)
from lazyxmem_ros.xmem import FrameError, MaskError, UnknownObjectError

HERE, THERE = square(8), square(40)
QUIET = LazyConfig.paper(user_corrections=False, pseudo_corrections=False, hold_entropy=math.inf)
OPERATOR, PSEUDO = Source.OPERATOR, Source.PSEUDO


def one(*entropies, mask=HERE):
    """A script of one object 1."""
    return [{1: (mask, entropy)} for entropy in entropies]


def stamp_of(index: int) -> int:
    return SECOND + index * FRAME_TIME


def start(script, config=QUIET, masks=None):
    """A LazyTracker that has seen the first frame of the script."""
    tracker = ScriptedTracker(script)
    lazy = LazyTracker(tracker, config)
    image = np.zeros((*SIZE, 3), np.uint8)
    given = masks or {i: mask for i, (mask, _) in script[0].items()}
    lazy.step(image, stamp_of(0), masks=given)
    return lazy, tracker


def advance(lazy, index, **options):
    return lazy.step(np.zeros((*SIZE, 3), np.uint8), stamp_of(index), **options)


def run(script, config=QUIET, masks=None):
    lazy, tracker = start(script, config, masks)
    results = [advance(lazy, index) for index in range(1, len(script))]
    lazy.close()
    return results, tracker.calls


# ---- results


def test_a_result_says_all_about_its_frame():
    script = [{7: (HERE, 0.0), 3: (THERE, 0.0)}, {7: (HERE, 0.3), 3: (THERE, 0.1)}]
    lazy, _ = start(script)
    result = advance(lazy, 1, labels={7: "cup"})
    assert (result.stamp, result.index) == (stamp_of(1), 1)
    assert result.labels.dtype == np.uint16
    assert np.array_equal(result.labels == 7, HERE)
    assert np.array_equal(result.labels == 3, THERE)
    first, second = result.tracks
    assert (first.object_id, first.label, first.area) == (7, "cup", 256)
    assert (second.object_id, second.label, second.box) == (3, "", (40, 10, 56, 26))
    assert first.uncertainty == pytest.approx(0.3, abs=1e-3)
    assert first.uncertainty_rate == pytest.approx(0.3, abs=1e-3)
    assert second.state is TrackState.TRACKED
    heat = result.uncertainty_map()
    assert heat.dtype == np.float32
    assert heat.shape == SIZE
    assert heat[HERE].mean() == pytest.approx(0.3, abs=1e-3)


def test_the_rate_is_unknown_on_the_first_frame():
    lazy = LazyTracker(ScriptedTracker(one(0.0)), QUIET)
    result = advance(lazy, 0, masks={1: HERE})
    assert result.tracks[0].uncertainty_rate is None


def test_frames_without_objects_pass_through():
    lazy = LazyTracker(ScriptedTracker([{}]), QUIET)
    for index in range(3):
        result = advance(lazy, index)
        assert not result.labels.any()
        assert result.tracks == []
        assert result.requests == []


def test_requests_carry_what_a_corrector_needs():
    script = one(0.0, 0.3)
    lazy, _ = start(script, LazyConfig.paper(request_timeout=5 * SECOND))
    image = np.full((*SIZE, 3), 9, np.uint8)
    (request,) = lazy.step(image, stamp_of(1)).requests
    assert (request.kind, request.object_id) == (RequestKind.PSEUDO, 1)
    assert (request.stamp, request.index) == (stamp_of(1), 1)
    assert request.deadline == stamp_of(1) + 5 * SECOND
    assert request.image is image
    assert np.array_equal(request.mask, HERE)
    x, y = request.prompt.positive[0]
    assert HERE[int(y), int(x)]
    assert abs(x - 15.5) <= 1
    assert np.array_equal(request.prompt.mask, HERE)


def test_a_person_gets_the_prior_without_a_click():
    lazy, _ = start(one(0.0, 0.9), LazyConfig.paper())
    (request,) = advance(lazy, 1).requests
    assert request.kind is RequestKind.USER
    assert request.deadline is None
    assert len(request.prompt.positive) == 0
    assert np.array_equal(request.prompt.mask, HERE)
    assert lazy.open_requests == [(1, RequestKind.USER)]


def test_the_most_uncertain_objects_are_asked_about_first():
    masks = {i: square(2 + 12 * (i - 1), side=10) for i in range(1, 5)}
    entropies = {1: 0.6, 2: 0.9, 3: 0.7, 4: 0.95}
    script = [
        {i: (m, 0.0) for i, m in masks.items()},
        {i: (m, entropies[i]) for i, m in masks.items()},
    ]
    lazy, _ = start(script, LazyConfig.paper(max_open_requests=2))
    result = advance(lazy, 1)
    assert [request.object_id for request in result.requests] == [4, 2]
    assert set(result.suppressed) == {1, 3}
    assert "limit 2" in result.suppressed[1]


def test_changes_and_expired_requests_are_announced():
    config = LazyConfig.paper(request_timeout=FRAME_TIME, lost_after=2 * FRAME_TIME)
    gone = {1: (np.zeros(SIZE, bool), 0.0)}
    script = [*one(0.0, 0.9), gone, gone, gone, gone, *one(0.1, 0.1, 0.1)]
    results, _ = run(script, config)
    seen = [(r.index, c.before.name, c.after.name) for r in results for c in r.changes]
    assert seen == [
        (1, "TRACKED", "UNCERTAIN"),
        (4, "UNCERTAIN", "LOST"),
        (8, "LOST", "TRACKED"),
    ]
    assert [r.index for r in results if r.expired == [(1, RequestKind.USER)]] == [3]


# ---- memory


def test_plain_tracking_memorizes_every_frame():
    _, calls = run(one(0.0, 0.1, 0.9, 0.1))
    assert calls == [("memorize", index) for index in range(4)]


def test_the_newest_frame_stays_open_until_closed():
    lazy, tracker = start(one(0.0))
    assert tracker.calls == []
    lazy.close()
    lazy.close()
    assert tracker.calls == [("memorize", 0)]


def test_udu_holds_doubtful_frames():
    config = LazyConfig.paper(user_corrections=False, pseudo_corrections=False)
    results, calls = run(one(0.0, 0.85, 0.7, 0.81, 0.2), config)
    assert [kind for kind, _ in calls] == ["memorize", "hold", "memorize", "hold", "memorize"]
    assert [result.held for result in results] == [True, False, True, False]


def test_a_frame_with_given_masks_is_never_held():
    lazy, tracker = start(one(0.9, 0.9), LazyConfig.paper())
    lazy.close()
    assert tracker.calls == [("memorize", 0)]
    lazy, tracker = start(one(0.0, 0.95), LazyConfig.paper(user_corrections=False))
    assert not advance(lazy, 1, masks={1: HERE}).held
    lazy.close()
    assert tracker.calls[-1] == ("memorize", 1)


@pytest.mark.parametrize(("rule", "kind"), [(HoldRule.ANY, "hold"), (HoldRule.ALL, "memorize")])
def test_one_doubtful_object_of_two(rule, kind):
    script = [{1: (HERE, 0.0), 2: (THERE, 0.0)}, {1: (HERE, 0.9), 2: (THERE, 0.1)}]
    config = LazyConfig.paper(user_corrections=False, pseudo_corrections=False, hold_rule=rule)
    _, calls = run(script, config)
    assert calls[1] == (kind, 1)


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
    lazy, tracker = start(one(0.0, 0.6), LazyConfig.paper(update_from_user=False))
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
    config = LazyConfig.paper(user_entropy=0.8, cooldown_frames=3, user_rate=math.inf)
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
    config = LazyConfig.paper(user_entropy=0.8, max_open_requests=1)
    lazy, _ = start(script, config)
    assert [r.object_id for r in advance(lazy, 1).requests] == [1]
    assert advance(lazy, 2).requests == []
    lazy.dismiss(1, RequestKind.USER)
    lazy.dismiss(99, RequestKind.USER)
    assert [r.object_id for r in advance(lazy, 3).requests] == [1]


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

EMPTY = np.zeros(SIZE, bool)
REFUSED = [
    ("unknown object", Correction(stamp_of(3), {9: HERE}), "no object 9 is tracked; there is 1"),
    ("no mask", Correction(stamp_of(3), {}), "no mask"),
    ("another size", Correction(stamp_of(3), {1: np.ones((5, 6), bool)}), r"[5, 6]"),
    ("three dimensions", Correction(stamp_of(3), {1: np.ones((*SIZE, 1), bool)}), "shape"),
    ("no array", Correction(stamp_of(3), {1: None}), "shape"),
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
    assert lazy.open_requests == [(2, RequestKind.USER)]


# ---- frames that cannot be taken


def bad_frames():
    good = np.zeros((*SIZE, 3), np.uint8)
    return [
        ("same stamp", good, stamp_of(1), None, StampError),
        ("stamp runs backwards", good, stamp_of(0), None, StampError),
        ("size changes", np.zeros((40, 64, 3), np.uint8), stamp_of(2), None, FrameError),
        ("grey", np.zeros(SIZE, np.uint8), stamp_of(2), None, FrameError),
        ("four channels", np.zeros((*SIZE, 4), np.uint8), stamp_of(2), None, FrameError),
        ("float", np.zeros((*SIZE, 3), np.float32), stamp_of(2), None, FrameError),
        ("empty", np.zeros((0, 64, 3), np.uint8), stamp_of(2), None, FrameError),
        ("not an array", [[0]], stamp_of(2), None, FrameError),
        ("mask of another size", good, stamp_of(2), {2: np.ones((4, 4), bool)}, MaskError),
        ("mask of numbers", good, stamp_of(2), {2: HERE.astype(np.uint8)}, MaskError),
        ("mask not an array", good, stamp_of(2), {2: [[True]]}, MaskError),
        ("empty first mask", good, stamp_of(2), {2: EMPTY}, MaskError),
        ("id 0", good, stamp_of(2), {0: HERE}, MaskError),
        ("id too large", good, stamp_of(2), {65_536: HERE}, MaskError),
    ]


@pytest.mark.parametrize(
    ("image", "stamp", "masks", "error"),
    [b[1:] for b in bad_frames()],
    ids=[b[0] for b in bad_frames()],
)
def test_a_bad_frame_changes_nothing(image, stamp, masks, error):
    lazy, tracker = start(one(0.0, 0.6, 0.1), LazyConfig.paper())
    advance(lazy, 1)
    before = list(tracker.calls)
    with pytest.raises(error):
        lazy.step(image, stamp, masks=masks)
    assert tracker.calls == before
    # The frame before is still open: a correction of it is instant.
    assert lazy.apply(Correction(stamp_of(1), {1: THERE})).applied
    assert advance(lazy, 2).index == 2
    assert tracker.calls[-1][:2] == ("correct", 1)


def test_reset_allows_anything_again():
    lazy, _ = start(one(0.0, 0.1))
    advance(lazy, 1)
    lazy.reset()
    assert lazy.object_ids == ()
    lazy.step(np.zeros((20, 30, 3), np.uint8), 1)
    assert "no object" in lazy.apply(Correction(1, {1: np.ones((20, 30), bool)})).reason


# ---- objects come and go


def test_objects_can_be_added_on_the_newest_frame():
    script = [{1: (HERE, 0.1), 2: (THERE, 0.1)}] * 4
    lazy, tracker = start(script, LazyConfig.paper(), masks={1: HERE})
    advance(lazy, 1)
    result = lazy.add_objects({2: THERE}, stamp=stamp_of(1), labels={2: "cup"})
    assert np.array_equal(result.labels == 2, THERE)
    assert [(t.object_id, t.label) for t in result.tracks] == [(1, ""), (2, "cup")]
    assert result.tracks[1].uncertainty_rate is None
    assert result.tracks[0].uncertainty_rate is not None
    assert not result.held
    assert lazy.object_ids == (1, 2)
    advance(lazy, 2)
    assert tracker.calls[-1] == ("memorize", 1)


def test_adding_objects_keeps_a_correction_of_the_same_frame():
    script = [{1: (HERE, 0.1), 2: (THERE, 0.1)}] * 4
    lazy, _ = start(script, LazyConfig.paper(), masks={1: HERE})
    advance(lazy, 1)
    lazy.apply(Correction(stamp_of(1), {1: square(4)}))
    result = lazy.add_objects({2: THERE})
    assert np.array_equal(result.labels == 1, square(4))
    assert np.array_equal(result.labels == 2, THERE)


def test_objects_cannot_be_added_on_an_older_frame():
    lazy, _ = start(one(0.0, 0.1))
    advance(lazy, 1)
    with pytest.raises(StampError, match="newest frame"):
        lazy.add_objects({2: THERE}, stamp=stamp_of(0))
    with pytest.raises(MaskError):
        lazy.add_objects({2: EMPTY})
    with pytest.raises(MaskError):
        lazy.add_objects({})
    assert lazy.object_ids == (1,)


def test_removing_an_object_drops_its_requests_and_corrections():
    script = [{1: (HERE, 0.0), 2: (THERE, 0.0)}, {1: (HERE, 0.9), 2: (THERE, 0.1)}]
    lazy, tracker = start(script, LazyConfig.paper())
    advance(lazy, 1)
    lazy.apply(Correction(stamp_of(1), {1: square(4), 2: square(42)}))
    lazy.remove_objects([1])
    assert lazy.open_requests == []
    assert lazy.object_ids == (2,)
    lazy.close()
    assert set(tracker.calls[-1][2]) == {2}


def test_removing_an_unknown_object_removes_none():
    lazy, _ = start([{1: (HERE, 0.0), 2: (THERE, 0.0)}])
    with pytest.raises(UnknownObjectError, match="9"):
        lazy.remove_objects([1, 9])
    assert lazy.object_ids == (1, 2)


# ---- paused objects


BOTH = {1: (HERE, 0.0), 2: (THERE, 0.0)}
DOUBT_ONE = {1: (HERE, 0.9), 2: (THERE, 0.0)}


def test_a_paused_object_is_segmented_but_asks_for_nothing():
    lazy, _ = start([BOTH, DOUBT_ONE, BOTH, DOUBT_ONE], LazyConfig.paper())
    (request,) = advance(lazy, 1).requests
    assert lazy.open_requests == [(1, request.kind)]
    lazy.pause_objects([1])
    assert lazy.open_requests == []
    assert lazy.paused_ids == {1}
    results = [advance(lazy, index) for index in (2, 3)]
    assert not any(r.requests or r.suppressed for r in results)
    assert [(c.object_id, c.after) for c in results[0].changes] == [(1, TrackState.PAUSED)]
    for result in results:
        paused, other = result.tracks
        assert (paused.state, paused.area) == (TrackState.PAUSED, 256)
        assert other.state is TrackState.TRACKED
        assert np.array_equal(result.labels == 1, HERE)


def test_a_paused_object_keeps_no_frame_out_of_memory():
    config = LazyConfig.paper(user_corrections=False, pseudo_corrections=False, hold_entropy=0.5)
    for paused, closing in (([], "hold"), ([1], "memorize"), ([2], "hold")):
        lazy, tracker = start([BOTH, DOUBT_ONE], config)
        lazy.pause_objects(paused)
        assert advance(lazy, 1).held is (closing == "hold")
        lazy.close()
        assert tracker.calls[-1] == (closing, 1)


def test_resuming_starts_the_history_afresh():
    config = LazyConfig.paper(user_entropy=0.5, cooldown_frames=100)
    lazy, _ = start(one(0.0, 0.9, 0.9, 0.95, 0.96), config)
    assert "cool-down" in advance(lazy, 1).suppressed[1]  # the given mask was a person's word
    lazy.pause_objects([1])
    advance(lazy, 2)
    lazy.resume_objects([1])
    assert lazy.paused_ids == frozenset()
    first = advance(lazy, 3)
    assert first.tracks[0].uncertainty_rate is None
    assert first.tracks[0].state is TrackState.UNCERTAIN
    assert first.requests == []  # nothing to compare with
    assert len(advance(lazy, 4).requests) == 1  # and no cool-down of before


def test_resuming_leaves_other_objects_alone():
    lazy, _ = start([BOTH, DOUBT_ONE, BOTH], LazyConfig.paper())
    advance(lazy, 1)
    lazy.resume_objects([1, 2])
    assert len(lazy.open_requests) == 1
    assert advance(lazy, 2).tracks[0].uncertainty_rate is not None


def test_a_person_may_correct_a_paused_object_but_not_the_tracker_itself():
    lazy, tracker = start(one(0.0, 0.9, 0.9), LazyConfig.paper(update_from_pseudo=True))
    advance(lazy, 1)
    lazy.pause_objects([1])
    refused = lazy.apply(Correction(stamp_of(1), {1: square(4)}, PSEUDO))
    assert not refused.applied
    assert "object 1 is paused" in refused.reason
    assert lazy.apply(Correction(stamp_of(1), {1: square(4)}, OPERATOR)).applied
    assert advance(lazy, 2).tracks[0].state is TrackState.PAUSED
    assert tracker.calls[-1][:2] == ("correct", 1)
    assert np.array_equal(tracker.calls[-1][2][1], square(4))


@pytest.mark.parametrize("change", ["pause_objects", "resume_objects"])
def test_an_unknown_object_is_named_and_nothing_changes(change):
    lazy, _ = start([BOTH, BOTH])
    lazy.pause_objects([2])
    with pytest.raises(UnknownObjectError, match="no object 9 is tracked; there is 1, 2"):
        getattr(lazy, change)([1, 2, 9])
    assert lazy.paused_ids == {2}


def test_a_removed_object_comes_back_unpaused():
    lazy, _ = start([BOTH, BOTH])
    lazy.pause_objects([2])
    lazy.remove_objects([2])
    lazy.add_objects({2: THERE})
    assert lazy.paused_ids == frozenset()


# ---- settings and bounds


def test_thresholds_can_change_while_it_runs():
    lazy, _ = start(one(0.0, 0.9, 0.9))
    assert advance(lazy, 1).requests == []
    lazy.config = LazyConfig.paper(user_entropy=0.5)
    assert len(advance(lazy, 2).requests) == 1


def test_the_past_is_bounded():
    config = LazyConfig.paper(history_frames=4, pseudo_corrections=False)
    lazy, _ = start(one(*[0.1] * 12), config)
    for index in range(1, 12):
        advance(lazy, index)
    assert "forgotten" in lazy.apply(Correction(stamp_of(7), {1: HERE})).reason
    assert lazy.apply(Correction(stamp_of(8), {1: square(9)})).applied


def test_a_failing_tracker_does_not_wedge_it():
    """What fails on closing a frame is tried again with the next one."""
    lazy, tracker = start(one(0.0, 0.1, 0.1))
    working = tracker.memorize

    def fail(frame, masks=None):
        raise RuntimeError("out of memory")

    tracker.memorize = fail
    with pytest.raises(RuntimeError):
        advance(lazy, 1)
    tracker.memorize = working
    assert advance(lazy, 2).index == 1
    assert tracker.calls == [("memorize", 0)]

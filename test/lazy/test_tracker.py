# SPDX-License-Identifier: Apache-2.0
"""LazyTracker on scripted uncertainty: what is asked and what memory learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scripted_tracker import FRAME_TIME, SECOND, SIZE, ScriptedTracker, square
from tracker_runs import EMPTY, HERE, QUIET, THERE, advance, one, run, stamp_of, start

from lazyxmem_ros.lazy import (
    Correction,
    HoldRule,
    LazyConfig,
    LazyTracker,
    Source,
    StampError,
    TrackState,
)
from lazyxmem_ros.xmem import FrameError, MaskError

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
    assert (request.source, request.object_id) == (Source.PSEUDO, 1)
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
    assert request.source is Source.OPERATOR
    assert request.deadline is None
    assert len(request.prompt.positive) == 0
    assert np.array_equal(request.prompt.mask, HERE)
    assert lazy.open_requests == [(1, Source.OPERATOR)]


def several(*entropies):
    """A script of objects 1, 2, ... that begin certain and have these entropies on frames 1, 2."""
    places = [(4, 4), (40, 4), (4, 30), (40, 30)]  # apart: entropy is measured around them, too
    masks = {i: square(*place, side=10) for i, place in enumerate(places, start=1)}
    frames = [[0.0] * len(masks), *entropies]
    return [{i: (mask, frame[i - 1]) for i, mask in masks.items()} for frame in frames]


def test_the_most_uncertain_objects_are_asked_about_first():
    lazy, _ = start(several([0.6, 0.9, 0.7, 0.95]), LazyConfig.paper())
    asked = [request.object_id for request in advance(lazy, 1).requests]
    assert asked == [4, 2, 3, 1]


def test_several_objects_of_one_frame_are_one_question():
    config = LazyConfig.paper(
        operator_entropy=0.6,
        operator_rate=math.inf,
        pseudo_corrections=False,
        joint_margin=0.1,
        max_open_requests=1,
    )
    script = several([0.45, 0.55, 0.9, 0.7], [0.9] * 4, [0.45, 0.55, 0.55, 0.55])
    lazy, _ = start(script, config)
    first = advance(lazy, 1)
    assert [request.object_id for request in first.requests] == [3, 4, 2]
    reasons = {request.object_id: request.reason for request in first.requests}
    assert "asked about anyway" in reasons[2]
    assert "anyway" not in reasons[3] + reasons[4]
    assert {track.object_id for track in first.tracks if track.state is TrackState.TRACKED} == {1}

    second = advance(lazy, 2)  # the person has one question already
    assert not second.requests
    assert "1 questions are open" in second.suppressed[1]
    for object_id in (2, 3, 4):
        lazy.dismiss(object_id, Source.OPERATOR)
    third = advance(lazy, 3)  # nobody asks whom one would ask along with
    assert not third.requests
    assert not third.suppressed


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
    assert [r.index for r in results if r.expired == [(1, Source.OPERATOR)]] == [3]


# ---- the register of requests


def ask_a_person(entropies, **changes):
    """A LazyTracker that has just asked about object 1 on frame 1, and its request."""
    lazy, _ = start(one(0.0, 0.9, *entropies), LazyConfig.paper(**changes))
    (request,) = advance(lazy, 1).requests
    assert lazy.request(stamp_of(1), 1) is request
    assert lazy.is_open(request)
    return lazy, request


def test_an_answer_closes_what_was_asked():
    lazy, request = ask_a_person([0.0])
    advance(lazy, 2)
    assert lazy.apply(Correction(stamp_of(1), {1: HERE})).applied
    assert lazy.request(stamp_of(1), 1) is None
    assert not lazy.is_open(request)


@pytest.mark.parametrize("how", ["dismiss", "pause", "remove"])
def test_what_is_taken_back_is_not_registered(how):
    lazy, request = ask_a_person([])
    if how == "dismiss":
        lazy.dismiss(1, Source.OPERATOR)
    elif how == "pause":
        lazy.pause_objects([1])
    else:
        lazy.remove_objects([1])
    assert lazy.request(stamp_of(1), 1) is None
    assert not lazy.is_open(request)


def test_after_its_deadline_a_request_is_known_but_not_open():
    lazy, request = ask_a_person([0.0, 0.0], request_timeout=FRAME_TIME)
    advance(lazy, 2)
    assert lazy.is_open(request)
    advance(lazy, 3)
    assert not lazy.is_open(request)
    assert lazy.request(stamp_of(1), 1) is request


def test_without_a_deadline_a_request_is_given_up_with_its_frame():
    lazy, request = ask_a_person([0.0] * 3 + [0.9], history_frames=3, request_timeout=0)
    for index in (2, 3, 4):
        assert advance(lazy, index).expired == []
    assert lazy.request(stamp_of(1), 1) is None
    result = advance(lazy, 5)
    assert result.expired == [(1, Source.OPERATOR)]
    assert len(result.requests) == 1  # so that it may be asked about again
    assert not lazy.is_open(request)


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
    config = LazyConfig.paper(operator_corrections=False, pseudo_corrections=False)
    results, calls = run(one(0.0, 0.85, 0.7, 0.81, 0.2), config)
    assert [kind for kind, _ in calls] == ["memorize", "hold", "memorize", "hold", "memorize"]
    assert [result.held for result in results] == [True, False, True, False]


def test_a_frame_with_given_masks_is_never_held():
    lazy, tracker = start(one(0.9, 0.9), LazyConfig.paper())
    lazy.close()
    assert tracker.calls == [("memorize", 0)]
    lazy, tracker = start(one(0.0, 0.95), LazyConfig.paper(operator_corrections=False))
    assert not advance(lazy, 1, masks={1: HERE}).held
    lazy.close()
    assert tracker.calls[-1] == ("memorize", 1)


@pytest.mark.parametrize(("rule", "kind"), [(HoldRule.ANY, "hold"), (HoldRule.ALL, "memorize")])
def test_one_doubtful_object_of_two(rule, kind):
    script = [{1: (HERE, 0.0), 2: (THERE, 0.0)}, {1: (HERE, 0.9), 2: (THERE, 0.1)}]
    config = LazyConfig.paper(operator_corrections=False, pseudo_corrections=False, hold_rule=rule)
    _, calls = run(script, config)
    assert calls[1] == (kind, 1)


# ---- frames that cannot be taken


def bad_frames():
    good = np.zeros((*SIZE, 3), np.uint8)
    return [
        ("same stamp", good, stamp_of(1), None, StampError),
        ("stamp runs backwards", good, stamp_of(0), None, StampError),
        ("half a nanosecond", good, stamp_of(2) + 0.5, None, StampError),
        ("no time", good, math.nan, None, StampError),
        ("no stamp", good, None, None, StampError),
        ("a stamp that no snapshot holds", good, 2**63, None, StampError),
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
        ("id between two", good, stamp_of(2), {1.5: HERE}, MaskError),
        ("id of text", good, stamp_of(2), {"2": HERE}, MaskError),
        ("masks without ids", good, stamp_of(2), [HERE], MaskError),
        ("a label map for masks", good, stamp_of(2), HERE.astype(np.uint16), MaskError),
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


# ---- settings and bounds


def test_thresholds_can_change_while_it_runs():
    lazy, _ = start(one(0.0, 0.9, 0.9))
    assert advance(lazy, 1).requests == []
    lazy.config = LazyConfig.paper(operator_entropy=0.5)
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

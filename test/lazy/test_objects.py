# SPDX-License-Identifier: Apache-2.0
"""LazyTracker on scripted uncertainty: objects that come, go and are paused."""

from __future__ import annotations

import numpy as np
import pytest
from scripted_tracker import square
from tracker_runs import EMPTY, HERE, OPERATOR, PSEUDO, THERE, advance, one, stamp_of, start

from lazyxmem_ros.basics import MAX_LABEL_LENGTH
from lazyxmem_ros.lazy import (
    Correction,
    LabelError,
    LazyConfig,
    StampError,
    TrackState,
)
from lazyxmem_ros.xmem import MaskError, UnknownObjectError

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


def test_a_name_that_is_too_long_is_refused_and_nothing_changes():
    lazy, _ = start([{1: (HERE, 0.1), 2: (THERE, 0.1)}] * 4, LazyConfig.paper(), masks={1: HERE})
    advance(lazy, 1)
    long = {1: "x" * MAX_LABEL_LENGTH, 2: "x" * (MAX_LABEL_LENGTH + 1)}
    for add in (
        lambda labels: advance(lazy, 2, masks={2: THERE}, labels=labels),
        lambda labels: lazy.add_objects({2: THERE}, labels=labels),
        lambda labels: lazy.add_to_past({2: THERE}, stamp_of(1), labels),
    ):
        with pytest.raises(LabelError, match=r"object 2 has 81 characters: .* at most 80"):
            add(long)
        assert lazy.object_ids == (1,)
    lazy.add_objects({2: THERE}, labels={2: long[1]})
    assert [track.label for track in advance(lazy, 2).tracks] == ["", long[1]]


def test_a_name_that_is_no_text_is_refused_and_nothing_changes():
    lazy, _ = start([BOTH] * 2)
    with pytest.raises(LabelError, match="object 1 must be a text, not 3"):
        advance(lazy, 1, labels={1: 3})
    assert advance(lazy, 1).index == 1


@pytest.mark.parametrize(
    ("masks", "reason"),
    [({1.5: THERE}, "whole number, not 1.5"), ({None: THERE}, "None"), (THERE, "not as ndarray")],
)
def test_an_id_that_is_no_number_is_refused_and_nothing_changes(masks, reason):
    lazy, _ = start([BOTH] * 2)
    with pytest.raises(MaskError, match=reason):
        lazy.add_objects(masks)
    assert lazy.object_ids == (1, 2)
    assert advance(lazy, 1).index == 1


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


def test_what_was_said_of_a_removed_object_is_not_said_of_the_next_of_its_id():
    lazy, _ = start([BOTH, BOTH])
    correction = Correction(stamp_of(0), {1: square(4)})
    assert lazy.apply(correction).applied
    lazy.remove_objects([1])
    lazy.add_objects({1: HERE})
    assert lazy.apply(correction).applied


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
    assert lazy.open_requests == [(1, request.source)]
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
    config = LazyConfig.paper(
        operator_corrections=False, pseudo_corrections=False, hold_entropy=0.5
    )
    for paused, closing in (([], "hold"), ([1], "memorize"), ([2], "hold")):
        lazy, tracker = start([BOTH, DOUBT_ONE], config)
        lazy.pause_objects(paused)
        assert advance(lazy, 1).held is (closing == "hold")
        lazy.close()
        assert tracker.calls[-1] == (closing, 1)


def test_resuming_starts_the_history_afresh():
    config = LazyConfig.paper(operator_entropy=0.5, cooldown_frames=100)
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

# SPDX-License-Identifier: Apache-2.0
"""Going back in time: copies of the tracker's state, and frames segmented again."""

from dataclasses import replace

import pytest
import torch
from random_clip import TINY, image, mask

from lazyxmem_ros.xmem import Frame, StateError, XMem, XMemTracker, check_state


@pytest.fixture
def tracker(small_network: XMem) -> XMemTracker:
    tracker = XMemTracker(small_network, TINY)
    tracker.memorize(tracker.segment(image(0), {1: mask(0, 0)}))
    tracker.memorize(tracker.segment(image(1), {2: mask(20, 30)}))
    return tracker


def run(tracker: XMemTracker, seeds: range) -> Frame:
    for seed in seeds:
        frame = tracker.segment(image(seed))
        tracker.memorize(frame)
    return frame


def same(a: Frame, b: Frame) -> None:
    torch.testing.assert_close(a.probabilities, b.probabilities, rtol=0, atol=0)


def test_a_fork_goes_on_as_the_original_would(tracker: XMemTracker) -> None:
    run(tracker, range(2, 20))
    fork = tracker.fork(tracker.state())
    same(run(tracker, range(20, 40)), run(fork, range(20, 40)))
    assert fork.memory_tokens == tracker.memory_tokens


def test_a_state_is_a_copy(tracker: XMemTracker) -> None:
    state = tracker.state()
    first = run(tracker, range(2, 20)).copy()  # removing objects changes the newest frame
    tracker.remove_objects([1])
    run(tracker, range(20, 25))
    tracker.restore(state)
    assert tracker.object_ids == (1, 2)
    same(run(tracker, range(2, 20)), first)


def test_past_frames_segmented_again_from_their_features(tracker: XMemTracker) -> None:
    """No image is encoded, and without a change everything comes out as it was."""
    state = tracker.state()
    past = []
    for seed in range(2, 22):
        frame = tracker.segment(image(seed), {3: mask(5, 40)} if seed == 7 else None)
        tracker.memorize(frame)
        past.append(frame)
    fork = tracker.fork(state)
    encode, fork.network.encode_key = fork.network.encode_key, None  # type: ignore[assignment]
    try:
        for before in past:
            again = fork.resegment(before)
            same(again, before)
            fork.memorize(again)
    finally:
        fork.network.encode_key = encode  # type: ignore[method-assign]
    assert fork.object_ids == tracker.object_ids
    same(run(tracker, range(22, 30)), run(fork, range(22, 30)))


def test_a_correction_of_a_past_frame_is_as_if_it_had_been_instant(tracker: XMemTracker) -> None:
    corrected = {1: mask(30, 10)}
    instant = tracker.fork(tracker.state())
    late = tracker
    past: list[Frame] = []
    for seed in range(2, 12):
        frame = late.segment(image(seed))
        if seed == 5:
            state = late.state()
        late.memorize(frame)
        past.append(frame)
        frame = instant.segment(image(seed))
        instant.correct(frame, corrected) if seed == 5 else instant.memorize(frame)
    fork = late.fork(state)
    assert fork.frame is not None
    fork.correct(fork.frame, corrected)
    for before in past[4:]:
        fork.memorize(fork.resegment(before))
    same(run(fork, range(12, 20)), run(instant, range(12, 20)))
    assert not torch.equal(past[-1].probabilities, frame.probabilities)


def test_an_object_and_its_memory_begin_with_one_frame(tracker: XMemTracker) -> None:
    state = tracker.state()
    check_state(state, tracker)
    assert state.memory is not None
    births = state.births | {2: 0}
    with pytest.raises(StateError, match="does not begin with the object"):
        check_state(replace(state, births=births), tracker)
    with pytest.raises(StateError, match="does not begin with the object"):
        check_state(replace(state, memory=replace(state.memory, births=births)), tracker)

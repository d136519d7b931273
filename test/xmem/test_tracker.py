# SPDX-License-Identifier: Apache-2.0
"""The tracker's life: objects that come and go, long runs, sizes, and every refusal."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from full_memory import failed_each_way
from random_clip import SIZE, TINY, image, mask

import lazyxmem_ros.xmem.frame as frame_module
import lazyxmem_ros.xmem.tracker as tracker_module
from lazyxmem_ros.xmem import (
    Frame,
    FrameError,
    MaskError,
    MemoryConfig,
    UnknownObjectError,
    XMem,
    XMemTracker,
    resolve_device,
    resolve_precision,
)
from lazyxmem_ros.xmem.memory import Memory


@pytest.fixture
def tracker(small_network: XMem) -> XMemTracker:
    return XMemTracker(small_network, TINY)


def run(tracker: XMemTracker, seeds: range) -> Frame:
    for seed in seeds:
        frame = tracker.segment(image(seed))
        tracker.memorize(frame)
    return frame


@pytest.mark.parametrize("size", [(48, 64), (50, 70), (33, 31), (17, 100)])
def test_any_image_size(size: tuple[int, int], small_network: XMem) -> None:
    tracker = XMemTracker(small_network, TINY)
    for seed in range(4):
        given = {1: mask(5, 5, size)} if seed == 0 else None
        frame = tracker.segment(image(seed, size), given)
        assert frame.probabilities.shape == (2, *size)
        torch.testing.assert_close(frame.probabilities.sum(0), torch.ones(size))
        assert frame.labels().shape == size
        tracker.memorize(frame)


def test_max_internal_size_limits_the_work_and_not_the_answer(small_network: XMem) -> None:
    tracker = XMemTracker(small_network, TINY, max_internal_size=32)
    frame = tracker.segment(image(0, (100, 150)), {3: mask(10, 10, (100, 150))})
    assert frame.image.shape[-2:] == (32, 48)
    assert frame.probabilities.shape == (2, 100, 150)
    assert frame.labels().dtype == np.uint16
    given, found = mask(10, 10, (100, 150)), frame.labels() == 3
    assert (given & found).sum() / (given | found).sum() > 0.7


@pytest.mark.parametrize("side", [1, 3])
def test_what_is_smaller_than_a_pixel_inside_is_taken(side: int, small_network: XMem) -> None:
    tracker = XMemTracker(small_network, TINY, max_internal_size=32)
    tiny = np.zeros((320, 480), bool)
    tiny[104 : 104 + side, 58 : 58 + side] = True  # over the border of two pixels of ten
    large = np.zeros_like(tiny)
    large[200:260, 200:260] = True
    frame = tracker.segment(image(0, tiny.shape), {5: tiny, 6: large})
    found = frame.labels() == 5
    assert (found & tiny).any()
    assert found.sum() < 30**2
    tracker.memorize(frame)
    tracker.correct(tracker.segment(image(1, tiny.shape)), {5: tiny})
    assert (tracker.frame.labels() == 5)[tiny].any()


def test_given_mask_is_the_first_frame_s_answer(tracker: XMemTracker) -> None:
    frame = tracker.segment(image(0), {7: mask(0, 0), 2: mask(20, 30)})
    assert frame.object_ids == (7, 2) == tracker.object_ids
    expected = np.where(mask(0, 0), 7, np.where(mask(20, 30), 2, 0))
    assert np.array_equal(frame.labels(), expected)


def test_ids_in_any_order_give_the_same_masks(small_network: XMem) -> None:
    answers = []
    for first, second in [(1, 2), (60_000, 5)]:
        tracker = XMemTracker(small_network, TINY)
        tracker.memorize(tracker.segment(image(0), {first: mask(0, 0)}))
        frame = tracker.segment(image(1), {second: mask(20, 30)})
        tracker.memorize(frame)
        frame = run(tracker, range(2, 12))
        answers.append(frame.probabilities)
    torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=0)


def test_ids_as_label_maps_have_them(small_network: XMem) -> None:
    answers = []
    for number in (int, np.uint16):
        tracker = XMemTracker(small_network, TINY)
        masks = {number(1): mask(0, 0), number(2): mask(20, 30)}
        tracker.memorize(tracker.segment(image(0), masks))
        answers.append(run(tracker, range(1, 4)).labels())
        assert [type(object_id) for object_id in tracker.object_ids] == [int, int]
    assert np.array_equal(*answers)


def test_images_and_masks_that_must_not_be_written_to(tracker: XMemTracker) -> None:
    """Such as Pillow's: without a warning of PyTorch's, once for each program, which says that
    the behaviour is undefined.
    """
    torch.set_warn_always(True)
    try:
        picture, shown = image(0), mask(0, 0)
        for array in (picture, shown):
            array.setflags(write=False)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            frame = tracker.segment(picture, {1: shown})
    finally:
        torch.set_warn_always(False)
    assert np.array_equal(frame.labels() == 1, shown)


def test_removed_object_leaves_no_trace_but_its_pixels(tracker: XMemTracker) -> None:
    tracker.memorize(tracker.segment(image(0), {1: mask(0, 0), 2: mask(20, 30)}))
    bytes_of_two = tracker.nbytes
    run(tracker, range(1, 9))
    tracker.remove_objects([1])
    assert tracker.object_ids == (2,)
    assert tracker.nbytes < bytes_of_two
    frame = run(tracker, range(9, 30))
    assert frame.probabilities.shape[0] == 2
    assert set(np.unique(frame.labels())) <= {0, 2}


def test_last_object_removed_and_another_begun(tracker: XMemTracker) -> None:
    tracker.memorize(tracker.segment(image(0), {1: mask(0, 0)}))
    run(tracker, range(1, 9))
    tracker.remove_objects([1])
    assert tracker.memory_tokens == (0, 0)
    assert run(tracker, range(9, 12)).probabilities.shape[0] == 1
    tracker.memorize(tracker.segment(image(12), {1: mask(20, 20)}))
    assert run(tracker, range(13, 30)).probabilities.shape[0] == 2


def test_removal_on_an_open_frame(tracker: XMemTracker) -> None:
    tracker.memorize(tracker.segment(image(0), {1: mask(0, 0), 2: mask(20, 30)}))
    frame = tracker.segment(image(1))
    tracker.remove_objects([1])
    assert frame.object_ids == (2,)
    torch.testing.assert_close(frame.probabilities.sum(0), torch.ones(SIZE))
    tracker.memorize(frame)
    run(tracker, range(2, 12))


def test_objects_of_different_ages_are_forgotten_without_error(tracker: XMemTracker) -> None:
    """The published code raises NotImplementedError here."""
    for seed in range(60):
        given = {seed + 1: mask(seed % 30, seed % 40)} if seed in (0, 7, 23, 40) else None
        tracker.memorize(tracker.segment(image(seed), given))
        assert tracker.memory_tokens[1] <= TINY.max_long_term_tokens
    assert tracker.memory_tokens[1] > TINY.max_long_term_tokens - TINY.prototypes
    assert tracker.object_ids == (1, 8, 24, 41)


def test_long_term_memory_exactly_full(small_network: XMem) -> None:
    """The published code raises IndexError when it holds LT_max - P tokens."""
    config = replace(TINY, prototypes=6, max_long_term_tokens=18)
    tracker = XMemTracker(small_network, config)
    tracker.memorize(tracker.segment(image(0), {1: mask(0, 0)}))
    seen = set()
    for seed in range(1, 50):
        run(tracker, range(seed, seed + 1))
        seen.add(tracker.memory_tokens[1])
    assert seen == {0, 6, 12, 18}


def test_without_long_term_memory_working_memory_is_bounded(small_network: XMem) -> None:
    tracker = XMemTracker(small_network, replace(TINY, long_term=False))
    tracker.memorize(tracker.segment(image(0), {1: mask(0, 0)}))
    run(tracker, range(1, 40))
    tokens = SIZE[0] * SIZE[1] // 16**2
    assert tracker.memory_tokens == (TINY.max_working_frames * tokens, 0)


def storages(tracker: XMemTracker) -> dict[int, int]:
    """Address and size of every tensor storage that the tracker's memory holds."""
    assert tracker._now.memory is not None
    arrays = tracker._now.memory._tokens.arrays()
    return {a.untyped_storage().data_ptr(): a.untyped_storage().nbytes() for a in arrays}


def test_memory_is_allocated_once(tracker: XMemTracker) -> None:
    tracker.memorize(tracker.segment(image(0), {1: mask(0, 0), 2: mask(20, 30)}))
    before, size = storages(tracker), tracker.nbytes
    run(tracker, range(1, 60))
    assert storages(tracker) == before
    assert tracker.nbytes == size


def test_later_objects_keep_their_first_frame(tracker: XMemTracker) -> None:
    tracker.memorize(tracker.segment(image(0), {1: mask(0, 0)}))
    run(tracker, range(1, 5))
    born = tracker.segment(image(5), {2: mask(20, 30)})
    tracker.memorize(born)
    run(tracker, range(6, 40))
    assert tracker._now.memory is not None
    assert {0, born.index} <= set(tracker._now.memory.working_frames)


@pytest.mark.parametrize("quota", [0, 5])
def test_a_crowd_of_newer_objects_cannot_push_an_absent_one_out(
    quota: int, small_network: XMem
) -> None:
    tracker = XMemTracker(small_network, replace(TINY, object_quota=quota, max_long_term_tokens=40))

    def shown(object_id: int) -> int:
        """Long-term tokens that show the object."""
        assert tracker._now.memory is not None
        tokens = tracker._now.memory._tokens
        return int((tokens.shows[tokens.long_term_rows] == object_id).sum())

    everything = np.ones(SIZE, dtype=bool)
    tracker.memorize(tracker.segment(image(0), {9: mask(0, 0)}))
    for seed in range(1, 20):  # object 1 fills the view and long-term memory
        tracker.memorize(tracker.segment(image(seed), {1: everything}))
    assert shown(1) > 4
    for seed in range(20, 220):  # then it is gone, and others come
        nobody = np.zeros(SIZE, dtype=bool)
        given = {1: nobody, 9: everything}
        if seed % 80 == 0:
            given[seed] = mask(seed % 30, seed % 40)
        tracker.memorize(tracker.segment(image(seed), given))
    assert shown(1) >= quota if quota else shown(1) < 5


def test_hold_stops_the_memory_clock(tracker: XMemTracker) -> None:
    tracker.memorize(tracker.segment(image(0), {1: mask(0, 0)}))
    before = tracker.memory_tokens
    for seed in range(1, 9):
        tracker.hold(tracker.segment(image(seed)))
    assert tracker.memory_tokens == before
    run(tracker, range(9, 10))
    assert tracker.memory_tokens == before
    run(tracker, range(10, 11))
    assert tracker.memory_tokens[0] > before[0]


def test_correct_enters_memory_and_restarts_the_clock(tracker: XMemTracker) -> None:
    tracker.memorize(tracker.segment(image(0), {1: mask(0, 0), 2: mask(20, 30)}))
    frame = tracker.segment(image(1))
    preview = tracker.preview(frame, {2: mask(5, 40)})
    tracker.correct(frame, {2: mask(5, 40)})
    torch.testing.assert_close(frame.probabilities, preview)
    assert np.array_equal(frame.labels() == 2, mask(5, 40))
    tokens = tracker.memory_tokens[0]
    run(tracker, range(2, 3))
    assert tracker.memory_tokens[0] == tokens
    run(tracker, range(3, 4))
    assert tracker.memory_tokens[0] > tokens


def test_preview_changes_nothing(small_network: XMem) -> None:
    answers = []
    for look in (False, True):
        tracker = XMemTracker(small_network, TINY)
        tracker.memorize(tracker.segment(image(0), {1: mask(0, 0)}))
        frame = tracker.segment(image(1))
        if look:
            tracker.preview(frame, {1: mask(30, 30)})
        tracker.memorize(frame)
        answers.append(run(tracker, range(2, 8)).probabilities)
    torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=0)


def test_object_added_after_the_newest_frame_was_closed(tracker: XMemTracker) -> None:
    frame = tracker.segment(image(0))
    tracker.memorize(frame)
    tracker.add_objects(frame, {4: mask(10, 10)})
    assert np.array_equal(frame.labels() == 4, mask(10, 10))
    assert tracker.memory_tokens[0] > 0
    assert run(tracker, range(1, 8)).object_ids == (4,)


def test_a_correction_of_a_closed_frame_is_as_if_it_had_been_open(small_network: XMem) -> None:
    """Its closing has renewed the hidden state; the correction renews the decoder's, not that."""
    after = []
    for closed in (True, False):
        tracker = XMemTracker(small_network, TINY)
        tracker.memorize(tracker.segment(image(0), {1: mask(0, 0)}))
        run(tracker, range(1, 6))
        frame = tracker.segment(image(6))  # one that is memorized, with a deep update
        if closed:
            tracker.memorize(frame)
        tracker.correct(frame, {1: mask(20, 30)})
        after.append(run(tracker, range(7, 12)).probabilities)
    assert torch.equal(*after)


def test_an_id_used_again_has_nothing_of_the_object_before(tracker: XMemTracker) -> None:
    def shown() -> set[int]:
        memory = tracker.state().memory
        assert memory is not None
        return set(memory.shared["shows"].tolist())

    tracker.memorize(tracker.segment(image(0), {1: mask(0, 0), 2: mask(20, 30)}))
    run(tracker, range(1, 12))
    assert shown() == {0, 1, 2}
    tracker.remove_objects([1])
    assert shown() == {0, 2}


NO_MEMORY = {
    "features": ("encode_key", lambda t: t.segment(image(6))),
    "prediction": ("decode", lambda t: t.segment(image(6), {2: mask(20, 30)})),
    "given masks": ("aggregate", lambda t: t.segment(image(6), {1: mask(1, 1), 2: mask(20, 30)})),
    "masks added": ("aggregate", lambda t: t.add_objects(t.frame, {2: mask(20, 30)})),
    "masks learnt": ("encode_value", lambda t: t.add_objects(t.frame, {2: mask(20, 30)})),
}


@pytest.mark.parametrize("case", NO_MEMORY)
def test_what_fails_on_the_way_changes_nothing(
    case: str, small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, call = NO_MEMORY[case]
    undisturbed, disturbed = (XMemTracker(small_network, TINY) for _ in range(2))
    for tracker in (undisturbed, disturbed):
        begun(tracker)
        run(tracker, range(1, 6))
    before = disturbed.frame.probabilities
    full = Mock(side_effect=torch.OutOfMemoryError("the device's memory is full"))
    with monkeypatch.context() as patch:
        patch.setattr(frame_module if part == "aggregate" else disturbed.network, part, full)
        with pytest.raises(torch.OutOfMemoryError):
            call(disturbed)
    assert disturbed.object_ids == (1,)
    assert torch.equal(disturbed.frame.probabilities, before)
    again, expected = run(disturbed, range(6, 12)), run(undisturbed, range(6, 12))
    assert again.index == expected.index
    assert torch.equal(again.probabilities, expected.probabilities)


CALLS: dict[str, Callable[[XMemTracker], object]] = {
    "memorize": lambda t: t.memorize(t.frame),
    "correct": lambda t: t.correct(t.frame, {1: mask(20, 20)}, told={1}, doubted_since={1: 5}),
    "add objects": lambda t: t.add_objects(t.frame, {3: mask(10, 40), 1: mask(5, 5)}),
    "segment again": lambda t: t.resegment(t.frame),
    "remove objects": lambda t: t.remove_objects({1, 2} & {*t.object_ids}),
}


@pytest.mark.parametrize(
    ("case", "held"), [*((case, False) for case in CALLS), *((case, True) for case in [*CALLS][1:])]
)
def test_a_call_that_failed_is_made_again(case: str, *, held: bool, small_network: XMem) -> None:
    """Wherever the device's memory was full, on a frame that is open or was held."""
    call = CALLS[case]
    origin = XMemTracker(small_network, replace(TINY, told_frames=2))
    origin.memorize(origin.segment(image(0), {1: mask(0, 0), 2: mask(30, 40)}))
    run(origin, range(1, 10))
    origin.segment(image(10))  # with this frame memory is full
    state = origin.state()

    def begun_again() -> XMemTracker:
        tracker = origin.fork(state)
        if held:
            tracker.hold(tracker.frame)
        return tracker

    before, expected = begun_again(), begun_again()
    call(expected)
    for tracker in failed_each_way(begun_again, call, every=11):
        assert tracker.object_ids == tracker.frame.object_ids == memory_of(tracker).object_ids
        if case != "remove objects":  # of which some may be done
            assert_as_far(tracker, before)
        call(tracker)
        assert_as_far(tracker, expected)
        if tracker.object_ids:
            mine, theirs = memory_of(tracker).state(), memory_of(expected).state()
            assert mine.working == theirs.working
            names = mine.shared.keys() - ({"use", "life"} if case == "segment again" else set())
            assert all(torch.equal(mine.shared[name], theirs.shared[name]) for name in names)
            assert all(map(torch.equal, mine.values.values(), theirs.values.values()))


def test_a_state_for_which_there_is_no_room_is_not_restored(small_network: XMem) -> None:
    origin = XMemTracker(small_network, TINY)
    begun(origin)
    before = origin.state()
    run(origin, range(1, 4))
    origin.segment(image(4))
    now = origin.state()
    for tracker in failed_each_way(lambda: origin.fork(now), lambda t: t.restore(before), every=5):
        assert_as_far(tracker, origin)


def memory_of(tracker: XMemTracker) -> Memory:
    assert tracker._now.memory is not None
    return tracker._now.memory


def assert_as_far(tracker: XMemTracker, other: XMemTracker) -> None:
    """They remember the same but for memory's tokens, and their newest frames are the same."""
    mine, theirs = tracker._now, other._now
    for name in ("last_memory", "last_deep_update", "clock", "frames", "size", "tokens", "births"):
        assert getattr(mine, name) == getattr(theirs, name), name
    assert mine.frame is not None
    assert theirs.frame is not None
    assert (mine.frame.open, mine.frame.object_ids) == (theirs.frame.open, theirs.frame.object_ids)
    assert mine.frame.given.keys() == theirs.frame.given.keys()
    assert torch.equal(mine.frame.distribution, theirs.frame.distribution)
    for states, others in ((mine.hidden, theirs.hidden), (mine.frame.hidden, theirs.frame.hidden)):
        assert states.keys() == others.keys()
        assert all(torch.equal(states[i], others[i]) for i in states)


def test_with_no_object_left_the_size_may_change(tracker: XMemTracker) -> None:
    begun(tracker)
    run(tracker, range(1, 4))
    tracker.remove_objects([1])
    frame = tracker.segment(image(0, (80, 96)), {1: mask(0, 0, (80, 96))})
    tracker.memorize(frame)
    frame = tracker.segment(image(1, (80, 96)))
    assert frame.probabilities.shape == (2, 80, 96)


def test_reset_allows_another_size(tracker: XMemTracker) -> None:
    tracker.memorize(tracker.segment(image(0), {1: mask(0, 0)}))
    tracker.reset()
    assert tracker.object_ids == ()
    frame = tracker.segment(image(0, (80, 80)), {1: mask(0, 0, (80, 80))})
    assert frame.index == 0


def test_bfloat16_stays_close(small_network: XMem) -> None:
    answers = []
    for precision in ("float32", "bfloat16"):
        tracker = XMemTracker(small_network, TINY, precision=precision)
        tracker.memorize(tracker.segment(image(0), {1: mask(0, 0)}))
        answers.append(run(tracker, range(1, 6)).probabilities)
    assert (answers[0] - answers[1]).abs().mean() < 0.05


def begun(tracker: XMemTracker) -> Frame:
    frame = tracker.segment(image(0), {1: mask(0, 0)})
    tracker.memorize(frame)
    return frame


REFUSALS: dict[str, tuple[type[Exception], str, Callable[[XMemTracker], object]]] = {
    "grey image": (FrameError, "RGB uint8", lambda t: t.segment(image(1)[:, :, 0])),
    "float image": (FrameError, "float64", lambda t: t.segment(image(1) / 255)),
    "empty image": (FrameError, "empty", lambda t: t.segment(image(1)[:0])),
    "another size": (FrameError, "reset the tracker", lambda t: t.segment(image(1, (48, 80)))),
    "frame left open": (FrameError, "still open", lambda t: [t.segment(image(i)) for i in (1, 2)]),
    "mask of another size": (
        MaskError,
        "64x48",
        lambda t: t.segment(image(1), {2: mask(0, 0, (50, 50))}),
    ),
    "mask of another type": (
        MaskError,
        "bool",
        lambda t: t.segment(image(1), {2: mask(0, 0).astype(np.uint8)}),
    ),
    "id 0": (MaskError, "1..65535", lambda t: t.segment(image(1), {0: mask(0, 0)})),
    "id too large": (MaskError, "1..65535", lambda t: t.segment(image(1), {65_536: mask(0, 0)})),
    "empty first mask": (MaskError, "empty", lambda t: t.segment(image(1), {2: mask(60, 60)})),
    "id of text": (MaskError, "whole number", lambda t: t.segment(image(1), {"2": mask(0, 0)})),
    "masks without ids": (MaskError, "by object id", lambda t: t.segment(image(1), [mask(0, 0)])),
    "unknown object corrected": (
        UnknownObjectError,
        "there is 1",
        lambda t: t.correct(t.segment(image(1)), {9: mask(0, 0)}),
    ),
    "unknown object removed": (UnknownObjectError, "9", lambda t: t.remove_objects([1, 9])),
    "nothing corrected": (MaskError, "at least one", lambda t: t.correct(t.segment(image(1)), {})),
    "given frame held": (
        FrameError,
        "given masks",
        lambda t: t.hold(t.segment(image(1), {2: mask(0, 0)})),
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusal_says_what_is_wrong(case: str, tracker: XMemTracker) -> None:
    error, text, call = REFUSALS[case]
    begun(tracker)
    with pytest.raises(error, match=text):
        call(tracker)


@pytest.mark.parametrize("case", [c for c in REFUSALS if c not in ("frame left open",)])
def test_refusal_changes_nothing(case: str, small_network: XMem) -> None:
    error, _, call = REFUSALS[case]
    answers = []
    for disturb in (False, True):
        tracker = XMemTracker(small_network, TINY)
        begun(tracker)
        if disturb:
            with pytest.raises(error):
                call(tracker)
        if tracker.frame is not None and tracker.frame.open:
            tracker.memorize(tracker.frame)
        elif not disturb and case in ("unknown object corrected", "nothing corrected"):
            tracker.memorize(tracker.segment(image(1)))
        elif not disturb and case == "given frame held":  # the masks stay; holding was refused
            tracker.memorize(tracker.segment(image(1), {2: mask(0, 0)}))
        answers.append(run(tracker, range(2, 8)).probabilities)
    torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=0)


@pytest.mark.parametrize("frame", ["old", "closed"])
def test_closing_twice_or_too_late(frame: str, tracker: XMemTracker) -> None:
    old = begun(tracker)
    closed = run(tracker, range(1, 2))
    with pytest.raises(FrameError, match="closed already" if frame == "closed" else "newest"):
        tracker.memorize(closed if frame == "closed" else old)


@pytest.mark.parametrize("size", [-1, 5])
def test_internal_size_below_one_token(size: int, small_network: XMem) -> None:
    with pytest.raises(FrameError, match="max_internal_size"):
        XMemTracker(small_network, max_internal_size=size)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("memory_every", 0),
        ("top_k", 0),
        ("min_working_frames", 1),
        ("min_working_frames", 10),
        ("keep_first_frames", -1),
        ("keep_first_frames", 6),
        ("prototypes", -1),
        ("prototypes", 20_000),
    ],
)
def test_contradictory_settings_are_named(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=field):
        MemoryConfig(**{field: value})


@pytest.mark.parametrize("long_term", [True, False])
def test_the_smallest_memories_need_no_other_settings(long_term: bool) -> None:
    for largest in range(3, 12):
        config = MemoryConfig(long_term=long_term, max_working_frames=largest)
        assert config.min_working_frames == min(5, largest - 1)
        for least in range(2, largest):
            config = MemoryConfig(max_working_frames=largest, min_working_frames=least)
            assert config.keep_first_frames == min(4, largest - least)
            with pytest.raises(ValueError, match="keep_first_frames must be at most"):
                replace(config, keep_first_frames=largest - least + 1)
    assert MemoryConfig(max_long_term_tokens=50).prototypes == 50
    assert MemoryConfig() == MemoryConfig(min_working_frames=5, keep_first_frames=4, prototypes=128)


def test_gates_that_open_leave_no_places_behind(tracker: XMemTracker) -> None:
    tracker.gate_radius = 0.25
    tracker.memorize(tracker.segment(image(0), {1: mask(0, 0)}))
    assert run(tracker, range(1, 2)).places
    tracker.gate_radius = 0.0
    assert not run(tracker, range(2, 4)).places
    assert not tracker.state().places


@pytest.mark.parametrize(
    "learn",
    [
        lambda t, f: t.correct(f, {1: mask(2, 2)}),
        lambda t, f: (t.hold(f), t.correct(f, {1: mask(2, 2)})),
        lambda t, f: (t.add_objects(f, {3: mask(2, 2)}), t.memorize(f)),
    ],
    ids=["corrected", "corrected once it was held", "another was added"],
)
def test_of_an_object_beside_the_one_that_is_shown_memory_learns_what_was_found(
    learn: Callable[[XMemTracker, Frame], object],
    small_network: XMem,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As without gates, whatever those have cut off."""

    def cut_off(distribution: torch.Tensor, *_: object, **__: object) -> tuple[torch.Tensor, dict]:
        share = torch.ones(len(distribution), 1, 1)
        share[2] = 0
        cut = distribution * share
        cut[0] += distribution[2]
        return cut, {}

    monkeypatch.setattr(tracker_module, "gate", cut_off)
    learnt = []
    for radius in (0.0, 0.25):
        tracker = XMemTracker(small_network, TINY, gate_radius=radius)
        tracker.memorize(tracker.segment(image(0), {1: mask(0, 0), 2: mask(20, 30)}))
        frame = tracker.segment(image(1))
        assert (frame.ungated is None) == (radius == 0)
        learn(tracker, frame)
        memory = tracker.state().memory
        assert memory is not None
        learnt.append(memory.values[2])
        tracker.segment(image(2))
        assert frame.ungated is None
    torch.testing.assert_close(*learnt, rtol=0, atol=0)


def test_precisions() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("float16", cpu) is torch.float16
    assert resolve_precision("auto", cpu) in (torch.float32, torch.bfloat16)
    with pytest.raises(ValueError, match="auto, float32"):
        resolve_precision("int8", cpu)


def test_devices() -> None:
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="auto, cpu, cuda"):
        resolve_device("tpu?")
    with pytest.raises(ValueError, match="use auto"):
        resolve_device("cuda:99")

# SPDX-License-Identifier: Apache-2.0
"""What a person said stays in memory: bounded, never consolidated, gone with the object."""

from dataclasses import replace

import pytest
import torch
from random_clip import TINY, image, mask

from lazyxmem_ros.xmem import MemoryConfig, XMem, XMemTracker
from lazyxmem_ros.xmem.memory import Memory

CPU = torch.device("cpu")
TOKENS, KEYS, VALUES = 12, 4, 3
CONFIG = replace(TINY, told_frames=2, max_told_frames=3)


def memory_of(config: MemoryConfig = CONFIG, ids: tuple[int, ...] = (1,)) -> Memory:
    memory = Memory(config, tokens_per_frame=TOKENS, key_dim=KEYS, value_dim=VALUES, device=CPU)
    for object_id in ids:
        memory.add_object(object_id, birth=0)
    return memory


def write(
    memory: Memory, index: int, *, told: tuple[int, ...] = (), look: float = 0.0, shown: int = 8
) -> None:
    """Enters a frame whose first `shown` tokens show the told object, or object 1, and look so."""
    shows = torch.zeros(TOKENS, dtype=torch.int64)
    shows[:shown] = told[0] if told else 1
    memory.write(
        index,
        key=torch.full((TOKENS, KEYS), look),
        shrinkage=torch.ones(TOKENS),
        selection=torch.ones(TOKENS, KEYS),
        values={i: torch.full((TOKENS, VALUES), float(index)) for i in memory.object_ids},
        shows=shows,
        told=told,
    )


@pytest.mark.parametrize("long_term", [True, False])
def test_a_told_frame_stays_however_long_it_goes_on(long_term: bool) -> None:
    memory = memory_of(replace(CONFIG, long_term=long_term))
    for index in range(200):
        write(memory, index, told=(1,) if index == 7 else ())
    assert memory.told_frames == {7: {1}}
    assert 7 in memory.working_frames
    assert len(memory.working_frames) <= CONFIG.max_working_frames + 1
    block = memory.state().values[1][memory.long_term_tokens :]
    place = memory.working_frames.index(7) * TOKENS
    assert (block[place : place + TOKENS] == 7).all()


@pytest.mark.parametrize("long_term", [True, False])
def test_where_the_first_frame_is_told_no_ordinary_one_stays_for_it(long_term: bool) -> None:
    memory = memory_of(replace(CONFIG, long_term=long_term))
    for index in range(50):
        write(memory, index, told=(1,) if index == 0 else ())
    assert {0, *range(50 - memory.config.min_working_frames + 1, 50)} <= {*memory.working_frames}
    assert memory.working_frames[1] >= 50 - memory.config.max_working_frames


def test_few_frames_are_as_small_as_they_get() -> None:
    memory = memory_of(replace(CONFIG, max_working_frames=10, min_working_frames=7, told_frames=2))
    write(memory, 0)
    for index in range(1, 5):
        write(memory, index)
        assert memory.compact


def test_as_published_it_does_not() -> None:
    memory = memory_of(replace(CONFIG, told_frames=0))
    for index in range(50):
        write(memory, index, told=(1,) if index == 7 else ())
    assert 7 not in memory.working_frames
    assert not memory.told_frames


def test_the_most_distinct_ones_stay() -> None:
    memory = memory_of()
    for index, look in enumerate([0.0, 5.0, 5.1, 9.0], start=1):
        write(memory, index, told=(1,), look=look)
    assert set(memory.told_frames) == {1, 4}


def test_their_number_is_bounded_over_all_objects() -> None:
    memory = memory_of(ids=(1, 2, 3, 4))
    sizes = []
    for index in range(1, 60):
        write(memory, index, told=(1 + index % 4,), look=float(index % 7))
        assert len(memory.told_frames) <= CONFIG.max_told_frames
        assert len(memory.working_frames) <= CONFIG.max_working_frames + CONFIG.max_told_frames
        sizes.append(memory.nbytes)
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 1 + CONFIG.max_told_frames  # a frame's rows more each time


def test_a_sliver_does_not_stay_but_an_absence_does() -> None:
    memory = memory_of()
    write(memory, 1, told=(1,), shown=8)
    write(memory, 2, told=(1,), look=3.0, shown=1)
    assert set(memory.told_frames) == {1}
    write(memory, 3, told=(1,), look=3.0, shown=0)
    assert set(memory.told_frames) == {1, 3}


def test_they_go_with_the_object() -> None:
    memory = memory_of(ids=(1, 2))
    write(memory, 0)
    write(memory, 1, told=(1,))
    write(memory, 2, told=(2,))
    write(memory, 3, told=(1, 2))
    memory.remove_object(1)
    assert memory.told_frames == {2: {2}, 3: {2}}
    assert memory.working_frames == (0, 2, 3)
    memory.remove_object(2)
    assert not memory.told_frames
    assert not memory.working_frames


def test_one_that_is_all_that_others_have_does_not() -> None:
    small = replace(CONFIG, max_working_frames=3, min_working_frames=2, keep_first_frames=1)
    memory = memory_of(small)
    write(memory, 0)
    memory.add_object(2, birth=1)
    for index in range(1, 8):
        write(memory, index)
    write(memory, 8, told=(1,))
    memory.unlearn(1, since=0, until=8)
    memory.remove_object(1)
    assert memory.read(torch.ones(TOKENS, KEYS), torch.ones(TOKENS, KEYS)).isfinite().all()
    assert memory.working_frames == (8,)


@pytest.mark.parametrize("long_term", [True, False])
def test_objects_that_come_and_go_with_told_frames_leave_room_for_the_next(long_term: bool) -> None:
    memory = memory_of(replace(CONFIG, long_term=long_term))
    for index in range(300):
        newest = 1 + index // 20
        if index % 20 == 0 and index:
            memory.add_object(newest, birth=index)
            if newest > 2:
                memory.remove_object(newest - 2)
        write(memory, index, told=(newest,) if index % 3 == 1 else (), look=float(index % 11))
        assert len(memory.working_frames) <= CONFIG.max_working_frames + CONFIG.max_told_frames


def test_a_copy_holds_them() -> None:
    memory, other = memory_of(), memory_of()
    for index in range(20):
        write(memory, index, told=(1,) if index in (3, 9) else (), look=float(index))
    other.restore(memory.state())
    for each in (memory, other):
        for index in range(20, 60):
            write(each, index, told=(1,) if index == 33 else (), look=float(index))
    assert memory.told_frames == other.told_frames
    a, b = memory.state(), other.state()
    assert all(torch.equal(a.shared[name], b.shared[name]) for name in a.shared)
    assert torch.equal(a.values[1], b.values[1])


def test_the_tracker_tells_memory_of_corrections_and_of_later_given_masks(
    small_network: XMem,
) -> None:
    tracker = XMemTracker(small_network, CONFIG)
    for index in range(12):
        given = {0: {1: mask(0, 0)}, 4: {1: mask(8, 8), 2: mask(30, 40)}}.get(index)
        frame = tracker.segment(image(index), given)
        if index == 8:
            tracker.correct(frame, {1: mask(10, 10), 2: mask(30, 44)}, told={2})
        else:
            tracker.memorize(frame)
    state = tracker.state().memory
    assert state is not None
    assert state.told == {4: {1}, 8: {2}}


def test_an_object_goes_before_any_frame_has_entered_memory() -> None:
    memory = memory_of(ids=(1, 2))
    memory.remove_object(1)
    assert memory.object_ids == (2,)
    memory.remove_object(2)
    assert not memory.working_frames


def test_nothing_is_dropped_of_a_memory_without_frames() -> None:
    memory = memory_of()
    memory.unlearn(1, since=-1, until=5)
    assert (memory.working_frames, memory.long_term_tokens) == ((), 0)

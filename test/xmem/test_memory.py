# SPDX-License-Identifier: Apache-2.0
"""Where the device's memory is full, working and long-term memory go on as if nothing had been."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import pytest
import torch
from full_memory import failed_each_way
from random_clip import TINY
from torch import Tensor

from lazyxmem_ros.xmem import MemoryConfig
from lazyxmem_ros.xmem.copies import MemoryState
from lazyxmem_ros.xmem.memory import Memory

TOKENS, KEYS, VALUES = 4, 4, 3
CONFIG = replace(TINY, prototypes=3, max_long_term_tokens=9, told_frames=2, max_told_frames=3)
FULL = 14
"""Frames after which long-term memory is full, and the next frame makes it forget."""


@cache
def of_frame(index: int, *shape: int) -> Tensor:
    """Numbers that no other frame has."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(index)) + 1 + index


def write(memory: Memory, index: int, *, told: tuple[int, ...] = ()) -> None:
    memory.write(
        index,
        key=of_frame(index, TOKENS, KEYS),
        shrinkage=of_frame(index, TOKENS),
        selection=torch.ones(TOKENS, KEYS),
        values={i: i * of_frame(index, TOKENS, VALUES) for i in memory.object_ids},
        shows=torch.arange(TOKENS) % 3,
        told=told,
    )


def read(memory: Memory, index: int) -> Tensor:
    return memory.read(of_frame(index, TOKENS, KEYS), torch.ones(TOKENS, KEYS))


def empty(config: MemoryConfig = CONFIG) -> Memory:
    cpu = torch.device("cpu")
    return Memory(config, tokens_per_frame=TOKENS, key_dim=KEYS, value_dim=VALUES, device=cpu)


@cache
def state_after(frames: int, config: MemoryConfig, told: int) -> MemoryState:
    memory = empty(config)
    memory.add_object(1, birth=0)
    for index in range(frames):
        if index == 2:
            memory.add_object(2, birth=2)
        write(memory, index, told=(1 + index % 2,) if index >= frames - told else ())
        read(memory, index + 1)
    return memory.state()


def used(frames: int = FULL, config: MemoryConfig = CONFIG, *, told: int = 0) -> Memory:
    """A memory of two objects into which so many frames have come, the last ones told."""
    memory = empty(config)
    memory.restore(state_after(frames, config, told))
    return memory


def assert_same(mine: MemoryState, theirs: MemoryState) -> None:
    assert (mine.working, mine.long_term) == (theirs.working, theirs.long_term)
    assert (mine.told, mine.births, mine.anchored) == (theirs.told, theirs.births, theirs.anchored)
    for name in mine.shared:
        assert torch.equal(mine.shared[name], theirs.shared[name]), name
    for object_id in mine.values:
        assert torch.equal(mine.values[object_id], theirs.values[object_id]), object_id


def assert_of_frames(memory: Memory) -> None:
    """Every token is one that a frame wrote, and what is told is within its bounds."""
    state = memory.state()
    born, key = state.shared["born"], state.shared["key"]
    written = torch.stack([of_frame(int(index), TOKENS, KEYS) for index in born])
    assert (written == key[:, None]).all(2).any(1).all()
    for object_id, birth in state.births.items():
        blocks = state.values[object_id][state.long_term :].split(TOKENS)
        for frame, block in zip(state.working, blocks, strict=True):
            assert birth > frame or torch.equal(block, object_id * of_frame(frame, TOKENS, VALUES))
    assert state.told.keys() <= set(state.working)
    assert len(state.told) <= CONFIG.max_told_frames
    assert state.long_term <= CONFIG.max_long_term_tokens


TOLD = partial(used, told=CONFIG.max_told_frames)
"""A memory with as many told frames as may be, which has no room for one more."""
CALLS: dict[str, tuple[Callable[[], Memory], Callable[[Memory], object]]] = {
    "a frame": (lambda: used(3), lambda m: write(m, FULL)),
    "a frame that condenses others": (lambda: used(4), lambda m: write(m, FULL)),
    "a frame that makes it forget": (used, lambda m: write(m, FULL)),
    "a told frame, with which it grows": (TOLD, lambda m: write(m, FULL, told=(1, 2))),
    "a frame without long-term memory": (
        lambda: used(FULL, replace(CONFIG, long_term=False)),
        lambda m: write(m, FULL),
    ),
    "what was learnt in doubt": (used, lambda m: m.unlearn(1, since=0, until=FULL)),
    "an object that comes": (used, lambda m: m.add_object(3, birth=FULL)),
    "an object that goes": (used, lambda m: m.remove_object(1)),
}


@pytest.mark.parametrize("case", CALLS)
def test_what_failed_is_done_by_doing_it_again(case: str) -> None:
    make, call = CALLS[case]
    expected = make()
    call(expected)
    for memory in failed_each_way(make, call):
        assert_of_frames(memory)
        call(memory)
        assert_same(memory.state(), expected.state())
        assert memory.nbytes == expected.nbytes


@pytest.mark.parametrize("case", CALLS)
def test_what_failed_may_be_left_so(case: str) -> None:
    make, call = CALLS[case]
    before = make()
    for memory in failed_each_way(make, call):
        assert memory.object_ids == before.object_ids
        for index in range(FULL + 1, FULL + 4):
            assert read(memory, index).isfinite().all()
            write(memory, index, told=(1,) if index % 2 else ())
            assert_of_frames(memory)


def test_memory_that_did_not_grow_takes_an_object() -> None:
    """Some of what it has may have grown already."""
    for memory in failed_each_way(TOLD, lambda m: write(m, FULL, told=(1,)), every=4):
        memory.add_object(3, birth=FULL)
        write(memory, FULL, told=(1,))
        assert_of_frames(memory)
        assert read(memory, FULL + 1).shape == (3, TOKENS, VALUES)


def test_use_is_counted_for_ever() -> None:
    """Where float32 would have no room for one more."""
    memory = used()
    state = memory.state()
    state.shared["use"][:], state.shared["life"][:] = 2.0**22, 2.0**24
    memory.restore(state)
    read(memory, 1)
    before = memory.state().shared
    torch.testing.assert_close(before["use"] / before["life"], torch.full_like(before["use"], 0.25))
    read(memory, 1)
    after = memory.state().shared
    assert torch.equal(after["life"] - before["life"], torch.ones_like(before["life"]))
    assert float((after["use"] - before["use"]).sum()) > TOKENS - 1

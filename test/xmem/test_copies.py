# SPDX-License-Identifier: Apache-2.0
"""Copies of memory that share what has not changed hold what others hold, to the last bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from random_clip import TINY

from lazyxmem_ros.xmem import MemoryConfig
from lazyxmem_ros.xmem.copies import MemoryState, places_in
from lazyxmem_ros.xmem.memory import Memory

TOKENS, KEY, VALUE = 12, 4, 6
CONFIG = replace(TINY, told_frames=2, max_told_frames=3, keep_first_frames=1)


def memory_of(config: MemoryConfig = CONFIG) -> Memory:
    memory = Memory(
        config, tokens_per_frame=TOKENS, key_dim=KEY, value_dim=VALUE, device=torch.device("cpu")
    )
    memory.add_object(1, birth=0)
    return memory


def follow(memory: Memory, index: int) -> None:
    """What happens on a frame: read, objects that come and go, write, write anew, unlearn."""
    if index:
        memory.read(torch.randn(TOKENS, KEY), torch.rand(TOKENS, KEY))
    if index in (7, 17):
        memory.add_object(2, birth=index)
    if index == 16:
        memory.remove_object(2)
    for again in range(2 if index % 9 == 4 else 1):
        memory.write(
            index,
            key=torch.randn(TOKENS, KEY),
            shrinkage=torch.rand(TOKENS) + 1,
            selection=torch.rand(TOKENS, KEY),
            values={i: torch.randn(TOKENS, VALUE) for i in memory.object_ids},
            shows=torch.randint(0, 3, (TOKENS,)),
            told=[1] if again and index in (4, 13, 22) else [],
        )
    if index == 19:
        memory.unlearn(1, 12, 19)


def assert_equal(mine: MemoryState, theirs: MemoryState) -> None:
    assert theirs.before is None
    for name, array in theirs.shared.items():
        assert torch.equal(mine.column(name), array), name
    assert mine.values.keys() == theirs.values.keys()
    for object_id, array in theirs.values.items():
        assert torch.equal(mine.values_of(object_id), array), object_id


@pytest.mark.parametrize("apart", [1, 3])
def test_a_copy_that_shares_holds_the_same(apart: int) -> None:
    torch.manual_seed(0)
    memory, copies, expected = memory_of(), [], []
    for index in range(40):
        follow(memory, index)
        if index % apart == 0:
            copies.append(memory.state(copies[-1] if copies else None))
            expected.append(memory.state())
    assert {bool(copy.anchored) for copy in copies} == {True, False}
    for mine, theirs in zip(copies, expected, strict=True):
        assert_equal(mine, theirs)
    assert sum(copy.nbytes for copy in copies) < 0.8 * sum(copy.nbytes for copy in expected)
    assert [copy.whole_nbytes for copy in copies] == [copy.whole_nbytes for copy in expected]
    # What the oldest one holds goes with it once the next one stands alone.
    copies[1].detach()
    assert copies[1].before is None
    del copies[0], expected[0]
    for mine, theirs in zip(copies, expected, strict=True):
        assert_equal(mine, theirs)


def test_memory_goes_on_from_a_copy_that_shares_as_it_did() -> None:
    torch.manual_seed(0)
    memory, other = memory_of(), memory_of()
    first = None
    for index in range(30):
        follow(memory, index)
        if index == 20:
            first = memory.state()
    other.restore(memory.state(first))
    for one in (memory, other):
        torch.manual_seed(1)
        for index in range(30, 45):
            follow(one, index)
    assert_equal(other.state(first), memory.state())


def test_tokens_of_two_memories_are_never_taken_for_each_other() -> None:
    torch.manual_seed(0)
    one, other = memory_of(), memory_of()
    for index in range(9):
        follow(one, index)
        follow(other, index)
    copy = other.state(one.state())
    assert copy.places is not None
    assert (copy.places == -1).all()


def test_places() -> None:
    numbers = torch.tensor([7, 3, 9, 5])
    assert places_in(numbers, torch.tensor([5, 8, 7])).tolist() == [2, -1, -1, 0]
    assert places_in(numbers, torch.tensor([], dtype=torch.int64)).tolist() == [-1] * 4

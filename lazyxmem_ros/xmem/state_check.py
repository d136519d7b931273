# SPDX-License-Identifier: Apache-2.0
"""Whether a tracker can go on from a state that was read from somewhere."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor

from lazyxmem_ros.basics import MAX_OBJECT_ID
from lazyxmem_ros.xmem.copies import MemoryState
from lazyxmem_ros.xmem.inputs import Size, inner_size
from lazyxmem_ros.xmem.network import STRIDE
from lazyxmem_ros.xmem.state import TrackerState
from lazyxmem_ros.xmem.tracker import XMemTracker

MAX_FRAMES = 2**53
"""A tracker comes nowhere near it, and whatever computes with smaller numbers is exact."""


class StateError(ValueError):
    """A state that a tracker cannot go on from; the text says what is wrong with it."""


def check_state(state: TrackerState, tracker: XMemTracker) -> None:
    """Raise StateError unless `tracker.restore(state)` gives a tracker that works.

    Everything that `restore` and later frames rely on is looked at: ids, clocks, which objects
    there are, names, types, shapes and finiteness of all arrays. Nothing is allocated.
    """
    ids = set(state.births)
    _check_ids(ids)
    _require(0 <= state.frames <= MAX_FRAMES, f"it has seen {state.frames} frames")
    _require(
        -1 <= state.clock <= state.frames, f"its clock is {state.clock} after {state.frames} frames"
    )
    for name, clock in (
        ("memory frame", state.last_memory),
        ("deep update", state.last_deep_update),
    ):
        _require(
            -MAX_FRAMES <= clock <= max(state.clock, 0),
            f"the last {name}, {clock}, does not come before the clock, {state.clock}",
        )
    for object_id, birth in state.births.items():
        _require(0 <= birth <= state.frames, f"object {object_id} begins at frame {birth}")
    if state.memory is None:
        _require(not ids and not state.hidden, "there are objects, but no memory")
        return
    _require(state.size is not None and state.tokens is not None, "the image size is missing")
    assert state.size is not None
    assert state.tokens is not None
    expected = _tokens_of(state.size, tracker.max_internal_size)
    _require(
        state.tokens == expected,
        f"{state.tokens[1]}x{state.tokens[0]} memory tokens are no image of "
        f"{state.size[1]}x{state.size[0]} pixels",
    )
    _check_memory(state.memory, ids, state, tracker)
    hidden_dim = tracker.network.config.hidden_dim
    _require(set(state.hidden) == (ids if hidden_dim else set()), "hidden states are missing")
    for object_id, hidden in state.hidden.items():
        _check_array(f"hidden state of object {object_id}", hidden, (hidden_dim, *state.tokens))


def _check_memory(
    memory: MemoryState, ids: set[int], state: TrackerState, tracker: XMemTracker
) -> None:
    assert state.tokens is not None
    config, network = tracker.config, tracker.network.config
    per_frame = state.tokens[0] * state.tokens[1]
    _require(
        set(memory.births) == set(memory.values) == ids, "memory holds other objects than followed"
    )
    _require(set(memory.anchored) <= ids, "memory anchors objects that are not followed")
    _require(memory.births == state.births, "an object's memory does not begin with the object")
    _require(
        [*memory.births] == [*state.births],
        "memory holds the objects in another order than the tracker",
    )
    _require(
        1 <= len(memory.working) <= config.max_working_frames + config.max_told_frames
        and len(memory.told) <= config.max_told_frames,
        f"working memory holds {len(memory.working)} frames, {len(memory.told)} of them told",
    )
    _require(
        memory.told.keys() <= set(memory.working)
        and all(told and told <= ids for told in memory.told.values()),
        "memory was told of frames or objects that it does not hold",
    )
    _require(
        all(0 <= index <= state.frames for index in memory.working),
        "working memory holds a frame that never was",
    )
    _require(
        all(earlier < later for earlier, later in pairwise(memory.working)),
        "the frames of working memory are not in order, each once",
    )
    most = config.max_long_term_tokens if config.long_term else 0
    _require(0 <= memory.long_term <= most, f"long-term memory holds {memory.long_term} tokens")
    rows = memory.long_term + len(memory.working) * per_frame
    columns: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "key": ((rows, network.key_dim), torch.float32),
        "shrinkage": ((rows,), torch.float32),
        "selection": ((rows, network.key_dim), torch.float32),
        "expanded": ((rows, 2 * network.key_dim + 1), torch.float32),
        "use": ((rows,), torch.float32),
        "life": ((rows,), torch.float32),
        "born": ((rows,), torch.int64),
        "shows": ((rows,), torch.int64),
    }
    _require(set(memory.shared) == set(columns), "memory has other columns")
    for name, (shape, dtype) in columns.items():
        _check_array(f"memory column {name}", memory.shared[name], shape, dtype)
    _check_range("shows", memory.shared["shows"], MAX_OBJECT_ID)
    _check_range("born", memory.shared["born"], state.frames)
    newest = int(memory.shared["born"].max()) if rows else -1
    for object_id, values in memory.values.items():
        _require(
            memory.births[object_id] <= newest, f"memory holds nothing of object {object_id}'s time"
        )
        _check_array(f"values of object {object_id}", values, (rows, network.value_dim))


def _tokens_of(size: Size, max_internal_size: int) -> Size:
    """Memory tokens of an image of this size: a token for each STRIDE pixels inside, padded."""
    height, width = inner_size(size, max_internal_size)
    return -(-height // STRIDE), -(-width // STRIDE)


def _check_ids(ids: Iterable[int]) -> None:
    for object_id in ids:
        _require(1 <= object_id <= MAX_OBJECT_ID, f"object id {object_id} is not in 1..65535")


def _check_array(
    name: str, array: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> None:
    _require(
        tuple(array.shape) == shape and array.dtype is dtype,
        f"the {name} is {array.dtype} {list(array.shape)}, not {dtype} {list(shape)}",
    )
    _require(bool(array.isfinite().all()), f"the {name} holds numbers that are not finite")


def _check_range(name: str, array: Tensor, most: int) -> None:
    inside = not array.numel() or (int(array.min()) >= 0 and int(array.max()) <= most)
    _require(inside, f"memory column {name} holds numbers outside 0..{most}")


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise StateError(fault)

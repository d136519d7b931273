# SPDX-License-Identifier: Apache-2.0
"""Copies of memory, which may share with the copy before them what has not changed since.

A token is written once; then it only moves, is used, and goes. So it has a number of its own, and
where two copies hold the same number they hold the same key and the same values. Most of long-term
memory and the first frames are the same from one copy to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lazyxmem_ros.xmem.storage import lasting_copies

FIXED = ("key", "shrinkage", "selection", "expanded")
"""The columns of a token that do not change, as its values do not."""


@dataclass(eq=False)
class MemoryState:
    """A copy of what a `Memory` holds: N used rows, and what they are.

    Where it shares with the copy `before` it, `shared` and `values` have of what is fixed only the
    M rows that the other does not hold; `column` and `values_of` have all.
    """

    shared: dict[str, Tensor]
    """Arrays [N, ...] that all objects share; those of FIXED are [M, ...]."""
    values: dict[int, Tensor]
    """Object id -> values [M, C_v]; [N, C_v] of an object that is not in the copy before."""
    births: dict[int, int]
    """Object id -> index of the first frame whose tokens it owns."""
    anchored: frozenset[int]
    """Objects whose first value lies in the memory's first frame, not in their own."""
    working: tuple[int, ...]
    """Indices of the frames in working memory."""
    long_term: int
    """Tokens in long-term memory."""
    told: dict[int, frozenset[int]]
    """Index of a frame in working memory -> the objects that a person told of on it."""
    numbers: Tensor | None = None
    """Numbers of the tokens [N]; None in a copy that was read from a file."""
    before: MemoryState | None = None
    places: Tensor | None = None
    """Rows [N] of the copy before that the tokens are, -1: none."""

    @property
    def nbytes(self) -> int:
        """Bytes of the copy, without those of the one before."""
        return sum(t.nbytes for t in self.kept())

    @property
    def whole_nbytes(self) -> int:
        """Bytes that the columns and values would have that share nothing."""
        rows = len(self.shared["use"])
        arrays = (*self.shared.values(), *self.values.values())
        return sum(rows * t.shape[1:].numel() * t.element_size() for t in arrays)

    def kept(self) -> Iterator[Tensor]:
        """The tensors of the copy, without those of the one before."""
        yield from self.shared.values()
        yield from self.values.values()
        yield from (t for t in (self.numbers, self.places) if t is not None)

    def column(self, name: str) -> Tensor:
        """An array [N, ...] that all objects share."""
        return self._whole(lambda state: state.shared[name])

    def values_of(self, object_id: int) -> Tensor:
        """An object's values [N, C_v]."""
        return self._whole(lambda state: state.values[object_id])

    def _whole(self, own: Callable[[MemoryState], Tensor]) -> Tensor:
        mine = own(self)
        if self.before is None or self.places is None or len(mine) == len(self.places):
            return mine
        whole = self.before._whole(own)[self.places.clamp(min=0)]
        whole[self.places < 0] = mine
        return whole

    @torch.inference_mode()
    def detach(self) -> None:
        """Share nothing any more; what it holds stays the same."""
        if self.before is None:
            return
        names, ids = [*self.shared], [*self.values]
        whole = [*map(self.column, names), *map(self.values_of, ids)]
        copies = lasting_copies(whole)
        self.shared = dict(zip(names, copies[: len(names)], strict=True))
        self.values = dict(zip(ids, copies[len(names) :], strict=True))
        self.before = self.places = None


def places_in(numbers: Tensor, before: Tensor) -> Tensor:
    """The place of each of the numbers [N] among those `before` [M]; -1: it is none of them."""
    if not len(before):
        return torch.full_like(numbers, -1)
    ordered, order = before.sort()
    found = torch.searchsorted(ordered, numbers).clamp(max=len(before) - 1)
    return torch.where(ordered[found] == numbers, order[found], -1)

# SPDX-License-Identifier: Apache-2.0
"""Where memory's tokens lie: in storage that is allocated once, and who owns which of them.

All tokens lie in one run of rows, so that one matrix product compares a frame with all of them:

    [ ... free | long-term memory | working memory: frame, frame, frame | free ... ]
                                  ^ row `base`

Long-term memory grows towards lower rows, working memory towards higher ones; there the frames lie
in the order of their indices, each a block of rows. Every token carries the index of the frame that
it comes from; an object owns the tokens from its first frame on, so that objects of any age share
one store, and removing one frees its values at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lazyxmem_ros.xmem.copies import FIXED, MemoryState, places_in
from lazyxmem_ros.xmem.storage import lasting_copies, lasting_zeros

LIFE_AT_MOST = 2**20
"""Frames after which what was counted is halved. In float32, adding 1 to 2^24 does nothing."""
LIFE_AT_BIRTH = 1e-7
"""Frames; usage is divided by the life, which must not be zero."""
COLUMNS = ("key", "shrinkage", "selection", "expanded", "use", "life", "born", "shows")
"""The row-wise arrays that all objects share, and that a copy has."""


@dataclass
class Owner:
    """An object's part of the memory.

    Attributes:
        birth: index of the first frame whose tokens it owns.
        values: [rows, C_v].
        anchored: its first value lies in the memory's first frame, not in its own.
    """

    birth: int
    values: Tensor
    anchored: bool = False


class TokenStore:
    """Rows of keys that all objects share, and of each object's values.

    Each call takes what it needs of the device's memory before it changes anything: where that is
    full, it fails, and what the store holds is as it was.

    Attributes:
        per_frame: tokens of a frame.
        value_dim: C_v.
        key, selection: [rows, C_k]. shrinkage: [rows].
        expanded: [rows, 2 C_k + 1], what the similarity multiplies a query with.
        use, life: [rows], how much and for how many frames a token has been read.
        born: int64 [rows], index of the frame that a token comes from.
        shows: int64 [rows], the object that a token shows, 0 for background.
        owners: object id -> its part, in the order in which they were added.
        working: indices of the frames in working memory, ascending.
        long_term: tokens in long-term memory.
    """

    _numbered = 0
    """Tokens written into all stores of this process so far."""

    def __init__(
        self,
        *,
        long_term_rows: int,
        working_frames: int,
        per_frame: int,
        key_dim: int,
        value_dim: int,
        device: torch.device,
    ) -> None:
        """`long_term_rows`: long-term memory's. `working_frames`: those for which there is room
        from the beginning; of more it grows.
        """
        self.per_frame = per_frame
        self.value_dim = value_dim
        self._device = device
        self._base = long_term_rows
        self._rows = rows = long_term_rows + working_frames * per_frame
        self.key = self._zeros(rows, key_dim)
        self.shrinkage = self._zeros(rows)
        self.selection = self._zeros(rows, key_dim)
        self.expanded = self._zeros(rows, 2 * key_dim + 1)
        self.use = self._zeros(rows)
        self.life = self._zeros(rows)
        self.born = self._zeros(rows, dtype=torch.int64)
        self.shows = self._zeros(rows, dtype=torch.int64)
        self._number = self._zeros(rows, dtype=torch.int64)  # of each token, whoever holds it
        self._readings = 0
        self.owners: dict[int, Owner] = {}
        self.working: list[int] = []
        self.long_term = 0

    # ---- which rows

    @property
    def used(self) -> slice:
        """The rows of all tokens."""
        return slice(self._base - self.long_term, self._working_end)

    @property
    def long_term_rows(self) -> slice:
        """The rows of long-term memory's tokens."""
        return slice(self._base - self.long_term, self._base)

    def block(self, frame: int) -> slice:
        """The rows of a frame of working memory."""
        return self._block_at(self.working.index(frame))

    def rows_of(self, frames: Collection[int]) -> Tensor:
        """The rows [n] of some frames of working memory, int64."""
        blocks = [self.block(frame) for frame in frames]
        return torch.cat([torch.arange(b.start, b.stop, device=self._device) for b in blocks])

    def _block_at(self, position: int) -> slice:
        start = self._base + position * self.per_frame
        return slice(start, start + self.per_frame)

    @property
    def _working_end(self) -> int:
        return self._base + len(self.working) * self.per_frame

    # ---- what is held, and copies of it

    def arrays(self) -> Iterator[Tensor]:
        """All that is held row by row."""
        yield from self._columns().values()
        yield self._number
        for owner in self.owners.values():
            yield owner.values

    def _columns(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in COLUMNS}

    def state(self, before: MemoryState | None, *, told: dict[int, frozenset[int]]) -> MemoryState:
        """A copy of all that is held, which shares with the copy `before`, if there is one.

        `told`: index of a frame -> the objects that a person told of on it, for the copy.
        """
        rows, columns = self.used, self._columns()
        new: slice | Tensor = slice(None)
        places = None
        if before is not None and before.numbers is not None:
            places = places_in(self._number[rows], before.numbers)
            new = places < 0
        used = [a[rows][new] if name in FIXED else a[rows] for name, a in columns.items()]
        for object_id, owner in self.owners.items():
            known = before is not None and before.births.get(object_id) == owner.birth
            used.append(owner.values[rows][new] if known else owner.values[rows])
        copies = lasting_copies([*used, self._number[rows]])
        return MemoryState(
            shared=dict(zip(columns, copies, strict=False)),
            values=dict(zip(self.owners, copies[len(columns) :], strict=False)),
            numbers=copies[-1],
            before=None if places is None else before,
            places=places,
            births={i: owner.birth for i, owner in self.owners.items()},
            anchored=frozenset(i for i, owner in self.owners.items() if owner.anchored),
            working=tuple(self.working),
            long_term=self.long_term,
            told=told,
        )

    def restore(self, state: MemoryState) -> None:
        """Hold what the state holds, and nothing else."""
        self.owners.clear()
        self.working, self.long_term = list(state.working), state.long_term
        self._grow_to(len(self.working))
        rows = self.used
        for name, array in self._columns().items():
            array[rows] = state.column(name)
        if state.numbers is None:
            self._renumber(rows)
        else:
            self._number[rows] = state.numbers
        for object_id, birth in state.births.items():
            self.add_owner(object_id, birth=birth)
            owner = self.owners[object_id]
            owner.values[rows] = state.values_of(object_id)
            owner.anchored = object_id in state.anchored

    # ---- objects

    def add_owner(self, object_id: int, *, birth: int) -> None:
        """An object that owns the tokens of frame `birth` and of those after it."""
        self.owners[object_id] = Owner(birth, self._zeros(self._rows, self.value_dim))

    def remove_owner(self, object_id: int) -> None:
        """Free the object's values; no token shows it any more."""
        self.shows[self.shows == object_id] = 0  # its id may be another object's some day
        del self.owners[object_id]

    def owners_by_birth(self) -> Iterator[tuple[int, list[int]]]:
        """Objects that own the same tokens, the oldest first: (birth, ids)."""
        groups: dict[int, list[int]] = {}
        for object_id, owner in self.owners.items():
            groups.setdefault(owner.birth, []).append(object_id)
        return iter(sorted(groups.items()))

    def foreign(self, object_id: int) -> Tensor:
        """Which of the used tokens [tokens] an object, and all of its birth, do not own."""
        owner, born = self.owners[object_id], self.born[self.used]
        foreign = born < owner.birth
        # Long-term tokens of an object's first frame never hold its value: see `memory`.
        foreign[: self.long_term] |= born[: self.long_term] == owner.birth
        if owner.anchored:
            foreign[self.long_term : self.long_term + self.per_frame] = False
        return foreign

    def anchor(self, object_id: int) -> None:
        """Move an object's first values, which lie in its own first frame, into the oldest one."""
        owner, oldest = self.owners[object_id], self._block_at(0)
        owner.values[oldest] = owner.values[self.block(owner.birth)]
        owner.anchored = True
        self._renumber(oldest)

    def count_use(self, tokens: Tensor, shares: Tensor) -> None:
        """Count a frame's reading: of the used tokens [n] was read so much [n]."""
        use, life = self.use[self.used], self.life[self.used]
        if self._readings % LIFE_AT_MOST == 0:  # the quotient of the two stays
            old = life >= LIFE_AT_MOST
            use[old] /= 2
            life[old] /= 2
        self._readings += 1
        use.index_add_(0, tokens, shares)
        life += 1

    # ---- tokens come

    def write(
        self,
        frame: int | None,
        *,
        key: Tensor,
        shrinkage: Tensor,
        selection: Tensor,
        values: Mapping[int, Tensor],
        born: int | Tensor,
        shows: Tensor,
    ) -> None:
        """Write n new tokens: key and selection [n, C_k], values {id: [n, C_v]}, the others [n].

        `frame`: whose tokens they are, the newest one of working memory, there already or not; None
        for long-term memory.
        """
        s = shrinkage[:, None]
        expanded = torch.cat([s * key**2, s * key, s], dim=1)
        rows = self._more_long_term(len(key)) if frame is None else self._newest_block(frame)
        self.key[rows] = key
        self.shrinkage[rows] = shrinkage
        self.selection[rows] = selection
        self.expanded[rows] = expanded
        self.use[rows] = 0
        self.life[rows] = LIFE_AT_BIRTH
        self.born[rows] = born
        self.shows[rows] = shows
        for object_id, value in values.items():
            self.owners[object_id].values[rows] = value
        self._renumber(rows)

    def _newest_block(self, frame: int) -> slice:
        """The rows of the newest frame of working memory, with room made if it has none yet."""
        if frame not in self.working:
            # The tracker learns its newest frame alone.
            assert not self.working or self.working[-1] < frame
            self._grow_to(len(self.working) + 1)
            self.working.append(frame)
        return self.block(frame)

    def _more_long_term(self, count: int) -> slice:
        """The rows of so many more tokens of long-term memory."""
        self.long_term += count
        start = self._base - self.long_term
        return slice(start, start + count)

    def _renumber(self, rows: slice) -> None:
        """Give the tokens of some rows numbers that no other token has, in whatever store."""
        first, count = TokenStore._numbered, rows.stop - rows.start
        TokenStore._numbered += count
        torch.arange(first, first + count, out=self._number[rows])

    # ---- tokens go

    def keep_long_term(self, keep: Tensor) -> None:
        """Drop the long-term tokens that the mask [long_term] leaves out, closing the gaps."""
        kept = keep.nonzero()[:, 0]
        count = len(kept)
        if count == self.long_term:
            return
        kept += self._base - self.long_term
        # All arrays pass through the same room, so that none moves unless all can.
        widest = max(array[:1].nbytes for array in self.arrays())
        room = torch.empty(count * widest, dtype=torch.uint8, device=self._device)
        for array in self.arrays():
            moved = room[: count * array[:1].nbytes].view(array.dtype)
            moved = moved.view(count, *array.shape[1:])
            torch.index_select(array, 0, kept, out=moved)
            array[self._base - count : self._base] = moved
        self.long_term = count

    def keep_working(self, frames: Collection[int]) -> None:
        """Drop the other frames of working memory, closing the gaps."""
        kept = [index for index in self.working if index in frames]
        for position, index in enumerate(kept):
            if index != self.working[position]:
                for array in self.arrays():
                    array[self._block_at(position)] = array[self.block(index)]
        self.working = kept

    def clear(self) -> None:
        """Drop all tokens."""
        self.working.clear()
        self.long_term = 0

    # ---- room

    def _grow_to(self, frames: int) -> None:
        """Have rows for so many frames of working memory at least.

        They grow one by one, for all of them twice would take much more memory. Where one finds no
        room, those before it have rows that do not count yet.
        """
        rows = self._base + frames * self.per_frame
        if rows <= self._rows:
            return
        for name in COLUMNS:
            setattr(self, name, self._grown(getattr(self, name), rows))
        self._number = self._grown(self._number, rows)
        for owner in self.owners.values():
            owner.values = self._grown(owner.values, rows)
        self._rows = rows

    def _grown(self, array: Tensor, rows: int) -> Tensor:
        if len(array) >= rows:
            return array
        grown = self._zeros(rows, *array.shape[1:], dtype=array.dtype)
        grown[: len(array)] = array
        return grown

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return lasting_zeros(*shape, dtype=dtype, device=self._device)

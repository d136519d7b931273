# SPDX-License-Identifier: Apache-2.0
"""Working and long-term memory in storage that is allocated once (XMem, sections 3.2 and 3.3).

All tokens lie in one run of rows, so that one matrix product compares a frame with all of them:

    [ ... free | long-term memory | working memory: frame, frame, frame | free ... ]
                                  ^ row `max_long_term_tokens`

Long-term memory grows towards lower rows, working memory towards higher ones. Every token
carries the index of the frame that it comes from; an object owns the tokens from its first frame
on, so that objects of any age share one store, and removing one frees its values at once.

An object's first frame is its best reference and is never consolidated. The first frames of the
`keep_first_frames` oldest objects stay in working memory as they are; of an object that comes
on top of these, the first value moves into the memory's first frame when its own frame goes, as
the published code does with every object that appears later (`keep_first_frames=1`).

What a person said later stays, too (XMem++, Bekuzarov et al., ICCV 2023): a frame on which somebody
corrected or set an object's mask is *told*, and told frames lie in working memory on top of the
others, are neither consolidated nor dropped, and go when nobody who was told of on them is followed
any more. Their number is bounded: of each object the most distinct ones stay, by its mean key, and
not those that show a sliver of it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyxmem_ros.settings import Changes, ConfigError, Unit, check, setting
from lazyxmem_ros.xmem.storage import lasting_copies, lasting_zeros

SLIVER = 0.25
"""A told frame that shows less of an object than this share of what the largest one shows of it
does not stay: it would speak for the object with the voice of a good view."""
LIFE_AT_BIRTH = 1e-7
"""Frames; usage is divided by the life, which must not be zero."""


LEFT_OPEN = 0
"""Of a setting whose default adapts to the others."""
MIN_WORKING_FRAMES, KEEP_FIRST_FRAMES, PROTOTYPES = 5, 4, 128
"""What settings that are left open are, where the others leave room for it."""


@dataclass(frozen=True)
class MemoryConfig:
    """The settings of the memory; the defaults are XMem's, but for the first frames and the quota.

    A setting that is LEFT_OPEN is filled in: an instance has the number that counts.
    Raises ConfigError for a value outside its range, and where settings contradict each other.
    """

    memory_every: int = setting(
        5,
        "Frames from one that enters working memory to the next (r).",
        bounds=(1, 10_000),
        unit=Unit.FRAMES,
        changes=Changes.UNCONFIGURED,
        heading="XMem's memory",
    )
    deep_update_every: int = setting(
        -1,
        "Frames between deep updates of the hidden state; -1 = one with every frame that enters "
        "memory.",
        bounds=(-1, 10_000),
        unit=Unit.FRAMES,
        changes=Changes.UNCONFIGURED,
    )
    long_term: bool = setting(
        True,
        "Whether full working memory is consolidated into long-term memory; otherwise its oldest "
        "frame but the first is dropped.",
        changes=Changes.UNCONFIGURED,
    )
    max_working_frames: int = setting(
        10,
        "Frames in working memory that make it full (T_max).",
        bounds=(3, 1000),
        unit=Unit.FRAMES,
        changes=Changes.UNCONFIGURED,
    )
    min_working_frames: int = setting(
        0,
        "Frames that a consolidation leaves in working memory, the first and the newest ones "
        "(T_min); at least 2 and fewer than max_working_frames; 0 = 5, or as many as may be.",
        bounds=(0, 1000),
        unit=Unit.FRAMES,
        changes=Changes.UNCONFIGURED,
    )
    keep_first_frames: int = setting(
        0,
        "Frames that stay in working memory because they are an object's first; at most "
        "max_working_frames less min_working_frames; 0 = 4, or as many as may be; 1 = as XMem's "
        "published code does.",
        bounds=(0, 1000),
        unit=Unit.FRAMES,
        changes=Changes.UNCONFIGURED,
    )
    told_frames: int = setting(
        3,
        "Frames on which a person corrected or set an object's mask that stay in memory for good, "
        "per object: the most distinct ones. 0 = none, as in XMem's published code.",
        bounds=(0, 100),
        unit=Unit.FRAMES,
        changes=Changes.UNCONFIGURED,
    )
    max_told_frames: int = setting(
        6,
        "Frames of all objects together that stay so; of more the least distinct go.",
        bounds=(0, 1000),
        unit=Unit.FRAMES,
        changes=Changes.UNCONFIGURED,
    )
    prototypes: int = setting(
        0,
        "Tokens in long-term memory that one consolidation makes (P); at most "
        "max_long_term_tokens; 0 = 128, or as many as may be.",
        bounds=(0, 10_000),
        unit=Unit.TOKENS,
        changes=Changes.UNCONFIGURED,
    )
    max_long_term_tokens: int = setting(
        10_000,
        "Tokens in long-term memory above which the least used are forgotten (LT_max).",
        bounds=(1, 1_000_000),
        unit=Unit.TOKENS,
        changes=Changes.UNCONFIGURED,
    )
    object_quota: int = setting(
        64,
        "Tokens in long-term memory that show an object and are never forgotten, however long it "
        "is out of view; 0 = as XMem's published code does.",
        bounds=(0, 1_000_000),
        unit=Unit.TOKENS,
        changes=Changes.UNCONFIGURED,
    )
    top_k: int = setting(
        30,
        "Tokens that each query reads from memory.",
        bounds=(1, 10_000),
        unit=Unit.TOKENS,
        changes=Changes.UNCONFIGURED,
    )

    def __post_init__(self) -> None:
        check(self)
        self._fill_in("min_working_frames", MIN_WORKING_FRAMES, self.max_working_frames - 1)
        if not 2 <= self.min_working_frames < self.max_working_frames:
            raise ConfigError(
                f"min_working_frames ({self.min_working_frames}) must be at least 2 and less than "
                f"max_working_frames ({self.max_working_frames})"
            )
        most = self.max_working_frames - self.min_working_frames
        self._fill_in("keep_first_frames", KEEP_FIRST_FRAMES, most)
        if self.keep_first_frames > most:
            raise ConfigError(
                "keep_first_frames must be at most max_working_frames - min_working_frames = "
                f"{most}, not {self.keep_first_frames}"
            )
        self._fill_in("prototypes", PROTOTYPES, self.max_long_term_tokens)
        if self.long_term and self.prototypes > self.max_long_term_tokens:
            raise ConfigError(
                f"prototypes ({self.prototypes}) must be at most max_long_term_tokens "
                f"({self.max_long_term_tokens})"
            )

    def _fill_in(self, name: str, usual: int, most: int) -> None:
        """Let a setting that was left open be the usual number, or the most that may be."""
        if getattr(self, name) == LEFT_OPEN:
            object.__setattr__(self, name, min(usual, most))


@dataclass
class _Owner:
    """An object's part of the memory."""

    birth: int  # index of the first frame whose tokens it owns
    values: Tensor  # [rows, C_v]
    anchored: bool = False  # its first value lies in the memory's first frame, not in its own


@dataclass(frozen=True)
class MemoryState:
    """A copy of what a `Memory` holds: N used rows, and what they are."""

    shared: dict[str, Tensor]
    """Arrays [N, ...] that all objects share."""
    values: dict[int, Tensor]
    """Object id -> values [N, C_v]."""
    births: dict[int, int]
    anchored: frozenset[int]
    working: tuple[int, ...]
    long_term: int
    told: dict[int, frozenset[int]]
    """Index of a frame in working memory -> the objects that a person told of on it."""

    @property
    def nbytes(self) -> int:
        """Bytes of the copy."""
        return sum(t.nbytes for t in (*self.shared.values(), *self.values.values()))


class Memory:
    """Keys that all objects share, a value store for each object, and what was used how much."""

    def __init__(
        self,
        config: MemoryConfig,
        *,
        tokens_per_frame: int,
        key_dim: int,
        value_dim: int,
        device: torch.device,
    ) -> None:
        self.config = config
        self.tokens_per_frame = tokens_per_frame
        self._value_dim = value_dim
        self._base = config.max_long_term_tokens if config.long_term else 0
        frames = config.max_working_frames + config.max_told_frames
        rows = self._base + frames * tokens_per_frame

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return lasting_zeros(*shape, dtype=dtype, device=device)

        self._zeros = zeros
        self._rows = rows
        self._key = zeros(rows, key_dim)
        self._shrinkage = zeros(rows)
        self._selection = zeros(rows, key_dim)
        self._expanded = zeros(rows, 2 * key_dim + 1)
        self._use = zeros(rows)
        self._life = zeros(rows)
        self._born = zeros(rows, dtype=torch.int64)
        self._shows = zeros(rows, dtype=torch.int64)  # the object that a token shows, or 0
        self._row_numbers = torch.arange(rows, device=device)
        self._owners: dict[int, _Owner] = {}
        self._working: list[int] = []  # the frame index of each block of working memory
        self._told: dict[int, frozenset[int]] = {}  # of frames in working memory: told of whom
        self._long_term = 0  # tokens in long-term memory

    # ---- what is in it

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects, in the order in which they were added."""
        return tuple(self._owners)

    @property
    def working_frames(self) -> tuple[int, ...]:
        """Indices of the frames in working memory."""
        return tuple(self._working)

    @property
    def told_frames(self) -> dict[int, frozenset[int]]:
        """Indices of the frames that stay, and the objects that a person told of on each."""
        return dict(self._told)

    @property
    def working_tokens(self) -> int:
        """Tokens in working memory."""
        return len(self._working) * self.tokens_per_frame

    @property
    def long_term_tokens(self) -> int:
        """Tokens in long-term memory."""
        return self._long_term

    @property
    def nbytes(self) -> int:
        """Bytes of storage held; it changes only when an object is added or removed."""
        return sum(t.nbytes for t in self._columns().values()) + sum(
            owner.values.nbytes for owner in self._owners.values()
        )

    def _columns(self) -> dict[str, Tensor]:
        """The row-wise arrays that all objects share."""
        return {
            "key": self._key,
            "shrinkage": self._shrinkage,
            "selection": self._selection,
            "expanded": self._expanded,
            "use": self._use,
            "life": self._life,
            "born": self._born,
            "shows": self._shows,
        }

    def _used_rows(self) -> slice:
        return slice(self._base - self._long_term, self._base + self.working_tokens)

    def _block(self, position: int) -> slice:
        start = self._base + position * self.tokens_per_frame
        return slice(start, start + self.tokens_per_frame)

    # ---- copies

    def state(self) -> MemoryState:
        """A copy of all that is held; what is done here later does not change it."""
        rows = self._used_rows()
        columns = self._columns()
        copies = lasting_copies([array[rows] for array in self._arrays()])
        return MemoryState(
            shared=dict(zip(columns, copies[: len(columns)], strict=True)),
            values=dict(zip(self._owners, copies[len(columns) :], strict=True)),
            births={i: owner.birth for i, owner in self._owners.items()},
            anchored=frozenset(i for i, owner in self._owners.items() if owner.anchored),
            working=tuple(self._working),
            long_term=self._long_term,
            told=dict(self._told),
        )

    def restore(self, state: MemoryState) -> None:
        """Hold what the state holds, and nothing else."""
        self._owners.clear()
        self._working, self._long_term = list(state.working), state.long_term
        self._told = dict(state.told)
        rows = self._used_rows()
        for name, array in self._columns().items():
            array[rows] = state.shared[name]
        for object_id, birth in state.births.items():
            self.add_object(object_id, birth=birth)
            owner = self._owners[object_id]
            owner.values[rows] = state.values[object_id]
            owner.anchored = object_id in state.anchored

    # ---- objects come and go

    def add_object(self, object_id: int, *, birth: int) -> None:
        """An object that owns the tokens of frame `birth` and of those after it."""
        self._owners[object_id] = _Owner(birth, self._zeros(self._rows, self._value_dim))

    def remove_object(self, object_id: int) -> None:
        """Free the object's values, and the tokens that nobody else owns."""
        del self._owners[object_id]
        self._drop_told_of(object_id)
        self._shows[self._shows == object_id] = 0  # its id may be another object's some day
        if not self._owners:
            self._working.clear()
            self._told.clear()
            self._long_term = 0
            return
        oldest = min(owner.birth for owner in self._owners.values())
        if self._working and self._working[0] < oldest:
            for owner in self._owners.values():
                owner.anchored = False
        self._keep_long_term(self._born[self._base - self._long_term : self._base] > oldest)
        self._keep_working([p for p, index in enumerate(self._working) if index >= oldest])

    # ---- reading

    def read(self, key: Tensor, selection: Tensor) -> Tensor:
        """Query [hw, C_k] and its selection -> readout [K, hw, C_v], objects in `object_ids` order.

        Counts the usage of every token from the softmax of the oldest objects.
        """
        rows = self._used_rows()
        similarity = self._similarity(rows, key, selection)
        readouts: dict[int, Tensor] = {}
        for birth, ids in self._by_birth():
            # The oldest objects own every token; those of younger ones come after their birth.
            owned = _mask(similarity, self._foreign(birth, ids[0])) if readouts else similarity
            top = torch.topk(owned, min(self.config.top_k, owned.shape[1]), dim=1)
            weights = torch.softmax(top.values, dim=1)
            if not readouts:
                self._use[rows].index_add_(0, top.indices.flatten(), weights.flatten())
                self._life[rows] += 1
            for object_id in ids:
                # An embedding bag is the sparse product: top-k weights times value rows.
                readouts[object_id] = F.embedding_bag(
                    top.indices,
                    self._owners[object_id].values[rows],
                    per_sample_weights=weights,
                    mode="sum",
                )
        return torch.stack([readouts[i] for i in self._owners])

    def _by_birth(self) -> Iterator[tuple[int, list[int]]]:
        """Objects that own the same tokens, the oldest first."""
        groups: dict[int, list[int]] = {}
        for object_id, owner in self._owners.items():
            groups.setdefault(owner.birth, []).append(object_id)
        return iter(sorted(groups.items()))

    def _foreign(self, birth: int, object_id: int) -> Tensor:
        """Which of the used tokens [tokens] objects of this birth do not own."""
        rows = self._used_rows()
        foreign = self._born[rows] < birth
        # Long-term tokens of an object's first frame never hold its value: see the module's text.
        foreign[: self._long_term] |= self._born[rows][: self._long_term] == birth
        if self._owners[object_id].anchored:
            foreign[self._long_term : self._long_term + self.tokens_per_frame] = False
        return foreign

    def _similarity(self, rows: slice | Tensor, key: Tensor, selection: Tensor) -> Tensor:
        """Anisotropic L2 similarity [queries, tokens] (XMem, equation 2), its square expanded.

        -s_i sum_c e_cj (k_ci - q_cj)^2 / sqrt(C_k), as one product with `_expand`'s columns.
        """
        weighted = selection * key
        query = torch.cat([-selection, 2 * weighted, -(weighted * key).sum(1, keepdim=True)], dim=1)
        return (query / math.sqrt(key.shape[1])) @ self._expanded[rows].T

    # ---- writing

    def write(
        self,
        frame_index: int,
        *,
        key: Tensor,
        shrinkage: Tensor,
        selection: Tensor,
        values: Mapping[int, Tensor],
        shows: Tensor,
        told: Collection[int] = (),
    ) -> None:
        """Enter a frame: key and selection [hw, C_k], shrinkage [hw], values {id: [hw, C_v]}.

        `shows` [hw]: the id of the object that a token shows, 0 for background. `told`: the objects
        that a person told of on this frame, for whose sake it stays.
        A frame that is in working memory already is overwritten. Frames stay in the order of
        their indices, whenever they are written.
        """
        if frame_index not in self._working:
            while self._full():
                self._keep_working(self._without(self._leaving()[:1]))
            self._open_block(frame_index)
        rows = self._block(self._working.index(frame_index))
        self._set_tokens(rows, key, shrinkage, selection, born=frame_index, shows=shows)
        for object_id, value in values.items():
            self._owners[object_id].values[rows] = value
        if told and self.config.told_frames:
            ids = self._told.get(frame_index, frozenset()) | set(told)
            self._told[frame_index] = frozenset(ids & self._owners.keys())
            self._settle_told()
        if self.config.long_term and self._full():
            self._consolidate()

    def _full(self) -> bool:
        """Whether there are as many frames in working memory as may be, told ones left out."""
        return len(self._working) - len(self._told) >= self.config.max_working_frames

    # ---- what stays because a person said it

    def _settle_told(self) -> None:
        """Holds told frames within their bounds; a frame that nobody needs is like any other."""
        for object_id in self._owners:
            self._drop_slivers(object_id)
            while len(frames := self._told_of(object_id)) > self.config.told_frames:
                distinct = self._distinctness(object_id)
                self._untell(min(frames, key=lambda f: (distinct[f], f)), object_id)
        while len(self._told) > self.config.max_told_frames:
            worth = {frame: 0.0 for frame in self._told}
            for object_id in self._owners:
                for frame, distance in self._distinctness(object_id).items():
                    worth[frame] = max(worth[frame], distance)
            del self._told[min(worth, key=lambda f: (worth[f], f))]

    def _drop_told_of(self, object_id: int) -> None:
        """Frames that stay for this object's sake alone go, unless they are another's first."""
        alone = {frame for frame, ids in self._told.items() if ids == {object_id}}
        self._told = {f: ids - {object_id} for f, ids in self._told.items() if f not in alone}
        gone = alone - self._first_frames()
        self._keep_working([p for p, index in enumerate(self._working) if index not in gone])

    def _first_frames(self) -> set[int]:
        """Indices of every object's first frame, and of working memory's oldest, if any."""
        return {*self._working[:1], *(owner.birth for owner in self._owners.values())}

    def _told_of(self, object_id: int) -> list[int]:
        """The told frames that stay for an object's sake, the oldest first."""
        return sorted(frame for frame, ids in self._told.items() if object_id in ids)

    def _untell(self, frame_index: int, object_id: int) -> None:
        self._told[frame_index] -= {object_id}
        if not self._told[frame_index]:
            del self._told[frame_index]

    def _shown(self, frame_index: int, object_id: int) -> Tensor:
        """Which of a frame's tokens [hw] show an object."""
        return self._shows[self._block(self._working.index(frame_index))] == object_id

    def _drop_slivers(self, object_id: int) -> None:
        """Frames that show little of an object do not stay for its sake. One that says that it is
        not to be seen does: that is no view of it.
        """
        sizes = {
            frame: int(self._shown(frame, object_id).sum()) for frame in self._told_of(object_id)
        }
        largest = max(sizes.values(), default=0)
        for frame, size in sizes.items():
            if 0 < size < SLIVER * largest:
                self._untell(frame, object_id)

    def _distinctness(self, object_id: int) -> dict[int, float]:
        """Told frame of an object -> distance of the object's mean key there from the nearest of
        the others; infinity where there is no other, 0 where the frame does not show it.
        """
        means: dict[int, Tensor] = {}
        for frame in self._told_of(object_id):
            shown = self._shown(frame, object_id)
            if shown.any():
                block = self._block(self._working.index(frame))
                means[frame] = self._key[block][shown].mean(0)
        found = dict.fromkeys(self._told_of(object_id), 0.0)
        for frame, mean in means.items():
            others = [float((mean - other).norm()) for f, other in means.items() if f != frame]
            found[frame] = min(others, default=math.inf)
        return found

    def _open_block(self, frame_index: int) -> None:
        """Make room for a frame at its place in time."""
        position = sum(index < frame_index for index in self._working)
        end = self._base + self.working_tokens
        start = self._block(position).start
        if start < end:
            for array in self._arrays():
                moved = array[start:end].clone()
                array[start + self.tokens_per_frame : end + self.tokens_per_frame] = moved
        self._working.insert(position, frame_index)

    def _set_tokens(
        self,
        rows: slice,
        key: Tensor,
        shrinkage: Tensor,
        selection: Tensor,
        *,
        born: int | Tensor,
        shows: Tensor,
    ) -> None:
        s = shrinkage[:, None]
        self._key[rows] = key
        self._shrinkage[rows] = shrinkage
        self._selection[rows] = selection
        self._expanded[rows] = torch.cat([s * key**2, s * key, s], dim=1)
        self._use[rows] = 0
        self._life[rows] = LIFE_AT_BIRTH
        self._born[rows] = born
        self._shows[rows] = shows

    def _arrays(self) -> Iterator[Tensor]:
        yield from self._columns().values()
        for owner in self._owners.values():
            yield owner.values

    # ---- what turned out to be wrong

    def unlearn(self, object_id: int, since: int, until: int) -> None:
        """Drops what was learnt between two frames (both left out) on which an object was in doubt.

        Of long-term memory go the tokens that show the object or background; those that show other
        objects stay. Of working memory: see `unlearn_working`.
        """
        self.unlearn_working(until, since=since)
        rows = slice(self._base - self._long_term, self._base)
        born, shows = self._born[rows], self._shows[rows]
        wrong = (born > since) & (born < until) & ((shows == 0) | (shows == object_id))
        self._keep_long_term(~wrong)

    def unlearn_working(self, until: int, *, since: int = -1) -> None:
        """Drops the frames of working memory between two frames (both left out), but not those that
        a person told of, any object's first one, and the oldest.
        """
        stay = self._first_frames()
        stay |= {index for index in self._working if not since < index < until}
        stay |= self._told.keys()
        self._keep_working([p for p, index in enumerate(self._working) if index in stay])

    # ---- consolidation and forgetting

    def _leaving(self) -> list[int]:
        """Positions in working memory that consolidation takes, the oldest first."""
        frames = [index for index in self._working if index not in self._told]
        births = {owner.birth for owner in self._owners.values()} & set(frames)
        stay = sorted({frames[0], *births})[: self.config.keep_first_frames]
        last = len(frames) - (self.config.min_working_frames - 1)
        return [self._working.index(index) for index in frames[:last] if index not in stay]

    def _without(self, leaving: Sequence[int]) -> list[int]:
        """The other positions; first values in the leaving frames move to the first frame."""
        for owner in self._owners.values():
            for position in leaving:
                if owner.birth == self._working[position]:
                    owner.values[self._block(0)] = owner.values[self._block(position)]
                    owner.anchored = True
        return [p for p in range(len(self._working)) if p not in leaving]

    def _consolidate(self) -> None:
        """The frames that leave working memory become P prototypes in long-term memory."""
        leaving = self._leaving()
        rows = torch.cat([self._row_numbers[self._block(p)] for p in leaving])
        count = min(self.config.prototypes, len(rows))
        self._forget(self.config.max_long_term_tokens - count)

        usage = self._use[rows] / self._life[rows]
        chosen = rows[torch.topk(usage, count).indices]
        key, selection, born = (
            self._key[chosen],
            self._selection[chosen],
            self._born[chosen],
        )
        similarity = self._similarity(rows, key, selection)
        candidates_born = self._born[rows]
        shrinkage = torch.softmax(similarity, dim=1) @ self._shrinkage[rows]

        stop = self._base - self._long_term
        target = slice(stop - count, stop)
        shows = self._shows[chosen]
        self._set_tokens(target, key, shrinkage, selection, born=born, shows=shows)
        newest_leaving = self._working[leaving[-1]]
        for birth, ids in self._by_birth():
            if birth >= newest_leaving:
                break
            weights = torch.softmax(_mask(similarity, candidates_born <= birth), dim=1)
            for object_id in ids:
                values = self._owners[object_id].values
                values[target] = weights @ values[rows]
        self._long_term += count
        self._keep_working(self._without(leaving))

    def _forget(self, tokens: int) -> None:
        """Keep at most `tokens` of long-term memory: every object's quota, then the most used.

        Tokens of an object out of view are used by nobody; without its quota a crowd of newer
        objects would push them out, and it could not be found again.
        """
        if self._long_term <= tokens:
            return
        rows = slice(self._base - self._long_term, self._base)
        usage = self._use[rows] / self._life[rows]
        quota = min(self.config.object_quota, tokens // max(len(self._owners), 1))
        for object_id in self._owners if quota else ():
            theirs = torch.where(self._shows[rows] == object_id, usage, -math.inf)
            best = torch.topk(theirs, min(quota, len(theirs)))
            usage[best.indices[best.values >= 0]] = math.inf
        keep = torch.zeros_like(usage, dtype=torch.bool)
        keep[torch.topk(usage, tokens).indices] = True
        self._keep_long_term(keep)

    def _keep_long_term(self, keep: Tensor) -> None:
        """Drop the long-term tokens that the mask [long_term_tokens] leaves out."""
        count = int(keep.sum())
        if count == self._long_term:
            return
        rows = slice(self._base - self._long_term, self._base)
        for array in self._arrays():
            array[self._base - count : self._base] = array[rows][keep]
        self._long_term = count

    def _keep_working(self, positions: Sequence[int]) -> None:
        """Drop the frames of working memory at other positions, closing the gaps."""
        for target, position in enumerate(positions):
            if target != position:
                for array in self._arrays():
                    array[self._block(target)] = array[self._block(position)]
        self._working = [self._working[p] for p in positions]
        self._told = {f: ids for f, ids in self._told.items() if f in self._working}


def _mask(similarity: Tensor, foreign: Tensor) -> Tensor:
    """Similarity [queries, tokens] with the foreign tokens [tokens] out of the softmax's sight."""
    return similarity.masked_fill(foreign, -math.inf)

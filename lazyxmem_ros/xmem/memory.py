# SPDX-License-Identifier: Apache-2.0
"""Working and long-term memory: what is read, learnt, condensed and forgotten (XMem, 3.2 and 3.3).

An object's first frame is its best reference and is never consolidated. The first frames of the
`keep_first_frames` oldest objects stay in working memory as they are; of an object that comes
on top of these, the first value moves into the memory's first frame when its own frame goes, as
the published code does with every object that appears later (`keep_first_frames=1`).

Frames that a person told of (see `told`) lie in working memory on top of the others, are neither
consolidated nor dropped, and go when nobody who was told of on them is followed any more.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyxmem_ros.xmem.copies import MemoryState
from lazyxmem_ros.xmem.matching import best_matches, without
from lazyxmem_ros.xmem.memory_config import MemoryConfig
from lazyxmem_ros.xmem.token_store import TokenStore
from lazyxmem_ros.xmem.told import ToldFrames, View


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
        self._tokens = TokenStore(
            long_term_rows=config.max_long_term_tokens if config.long_term else 0,
            working_frames=config.max_working_frames,
            per_frame=tokens_per_frame,
            key_dim=key_dim,
            value_dim=value_dim,
            device=device,
        )
        self._told = ToldFrames(per_object=config.told_frames, in_all=config.max_told_frames)

    # ---- what is in it

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects, in the order in which they were added."""
        return tuple(self._tokens.owners)

    @property
    def working_frames(self) -> tuple[int, ...]:
        """Indices of the frames in working memory."""
        return tuple(self._tokens.working)

    @property
    def told_frames(self) -> dict[int, frozenset[int]]:
        """Indices of the frames that stay, and the objects that a person told of on each."""
        return dict(self._told.frames)

    @property
    def working_tokens(self) -> int:
        """Tokens in working memory."""
        return len(self._tokens.working) * self._tokens.per_frame

    @property
    def long_term_tokens(self) -> int:
        """Tokens in long-term memory."""
        return self._tokens.long_term

    @property
    def compact(self) -> bool:
        """Whether there is nothing in working memory that a consolidation would take."""
        return len(self._told.frames) == len(self._tokens.working) or not self._leaving()

    @property
    def nbytes(self) -> int:
        """Bytes of storage held; it changes only when an object is added or removed, or frames that
        a person told of come on top of the others for the first time.
        """
        return sum(t.nbytes for t in self._tokens.arrays())

    # ---- copies

    def state(self, before: MemoryState | None = None) -> MemoryState:
        """A copy of all that is held; what is done here later does not change it.

        It shares with the copy `before`, if there is one, which must not be changed either.
        """
        return self._tokens.state(before, told=self.told_frames)

    def restore(self, state: MemoryState) -> None:
        """Hold what the state holds, and nothing else."""
        self._tokens.restore(state)
        self._told.frames = dict(state.told)

    # ---- objects come and go

    def add_object(self, object_id: int, *, birth: int) -> None:
        """An object that owns the tokens of frame `birth` and of those after it."""
        self._tokens.add_owner(object_id, birth=birth)

    def remove_object(self, object_id: int) -> None:
        """Free the object's values, the frames that stay for its sake alone, unless they are
        another's first or the newest, which may be all that others have, and the tokens that
        nobody else owns.
        """
        tokens = self._tokens
        births = [owner.birth for i, owner in tokens.owners.items() if i != object_id]
        if births:  # first, for it may find the device's memory full
            tokens.keep_long_term(tokens.born[tokens.long_term_rows] > min(births))
        tokens.remove_owner(object_id)
        gone = self._told.forget(object_id) - self._first_frames() - set(tokens.working[-1:])
        self._keep_working([index for index in tokens.working if index not in gone])
        if not births:
            tokens.clear()
            self._told.keep(())
            return
        oldest = min(births)
        if tokens.working and tokens.working[0] < oldest:
            for owner in tokens.owners.values():
                owner.anchored = False
        self._keep_working([index for index in tokens.working if index >= oldest])

    def _first_frames(self) -> set[int]:
        """Indices of every object's first frame, and of working memory's oldest, if any."""
        births = {owner.birth for owner in self._tokens.owners.values()}
        return births.union(self._tokens.working[:1])

    # ---- reading

    def read(self, key: Tensor, selection: Tensor) -> Tensor:
        """Query [hw, C_k] and its selection -> readout [K, hw, C_v], objects in `object_ids` order.

        Counts the usage of every token from the softmax of the oldest objects.
        """
        tokens, rows = self._tokens, self._tokens.used
        groups = [ids for _, ids in tokens.owners_by_birth()]
        # The oldest objects own every token; those of younger ones come after their birth.
        foreign = [None, *(tokens.foreign(ids[0]) for ids in groups[1:])]
        queries, top_k = _queries(key, selection), self.config.top_k
        found = best_matches(queries, tokens.expanded[rows], top_k, foreign)
        readouts: dict[int, Tensor] = {}
        for ids, (similarity, places) in zip(groups, found, strict=True):
            weights = torch.softmax(similarity, dim=1)
            if not readouts:
                tokens.count_use(places.flatten(), weights.flatten())
            for object_id in ids:
                # An embedding bag is the sparse product: top-k weights times value rows.
                readouts[object_id] = F.embedding_bag(
                    places,
                    tokens.owners[object_id].values[rows],
                    per_sample_weights=weights,
                    mode="sum",
                )
        return torch.stack([readouts[i] for i in tokens.owners])

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
        The frame is the newest one of all; if it is in working memory already it is overwritten.
        What fails on the way leaves a memory that works, with the frame or without it; to write the
        frame again does what is left to do.
        """
        tokens = self._tokens
        if frame_index not in tokens.working:
            while self._full():
                self._drop(self._leaving()[:1])
        tokens.write(
            frame_index,
            key=key,
            shrinkage=shrinkage,
            selection=selection,
            values=values,
            born=frame_index,
            shows=shows,
        )
        told_of = tokens.owners.keys() & set(told)
        if told_of and self.config.told_frames:
            self._told = self._told_with(frame_index, told_of)
        if self.config.long_term and self._full():
            self._consolidate()

    def _full(self) -> bool:
        """Whether there are as many frames in working memory as may be, told ones left out."""
        others = len(self._tokens.working) - len(self._told.frames)
        return others >= self.config.max_working_frames

    def _told_with(self, frame_index: int, object_ids: Collection[int]) -> ToldFrames:
        """The told frames once a person has told of these objects on a frame of working memory."""
        told = self._told.copy()
        told.tell(frame_index, object_ids)
        told.settle({i: self._views(i, told) for i in self._tokens.owners})
        return told

    def _views(self, object_id: int, told: ToldFrames) -> dict[int, View]:
        """What the told frames of an object show of it."""
        views = {}
        for frame in told.of(object_id):
            block = self._tokens.block(frame)
            shown = self._tokens.shows[block] == object_id
            size = int(shown.sum())
            views[frame] = View(size, self._tokens.key[block][shown].mean(0) if size else None)
        return views

    # ---- what turned out to be wrong

    def unlearn(self, object_id: int, since: int, until: int) -> None:
        """Drops what was learnt between two frames (both left out) on which an object was in doubt.

        Of long-term memory go the tokens that show the object or background; those that show other
        objects stay. Of working memory: see `unlearn_working`.
        """
        self.unlearn_working(until, since=since)
        rows = self._tokens.long_term_rows
        born, shows = self._tokens.born[rows], self._tokens.shows[rows]
        wrong = (born > since) & (born < until) & ((shows == 0) | (shows == object_id))
        self._tokens.keep_long_term(~wrong)

    def unlearn_working(self, until: int, *, since: int = -1) -> None:
        """Drops the frames of working memory between two frames (both left out), but not those that
        a person told of, any object's first one, and the oldest.
        """
        stay = self._first_frames() | self._told.frames.keys()
        working = self._tokens.working
        self._keep_working([i for i in working if i in stay or not since < i < until])

    # ---- consolidation and forgetting

    def _leaving(self) -> list[int]:
        """The frames in working memory that consolidation takes, the oldest first."""
        frames = [index for index in self._tokens.working if index not in self._told.frames]
        births = {owner.birth for owner in self._tokens.owners.values()}
        first = {self._tokens.working[0], *births} & set(frames)
        stay = sorted(first)[: self.config.keep_first_frames]
        last = max(len(frames) - (self.config.min_working_frames - 1), 0)
        return [index for index in frames[:last] if index not in stay]

    def _drop(self, leaving: Collection[int]) -> None:
        """Frames leave working memory; first values in them move to the first frame."""
        for object_id, owner in self._tokens.owners.items():
            if owner.birth in leaving:
                self._tokens.anchor(object_id)
        self._keep_working([index for index in self._tokens.working if index not in leaving])

    def _consolidate(self) -> None:
        """The frames that leave working memory become P prototypes in long-term memory."""
        tokens, leaving = self._tokens, self._leaving()
        rows = tokens.rows_of(leaving)
        count = min(self.config.prototypes, len(rows))

        usage = tokens.use[rows] / tokens.life[rows]
        chosen = rows[torch.topk(usage, count).indices]
        key, selection = tokens.key[chosen], tokens.selection[chosen]
        similarity = _queries(key, selection) @ tokens.expanded[rows].T
        shrinkage = torch.softmax(similarity, dim=1) @ tokens.shrinkage[rows]
        candidates_born = tokens.born[rows]
        values: dict[int, Tensor] = {}
        for birth, ids in tokens.owners_by_birth():
            if birth >= leaving[-1]:
                break
            weights = torch.softmax(without(similarity, candidates_born <= birth), dim=1)
            values |= {i: weights @ tokens.owners[i].values[rows] for i in ids}

        # Nothing has changed so far, and from here on each step is done as a whole or not at all.
        self._forget(self.config.max_long_term_tokens - count)
        tokens.write(
            None,
            key=key,
            shrinkage=shrinkage,
            selection=selection,
            values=values,
            born=tokens.born[chosen],
            shows=tokens.shows[chosen],
        )
        self._drop(leaving)

    def _forget(self, count: int) -> None:
        """Keep at most so many tokens of long-term memory: every object's quota, then the most
        used.

        Tokens of an object out of view are used by nobody; without its quota a crowd of newer
        objects would push them out, and it could not be found again.
        """
        tokens = self._tokens
        if tokens.long_term <= count:
            return
        rows = tokens.long_term_rows
        usage = tokens.use[rows] / tokens.life[rows]
        quota = min(self.config.object_quota, count // max(len(tokens.owners), 1))
        for object_id in tokens.owners if quota else ():
            theirs = torch.where(tokens.shows[rows] == object_id, usage, -math.inf)
            best = torch.topk(theirs, min(quota, len(theirs)))
            usage[best.indices[best.values >= 0]] = math.inf
        keep = torch.zeros_like(usage, dtype=torch.bool)
        keep[torch.topk(usage, count).indices] = True
        tokens.keep_long_term(keep)

    def _keep_working(self, frames: Collection[int]) -> None:
        """Drop the other frames of working memory, told or not."""
        self._tokens.keep_working(frames)
        self._told.keep(frames)


def _queries(key: Tensor, selection: Tensor) -> Tensor:
    """What the columns `expanded` are multiplied with: [hw, 2 C_k + 1] of [hw, C_k] each.

    The product is the anisotropic L2 similarity (XMem, equation 2), its square expanded:
    -s_i sum_c e_cj (k_ci - q_cj)^2 / sqrt(C_k).
    """
    weighted = selection * key
    query = torch.cat([-selection, 2 * weighted, -(weighted * key).sum(1, keepdim=True)], dim=1)
    return query / math.sqrt(key.shape[1])

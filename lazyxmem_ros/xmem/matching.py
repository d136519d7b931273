# SPDX-License-Identifier: Apache-2.0
"""The tokens that match queries best: the same as of one large product, in less time and memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

QUERIES_AT_A_TIME = 256
"""On a processor. Their similarities stay in its cache, and in one piece of memory, where those of
all queries would take new pages for each frame."""
PARTS = 8
"""Into so many the tokens are parted to find the best of them; the quickest of 4, 8, 16 and 32."""


def best_matches(
    queries: Tensor, tokens: Tensor, count: int, foreign: Sequence[Tensor | None]
) -> list[tuple[Tensor, Tensor]]:
    """The similarities, largest first, and places of the tokens that are most similar to queries.

    Args:
        queries: float [Q, D].
        tokens: float [N, D]; the product of both is the similarity.
        count: of tokens for each query; at most N.
        foreign: for each of several searches the tokens [N], bool, that are left out; None: none.

    Returns:
        For each search two tensors [Q, count]. Where fewer tokens are left, others of a similarity
        of -inf are among them.
    """
    count = min(count, len(tokens))
    if queries.device.type != "cpu":
        similarity = queries @ tokens.T
        return [_best(without(similarity, left_out), count) for left_out in foreign]
    room = queries.new_empty(min(QUERIES_AT_A_TIME, len(queries)), len(tokens))
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in foreign]
    for some in queries.split(QUERIES_AT_A_TIME):
        similarity = torch.mm(some, tokens.T, out=room[: len(some)])
        for search, left_out in zip(found, foreign, strict=True):
            search.append(_best_in_parts(without(similarity, left_out), count))
    return [
        (torch.cat([values for values, _ in search]), torch.cat([places for _, places in search]))
        for search in found
    ]


def without(similarity: Tensor, left_out: Tensor | None) -> Tensor:
    """Similarity [Q, N], of the tokens [N], bool, that are left out -inf: no softmax sees them."""
    return similarity if left_out is None else similarity.masked_fill(left_out, -torch.inf)


def _best(similarity: Tensor, count: int) -> tuple[Tensor, Tensor]:
    best = torch.topk(similarity, count, dim=1)
    return best.values, best.indices


def _best_in_parts(similarity: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """As `_best`: of similarities [Q, N] in PARTS rows of columns, the best lie in the `count`
    columns with the largest maxima.
    """
    columns = similarity.shape[1] // PARTS
    if columns <= count:
        return _best(similarity, count)
    whole = columns * PARTS
    largest = similarity[:, :whole].unflatten(1, (PARTS, columns)).amax(1)
    chosen = torch.topk(largest, count, dim=1, sorted=False).indices
    rows = torch.arange(0, whole, columns)
    places = (chosen[:, None] + rows[:, None]).flatten(1)
    rest = torch.arange(whole, similarity.shape[1]).expand(len(places), -1)
    places = torch.cat([places, rest], dim=1)
    values, at = _best(similarity.gather(1, places), count)
    return values, places.gather(1, at)

# SPDX-License-Identifier: Apache-2.0
"""The best matches are those of one large product."""

from __future__ import annotations

import pytest
import torch

from lazyxmem_ros.xmem import matching
from lazyxmem_ros.xmem.matching import PARTS, QUERIES_AT_A_TIME, best_matches

COUNT = 30


def expected(
    queries: torch.Tensor, tokens: torch.Tensor, left_out: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    similarity = queries @ tokens.T
    if left_out is not None:
        similarity = similarity.masked_fill(left_out, -torch.inf)
    best = torch.topk(similarity, min(COUNT, len(tokens)), dim=1)
    return best.values, best.indices


@pytest.mark.parametrize("query_count", [1, QUERIES_AT_A_TIME, 2 * QUERIES_AT_A_TIME + 7])
@pytest.mark.parametrize(
    "token_count", [1, COUNT, PARTS * COUNT, PARTS * (COUNT + 1), PARTS * (COUNT + 1) + 5, 3001]
)
def test_they_are_those_of_one_product(query_count: int, token_count: int) -> None:
    torch.manual_seed(0)
    queries, tokens = torch.randn(query_count, 9), torch.randn(token_count, 9)
    young = torch.arange(token_count) < token_count // 2
    hardly = torch.arange(token_count) < token_count - 3  # fewer are left than are wanted
    searches = [None, young, hardly]
    found = best_matches(queries, tokens, COUNT, searches)
    for (values, places), left_out in zip(found, searches, strict=True):
        best, where = expected(queries, tokens, left_out)
        torch.testing.assert_close(values, best)
        known = torch.isfinite(best)  # of others any will do
        assert torch.equal(places[known], where[known])
        assert all(len(set(row.tolist())) == len(row) for row in places)


def test_of_equal_ones_any_is_taken_once() -> None:
    queries, tokens = torch.ones(3, 2), torch.ones(PARTS * 100 + 3, 2)
    ((values, places),) = best_matches(queries, tokens, COUNT, [None])
    assert torch.equal(values, torch.full((3, COUNT), 2.0))
    assert all(len(set(row.tolist())) == COUNT for row in places)


def test_what_is_searched_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    queries, tokens = torch.randn(300, 9), torch.randn(2000, 9)
    ((values, places),) = best_matches(queries, tokens, COUNT, [None])
    monkeypatch.setattr(matching, "QUERIES_AT_A_TIME", 64)
    ((other_values, other_places),) = best_matches(queries, tokens, COUNT, [None])
    torch.testing.assert_close(values, other_values)
    assert torch.equal(places, other_places)

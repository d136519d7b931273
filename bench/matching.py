# SPDX-License-Identifier: Apache-2.0
"""The search of memory for the tokens that match a frame's queries best: ours beside a plain one.

    tools/run python bench/matching.py [--repeat 9]

The plain one takes the similarity of all queries and tokens in one product, and the best of each
row with `topk`. They run in turn in this process with one thread, on random keys of the embedded
model's width. Shown are the medians of processor time, and the median and quartiles of the ratio of
each pair; the similarities must be equal, or the run ends with an error. Writes
out/bench/matching.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from bench.pairs import Pair, compared
from lazyxmem_ros.evaluation.printing import markdown_table, screen_table
from lazyxmem_ros.xmem.matching import best_matches, without
from lazyxmem_ros.xmem.memory_config import MemoryConfig

OUT = Path("out/bench")
KEY_DIM = 48
WIDTH = 2 * KEY_DIM + 1
"""Columns of a query and of a token (`xmem/memory.py`)."""


class Search(NamedTuple):
    """queries: of a frame. tokens: in memory. ages: objects that began on different frames, each of
    which is a search of its own.
    """

    queries: int
    tokens: int
    ages: int = 1


SEARCHES = (
    Search(240, 480),
    Search(920, 1840),
    Search(920, 9200),
    Search(920, 19200),
    Search(920, 19200, 3),
    Search(1620, 16200),
)
"""920 queries are a frame of 360 rows, 1620 one of 480; 19200 tokens are a full memory of the
former."""


def plain(
    queries: Tensor, tokens: Tensor, count: int, foreign: list[Tensor | None]
) -> list[tuple[Tensor, Tensor]]:
    """As `best_matches`."""
    similarity = queries @ tokens.T
    return [
        (best.values, best.indices)
        for best in (torch.topk(without(similarity, out), count, dim=1) for out in foreign)
    ]


def pair(search: Search) -> Pair:
    """Both ways; what they return is the similarities alone, for equal ones may be of any place."""
    random = torch.Generator().manual_seed(0)
    queries = torch.randn(search.queries, WIDTH, generator=random)
    tokens = torch.randn(search.tokens, WIDTH, generator=random)
    born = torch.arange(search.tokens)
    later = [born < search.tokens * age // (age + 1) for age in range(1, search.ages)]
    foreign: list[Tensor | None] = [None, *later]

    def values(way: Callable[..., list[tuple[Tensor, Tensor]]]) -> Tensor:
        found = way(queries, tokens, MemoryConfig().top_k, foreign)
        return torch.cat([similarity for similarity, _ in found])

    return Pair(partial(values, plain), partial(values, best_matches))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=9, help="runs of each pair, after one more")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        rows = [
            {"queries": search.queries, "tokens": search.tokens, "searches": search.ages}
            | compared(pair(search), repeat=arguments.repeat, tolerance=0.0)
            for search in SEARCHES
        ]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "matching.md").write_text(markdown_table(rows))
    Console().print(screen_table(rows))


if __name__ == "__main__":
    main()

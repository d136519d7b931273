# SPDX-License-Identifier: Apache-2.0
"""Tables for documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

DIGITS = 3


def markdown_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows with the first one's columns as a Markdown table; numbers with three decimals."""
    columns = list(rows[0])
    lines = [_line(columns), _line(["---"] * len(columns))]
    lines += [_line([_text(row.get(column, "")) for column in columns]) for row in rows]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(value: object) -> str:
    return f"{value:.{DIGITS}f}" if isinstance(value, float) else str(value)

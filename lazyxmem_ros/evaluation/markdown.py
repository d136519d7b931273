# SPDX-License-Identifier: Apache-2.0
"""Tables for documents and for the screen."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

DIGITS = 3
PAGE = Path("docs/late_corrections.md")
"""Where the tables of bench/ stand that are put into a document."""


def markdown_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows with the first one's columns as a Markdown table; numbers with three decimals."""
    columns = list(rows[0])
    lines = [_line(columns), _line(["---"] * len(columns))]
    lines += [_line([_text(row.get(column, "")) for column in columns]) for row in rows]
    return "\n".join(lines) + "\n"


def screen_table(rows: Sequence[Mapping[str, object]], *, title: str | None = None) -> Table:
    """The same table for a terminal."""
    table = Table(*map(str, rows[0]), title=title)
    for row in rows:
        table.add_row(*(_text(row.get(column, "")) for column in rows[0]))
    return table


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(value: object) -> str:
    return f"{value:.{DIGITS}f}" if isinstance(value, float) else str(value)


def put_table(page: Path, name: str, table: str) -> None:
    """Puts a table in the place of the one between `<!-- NAME -->` and `<!-- /NAME -->`.

    Raises ValueError, changing nothing, where the page does not have these two marks.
    """
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"{page} has no place for a table between {begin.strip()} and {end}")
    page.write_text(f"{before}{begin}\n{table.strip()}\n\n{end}{after}", encoding="utf-8")


def into_documents(name: str, folder: Path, *, picture: bool = True) -> None:
    """Puts the table FOLDER/NAME.md and the picture FOLDER/NAME.png into the documents.

    Run in the repository's root.
    """
    put_table(PAGE, name, (folder / f"{name}.md").read_text(encoding="utf-8"))
    if picture:
        shutil.copyfile(folder / f"{name}.png", PAGE.parent / "pictures" / f"{name}.png")

# SPDX-License-Identifier: Apache-2.0
"""Puts the tables and pictures that the programs of bench/ make into the documents."""

from __future__ import annotations

import shutil
from pathlib import Path

PAGE = Path("docs/late_corrections.md")
"""The page, from the repository's root, that has a place for each of these tables."""


def into_documents(name: str, folder: Path, *, picture: bool = True) -> None:
    """Put the table FOLDER/NAME.md and the picture FOLDER/NAME.png into the documents.

    Run in the repository's root.
    """
    put_table(PAGE, name, (folder / f"{name}.md").read_text(encoding="utf-8"))
    if picture:
        shutil.copyfile(folder / f"{name}.png", PAGE.parent / "pictures" / f"{name}.png")


def put_table(page: Path, name: str, table: str) -> None:
    """Put a table in the place of the one between `<!-- NAME -->` and `<!-- /NAME -->`.

    Raises ValueError, changing nothing, where the page does not have these two marks.
    """
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"{page} has no place for a table between {begin.strip()} and {end}")
    page.write_text(f"{before}{begin}\n{table.strip()}\n\n{end}{after}", encoding="utf-8")

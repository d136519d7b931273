# SPDX-License-Identifier: Apache-2.0
"""Puts the tables and pictures that the programs of bench/ make into the documents."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Collection
from pathlib import Path

PAGE = Path("docs/late_corrections.md")
"""The page, from the repository's root, that has a place for each of these tables."""


def add_docs_argument(parser: argparse.ArgumentParser, page: Path = PAGE) -> None:
    """Declare `--docs`."""
    parser.add_argument("--docs", action="store_true", help=f"put the outcome into {page}, too")


def check_docs(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace, free: Collection[str] = ()
) -> None:
    """End the program where `--docs` stands beside options that measure something else, or less,
    than the documents say was measured. free: names of those that do not.
    """
    other = [
        f"--{name.replace('_', '-')}"
        for name, value in vars(arguments).items()
        if name not in ("docs", *free) and value != parser.get_default(name)
    ]
    if arguments.docs and other:
        parser.error(
            f"--docs is for what the documents describe; leave out {', '.join(other)}, or --docs"
        )


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

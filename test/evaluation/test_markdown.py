# SPDX-License-Identifier: Apache-2.0
"""Tables for documents."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from lazyxmem_ros.evaluation.markdown import PAGE, markdown_table, put_table, screen_table


def test_columns_are_the_first_rows_and_numbers_are_short() -> None:
    rows = [{"name": "pond", "J": 0.79312}, {"name": "camel", "J": 1.0, "more": 2}]
    assert markdown_table(rows) == (
        "| name | J |\n| --- | --- |\n| pond | 0.793 |\n| camel | 1.000 |\n"
    )


def test_the_screen_shows_the_same() -> None:
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(screen_table([{"name": "pond", "J": 0.79312, "n": 3}], title="all"))
    words = console.export_text().split()
    assert words[0] == "all"
    assert {"name", "J", "n", "pond", "0.793", "3"} <= set(words)


def test_a_table_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("one\n<!-- flat -->\n| old |\n<!-- /flat -->\ntwo\n")
    for _ in range(2):
        put_table(page, "flat", "| new |\n")
        assert page.read_text() == "one\n<!-- flat -->\n\n| new |\n\n<!-- /flat -->\ntwo\n"
    with pytest.raises(ValueError, match="no place for a table"):
        put_table(page, "steep", "| new |\n")
    assert "new" in page.read_text()


def test_the_documents_have_a_place_for_each_table(root: Path) -> None:
    text = (root / PAGE).read_text(encoding="utf-8")
    for name in ("late_corrections", "flat", "snapshots"):
        assert text.count(f"<!-- {name} -->") == text.count(f"<!-- /{name} -->") == 1

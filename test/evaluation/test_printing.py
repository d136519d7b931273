# SPDX-License-Identifier: Apache-2.0
"""Tables for a document and for the screen."""

import io

from rich.console import Console

from lazyxmem_ros.evaluation.printing import markdown_table, screen_table


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

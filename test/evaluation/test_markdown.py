# SPDX-License-Identifier: Apache-2.0
"""Tables for documents."""

from lazyxmem_ros.evaluation.markdown import markdown_table


def test_columns_are_the_first_rows_and_numbers_are_short() -> None:
    rows = [{"name": "pond", "J": 0.79312}, {"name": "camel", "J": 1.0, "more": 2}]
    assert markdown_table(rows) == (
        "| name | J |\n| --- | --- |\n| pond | 0.793 |\n| camel | 1.000 |\n"
    )

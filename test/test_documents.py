# SPDX-License-Identifier: Apache-2.0
"""Tables find their place in the documents."""

from pathlib import Path

import pytest

from tools.documents import PAGE, put_table


def test_a_table_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("one\n<!-- flat -->\n| old |\n<!-- /flat -->\ntwo\n")
    for _ in range(2):
        put_table(page, "flat", "| new |\n")
        assert page.read_text() == "one\n<!-- flat -->\n\n| new |\n\n<!-- /flat -->\ntwo\n"
    with pytest.raises(ValueError, match="no place for a table"):
        put_table(page, "steep", "| new |\n")
    assert "new" in page.read_text()


@pytest.mark.parametrize(
    ("page", "names"),
    [
        (PAGE, ("late_corrections", "flat", "snapshots", "horizon")),
        (Path("docs/results.md"), ("stress",)),
    ],
)
def test_the_documents_have_a_place_for_each_table(
    root: Path, page: Path, names: tuple[str, ...]
) -> None:
    text = (root / page).read_text(encoding="utf-8")
    for name in names:
        assert text.count(f"<!-- {name} -->") == text.count(f"<!-- /{name} -->") == 1

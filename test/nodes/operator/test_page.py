# SPDX-License-Identifier: Apache-2.0
"""What the page's files say, beside each other and the console; without a browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("msgspec", reason="needs msgspec (requirements-operator.txt)")

from lazyxmem_ros.nodes.operator import messages
from lazyxmem_ros.nodes.operator.requests import Outcome


@pytest.fixture
def page(root: Path) -> Path:
    return root / "lazyxmem_ros" / "nodes" / "operator" / "page"


def texts(page: Path) -> dict[str, list[str]]:
    """The names in text.js: of each text, and of what is in it where it is a group of them."""
    found: dict[str, list[str]] = {}
    for line in (page / "text.js").read_text().splitlines():
        if match := re.match(r"  (\w+):", line):
            found[match[1]] = []
        elif match := re.match(r"    (\w+):", line):
            found[list(found)[-1]].append(match[1])
    return found


def test_every_text_is_shown(page: Path) -> None:
    """Texts that are chosen while the page runs are in groups, of which nothing is said here."""
    source = "".join(path.read_text() for path in page.glob("*.js"))
    for name in re.findall(r'data-(?:text|label)="(\w+)"', (page / "index.html").read_text()):
        source += f"text.{name} "
    known = texts(page)
    assert {"title", "faults"} <= known.keys()
    unused = [name for name in known if not re.search(rf"\btext\.{name}\b", source)]
    for group in (name for name in known if f"text.{name}[" not in source):
        names = (f"{group}.{name}" for name in known[group])
        unused += [name for name in names if not re.search(rf"\btext\.{name}\b", source)]
    assert not unused, f"text.js has words that nobody shows: {', '.join(unused)}"


def test_page_and_console_speak_one_protocol(page: Path) -> None:
    assert f"const PROTOCOL = {messages.PROTOCOL};" in (page / "connection.js").read_text()


def test_every_outcome_has_its_words(page: Path) -> None:
    """In the list of answers, and for who was about to answer."""
    known = texts(page)
    assert set(known["outcomes"]) == {outcome.value for outcome in Outcome}
    first = {name for name in known["faults"] if name.startswith("first_")}
    assert first == {f"first_{outcome.value}" for outcome in Outcome} | {"first_unknown"}

# SPDX-License-Identifier: Apache-2.0
"""What is measured otherwise, or in part, does not take the place of what the documents have."""

from __future__ import annotations

import sys
from types import ModuleType
from unittest.mock import Mock

import pytest

from bench import flat, horizon, late_corrections, snapshots, stress


@pytest.mark.parametrize(
    ("program", "works", "arguments", "fault"),
    [
        (flat, "load_network", ["--frames", "2000"], "leave out --frames, or --docs"),
        (horizon, "Shapes", ["--told", "0", "3"], "leave out --told, or"),
        (snapshots, "load_network", ["--frames", "1"], "leave out --frames, or"),
        (stress, "lazyxmem", ["data", "--sequences", "dog"], "leave out --sequences, or"),
        (
            late_corrections,
            "load_network",
            ["--sequences", "pond", "--delays", "2"],
            "leave out --sequences, --delays, or",
        ),
        (
            late_corrections,
            "load_network",
            ["--dataset", "nowhere"],
            "nowhere is not there; name another by --dataset",
        ),
    ],
)
def test_the_documents_keep_what_was_measured(
    program: ModuleType,
    works: str,
    arguments: list[str],
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before hours of work."""
    monkeypatch.setattr(program, works, Mock(side_effect=AssertionError("it begins")))
    monkeypatch.setattr(sys, "argv", [program.__name__, *arguments, "--docs"])
    with pytest.raises(SystemExit):
        program.main()
    assert fault in capsys.readouterr().err


def test_the_delay_that_the_picture_shows_is_asked_for_before_hours_of_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    works = Mock(side_effect=AssertionError("it begins"))
    monkeypatch.setattr(late_corrections, "load_network", works)
    monkeypatch.setattr(sys, "argv", ["late_corrections", "--delays", "1", "4"])
    with pytest.raises(SystemExit):
        late_corrections.main()
    assert "--delays must have 2 among them" in capsys.readouterr().err


def test_what_the_documents_describe_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(horizon, "Shapes", Mock(side_effect=AssertionError("it begins")))
    monkeypatch.setattr(sys, "argv", ["horizon", "--docs"])
    with pytest.raises(AssertionError, match="it begins"):
        horizon.main()

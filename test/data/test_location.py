# SPDX-License-Identifier: Apache-2.0
"""Where data sets lie is told by an option or the environment, not by the program."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from lazyxmem_ros.data.location import add_data_argument


@pytest.mark.parametrize(
    ("variable", "arguments", "folder"),
    [
        (None, [], "data"),
        ("", [], "data"),
        ("/sets", [], "/sets"),
        ("/sets", ["--data", "mine"], "mine"),
    ],
)
def test_the_option_goes_before_the_variable(
    variable: str | None, arguments: list[str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAZYXMEM_DATA", raising=False)
    if variable is not None:
        monkeypatch.setenv("LAZYXMEM_DATA", variable)
    parser = argparse.ArgumentParser()
    add_data_argument(parser)
    assert parser.parse_args(arguments).data == Path(folder)

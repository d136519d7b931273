# SPDX-License-Identifier: Apache-2.0
"""Names that nobody knows, and the ones that were probably meant."""

import re
from pathlib import Path

import pytest

from lazyxmem_ros.spelling import misspelt_arguments

LAUNCH = Path(__file__).parents[1] / "launch"
ARGUMENTS = {
    name: re.findall(
        r'DeclareLaunchArgument\(\s*"(\w+)"', (LAUNCH / f"{name}.launch.py").read_text()
    )
    for name in ("track", "replay")
}


@pytest.mark.parametrize(
    ("file", "given", "meant"),
    [
        ("track", "iamge", "image"),
        ("track", "param_file", "params_file"),
        ("track", "operatr", "operator"),
        ("replay", "bags", "bag"),
        ("replay", "img_topic", "image_topic"),
    ],
)
def test_what_was_meant_is_found(file: str, given: str, meant: str) -> None:
    [said] = misspelt_arguments([f"{given}:=x"], ARGUMENTS[file])
    assert said.startswith(f"there is no launch argument {given}, ")
    assert said.endswith(f"did you mean {meant}?")


def test_arguments_of_the_other_file_and_what_is_none_are_let_be() -> None:
    """`replay.launch.py` includes `track.launch.py`, and takes its arguments."""
    given = [f"{name}:=x" for names in ARGUMENTS.values() for name in names]
    for known in ARGUMENTS.values():
        assert misspelt_arguments([*given, "map_file:=x", "--debug", "iamge"], known) == []

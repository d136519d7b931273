# SPDX-License-Identifier: Apache-2.0
"""Finds what somebody probably meant, for the launch files and the nodes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

NEAR = 0.7
"""Of difflib's similarity: names of two arguments of the launch files are less alike."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like one that nobody knows, or "" where none is."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=NEAR)), "")


def misspelt_arguments(argv: Sequence[str], known: Sequence[str]) -> list[str]:
    """Sentences about launch arguments NAME:=VALUE that are none, but nearly are one of `known`.

    ROS takes any name without a word. Others may be those of a launch file that includes this one.
    """
    names = [name for name, given, _ in (text.partition(":=") for text in argv) if given]
    return [
        f"there is no launch argument {name}, so it changes nothing; did you mean {near}?"
        for name in names
        if name not in known and (near := nearest(name, known))
    ]

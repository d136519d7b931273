# SPDX-License-Identifier: Apache-2.0
"""Masks that objects are shown by, and those of frames which have yet to arrive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

from lazyxmem_ros.basics import BoolMask

MAX_EARLY_MASKS = 8


@dataclass(frozen=True, eq=False)
class GivenMasks:
    """Masks {id: bool [H, W]} shown on the frame of `stamp` (ns), with texts {id: label}.

    topic: where they came from, for messages.
    """

    stamp: int
    masks: Mapping[int, BoolMask]
    labels: Mapping[int, str] = field(default_factory=dict)
    topic: str = ""


class EarlyMasks:
    """The newest MAX_EARLY_MASKS of them."""

    def __init__(self, refuse: Callable[[str, str, str], None]) -> None:
        """refuse(topic, kind, fault): counts and reports masks that are dropped."""
        self._refuse = refuse
        self._early: list[GivenMasks] = []

    def keep(self, given: GivenMasks) -> None:
        """Keep masks; the oldest are dropped where there are too many."""
        if len(self._early) >= MAX_EARLY_MASKS:
            self.drop(self._early.pop(0))
        self._early.append(given)

    def due(self, stamp: int) -> list[tuple[int, list[GivenMasks]]]:
        """Takes those of the frames up to `stamp` (ns), by their frames' stamps, oldest first."""
        due = sorted((g for g in self._early if g.stamp <= stamp), key=attrgetter("stamp"))
        self._early = [given for given in self._early if given.stamp > stamp]
        return [(wanted, list(same)) for wanted, same in groupby(due, key=attrgetter("stamp"))]

    def drop(self, given: GivenMasks) -> None:
        """Report masks as dropped for want of their frame."""
        self._refuse(
            given.topic,
            "frame never came",
            f"the frame of stamp {given.stamp} ns did not arrive in time; its masks are dropped",
        )

    def clear(self) -> None:
        """Forget them all."""
        self._early.clear()

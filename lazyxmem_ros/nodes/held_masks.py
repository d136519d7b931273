# SPDX-License-Identifier: Apache-2.0
"""Masks that were shown on frames which have yet to arrive."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from operator import attrgetter

from lazyxmem_ros.nodes.session_types import GivenMasks

MAX_HELD_MASKS = 8


class HeldMasks:
    """The newest MAX_HELD_MASKS of them."""

    def __init__(self, refuse: Callable[[str, str, str], None]) -> None:
        """refuse(topic, kind, fault): counts and reports masks that are dropped."""
        self._refuse = refuse
        self._held: list[GivenMasks] = []

    def hold(self, given: GivenMasks) -> None:
        """Keep masks; the oldest are dropped where there are too many."""
        if len(self._held) >= MAX_HELD_MASKS:
            self.drop(self._held.pop(0))
        self._held.append(given)

    def due(self, stamp: int) -> list[tuple[int, list[GivenMasks]]]:
        """Takes those of the frames up to `stamp` (ns), by their frames' stamps, oldest first."""
        due = sorted((g for g in self._held if g.stamp <= stamp), key=attrgetter("stamp"))
        self._held = [given for given in self._held if given.stamp > stamp]
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
        self._held.clear()

# SPDX-License-Identifier: Apache-2.0
"""What happens on a frame after it was opened: the same in the same order makes the same of it."""

from __future__ import annotations

from dataclasses import dataclass

from lazyxmem_ros.basics import BoolMask
from lazyxmem_ros.lazy.config import Source
from lazyxmem_ros.lazy.packed import PackedMask


@dataclass(eq=False)
class Said:
    """A corrected mask as it was given, whatever other objects have taken of it.

    Attributes:
        object_id: whose it is. source: who gave it. mask: of the frame's size.
        named: the stamp (ns) that the correction named; it may have been applied to a later frame.
        learnt: whether memory learns it, as the settings were when the frame was closed or, where
            it came later, when it came.
    """

    object_id: int
    source: Source
    mask: PackedMask
    named: int
    learnt: bool


@dataclass(frozen=True, eq=False)
class Corrected:
    """A corrected mask as it held when it came; see `Said`."""

    object_id: int
    source: Source
    mask: BoolMask
    learnt: bool


@dataclass(frozen=True, eq=False)
class Shown:
    """Masks given after the frame was opened: object id -> bool [H, W]."""

    masks: dict[int, BoolMask]


@dataclass(frozen=True)
class Resumed:
    """The pause of an object ended."""

    object_id: int


@dataclass(frozen=True)
class Removed:
    """An object was removed; `closed`: when the frame was closed already."""

    object_id: int
    closed: bool


Event = Said | Shown | Resumed | Removed
"""What happened on a frame after it was opened."""


def without(event: Event, object_id: int) -> Event | None:
    """What is left of an event where nothing was said of an object."""
    if isinstance(event, Shown):
        masks = {i: mask for i, mask in event.masks.items() if i != object_id}
        return Shown(masks) if masks else None
    return event if isinstance(event, Removed) or event.object_id != object_id else None

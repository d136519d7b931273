# SPDX-License-Identifier: Apache-2.0
"""Settings, each declared once: as a field of a dataclass that knows its text, range and unit.

    @dataclass(frozen=True)
    class Config:
        timeout: int = setting(
            10 * SECOND,
            "Seconds that an answer may take; 0 = no limit.",
            bounds=(0, DAY),
            unit=Unit.NANOSECONDS,
        )

        def __post_init__(self) -> None:
            check(self)

All else is made from that: the check of the range, the node's parameters (`nodes.parameters`), the
parameter file and the table in the documents (`tools/parameters.py`), the options of
`lazyxmem evaluate`. People give and read values in another form than the dataclass has them in:
seconds for nanoseconds, a text for a member of an Enum. That form is called *shown* here.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from numbers import Real
from typing import Any, TypeVar

from lazyxmem_ros.basics import SECOND

T = TypeVar("T")

Bounds = tuple[float, float]
"""The least and the greatest value, inclusive."""

NOT_NEGATIVE: Bounds = (0.0, math.inf)
SHARE: Bounds = (0.0, 1.0)
DAY = 86_400 * SECOND
"""Nanoseconds."""


class ConfigError(ValueError):
    """A setting outside its range; the message names the setting, its range and its value."""


class Changes(enum.Enum):
    """When a setting may change."""

    NEVER = "read-only"
    UNCONFIGURED = "while the node is unconfigured"
    ANY_TIME = "at any time"


class Unit(enum.Enum):
    """What a number counts. The value is the word for it, with which the setting's text begins."""

    SECONDS = "seconds"
    NANOSECONDS = "nanoseconds"
    """Held in nanoseconds, shown in seconds."""
    FRAMES = "frames"
    TOKENS = "tokens"
    PIXELS = "pixels"
    BYTES = "bytes"

    @property
    def shown(self) -> str:
        """The word for the unit in which people give and read the number."""
        return (Unit.SECONDS if self is Unit.NANOSECONDS else self).value


@dataclass(frozen=True)
class Setting:
    """What is known of one setting. `default` and `bounds` are as the dataclass holds them.

    heading: begins a new part of the parameter file, which goes on to the next heading.
    """

    name: str
    default: Any
    text: str
    bounds: Bounds | None
    unit: Unit | None
    changes: Changes
    heading: str

    @property
    def choices(self) -> tuple[str, ...]:
        """The texts that are shown for the members of an Enum; nothing for any other setting."""
        if not isinstance(self.default, enum.Enum):
            return ()
        return tuple(member.value for member in type(self.default))

    @property
    def shown_bounds(self) -> Bounds | None:
        """The bounds as people read them."""
        if self.bounds is None:
            return None
        low, high = self.bounds
        return self.shown(low), self.shown(high)

    def shown(self, value: Any) -> Any:
        """A value of the dataclass as people give and read it."""
        if isinstance(value, enum.Enum):
            return value.value
        return value / SECOND if self.unit is Unit.NANOSECONDS else value

    def held(self, shown: Any) -> Any:
        """The value of the dataclass for one that people give; `check` tells whether it may be."""
        if isinstance(self.default, enum.Enum):
            return type(self.default)(shown) if shown in self.choices else shown
        if self.unit is not Unit.NANOSECONDS:
            return shown
        return round(shown * SECOND) if math.isfinite(shown) else shown

    def fault(self, value: Any) -> str | None:
        """Why the setting cannot have a value of the dataclass; None where it can."""
        if isinstance(self.default, (bool, enum.Enum)):
            if isinstance(value, type(self.default)):
                return None
            choices = self.choices or ("true", "false")
            return f"{self.name} must be one of {', '.join(choices)}, not {value!r}"
        if not isinstance(value, Real):
            return f"{self.name} must be a number, not {value!r}"
        unit = self.unit.shown if self.unit else ""
        return range_fault(self.name, self.shown(value), self.shown_bounds, unit=unit)


def setting(
    default: T,
    text: str,
    *,
    bounds: Bounds | None = None,
    unit: Unit | None = None,
    changes: Changes = Changes.ANY_TIME,
    heading: str = "",
) -> T:
    """A dataclass field that is a setting.

    Args:
        default: a bool, a number or a member of an Enum, whose values are texts.
        text: what the setting does, in sentences; begins with the unit if it has one.
        bounds: of a number, in the unit of the default.
        unit: what a number counts.
        changes: when it may change.
        heading: see Setting.
    """
    about = Setting("", default, text, bounds, unit, changes, heading)
    made: T = field(default=default, metadata={Setting: about})
    return made


@cache
def settings_of(config: type) -> tuple[Setting, ...]:
    """The settings of a dataclass, in their order; every field of it is one."""
    return tuple(replace(entry.metadata[Setting], name=entry.name) for entry in fields(config))


def check(config: Any) -> None:
    """Raises ConfigError for the first setting of a dataclass's instance that is out of range."""
    for entry in settings_of(config.__class__):
        fault = entry.fault(getattr(config, entry.name))
        if fault:
            raise ConfigError(fault)


def shown(config: Any) -> dict[str, Any]:
    """All settings of a dataclass's instance as people give and read them, by name."""
    return {
        entry.name: entry.shown(getattr(config, entry.name))
        for entry in settings_of(config.__class__)
    }


def held(config: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a dataclass for those of its settings that people give values for."""
    return {
        entry.name: entry.held(values[entry.name])
        for entry in settings_of(config)
        if entry.name in values
    }


def range_fault(
    name: str,
    value: Any,
    bounds: Bounds | None,
    choices: Sequence[str] = (),
    *,
    unit: str = "",
) -> str | None:
    """Why a value cannot be, where it is outside its bounds or none of the choices; else None."""
    if choices and value not in choices:
        return f"{name} must be one of {', '.join(choices)}, not {value!r}"
    if isinstance(value, float) and math.isnan(value):
        return f"{name} must be a number, not NaN"
    if bounds is None or bounds[0] <= value <= bounds[1]:
        return None
    low, high = (f"{bound:.16g}" for bound in bounds)
    allowed = f"at least {low}" if math.isinf(bounds[1]) else f"in {low} .. {high}"
    return f"{name} must be {allowed}{unit and f' {unit}'}, not {value}"

# SPDX-License-Identifier: Apache-2.0
"""Settings are declared once: their checks, and the forms that they have inside and for people."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace
from typing import Any

import pytest

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.lazy import HoldRule, LazyConfig
from lazyxmem_ros.settings import (
    NOT_NEGATIVE,
    ConfigError,
    Unit,
    check,
    held,
    setting,
    settings_of,
    shown,
)
from lazyxmem_ros.xmem import MemoryConfig


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Config:
    paint: bool = setting(True, "Whether to paint.")
    colour: Colour = setting(Colour.RED, "What to paint with.")
    share: float = setting(0.5, "How much to paint.", bounds=(0.0, 1.0))
    rate: float = setting(math.inf, "How quickly.", bounds=NOT_NEGATIVE)
    coats: int = setting(2, "Coats of paint.", bounds=(1, 9))
    drying: int = setting(
        90 * SECOND,
        "Seconds between coats.",
        bounds=(0, 600 * SECOND),
        unit=Unit.NANOSECONDS,
    )

    def __post_init__(self) -> None:
        check(self)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"share": 1.5}, r"share must be in 0 \.\. 1, not 1\.5"),
        ({"share": math.nan}, "share must be a number, not NaN"),
        ({"share": "much"}, "share must be a number, not 'much'"),
        ({"rate": -1.0}, r"rate must be at least 0, not -1\.0"),
        ({"coats": 0}, r"coats must be in 1 \.\. 9, not 0"),
        ({"drying": -2 * SECOND}, r"drying must be in 0 \.\. 600 seconds, not -2\.0"),
        ({"colour": "red"}, "colour must be one of red, blue, not 'red'"),
        ({"paint": "false"}, "paint must be one of true, false, not 'false'"),
    ],
)
def test_a_fault_names_setting_range_and_value(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=f"^{fault}$"):
        Config(**changes)


def test_people_give_and_read_seconds_and_texts() -> None:
    config = Config(colour=Colour.BLUE, drying=1_500_000_000)
    people = shown(config)
    assert people == {
        "paint": True,
        "colour": "blue",
        "share": 0.5,
        "rate": math.inf,
        "coats": 2,
        "drying": 1.5,
    }
    assert Config(**held(Config, people)) == config
    assert held(Config, {"drying": 0.25, "other": 1}) == {"drying": SECOND // 4}
    (drying,) = (entry for entry in settings_of(Config) if entry.name == "drying")
    assert drying.shown_bounds == (0.0, 600.0)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"drying": math.inf}, "drying must be in"),
        ({"drying": math.nan}, "drying must be a number"),
        ({"colour": "green"}, "colour must be one of red, blue, not 'green'"),
    ],
)
def test_what_people_cannot_give_is_named(given: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        Config(**held(Config, given))


@pytest.mark.parametrize("config", [LazyConfig, MemoryConfig])
def test_texts_are_sentences_that_begin_with_the_unit(config: type) -> None:
    for entry in settings_of(config):
        assert entry.text.endswith("."), entry.name
        first = entry.text.replace(";", "").split()[0].lower()
        assert entry.unit is None or first == entry.unit.shown, entry.name


def test_the_settings_of_the_core_have_both_forms() -> None:
    lazy = replace(LazyConfig(), hold_rule=HoldRule.ALL, lost_after=3 * SECOND // 2)
    assert shown(lazy)["hold_rule"] == "all"
    assert shown(lazy)["lost_after"] == 1.5
    assert LazyConfig(**held(LazyConfig, shown(lazy))) == lazy

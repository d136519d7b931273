# SPDX-License-Identifier: Apache-2.0
"""JSON that was read from somewhere: every field is there, is what it should be, and is used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

from lazyxmem_ros.basics import MAX_OBJECT_ID

KindT = TypeVar("KindT")
LARGEST = 2**63 - 1
"""Of integers: what a tensor or a stamp can hold."""


class ContentError(ValueError):
    """Content that does not fit; the text says which field and why."""


class Fields:
    """A JSON object, whose fields are taken out one after the other. All raise ContentError."""

    def __init__(self, values: dict[str, Any], name: str) -> None:
        """name: what it is, for messages."""
        self._values = values
        self._used: set[str] = set()
        self._name = name

    @classmethod
    def of(cls, value: Any, name: str) -> Fields:
        """The fields of what should be a JSON object."""
        if not isinstance(value, dict):
            raise ContentError(f"{name} is {_kind(value)}, not an object with fields")
        return cls(value, name)

    def end(self) -> None:
        """That was all: a field that nobody has taken is one too many."""
        more = sorted(set(self._values) - self._used)
        if more:
            raise ContentError(f"{self._name} has fields that are not known: {', '.join(more)}")

    def take(self, field: str, kind: type[KindT]) -> KindT:
        """A field of this type (an integer is no bool)."""
        value = self._value(field)
        if type(value) is not kind:
            raise ContentError(f"{self._name}: {field} is {_kind(value)}, not {kind.__name__}")
        return value

    # ---- objects in objects

    def fields(self, field: str) -> Fields:
        """The fields of a field."""
        return Fields.of(self._value(field), f"{self._name}: {field}")

    def optional_fields(self, field: str) -> Fields | None:
        """The same; None for null."""
        return None if self._value(field) is None else self.fields(field)

    def list_of_fields(self, field: str) -> list[Fields]:
        """The fields of each item of a list."""
        items = self.take(field, list)
        return [Fields.of(item, f"{self._name}: {field}[{i}]") for i, item in enumerate(items)]

    # ---- values

    def text(self, field: str) -> str:
        """A text."""
        return self.take(field, str)

    def choice(self, field: str, choices: Sequence[str]) -> str:
        """One of some texts."""
        text = self.text(field)
        if text not in choices:
            known = ", ".join(choices)
            raise ContentError(f"{self._name}: {field} is {text!r}, not one of {known}")
        return text

    def boolean(self, field: str) -> bool:
        """True or false."""
        return self.take(field, bool)

    def integer(self, field: str) -> int:
        """An integer of 64 bits."""
        return self._integer(field, self._value(field))

    def optional_integer(self, field: str) -> int | None:
        """The same; None for null."""
        return None if self._value(field) is None else self.integer(field)

    def optional_number(self, field: str) -> float | None:
        """A finite number; None for null."""
        value = self._value(field)
        if value is None:
            return None
        if type(value) is int:
            value = self._integer(field, value)
        elif type(value) is not float or not math.isfinite(value):
            raise ContentError(f"{self._name}: {field} is {value!r}, not a finite number")
        return float(value)

    def integers(self, field: str) -> list[int]:
        """A list of integers."""
        return [self._integer(field, value) for value in self.take(field, list)]

    def ids(self, field: str) -> list[int]:
        """A list of object ids, each once."""
        ids = self.integers(field)
        if len(set(ids)) != len(ids) or not all(1 <= i <= MAX_OBJECT_ID for i in ids):
            raise ContentError(f"{self._name}: {field} are not object ids, each once")
        return ids

    def pairs(self, field: str) -> dict[int, int]:
        """A list of pairs of integers, of which the first ones differ."""
        pairs = self.take(field, list)
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise ContentError(f"{self._name}: {field} are not pairs")
        found = {self._integer(field, a): self._integer(field, b) for a, b in pairs}
        if len(found) != len(pairs):
            raise ContentError(f"{self._name}: {field} names an object twice")
        return found

    def size(self, field: str) -> tuple[int, int] | None:
        """Height and width, at least 1; None for null."""
        if self._value(field) is None:
            return None
        sides = self.integers(field)
        if len(sides) != 2 or min(sides) < 1:
            raise ContentError(f"{self._name}: {field} is no height and width")
        return sides[0], sides[1]

    # ---- how

    def _value(self, field: str) -> Any:
        self._used.add(field)
        try:
            return self._values[field]
        except KeyError:
            raise ContentError(f"{self._name} lacks {field}") from None

    def _integer(self, field: str, value: Any) -> int:
        if type(value) is not int or abs(value) > LARGEST:
            raise ContentError(f"{self._name}: {field} has {_kind(value)}, not an integer")
        return value


def _kind(value: Any) -> str:
    """What a JSON value is, in a few words."""
    if isinstance(value, (dict, list)):
        return f"a {'list' if isinstance(value, list) else 'object'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."

# SPDX-License-Identifier: Apache-2.0
"""The stamps of recorded messages: where a message of some type has them, and how to move them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from lazyxmem_ros.basics import StampRangeError, stamp_of
from lazyxmem_ros.data.errors import BagError
from lazyxmem_ros.nodes.bags.source import header_stamp, with_header_stamp
from lazyxmem_ros.nodes.conversions import time_message

UNSET = 0
HEADER = "std_msgs/Header"
STAMPED_TYPES = (HEADER, "builtin_interfaces/Time")
"""Of a message's first field, where that is a stamp or begins with one."""
_MESSAGE_NAME = re.compile(r"[a-z]\w*/[A-Z]\w*")
"""Of a message's type in that of a field, which may be a sequence of them."""
_TYPE_NAME = re.compile(r"([a-z]\w*)/msg/([A-Z]\w*)")


class Stamps:
    """Moves the stamps of one type's serialized messages: that with which they begin, and
    those of the headers in them, as of `/tf`.
    """

    def __init__(self, message_type: Any) -> None:
        """message_type: the class of the messages."""
        first = next(iter(message_type.get_fields_and_field_types().values()), "")
        self._type = message_type
        self._leads = first in STAMPED_TYPES
        self._nested = _with_headers(message_type)[first == HEADER :]

    def moved(self, data: bytes, shift: int) -> tuple[bytes, list[int]]:
        """The message with its stamps so much later (ns), and all else as it was; and those of its
        stamps (ns), as they were, that are set and valid, for no others are moved.

        Raises StampRangeError where they come to a time that no message holds, and BagError where
        the bytes are found to be no message of the type.
        """
        found = []
        if self._leads and (stamp := _leading(data)) != UNSET:
            found.append(stamp)
            if shift:
                data = with_header_stamp(data, stamp + shift)
        if not self._nested:
            return data, found
        try:
            message = deserialize_message(data, self._type)
        except RuntimeError as error:
            raise BagError(f"{len(data)} bytes are no {self._type.__name__}: {error}") from error
        for header in _headers_in(message, self._nested):
            if (stamp := _stamp(header)) != UNSET:
                found.append(stamp)
                header.stamp = time_message(stamp + shift)
        return (bytes(serialize_message(message)) if shift else data), found


def find_message_type(type_name: str) -> Any | None:
    """The class of a type such as `sensor_msgs/msg/Image`, or None where it is not installed, or
    none of a topic's messages.
    """
    found = _TYPE_NAME.fullmatch(type_name)
    if found is None:
        return None
    try:
        return getattr(importlib.import_module(f"{found[1]}.msg"), found[2], None)
    except ImportError:
        return None


@cache
def _has_header(field_type: str) -> bool:
    """Whether there is a header in a field such as `sequence<geometry_msgs/TransformStamped>`."""
    found = _MESSAGE_NAME.search(field_type)
    if found is None:
        return False
    if found[0] == HEADER:
        return True
    kind = find_message_type(found[0].replace("/", "/msg/"))
    return kind is not None and bool(_with_headers(kind))


def _with_headers(message: Any) -> list[str]:
    """The fields of a message, or of its class, in which there is a header."""
    fields = message.get_fields_and_field_types()
    return [name for name, kind in fields.items() if _has_header(kind)]


def _headers_in(message: Any, names: Iterable[str]) -> Iterator[Header]:
    """All headers in these fields of a message, those of the messages in it too."""
    for name in names:
        value = getattr(message, name)
        for each in [value] if hasattr(value, "get_fields_and_field_types") else value:
            if isinstance(each, Header):
                yield each
            else:
                yield from _headers_in(each, _with_headers(each))


def _leading(data: bytes) -> int:
    """The stamp (ns) with which a message begins, UNSET where it is no time."""
    try:
        return header_stamp(data)
    except StampRangeError:
        return UNSET


def _stamp(header: Header) -> int:
    """The stamp (ns) of a header, UNSET where it is no time."""
    try:
        return stamp_of(header.stamp)
    except StampRangeError:
        return UNSET

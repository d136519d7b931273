# SPDX-License-Identifier: Apache-2.0
"""Reads rosbag2 bags (sqlite3, MCAP) as serialized messages; errors say what is wrong."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lazyxmem_ros.basics import stamp_fields, stamp_from, user_path
from lazyxmem_ros.data.bag_storage import OpenBag, explained, is_ros1, serialized_messages
from lazyxmem_ros.data.errors import BagError
from lazyxmem_ros.data.slowness import Tell, silent

_CDR_LITTLE_ENDIAN = 1
_CDR_PREFIX_BYTES = 4
"""Serialized messages begin with the encapsulation; a leading Header follows right after."""


@dataclass(frozen=True)
class BagTopic:
    """One topic of a bag: its name, its type such as `sensor_msgs/msg/Image`, what it offered."""

    name: str
    type_name: str
    transient_local: bool


@dataclass(frozen=True)
class SerializedMessage:
    """One recorded message.

    recorded_at: nanoseconds since the epoch. data: CDR with its four-byte encapsulation.
    """

    topic: str
    recorded_at: int
    data: bytes


class BagSource:
    """An open bag. Used as a context manager."""

    def __init__(self, path: str | Path, topics: Sequence[str] = (), tell: Tell = silent) -> None:
        """path: the bag's folder, or a single file of it. topics: the ones to read; none = all.

        tell: gets a sentence now and then where opening takes long.

        Raises BagError for a path that is not a bag, one that is damaged, and a topic that is not
        in it (the error lists those that are).
        """
        self.path = user_path(path)
        if not self.path.exists():
            raise BagError(f"there is no bag at {self.path}")
        self._reader = OpenBag(self.path, tell)
        try:
            if any(map(is_ros1, self._reader.connections)):
                raise BagError(
                    f"{self.path} is a recording of ROS 1: `rosbags-convert` makes one of ROS 2 of "
                    "a .bag file"
                )
            with explained(self.path):  # metadata may hold anything
                self.topics = self._choose(topics)
        except BagError:
            self._reader.close()
            raise

    def __enter__(self) -> BagSource:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    @property
    def start(self) -> int:
        """When the first message was recorded, nanoseconds since the epoch."""
        return int(self._reader.start_time)

    @property
    def end(self) -> int:
        """When the last message was recorded, nanoseconds since the epoch."""
        return max(self.start, int(self._reader.end_time) - 1)

    def messages(self, start: int, stop: int) -> Iterator[SerializedMessage]:
        """The chosen topics' messages recorded in start <= t <= stop, in order of recording.

        Raises BagError where the bag turns out to be cut short or damaged, once all that is intact
        has been yielded.
        """
        names = {topic.name for topic in self.topics}
        connections = [c for c in self._reader.connections if c.topic in names]
        for connection, recorded_at, data in serialized_messages(
            self._reader, connections, start=start, stop=stop + 1
        ):
            yield SerializedMessage(connection.topic, recorded_at, data)

    def _choose(self, wanted: Sequence[str]) -> tuple[BagTopic, ...]:
        found: dict[str, BagTopic] = {}
        for connection in self._reader.connections:
            found[connection.topic] = BagTopic(
                connection.topic, connection.msgtype, _is_transient_local(connection)
            )
        missing = [name for name in wanted if name not in found]
        if missing:
            raise BagError(
                f"bag {self.path} has no topic {', '.join(missing)}; it has "
                + (", ".join(f"{t.name} ({t.type_name})" for t in found.values()) or "none")
            )
        return tuple(found[name] for name in wanted) if wanted else tuple(found.values())


def _is_transient_local(connection: Any) -> bool:
    profiles = getattr(connection.ext, "offered_qos_profiles", None) or []
    return any(getattr(profile.durability, "name", "") == "TRANSIENT_LOCAL" for profile in profiles)


def header_stamp(data: bytes) -> int:
    """The stamp (ns) of a serialized message that begins with a std_msgs/Header or a Time.

    Raises StampRangeError where it is none, and BagError for a message that is too short.
    """
    return stamp_from(*struct.unpack_from(_stamp_format(data), data, _CDR_PREFIX_BYTES))


def with_header_stamp(data: bytes, stamp: int) -> bytes:
    """The same serialized message with another stamp (ns) in its leading Header or Time.

    Raises StampRangeError for a stamp that a message cannot hold.
    """
    layout = _stamp_format(data)
    end = _CDR_PREFIX_BYTES + struct.calcsize(layout)
    return data[:_CDR_PREFIX_BYTES] + struct.pack(layout, *stamp_fields(stamp)) + data[end:]


def _stamp_format(data: bytes) -> str:
    if len(data) < _CDR_PREFIX_BYTES + 8:
        raise BagError(f"a message of {len(data)} bytes is too short to hold a header")
    return "<iI" if data[1] & _CDR_LITTLE_ENDIAN else ">iI"

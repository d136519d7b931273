# SPDX-License-Identifier: Apache-2.0
"""MCAP files of any content, record by record (https://mcap.dev/spec)."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"\x89MCAP0\r\n"


@dataclass(frozen=True)
class Channel:
    """A topic with its schema, and its messages as (ns, bytes)."""

    topic: str
    type_name: str
    schema_encoding: str
    schema: bytes
    messages: Sequence[tuple[int, bytes]]
    encoding: str = "cdr"


def write_mcap(path: Path, channels: Sequence[Channel], *, profile: str = "ros2") -> None:
    """One chunk per channel, with index and summary, as recorders write it."""
    data = MAGIC + record(0x01, text(profile) + text("test"))
    schemas, descriptions, indexes = b"", b"", b""
    counts: Counter[int] = Counter()
    times = [time for channel in channels for time, _ in channel.messages]
    for number, channel in enumerate(channels, start=1):
        schema = struct.pack("<H", number) + text(channel.type_name)
        schema = record(0x03, schema + text(channel.schema_encoding) + sized(channel.schema))
        about = struct.pack("<HH", number, number) + text(channel.topic)
        about = record(0x04, about + text(channel.encoding) + sized(b""))
        content, entries = schema + about, b""
        for time, payload in channel.messages:
            entries += struct.pack("<QQ", time, len(content))
            content += record(0x05, struct.pack("<HIQQ", number, 0, time, time) + payload)
        first, last = channel.messages[0][0], channel.messages[-1][0]
        chunk = struct.pack("<QQQI", first, last, len(content), 0)
        chunk = record(0x06, chunk + text("") + struct.pack("<Q", len(content)) + content)
        index = record(0x07, struct.pack("<H", number) + sized(entries))
        place = struct.pack("<QQQQ", first, last, len(data), len(chunk))
        offsets = sized(struct.pack("<HQ", number, len(data) + len(chunk)))
        sizes = struct.pack("<QQ", len(content), len(content))
        indexes += record(0x08, place + offsets + struct.pack("<Q", len(index)) + text("") + sizes)
        data += chunk + index
        schemas, descriptions = schemas + schema, descriptions + about
        counts[number] = len(channel.messages)
    data += record(0x0F, bytes(4))
    numbers = (sum(counts.values()), len(channels), len(channels), 0, 0, len(channels))
    statistics = struct.pack("<QHIIIIQQ", *numbers, min(times), max(times))
    statistics += sized(b"".join(struct.pack("<HQ", *entry) for entry in counts.items()))
    summary = schemas + descriptions + record(0x0B, statistics) + indexes
    footer = record(0x02, struct.pack("<QQI", len(data), 0, 0))
    path.write_bytes(data + summary + footer + MAGIC)


def record(kind: int, content: bytes) -> bytes:
    return struct.pack("<BQ", kind, len(content)) + content


def sized(content: bytes) -> bytes:
    return struct.pack("<I", len(content)) + content


def text(value: str) -> bytes:
    return sized(value.encode())

# SPDX-License-Identifier: Apache-2.0
"""MCAP files that `rosbags` does not open: cut short, or with channels that are not ROS 2's.

`rosbags` goes by the summary at the end of a file. A recording that was cut short has none, and one
channel of another kind (protobuf, JSON, ROS 1) in it makes the whole file unreadable. `amended`
shows such a file with another summary at its end, of the records that are intact and of ROS. The
file itself is only read. The format is at https://mcap.dev/spec.
"""

from __future__ import annotations

import io
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from rosbags.rosbag2.storage_mcap import decompress

MAGIC = b"\x89MCAP0\r\n"
_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
_CHUNK_INDEX, _STATISTICS, _DATA_END = 0x08, 0x0B, 0x0F
_PREFIX = struct.Struct("<BQ")
"""Each record begins with its kind and the length of its content."""
_ROS_SCHEMAS = ("ros2msg", "ros2idl", "omgidl", "")
_ROS1_SCHEMA = "ros1msg"
ROS1_ENCODING = "ros1"
"""Of the messages of ROS 1's channels."""
_PROFILE = b"ros2"
_ENDLESS = (1 << 63) - 1


class McapError(Exception):
    """Not an MCAP file, or nothing in it is intact."""


class ForeignMcapError(McapError):
    """An MCAP file that is whole, and holds nothing of ROS."""


@dataclass(frozen=True)
class AmendedMcap:
    """What `rosbags` takes for the path of a file: the file's data with another summary.

    damage: why the file does not end as it should, None where it does.
    """

    path: Path
    pieces: tuple[bytes | tuple[int, int], ...]
    damage: str | None
    suffix: str = ".mcap"

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    def is_dir(self) -> bool:
        """A file is none."""
        return False

    def open(self, mode: Literal["rb"]) -> BinaryIO:
        """The amended file."""
        return io.BufferedReader(_Pieces(self.path.open(mode), self.pieces))


def amended(path: Path, progressed: Callable[[float], None]) -> AmendedMcap:
    """The file with a summary of what is intact and of ROS; raises McapError, OSError.

    progressed: is told the share of the file that was looked at, 0 to 1.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise McapError("it does not begin as an MCAP file does")
        contents = _scan(file, progressed)
    if not contents.channels:
        if contents.damage is not None:
            raise McapError(f"no intact channel of ROS is in it: {contents.damage}")
        others = f", but of {', '.join(sorted(contents.foreign))}" if contents.foreign else ""
        raise ForeignMcapError(
            f"holds no channel of ROS{others}; give a recording of a ROS topic of images"
        )
    header = _with_profile(contents.header)
    data = (len(MAGIC) + len(header), contents.end)
    return AmendedMcap(path, (MAGIC, header, data, contents.tail()), contents.damage)


@dataclass
class _Contents:
    """What a scan found.

    end: where the intact data ends, in bytes from the file's begin. schemas: of ROS; those of ROS 1
    are written as ROS 2's. foreign: the encodings of the others.
    """

    header: bytes = b""
    end: int = 0
    damage: str | None = None
    schemas: dict[int, bytes] = field(default_factory=dict)
    channels: dict[int, bytes] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)
    chunks: list[bytes] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)
    first: int = _ENDLESS
    last: int = 0

    def tail(self) -> bytes:
        """The end of the data, the summary and the footer."""
        records = [_record(_SCHEMA, content) for content in self.schemas.values()]
        records += [_record(_CHANNEL, content) for content in self.channels.values()]
        counts = b"".join(struct.pack("<HQ", *entry) for entry in self.counts.items())
        numbers = (sum(self.counts.values()), len(self.schemas), len(self.channels))
        times = (self.first if self.counts else 0, self.last)
        statistics = struct.pack("<QHIIIIQQ", *numbers, 0, 0, len(self.chunks), *times)
        records.append(_record(_STATISTICS, statistics + _sized(counts)))
        records += [_record(_CHUNK_INDEX, content) for content in self.chunks]
        data_end = _record(_DATA_END, bytes(4))
        footer = _record(_FOOTER, struct.pack("<QQI", self.end + len(data_end), 0, 0))
        return data_end + b"".join(records) + footer + MAGIC

    def take(self, kind: int, content: bytes) -> None:
        """Note a schema, channel or message."""
        if kind == _SCHEMA:
            (number,) = struct.unpack_from("<H", content)
            name_end = 6 + struct.unpack_from("<I", content, 2)[0]
            length = struct.unpack_from("<I", content, name_end)[0]
            encoding = content[name_end + 4 : name_end + 4 + length].decode()
            if encoding == _ROS1_SCHEMA:
                package, _, own = content[6:name_end].rpartition(b"/")
                name = package.removesuffix(b"/msg") + b"/msg/" + own
                definition = content[name_end + 4 + length :]
                self.schemas[number] = content[:2] + _sized(name) + _sized(b"ros2msg") + definition
            elif encoding in _ROS_SCHEMAS:
                self.schemas[number] = content
            else:
                self.foreign.add(encoding)
        elif kind == _CHANNEL:
            number, schema = struct.unpack_from("<HH", content)
            if schema in self.schemas:
                self.channels[number] = content
        elif kind == _MESSAGE:
            number, _, time = struct.unpack_from("<HIQ", content)
            if number in self.channels:
                self.counts[number] += 1
                self.first, self.last = min(self.first, time), max(self.last, time)


def _scan(file: BinaryIO, progressed: Callable[[float], None]) -> _Contents:
    """Go through the records from the begin to where they end or are damaged."""
    contents = _Contents(end=len(MAGIC))
    size = file.seek(0, io.SEEK_END)
    position = len(MAGIC)
    while True:
        file.seek(position)
        prefix = file.read(_PREFIX.size)
        if len(prefix) < _PREFIX.size:
            contents.damage = f"it ends at byte {size} without its index"
            return contents
        kind, length = _PREFIX.unpack(prefix)
        if kind in (_DATA_END, _FOOTER):
            return contents
        end = position + _PREFIX.size + length
        if end > size or kind == 0:
            contents.damage = f"it is cut short or damaged from byte {position} on"
            return contents
        try:
            if kind == _HEADER:
                contents.header = prefix + file.read(length)
            elif kind == _CHUNK:
                _take_chunk(contents, file.read(length), position, end)
            elif kind in (_SCHEMA, _CHANNEL, _MESSAGE):
                contents.take(kind, file.read(length))
        except Exception as error:  # noqa: BLE001 - zstd, lz4, struct: damaged data raise anything
            contents.damage = f"it is damaged from byte {position} on: {error}"
            return contents
        position = contents.end = end
        progressed(position / size)


def _take_chunk(contents: _Contents, content: bytes, begin: int, end: int) -> None:
    """Note what is in a chunk, and index it for `rosbags`."""
    first, last, size, checksum = struct.unpack_from("<QQQI", content)
    (name_length,) = struct.unpack_from("<I", content, 28)
    name = content[32 : 32 + name_length]
    (packed_size,) = struct.unpack_from("<Q", content, 32 + name_length)
    packed = content[40 + name_length :]
    if len(packed) != packed_size:
        raise McapError("a chunk of another length than it says")
    here: Counter[int] = Counter()
    for kind, record in _records(decompress(packed, name.decode(), size, checksum)):
        if kind == _MESSAGE:
            here[struct.unpack_from("<H", record)[0]] += 1
        contents.take(kind, record)
    # `rosbags` takes the number of a channel's messages from where their index records begin and
    # end, which it never reads: places are made up that give the right numbers.
    offsets, place = b"", end
    for channel, count in here.items():
        offsets += struct.pack("<HQ", channel, place)
        place += 15 + 16 * count
    contents.chunks.append(
        struct.pack("<QQQQ", first, last, begin, end - begin)
        + _sized(offsets)
        + struct.pack("<Q", place - end)
        + _sized(name)
        + struct.pack("<QQ", packed_size, size)
    )


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data):
        kind, length = _PREFIX.unpack_from(data, position)
        position += _PREFIX.size
        yield kind, data[position : position + length]
        position += length


def _with_profile(header: bytes) -> bytes:
    """The header record, of equal length, with the profile that `rosbags` asks for."""
    (length,) = struct.unpack_from("<I", header, _PREFIX.size)
    begin = _PREFIX.size + 4
    if header[begin : begin + length] == _PROFILE:
        return header
    content_length = len(header) - _PREFIX.size
    room = content_length - 8 - len(_PROFILE)  # for the library's name, which nobody reads
    if room < 0:
        raise McapError("its header is not that of a recording of ROS 2")
    return _record(_HEADER, _sized(_PROFILE) + _sized(bytes(room)))


def _record(kind: int, content: bytes) -> bytes:
    return _PREFIX.pack(kind, len(content)) + content


def _sized(content: bytes) -> bytes:
    return struct.pack("<I", len(content)) + content


class _Pieces(io.RawIOBase):
    """Bytes and stretches (begin, end) of a file, read one after the other as one file."""

    def __init__(self, file: BinaryIO, pieces: tuple[bytes | tuple[int, int], ...]) -> None:
        super().__init__()
        self._file = file
        self._pieces = []
        begin = 0
        for piece in pieces:
            length = len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
            self._pieces.append((begin, begin + length, piece))
            begin += length
        self._length = begin
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        for begin, end, piece in self._pieces:
            if begin <= self._position < end:
                start = self._position - begin
                wanted = min(len(view), end - self._position)
                if isinstance(piece, bytes):
                    data = piece[start : start + wanted]
                else:
                    self._file.seek(piece[0] + start)
                    data = self._file.read(wanted)
                view[: len(data)] = data
                self._position += len(data)
                return len(data)
        return 0

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

# SPDX-License-Identifier: Apache-2.0
"""Unpacks what is compressed in bags, within bounds: a few kilobytes may unpack to terabytes.

`rosbags` unpacks without any bound, so importing this module gives it ours. LZ4 needs none: at best
it packs to a 255th.
"""

from __future__ import annotations

import bz2
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir
from typing import Any, BinaryIO

from rosbags.rosbag1 import reader as rosbag1_reader
from rosbags.rosbag2 import reader as rosbag2_reader
from rosbags.rosbag2 import storage_mcap

from lazyxmem_ros.data.errors import BagError

zstd: Any = rosbag2_reader.zstd
"""The module of that name, wherever `rosbags` has it from."""

LEAST_LIMIT = 256 << 20
"""Bytes that anything may unpack to."""
MOST_RATIO = 500
"""More than this times the packed size is taken for an attack."""
SPARED_BYTES = 1 << 30
SPARED_SHARE = 0.1
"""Of the disk, which is left free; of a large one, SPARED_BYTES."""
_BLOCK_BYTES = 1 << 20


class TooLargeError(BagError):
    """Compressed data that unpack to more than is allowed, or than there is room for."""


def allowed_bytes(packed: int) -> int:
    """How many bytes so many packed ones may unpack to."""
    return max(LEAST_LIMIT, MOST_RATIO * packed)


def unpack(data: bytes, make: Callable[[], Any]) -> bytes:
    """All that the streams in `data` unpack to.

    make: a decompressor of one stream, such as bz2.BZ2Decompressor. Raises TooLargeError, EOFError
    where the last stream is cut short, and the decompressor's own errors.
    """
    room = allowed = allowed_bytes(len(data))
    parts = []
    while data:
        decompressor = make()
        while not decompressor.eof:
            part = decompressor.decompress(data, max_length=room + 1)
            data = b""
            room -= len(part)
            if room < 0:
                raise _too_large(allowed)
            if not part and decompressor.needs_input:
                raise EOFError("compressed data end early")
            parts.append(part)
        data = decompressor.unused_data or b""
    return parts[0] if len(parts) == 1 else b"".join(parts)


def unpack_zstd(data: bytes) -> bytes:
    """See unpack."""
    return unpack(data, zstd.ZstdDecompressor)


def unpack_bz2(data: bytes) -> bytes:
    """See unpack."""
    return unpack(data, bz2.BZ2Decompressor)


def unpack_file(packed: Path, to: Path, progressed: Callable[[float], None]) -> None:
    """Unpack a file of zstd into the folder of temporary files.

    progressed: is told the share of it that is read, 0 to 1.

    Raises TooLargeError, OSError, and zstd's own errors.
    """
    size = packed.stat().st_size
    with packed.open("rb") as file, BoundedZstd(file) as unpacked, to.open("wb") as out:
        while block := unpacked.read(_BLOCK_BYTES):
            out.write(block)
            progressed(file.tell() / max(size, 1))


class BoundedZstd:
    """What a file of zstd unpacks to, to be read and written into the folder of temporary files.

    Raises TooLargeError where that is too much, or would fill the disk.
    """

    def __init__(self, file: BinaryIO, mode: str = "rb") -> None:
        assert mode == "rb"
        self._packed = file.name
        self._file = zstd.open(file, "rb")
        self._room = self._allowed = allowed_bytes(os.fstat(file.fileno()).st_size)

    def __enter__(self) -> BoundedZstd:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """At most `size` bytes."""
        data: bytes = self._file.read(size)
        self._room -= len(data)
        if self._room < 0:
            raise _too_large(self._allowed)
        disk = shutil.disk_usage(gettempdir())
        spared = min(SPARED_BYTES, round(SPARED_SHARE * disk.total))
        if data and disk.free < spared + len(data):
            raise TooLargeError(
                f"{self._packed}: what it unpacks to does not fit into {gettempdir()}, where "
                f"{spared / 1e6:.0f} MB are to stay free; TMPDIR names another folder"
            )
        return data


def _too_large(allowed: int) -> TooLargeError:
    return TooLargeError(
        f"compressed data in it unpack to more than {allowed / 1e6:.0f} MB, {MOST_RATIO} times "
        "their size; if they are what they should be, unpack the bag by `zstd -d`, `mcap "
        "decompress` or `rosbag decompress` first"
    )


class _ZstdOfRosbags:
    """What rosbag2's reader uses of the module zstd."""

    open = BoundedZstd
    decompress = staticmethod(unpack_zstd)


setattr(rosbag2_reader, "zstd", _ZstdOfRosbags)  # noqa: B010 - to mypy it is a module
storage_mcap.DECOMPRESSORS["zstd"] = lambda data, _: unpack_zstd(data)
rosbag1_reader.decompressors["bz2"] = unpack_bz2

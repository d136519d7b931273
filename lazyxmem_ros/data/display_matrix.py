# SPDX-License-Identifier: Apache-2.0
"""What a video file's header says that OpenCV does not: how frames are shown, and for how long.

OpenCV knows a rotation, and says nothing of a mirror, nor of frames that are hidden. MP4 and MOV
files keep a matrix (ISO/IEC 14496-12, `tkhd` and `mvhd`), Matroska and WebM angles (RFC 9559,
`Projection`).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

_FIXED_POINT = 1 << 16
_SLACK = 0.01
"""A matrix whose small numbers are below this share of its large ones turns by quarters."""
_MOST_HEADER_BYTES = 64 << 20
_UNKNOWN_32, _UNKNOWN_64 = (1 << 32) - 1, (1 << 64) - 1
"""Durations that say nothing."""
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT, _TRACKS, _CLUSTER = 0x18538067, 0x1654AE6B, 0x1F43B675
_TRACK, _VIDEO, _PROJECTION = 0xAE, 0xE0, 0x7670
_YAW = 0x7673
"""Matroska's ProjectionPoseYaw, degrees: half a turn mirrors."""
_FLOATS = {4: struct.Struct(">f"), 8: struct.Struct(">d")}
_MOST_ELEMENT_HEAD = 12
"""Bytes: of the kind of an element of Matroska at most four, of its length eight."""


class DisplayMatrixError(ValueError):
    """Frames that are to be shown in another way than by quarter turns and mirrors."""


@dataclass(frozen=True)
class Turn:
    """Rows and columns exchanged first, if at all; then mirrored, left to right, top to bottom."""

    transposed: bool = False
    left_right: bool = False
    top_bottom: bool = False

    def of(self, image: NDArray[Any]) -> NDArray[Any]:
        """A view of an image [H, W, ...] as it is to be shown."""
        if self.transposed:
            image = image.swapaxes(0, 1)
        if self.left_right:
            image = image[:, ::-1]
        return image[::-1] if self.top_bottom else image


QUARTERS = {
    0: Turn(),
    90: Turn(transposed=True, left_right=True),
    180: Turn(left_right=True, top_bottom=True),
    270: Turn(transposed=True, top_bottom=True),
}
"""Degrees clockwise -> what is to be done."""


def turn_of(path: Path, degrees: float) -> Turn:
    """How a video's frames are to be shown.

    degrees: clockwise, as OpenCV has it; used where the file itself is not understood. Raises
    DisplayMatrixError.
    """
    matrix = _matrix_in(path)
    if matrix is not None:
        return _turn_by(matrix)
    turn = QUARTERS.get(round(degrees) % 360)
    if turn is None:
        raise DisplayMatrixError(f"its frames are to be turned by {degrees:g}°")
    return turn


def shown_seconds(path: Path) -> float | None:
    """For how long an MP4 or MOV file shows its pictures, without what its edit list hides.

    None where it does not say, and for other files.
    """
    try:
        movie, track = _headers_in(path) or (b"", b"")
        (scale,) = struct.unpack_from(">I", movie, 12 if movie[:1] == b"\0" else 20)
        duration_at, number = (20, ">I") if track[:1] == b"\0" else (28, ">Q")
        (duration,) = struct.unpack_from(number, track, duration_at)
    except struct.error:
        return None
    said = scale and duration not in (0, _UNKNOWN_32, _UNKNOWN_64)
    return duration / scale if said else None


def _turn_by(matrix: NDArray[np.float64]) -> Turn:
    """Of a matrix [[a, b], [c, d]] that shows pixel (x, y) at (a x + c y, b x + d y)."""
    (a, b), (c, d) = matrix
    small = _SLACK * np.abs(matrix).max()
    if not small:
        return Turn()
    if abs(b) <= small and abs(c) <= small:
        return Turn(False, bool(a < 0), bool(d < 0))
    if abs(a) <= small and abs(d) <= small:
        return Turn(True, bool(c < 0), bool(b < 0))
    raise DisplayMatrixError(
        f"its frames are to be turned by no quarter turn (a display matrix of {a:g} {b:g} {c:g} "
        f"{d:g})"
    )


def _matrix_in(path: Path) -> NDArray[np.float64] | None:
    """The matrix of the first track of pictures; None where the file has none.

    Raises DisplayMatrixError for a mirrored file of Matroska.
    """
    with path.open("rb") as file:
        if file.read(len(_EBML)) == _EBML:
            _check_matroska(file)
            return None
    try:
        headers = _headers_in(path)
        if headers is None:
            return None
        movie, track = headers
        whole = _matrix_at(movie, 20 if movie[:1] == b"\0" else 32, 16) if movie else np.eye(2)
        return _matrix_at(track, 24 if track[:1] == b"\0" else 36, 16) @ whole
    except struct.error:  # cut short or damaged: OpenCV will say so
        return None


def _headers_in(path: Path) -> tuple[bytes, bytes] | None:
    """The `mvhd`, or b"", and the `tkhd` of the first track of pictures of an MP4 or MOV file.

    None where there is no such track. Raises struct.error.
    """
    movie = b""
    for kind, box in _boxes(_movie_in(path)):
        if kind == b"mvhd":
            movie = box
        elif kind == b"trak":
            track = dict(_boxes(box))
            handler = dict(_boxes(track.get(b"mdia", b""))).get(b"hdlr", b"")
            header = track.get(b"tkhd", b"")
            if handler[8:12] == b"vide" and header:
                return movie, header
    return None


def _movie_in(path: Path) -> bytes:
    """The content of the box `moov` of an MP4 or MOV file; b"" of any other."""
    with path.open("rb") as file:
        if file.read(8)[4:] not in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return b""
        position = 0
        while True:
            file.seek(position)
            header = file.read(16)
            if len(header) < 8:
                return b""
            length, kind = struct.unpack_from(">I4s", header)
            head = 8
            if length == 1 and len(header) == 16:
                (length,) = struct.unpack_from(">Q", header, 8)
                head = 16
            if kind == b"moov":
                file.seek(position + head)
                return file.read(min(max(length - head, 0), _MOST_HEADER_BYTES))
            if length < head:
                return b""
            position += length


def _matrix_at(box: bytes, times_end: int, between: int) -> NDArray[np.float64]:
    """The first two columns and rows of the matrix in a `mvhd` or `tkhd`."""
    a, b, _, c, d = struct.unpack_from(">5i", box, times_end + between)
    return np.array([[a, b], [c, d]], np.float64) / _FIXED_POINT


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while position + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", content, position + 8)
            head = 16
        if length < head:
            return
        yield kind, content[position + head : position + length]
        position += length


def _check_matroska(file: BinaryIO) -> None:
    """Raises DisplayMatrixError where a track of a Matroska or WebM file is to be mirrored."""
    for yaw in _inside(_tracks_in(file), _TRACK, _VIDEO, _PROJECTION, _YAW):
        number = _FLOATS.get(len(yaw))
        degrees = number.unpack(yaw)[0] if number else 0.0
        if math.isfinite(degrees) and round(degrees) % 360:
            raise DisplayMatrixError("its frames are to be mirrored")


def _tracks_in(file: BinaryIO) -> bytes:
    """The content of a Matroska file's element `Tracks`; b"" where none is before the pictures."""
    position = 0
    while True:
        file.seek(position)
        element = _element(file.read(_MOST_ELEMENT_HEAD))
        if element is None or element.kind == _CLUSTER:
            return b""
        position += element.head
        if element.kind == _TRACKS:
            file.seek(position)
            return file.read(min(element.length, _MOST_HEADER_BYTES))
        if element.kind != _SEGMENT:  # into which the way goes
            position += element.length


def _inside(content: bytes, kind: int, *further: int) -> Iterator[bytes]:
    """The contents of the elements of a kind, or of those inside of these, and so on."""
    position = 0
    while (element := _element(content[position : position + _MOST_ELEMENT_HEAD])) is not None:
        begin = position + element.head
        position = begin + element.length
        if element.kind == kind:
            own = content[begin:position]
            if further:
                yield from _inside(own, *further)
            else:
                yield own


class _Element(NamedTuple):
    """What an element of EBML begins with. head: bytes before its content; length: of that."""

    kind: int
    head: int
    length: int


def _element(data: bytes) -> _Element | None:
    """The element at the begin of some bytes, None where there is none (RFC 8794, section 4)."""
    if len(data) < 2 or not data[0]:
        return None
    kind_bytes = 9 - data[0].bit_length()
    if kind_bytes >= len(data) or not data[kind_bytes]:
        return None
    length_bytes = 9 - data[kind_bytes].bit_length()
    head = kind_bytes + length_bytes
    if head > len(data):
        return None
    marked = int.from_bytes(data[kind_bytes:head], "big")
    return _Element(
        int.from_bytes(data[:kind_bytes], "big"), head, marked & ((1 << 7 * length_bytes) - 1)
    )

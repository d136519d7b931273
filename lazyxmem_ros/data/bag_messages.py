# SPDX-License-Identifier: Apache-2.0
"""What bags' messages hold: images, label maps, and the types that they are made of; without ROS.

Pixels go through `lazyxmem_ros.images`. Stamps are the messages' own header stamps, int ns.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from lazyxmem_ros.basics import SECOND, StampRangeError, stamp_of
from lazyxmem_ros.data.errors import BagError
from lazyxmem_ros.images import ImageError, label_values, read_image

IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE_TYPE = "sensor_msgs/msg/CompressedImage"
IMAGE_TYPES = (IMAGE_TYPE, COMPRESSED_IMAGE_TYPE)
# What a recorder of today writes; bags that carry their definitions are read by those.
DEFAULT_STORE = Stores.ROS2_JAZZY
_IDL_SEPARATOR = "=" * 80 + "\n"
"""Between the files of one schema of MCAP; each begins with a line that names it."""


@dataclass(frozen=True)
class StampedImage:
    """stamp in ns; image uint8 [H, W, 3] RGB."""

    stamp: int
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class StampedLabels:
    """stamp in ns; labels uint16 [H, W], 0 = background, else object ids."""

    stamp: int
    labels: NDArray[np.uint16]


def stamp_and_fault(message: Any) -> tuple[int, str]:
    """The header stamp (ns) of a decoded message, and why that is no time, or "" where it is."""
    time = message.header.stamp
    try:
        return stamp_of(time), ""
    except StampRangeError as error:
        return int(time.sec) * SECOND + int(time.nanosec), str(error)


def decode_image(message: Any) -> NDArray[np.uint8]:
    """An Image or CompressedImage as RGB uint8 [H, W, 3]; raises BagError if it holds none."""
    try:
        # A copy where it would be a view of the message: those are read-only, of which PyTorch
        # warns.
        return np.require(read_image(message).rgb(), requirements=["C", "W"])
    except ImageError as error:
        raise BagError(str(error)) from error


def decode_labels(message: Any) -> NDArray[np.uint16]:
    """The ids of a label map that the tracker itself published, uint16 [H, W].

    Raises BagError for anything else. There, 255 is an id like others.
    """
    try:
        return label_values(message).astype(np.uint16)
    except ImageError as error:
        raise BagError(str(error)) from error


def pack_labels(labels: NDArray[np.uint16]) -> bytes:
    """A label map as PNG: an hour of label maps would not fit in memory as arrays."""
    _, data = cv2.imencode(".png", labels)
    return bytes(data)


def unpack_labels(data: bytes) -> NDArray[np.uint16]:
    """The label map uint16 [H, W] that was packed."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return np.asarray(decoded, dtype=np.uint16)


@lru_cache(maxsize=1)
def message_types() -> Typestore:
    """The standard ROS 2 messages and this package's own, by name, e.g. for BagWriter.write."""
    store = get_typestore(DEFAULT_STORE)
    definitions: dict[str, Any] = {}
    for file in _own_definitions():
        name = f"lazyxmem_ros/msg/{file.stem}"
        definitions.update(get_types_from_msg(file.read_text(encoding="utf-8"), name))
    store.register(definitions)
    return store


def defined_types(connection: Connection) -> Typestore:
    """The types in a bag's own definition of a topic's type."""
    text, kind = connection.msgdef.data, connection.msgtype
    definitions: dict[str, Any] = {}
    if connection.msgdef.format == MessageDefinitionFormat.MSG:
        definitions.update(get_types_from_msg(text, kind))
    elif text.startswith(_IDL_SEPARATOR):
        for part in text.split(_IDL_SEPARATOR)[1:]:
            definitions.update(get_types_from_idl(part.partition("\n")[2]))
    else:
        definitions.update(get_types_from_idl(text))
    store = get_typestore(Stores.EMPTY)
    store.register(definitions)
    return store


def missing_fields(store: Typestore, kind: str) -> list[str]:
    """What is read of an image message and is not in a bag's own definition of its type."""
    if kind not in IMAGE_TYPES:
        return []
    known = message_types().fielddefs
    return [
        f"{part}.{name}"
        for part in (kind, "std_msgs/msg/Header", "builtin_interfaces/msg/Time")
        for name, _ in known[part][1]
        if part not in store.fielddefs or name not in dict(store.fielddefs[part][1])
    ]


def _own_definitions() -> list[Path]:
    """This package's .msg files: beside a source checkout's package, or in an install's share."""
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    shares = [Path(prefix) / "share" / "lazyxmem_ros" / "msg" for prefix in prefixes if prefix]
    for folder in (Path(__file__).parents[2] / "msg", *shares):
        if (folder / "Track.msg").is_file():
            return sorted(folder.glob("*.msg"))
    return []

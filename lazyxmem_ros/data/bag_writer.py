# SPDX-License-Identifier: Apache-2.0
"""Writes rosbag2 bags (sqlite3, MCAP) without ROS: images, label maps, other messages.

Writing goes through `rosbags`, every message with its own header stamp.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2.errors import WriterError

from lazyxmem_ros.basics import StampRangeError, stamp_fields
from lazyxmem_ros.data.bag_messages import (
    COMPRESSED_IMAGE_TYPE,
    IMAGE_TYPE,
    StampedImage,
    StampedLabels,
    message_types,
)
from lazyxmem_ros.data.errors import BagError
from lazyxmem_ros.data.label_maps import VOID, is_soft
from lazyxmem_ros.data.safe_writer import WRITE_ERRORS, SafeWriter

if sys.version_info >= (3, 11):
    from typing import Self
else:
    from typing_extensions import Self

BAG_VERSION: Literal[9] = 9
JPEG_QUALITY = 92
LATCHED = Qos(
    history=QosHistory.KEEP_LAST,
    depth=20,
    reliability=QosReliability.RELIABLE,
    durability=QosDurability.TRANSIENT_LOCAL,
    deadline=QosTime(0, 0),
    lifespan=QosTime(0, 0),
    liveliness=QosLiveliness.SYSTEM_DEFAULT,
    liveliness_lease_duration=QosTime(0, 0),
    avoid_ros_namespace_conventions=False,
)
"""What a latched topic is recorded as having offered."""
STORAGES = {"sqlite3": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}
COMPRESSIONS = ("none", "jpeg", "png")


class BagWriter:
    """Writes a new rosbag2 bag; topics appear with their first message. A context manager.

    storage: "sqlite3" or "mcap". Raises BagError where `path` exists or cannot be written.
    """

    def __init__(self, path: str | Path, *, storage: str = "mcap") -> None:
        self.path = Path(path)
        if storage not in STORAGES:
            raise BagError(f"unknown storage {storage!r}; choose from {', '.join(STORAGES)}")
        self._types = message_types()
        self._connections: dict[str, Connection] = {}
        try:
            self._writer = SafeWriter(
                self.path, version=BAG_VERSION, storage_plugin=STORAGES[storage]
            )
        except WriterError as error:
            raise BagError(f"{self.path} exists already; remove it or choose another") from error
        if storage == "mcap":
            # Chunk-wise, as ros2 bag's own presets do: label maps shrink to almost nothing.
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)

    def __enter__(self) -> Self:
        try:
            self._writer.open()
        except (WriterError, *WRITE_ERRORS) as error:
            raise BagError(f"{self.path}: cannot be written: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        # Closed after an error as well: what was written so far stays a readable bag.
        try:
            self._writer.close()
        except WRITE_ERRORS as failed:
            raise BagError(f"{self.path}: cannot be completed: {failed}") from failed

    def write_raw(
        self, topic: str, message_type: str, received: int, data: bytes, *, latched: bool = False
    ) -> None:
        """Append a serialised (CDR) message, `message_type` such as "sensor_msgs/msg/Image".

        latched: whether whoever comes late is to get the topic's last messages when it is replayed.

        Raises BagError where it cannot be written; the bag then holds what was committed before,
        a second's messages less at most, and is complete once it is closed.
        """
        self.declare(topic, message_type, latched=latched)
        try:
            self._writer.write(self._connections[topic], received, data)
        except WRITE_ERRORS as failed:
            raise BagError(f"{self.path}: cannot be written: {failed}") from failed

    def commit(self) -> None:
        """Put what has been written on the disk now. Raises BagError as `write_raw`."""
        try:
            self._writer.commit()
        except WRITE_ERRORS as failed:
            raise BagError(f"{self.path}: cannot be written: {failed}") from failed

    def is_there(self) -> bool:
        """Whether the file that is being written still has its name."""
        return self._writer.is_there()

    def declare(self, topic: str, message_type: str, *, latched: bool = False) -> None:
        """Let a topic be there even if no message of it follows; latched: see `write_raw`."""
        if topic in self._connections:
            return
        if message_type not in self._types.types:
            raise BagError(f"{topic}: the definition of {message_type} was not found")
        connection = self._writer.add_connection(
            topic,
            message_type,
            typestore=self._types,
            offered_qos_profiles=[LATCHED] if latched else (),
        )
        self._connections[topic] = connection

    def write(self, topic: str, message: Any, received: int) -> None:
        """Append a message made from `message_types()`."""
        kind = str(message.__msgtype__)
        self.write_raw(topic, kind, received, bytes(self._types.serialize_cdr(message, kind)))

    def write_image(
        self,
        topic: str,
        frame: StampedImage,
        *,
        compression: str = "none",
        frame_id: str = "camera",
    ) -> None:
        """Append an RGB image: rgb8, or CompressedImage for compression "jpeg" or "png"."""
        header = self._header(frame.stamp, frame_id)
        if compression == "none":
            message = self._image(header, frame.image, "rgb8")
        elif compression in COMPRESSIONS:
            kind = self._types.types[COMPRESSED_IMAGE_TYPE]
            data = _compressed(frame.image, compression)
            message = kind(header=header, format=f"rgb8; {compression} compressed bgr8", data=data)
        else:
            raise BagError(
                f"unknown compression {compression!r}; choose from {', '.join(COMPRESSIONS)}"
            )
        self.write(topic, message, frame.stamp)

    def write_labels(self, topic: str, frame: StampedLabels, *, frame_id: str = "camera") -> None:
        """Append a label map, as mono8 where that is read back as it is, else as mono16: where an
        id is VOID or above, or small objects would be taken for the edges of a soft mask.
        """
        wide = int(frame.labels.max(initial=0)) >= VOID or is_soft(frame.labels.astype(np.uint8))
        values = frame.labels.astype("<u2" if wide else np.uint8)
        header = self._header(frame.stamp, frame_id)
        message = self._image(header, values, "mono16" if wide else "mono8")
        self.write(topic, message, frame.stamp)

    def _header(self, stamp: int, frame_id: str) -> Any:
        types = self._types.types
        try:
            seconds, nanoseconds = stamp_fields(stamp)
        except StampRangeError as error:
            raise BagError(
                f"{self.path}: {error}; are some of the recording's stamps not set?"
            ) from error
        time = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
        return types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)

    def _image(self, header: Any, values: NDArray[Any], encoding: str) -> Any:
        values = np.ascontiguousarray(values)
        return self._types.types[IMAGE_TYPE](
            header=header,
            height=values.shape[0],
            width=values.shape[1],
            encoding=encoding,
            is_bigendian=0,
            step=values.nbytes // values.shape[0],
            data=values.view(np.uint8).reshape(-1),
        )


def _compressed(image: NDArray[np.uint8], compression: str) -> NDArray[np.uint8]:
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if compression == "jpeg" else []
    done, data = cv2.imencode(f".{compression}", np.ascontiguousarray(image[..., ::-1]), options)
    if not done:
        raise BagError(f"an image of shape {image.shape} could not be compressed as {compression}")
    return np.asarray(data, dtype=np.uint8).reshape(-1)

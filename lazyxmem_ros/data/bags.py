# SPDX-License-Identifier: Apache-2.0
"""Bags (rosbag2's sqlite3 and MCAP, ROS 1's) without ROS: images, label maps, other messages.

Reading and writing go through `rosbags`, pixels through `lazyxmem_ros.images`. Stamps are the
messages' own header stamps, int nanoseconds; a bag's receive times only order its messages.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2.errors import WriterError
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from lazyxmem_ros.basics import SECOND, StampRangeError, stamp_fields, stamp_of
from lazyxmem_ros.data.bag_storage import OpenBag, explained, is_ros1, serialized_messages
from lazyxmem_ros.data.bag_writing import WRITE_ERRORS, SafeWriter
from lazyxmem_ros.data.errors import BagError, LabelMapError
from lazyxmem_ros.data.label_maps import VOID, is_binary, is_soft, object_ids
from lazyxmem_ros.data.slowness import Tell, silent
from lazyxmem_ros.images import ImageError, label_values, read_image
from lazyxmem_ros.images.raw import LABEL_DEPTHS

if sys.version_info >= (3, 11):
    from typing import Self
else:
    from typing_extensions import Self

IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE_TYPE = "sensor_msgs/msg/CompressedImage"
IMAGE_TYPES = (IMAGE_TYPE, COMPRESSED_IMAGE_TYPE)
# What a recorder of today writes; bags that carry their definitions are read by those.
DEFAULT_STORE = Stores.ROS2_JAZZY
BAG_VERSION: Literal[9] = 9
JPEG_QUALITY = 92
STORAGES = {"sqlite3": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}
COMPRESSIONS = ("none", "jpeg", "png")
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


@dataclass(frozen=True)
class BagMessage:
    """Any message: its topic, type name, receive time (ns) and decoded content."""

    topic: str
    message_type: str
    received: int
    content: Any


@dataclass(frozen=True)
class TopicSummary:
    """A topic of a bag: its message type and how many messages it holds."""

    message_type: str
    messages: int


class BagReader:
    """Reads a bag: a folder with metadata.yaml, a single .mcap or .db3 file, or a ROS 1 .bag file.

    Use as a context manager. Iterators yield all that is intact before they raise BagError. tell:
    gets a sentence now and then where opening takes long.
    """

    def __init__(self, path: str | Path, tell: Tell = silent) -> None:
        self.path = Path(path)
        self._tell = tell
        if not self.path.exists():
            raise BagError(f"{self.path}: there is no such bag")
        self._bag: OpenBag | None = None
        self._stores: dict[str, Typestore] = {}

    def __enter__(self) -> Self:
        self._bag = OpenBag(self.path, self._tell)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bag is not None:
            self._bag.close()
            self._bag = None

    @property
    def topics(self) -> Mapping[str, TopicSummary]:
        """All topics by name."""
        found: dict[str, TopicSummary] = {}
        for connection in self._opened.connections:
            before = found.get(connection.topic, TopicSummary("", 0))
            count = before.messages + connection.msgcount
            found[connection.topic] = TopicSummary(connection.msgtype, count)
        return found

    def image_topic(self, wanted: str | None = None, *, truth_topic: str | None = None) -> str:
        """The name of the image topic: `wanted`, or the only one in question.

        A topic of grey images looks like one of label maps, and is taken where there is no other.
        Raises BagError naming the choices where `wanted` is absent, no image, or ambiguous.
        """
        candidates = [
            name
            for name, topic in self.topics.items()
            if topic.message_type in IMAGE_TYPES and name != truth_topic
        ]
        if wanted is not None:
            if wanted in candidates:
                return wanted
            raise BagError(
                f"{self.path}: no image topic {wanted!r}; it has {', '.join(candidates) or 'none'}"
            )
        images = [name for name in candidates if not self._holds_labels(name)] or candidates
        if len(images) == 1:
            return images[0]
        if not images:
            others = ", ".join(self.topics) or "none"
            raise BagError(f"{self.path}: the bag has no images to track; its topics are {others}")
        raise BagError(
            f"{self.path}: name the image topic (--image-topic); the bag has "
            f"{', '.join(candidates)}"
        )

    def messages(self, *topics: str) -> Iterator[BagMessage]:
        """Messages of the given topics (all where none is given) by receive time."""
        bag = self._opened
        missing = set(topics) - set(self.topics)
        if missing:
            raise BagError(
                f"{self.path}: no topic {', '.join(sorted(missing))}; it has "
                f"{', '.join(sorted(self.topics))}"
            )
        chosen = [entry for entry in bag.connections if not topics or entry.topic in topics]
        for connection, received, raw in serialized_messages(bag, chosen):
            store = self._types_of(connection)
            decode = store.deserialize_ros1 if is_ros1(connection) else store.deserialize_cdr
            with explained(self.path):
                content = decode(raw, connection.msgtype)
            yield BagMessage(connection.topic, connection.msgtype, received, content)

    def images(self, topic: str) -> Iterator[StampedImage]:
        """The images of a raw or compressed topic; raises BagError for one that does not decode."""
        for number, message in enumerate(self.messages(topic)):
            stamp, fault = stamp_and_fault(message.content)
            try:
                if fault:
                    raise BagError(fault)
                image = decode_image(message.content)
            except BagError as error:
                raise BagError(f"{self.path}: {topic}, message {number}: {error}") from error
            yield StampedImage(stamp, image)

    def labels(self, topic: str) -> Iterator[StampedLabels]:
        """The ground truth of a topic (mono8, mono16); raises BagError for what is no label map.

        See `label_maps` for what the values mean.
        """
        for number, (stamp, labels) in enumerate(self.labels_or_faults(topic)):
            if isinstance(labels, str):
                raise BagError(f"{self.path}: {topic}, message {number}: {labels}")
            yield StampedLabels(stamp, labels)

    def labels_or_faults(
        self, topic: str, *, binary: bool | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint16] | str]]:
        """The stamp (ns) and label map uint16 [H, W] of each message, or what is wrong with it.

        binary: whatever is not 0 is object 1; None: where the first map that shows anything is
        black and white. Raises BagError for a topic of other messages.
        """
        known = self.topics.get(topic)
        if known is not None and known.message_type not in IMAGE_TYPES:
            raise BagError(
                f"{self.path}: {topic} is of {known.message_type}, no topic of label maps, which "
                f"are of {IMAGE_TYPE}"
            )
        told = binary
        for message in self.messages(topic):
            stamp, fault = stamp_and_fault(message.content)
            if fault:
                yield stamp, fault
                continue
            try:
                values = label_values(message.content)
                if binary is None and values.any():
                    binary = is_binary(values)
                narrow = values.dtype == np.uint8
                yield stamp, object_ids(values, binary=bool(told or (narrow and binary)))
            except (ImageError, LabelMapError) as error:
                yield stamp, str(error)

    @property
    def _opened(self) -> OpenBag:
        if self._bag is None:
            raise BagError(f"{self.path}: open the bag with `with BagReader(...) as bag:` first")
        return self._bag

    def _types_of(self, connection: Connection) -> Typestore:
        """The types that a topic's messages consist of: by the bag's own definition if it has one.

        Only those of the topics that are read: a definition that cannot be read spoils no other.
        """
        kind = connection.msgtype
        if kind not in self._stores:
            self._stores[kind] = message_types()
            if connection.msgdef.format != MessageDefinitionFormat.NONE:
                try:
                    self._stores[kind] = _defined_types(connection)
                except Exception as error:  # the parser's own, and whatever a bad text leads to
                    raise BagError(
                        f"{self.path}: {connection.topic}: the bag's definition of {kind} cannot "
                        f"be read: {error}"
                    ) from error
        if kind not in self._stores[kind].types:
            raise BagError(
                f"{self.path}: {connection.topic}: the bag does not define its type {kind}, which "
                "is none of ROS's own"
            )
        return self._stores[kind]

    def _holds_labels(self, topic: str) -> bool:
        """Whether a raw image topic's first message may be a label map."""
        if self.topics[topic].message_type != IMAGE_TYPE:
            return False
        first = next(self.messages(topic), None)
        return first is not None and first.content.encoding in LABEL_DEPTHS


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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Closed after an error as well: what was written so far stays a readable bag.
        try:
            self._writer.close()
        except WRITE_ERRORS as failed:
            raise BagError(f"{self.path}: cannot be completed: {failed}") from failed

    def write_raw(self, topic: str, message_type: str, received: int, data: bytes) -> None:
        """Append a serialised (CDR) message, `message_type` such as "sensor_msgs/msg/Image".

        Raises BagError where it cannot be written; the bag then holds what was committed before,
        a second's messages less at most, and is complete once it is closed.
        """
        self.declare(topic, message_type)
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

    def declare(self, topic: str, message_type: str) -> None:
        """Let a topic be there even if no message of it follows."""
        if topic in self._connections:
            return
        if message_type not in self._types.types:
            raise BagError(f"{topic}: the definition of {message_type} was not found")
        connection = self._writer.add_connection(topic, message_type, typestore=self._types)
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


def _defined_types(connection: Connection) -> Typestore:
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


def _own_definitions() -> list[Path]:
    """This package's .msg files: beside a source checkout's package, or in an install's share."""
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    shares = [Path(prefix) / "share" / "lazyxmem_ros" / "msg" for prefix in prefixes if prefix]
    for folder in (Path(__file__).parents[2] / "msg", *shares):
        if (folder / "Track.msg").is_file():
            return sorted(folder.glob("*.msg"))
    return []


def _compressed(image: NDArray[np.uint8], compression: str) -> NDArray[np.uint8]:
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if compression == "jpeg" else []
    done, data = cv2.imencode(f".{compression}", np.ascontiguousarray(image[..., ::-1]), options)
    if not done:
        raise BagError(f"an image of shape {image.shape} could not be compressed as {compression}")
    return np.asarray(data, dtype=np.uint8).reshape(-1)

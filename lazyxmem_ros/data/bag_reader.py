# SPDX-License-Identifier: Apache-2.0
"""Reads bags (rosbag2's sqlite3 and MCAP, ROS 1's) without ROS: images, label maps, other messages.

Reading goes through `rosbags`. A bag's receive times only order its messages.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.typesys.store import Typestore

from lazyxmem_ros.data.bag_messages import (
    IMAGE_TYPE,
    IMAGE_TYPES,
    StampedImage,
    StampedLabels,
    decode_image,
    defined_types,
    message_types,
    missing_fields,
    stamp_and_fault,
)
from lazyxmem_ros.data.bag_storage import OpenBag, is_ros1, serialized_messages
from lazyxmem_ros.data.errors import BagError, LabelMapError
from lazyxmem_ros.data.label_maps import is_binary, object_ids
from lazyxmem_ros.data.slowness import Tell, silent
from lazyxmem_ros.images import ImageError, label_values
from lazyxmem_ros.images.raw import LABEL_DEPTHS

if sys.version_info >= (3, 11):
    from typing import Self
else:
    from typing_extensions import Self


@dataclass(frozen=True)
class BagMessage:
    """Any message: its topic, type name, receive time (ns) and decoded content."""

    topic: str
    message_type: str
    received: int
    content: Any


@dataclass(frozen=True)
class UnreadableMessage:
    """A message whose bytes are none of its type: its topic, receive time (ns) and why."""

    topic: str
    received: int
    fault: str


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

    def __exit__(self, *_: object) -> None:
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
        """Messages of the given topics (all where none is given) by receive time.

        Raises BagError at the end where some could not be read.
        """
        unreadable = []
        for message in self.messages_or_faults(*topics):
            if isinstance(message, BagMessage):
                yield message
            else:
                unreadable.append(message)
        if unreadable:
            first, more = unreadable[0], len(unreadable) - 1
            raise BagError(
                f"{self.path}: {first.topic}, the message received at {first.received} ns: "
                f"{first.fault}" + (f"; and {more} more that cannot be read" if more else "")
            )

    def messages_or_faults(self, *topics: str) -> Iterator[BagMessage | UnreadableMessage]:
        """The same, with what is wrong with a message in its place: one spoils no other."""
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
            kind, topic = connection.msgtype, connection.topic
            try:
                message = BagMessage(topic, kind, received, decode(raw, kind))
            except Exception as error:  # noqa: BLE001 - odd bytes surface as anything
                fault = f"it is no {kind} ({type(error).__name__}: {error})"
                yield UnreadableMessage(topic, received, fault)
            else:
                yield message

    def images(self, topic: str) -> Iterator[StampedImage]:
        """The images of a raw or compressed topic; raises BagError for one that does not decode."""
        for number, (stamp, image) in enumerate(self.images_or_faults(topic)):
            if isinstance(image, str):
                raise BagError(f"{self.path}: {topic}, message {number}: {image}")
            yield StampedImage(stamp, image)

    def images_or_faults(self, topic: str) -> Iterator[tuple[int, NDArray[np.uint8] | str]]:
        """The stamp (ns) and image uint8 [H, W, 3] of each message, or what is wrong with it."""
        for stamp, content in self._contents_or_faults(topic):
            if isinstance(content, str):
                yield stamp, content
                continue
            try:
                image = decode_image(content)
            except BagError as error:
                yield stamp, str(error)
            else:
                yield stamp, image

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
        for stamp, content in self._contents_or_faults(topic):
            if isinstance(content, str):
                yield stamp, content
                continue
            try:
                values = label_values(content)
                if binary is None and values.any():
                    binary = is_binary(values)
                guessed = told is None and values.dtype == np.uint8
                labels = object_ids(
                    values, binary=bool(told or (guessed and binary)), guessed=guessed
                )
            except (ImageError, LabelMapError) as error:
                yield stamp, str(error)
            else:
                yield stamp, labels

    def _contents_or_faults(self, topic: str) -> Iterator[tuple[int, Any]]:
        """The header stamp (ns) and content of each message of a topic.

        A str in the place of the content says what is wrong with it; the stamp is then what its
        header says, or when it was received.
        """
        for message in self.messages_or_faults(topic):
            if isinstance(message, UnreadableMessage):
                yield message.received, message.fault
                continue
            stamp, fault = stamp_and_fault(message.content)
            yield stamp, fault or message.content

    @property
    def _opened(self) -> OpenBag:
        if self._bag is None:
            raise BagError(f"{self.path}: open the bag with `with BagReader(...) as bag:` first")
        return self._bag

    def _types_of(self, connection: Connection) -> Typestore:
        """The types that a topic's messages consist of: by the bag's own definition if it has one.

        Only those of the topics that are read: a definition that cannot be read spoils no other.
        """
        kind, store = connection.msgtype, message_types()
        if kind in self._stores:
            return self._stores[kind]
        if connection.msgdef.format != MessageDefinitionFormat.NONE:
            try:
                store = defined_types(connection)
            except Exception as error:  # the parser's own, and whatever a bad text leads to
                raise BagError(
                    f"{self.path}: {connection.topic}: the bag's definition of {kind} cannot be "
                    f"read: {error}"
                ) from error
        if kind not in store.types:
            raise BagError(
                f"{self.path}: {connection.topic}: the bag does not define its type {kind}, which "
                "is none of ROS's own"
            )
        if missing := missing_fields(store, kind):
            raise BagError(
                f"{self.path}: {connection.topic}: by the bag's definition of {kind} there is no "
                f"{', '.join(missing)}"
            )
        self._stores[kind] = store
        return store

    def _holds_labels(self, topic: str) -> bool:
        """Whether a raw image topic's first message may be a label map."""
        if self.topics[topic].message_type != IMAGE_TYPE:
            return False
        first = next(self.messages_or_faults(topic), None)
        return isinstance(first, BagMessage) and first.content.encoding in LABEL_DEPTHS

# SPDX-License-Identifier: Apache-2.0
"""Keeps what people were asked and what they said, in bags that only grow.

The worker hands over messages and goes on; a thread of its own writes them, as they are on the
node's topics. But for a request's image: that goes to `~/correction_frame/compressed`, once per
frame. So does the frame of an answer that nobody asked for, with its published masks on `~/mask`.
`~/tracks` has the objects that were followed from then on: an id that is not in it any more may be
another object when it comes again.
"""

from __future__ import annotations

import array
import contextlib
import os
import re
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from lazyxmem_ros import msg
from lazyxmem_ros.basics import by_width, reason_of, stamp_of, user_path
from lazyxmem_ros.data.bag_messages import COMPRESSED_IMAGE_TYPE, IMAGE_TYPE
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.data.errors import BagError
from lazyxmem_ros.images import ImageError, read_image
from lazyxmem_ros.nodes.conversions import labels_message, time_message
from lazyxmem_ros.nodes.diagnostics import ERROR, OK, status, status_name
from lazyxmem_ros.nodes.tracker.received_frames import ReceivedFrame

JPEG_QUALITY = 95
MAX_WAITING = 64
"""Messages that wait to be written; more are lost, and that is said."""
BATCH = 16
"""Messages that are written before they are synced."""
FRAMES_KNOWN = 1000
"""Frames of which it is remembered that they are in the records."""
RETRY_PERIOD_S = 1.0
CLOSING_TIMEOUT_S = 10.0
FRAME_TOPIC = "~/correction_frame/compressed"


class RecordError(ValueError):
    """Records cannot be kept in a folder; the text says why."""


@dataclass(frozen=True, eq=False)
class _Entry:
    """make(): the message, made in the writer's thread. received: ns since the epoch. objects: that
    are followed from it on, id -> label, None where it does not tell.
    """

    topic: str
    kind: str
    received: int
    make: Callable[[], Any]
    objects: Mapping[int, str] | None = None


class Records:
    """The bags of one tracker in a folder, which other trackers may use, too.

    There are `max_bags` at most, and `max_bytes` in them all together, but for the last messages:
    for a new one the oldest go. Where nothing can be written, that is tried again every
    RETRY_PERIOD_S, and messages wait meanwhile.
    """

    def __init__(
        self,
        node: Node,
        folder: str,
        *,
        max_bytes: int,
        max_bags: int,
        on_fault: Callable[[str], None],
    ) -> None:
        """Raises RecordError where the folder cannot be written into.

        on_fault(text): told from any thread when something was not kept, or not yet.
        """
        self.folder = _usable(folder)
        self._name = node.get_fully_qualified_name().strip("/").replace("/", ".")
        self._status_name = status_name(node.get_fully_qualified_name(), "records")
        self._topic = node.resolve_topic_name
        self._max_bytes, self._max_bags = max_bytes, max_bags
        self._on_fault = on_fault
        self._queue: Queue[_Entry | None] = Queue(MAX_WAITING)
        self._lock = threading.RLock()
        self._received = 0
        self._frames: OrderedDict[int, None] = OrderedDict()
        self._objects: Mapping[int, str] = {}
        # Of the writer's thread: those of the last message that was written.
        self._objects_then: Mapping[int, str] = {}
        self._bag: _Bag | None = None
        self._ending = threading.Event()
        self.written = 0
        """Messages that are on the disk."""
        self.lost = 0
        """Messages that could not be kept."""
        self.last_fault = ""
        """Why the last message is not on the disk; "" where it is."""
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self._thread.start()

    def status(self) -> DiagnosticStatus:
        """How they fare, for `/diagnostics`."""
        values: dict[str, object] = {
            "folder": self.folder,
            "written": self.written,
            "lost": self.lost,
        }
        level, message = (ERROR, self.last_fault) if self.last_fault else (OK, "ok")
        return status(self._status_name, values, level=level, message=message)

    # ---- what is kept; none of these waits for the disk, and any thread may call them

    def request(self, message: msg.CorrectionRequest) -> None:
        """A request to a person."""
        self._keep_frame(stamp_of(message.header.stamp), lambda: _compressed(message.image))
        kind = "lazyxmem_ros/msg/CorrectionRequest"
        self._put("~/correction_request", kind, lambda: _without_image(message))

    def answer(self, message: msg.Correction, frame: ReceivedFrame | None) -> None:
        """A person's answer as it came. frame: that it names, where it is known."""
        labels = None if frame is None else frame.labels
        if frame is not None and labels is not None:
            header = frame.header
            if self._keep_frame(frame.stamp, lambda: _compressed_frame(frame)):
                self._put("~/mask", IMAGE_TYPE, lambda: labels_message(labels, header))
        self._keep("~/operator_correction", "lazyxmem_ros/msg/Correction", message)

    def outcome(self, message: msg.Correction) -> None:
        """What became of an answer."""
        self._keep("~/corrected", "lazyxmem_ros/msg/Correction", message)

    def see_objects(self, stamp: int, objects: Mapping[int, str]) -> None:
        """Which objects are followed from now on: id -> label. Kept where it has changed, and where
        there is no room for it now, the next time.

        stamp: of the newest frame, nanoseconds; 0: there is none.
        """
        if objects != self._objects and not self._queue.full():
            seen = dict(objects)
            message = _tracks(seen, Header(stamp=time_message(stamp)))
            kind = "lazyxmem_ros/msg/TrackArray"
            if self._put("~/tracks", kind, lambda: message, seen):
                self._objects = seen

    def forget_frames(self) -> None:
        """Frames with the stamps of earlier ones may come, of which the images are to be kept."""
        with self._lock:
            self._frames.clear()

    def close(self) -> None:
        """Write what waits and complete the bag."""
        self._ending.set()
        with contextlib.suppress(Full):
            self._queue.put(None, timeout=CLOSING_TIMEOUT_S)
        self._thread.join(CLOSING_TIMEOUT_S)
        if self._thread.is_alive():
            self._report(f"{self.folder}: records are still being written")

    # ---- in the caller's thread

    def _keep(self, topic: str, kind: str, message: Any) -> bool:
        return self._put(topic, kind, lambda: message)

    def _keep_frame(self, stamp: int, make: Callable[[], CompressedImage]) -> bool:
        """Whether the frame was not known and is kept now."""
        with self._lock:
            if stamp in self._frames or not self._put(FRAME_TOPIC, COMPRESSED_IMAGE_TYPE, make):
                return False
            self._frames[stamp] = None
            if len(self._frames) > FRAMES_KNOWN:
                self._frames.popitem(last=False)
            return True

    def _put(
        self,
        topic: str,
        kind: str,
        make: Callable[[], Any],
        objects: Mapping[int, str] | None = None,
    ) -> bool:
        try:
            with self._lock:  # the order of the messages is that of their times, whatever the clock
                received = self._received = max(time.time_ns(), self._received + 1)
                self._queue.put_nowait(_Entry(self._topic(topic), kind, received, make, objects))
        except Full:
            self._lose(1, f"{MAX_WAITING} messages wait to be written, and no more can")
            return False
        return True

    # ---- in the writer's thread

    def _run(self) -> None:
        while True:
            entry = self._queue.get()
            batch = [entry]
            with contextlib.suppress(Empty):
                while len(batch) < BATCH and batch[-1] is not None:
                    batch.append(self._queue.get_nowait())
            self._write([one for one in batch if one is not None])
            if batch[-1] is None:
                break
        self._complete()

    def _write(self, batch: list[_Entry]) -> None:
        """Puts messages on the disk, however long that takes; at the end they may be lost."""
        made = [(entry, data) for entry in batch if (data := self._serialised(entry))]
        while made:
            try:
                written = self._write_once(made)
            except (BagError, OSError) as error:
                self._complete(damaged=True)
                self._report(str(error))
                if self._ending.wait(RETRY_PERIOD_S):
                    self._lose(len(made), str(error))
                    return
            except Exception as error:  # noqa: BLE001 - the thread outlives what it cannot write
                self._complete(damaged=True)
                self._see_told(made)  # the next bag begins with them
                self._lose(len(made), reason_of(error))
                return
            else:
                self.written += written
                self.last_fault = ""
                return

    def _serialised(self, entry: _Entry) -> bytes | None:
        try:
            return bytes(serialize_message(entry.make()))
        except Exception as error:  # noqa: BLE001 - one message, of which the others know nothing
            self._lose(1, f"a message of {entry.topic} cannot be made: {error}")
            return None

    def _write_once(self, made: list[tuple[_Entry, bytes]]) -> int:
        """Returns how many of the messages were written. Raises BagError or OSError."""
        if self._bag is None and all(entry.objects is not None for entry, _ in made):
            self._see_told(made)
            return 0  # nobody has been asked yet; the next bag begins with what is followed
        if self._bag is None:
            self._bag = self._open(made[0][0].received, began=True)
        elif self._bag.size() >= self._max_bytes // self._max_bags:
            self._complete()
            self._bag = self._open(made[0][0].received, began=False)
        for entry, data in made:
            self._bag.writer.write_raw(entry.topic, entry.kind, entry.received, data)
        self._bag.sync()
        self._see_told(made)
        return len(made)

    def _see_told(self, made: Sequence[tuple[_Entry, bytes]]) -> None:
        """Notes which objects are followed after these messages."""
        for entry, _ in made:
            if entry.objects is not None:
                self._objects_then = entry.objects

    def _open(self, before: int, *, began: bool) -> _Bag:
        """A new bag, for which the oldest go. before: when its first message was received, ns.
        began: it is not the continuation of another one.

        It begins with the objects that were followed then, whatever waits to be written. Where
        nothing was written for a while, an id may have become another object's: then it begins with
        none.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        number = max((_number(bag) for bag in self._bags()), default=0) + 1
        self._make_room()
        bag = _Bag(self.folder / f"{self._name}-{number:06d}")
        topic, kind = self._topic("~/tracks"), "lazyxmem_ros/msg/TrackArray"
        begin: list[Mapping[int, str]] = [{}, self._objects_then] if began else [self._objects_then]
        for number, objects in enumerate(begin):
            data = bytes(serialize_message(_tracks(objects, Header())))
            bag.writer.write_raw(topic, kind, before - len(begin) + number, data)
        return bag

    def _bags(self) -> list[Path]:
        """This tracker's bags, the oldest first."""
        name = re.compile(re.escape(self._name) + r"-\d{6,}")
        found = [path for path in self.folder.iterdir() if name.fullmatch(path.name)]
        return sorted(found, key=_number)

    def _make_room(self) -> None:
        """Deletes the oldest bags until there is room for one more."""
        room = self._max_bytes - self._max_bytes // self._max_bags
        bags = self._bags()
        while bags and (len(bags) >= self._max_bags or sum(map(_size, bags)) > room):
            shutil.rmtree(bags.pop(0))

    def _complete(self, *, damaged: bool = False) -> None:
        """Closes the bag. damaged: something could not be written; the frames may not be there."""
        if damaged:
            with self._lock:
                self._frames.clear()
        bag, self._bag = self._bag, None
        if bag is not None:
            try:
                bag.close()
            except Exception as error:  # noqa: BLE001 - as above
                self._report(reason_of(error))

    def _lose(self, count: int, fault: str) -> None:
        self.lost += count
        self._report(f"{fault}; {count} lost")

    def _report(self, fault: str) -> None:
        self.last_fault = f"records are not kept: {fault}"
        self._on_fault(self.last_fault)


class _Bag:
    """A bag that is being written. Raises BagError or OSError wherever it cannot be."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.writer = BagWriter(path)
        try:
            self.writer.__enter__()
            [file] = path.glob("*.mcap")
            self._file = os.open(file, os.O_RDONLY)
        except Exception:
            shutil.rmtree(path, ignore_errors=True)
            raise
        self._synced = False

    def size(self) -> int:
        """Bytes on the disk."""
        return os.fstat(self._file).st_size

    def sync(self) -> None:
        """Put what was written where neither a kill nor a power cut reaches it."""
        self.writer.commit()
        os.fsync(self._file)
        if not self._synced:
            for folder in (self._path, self._path.parent):
                _sync_folder(folder)
        self._synced = True

    def close(self) -> None:
        """Complete it; one in which nothing was synced goes."""
        os.close(self._file)
        try:
            self.writer.__exit__(None, None, None)
        finally:
            if not self._synced:
                shutil.rmtree(self._path, ignore_errors=True)


def _usable(text: str) -> Path:
    """The folder, made where it is not there; raises RecordError where nothing can be written."""
    try:
        folder = user_path(text)
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.write_bytes(b"1")
        probe.unlink()
    except OSError as error:
        raise RecordError(
            f"record_dir: {text} cannot hold records: {error}; name a folder that can be written "
            "into, or leave it empty"
        ) from error
    return folder


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _number(bag: Path) -> int:
    return int(bag.name.rpartition("-")[2])


def _size(bag: Path) -> int:
    return sum(file.stat().st_size for file in bag.iterdir())


def _tracks(objects: Mapping[int, str], header: Header) -> msg.TrackArray:
    tracks = [msg.Track(id=number, label=label) for number, label in sorted(objects.items())]
    return msg.TrackArray(header=header, tracks=tracks)


def _compressed_frame(frame: ReceivedFrame) -> CompressedImage:
    """The frame as it came where it was compressed, else as JPEG."""
    if isinstance(frame.message, CompressedImage):
        return frame.message
    return _compressed(frame.message)


def _compressed(image: Image) -> CompressedImage:
    """An image, which was let in, as JPEG; raises ImageError where it is none."""
    rgb = read_image(image, max_pixels=image.height * image.width).rgb()
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ImageError(f"an image of {by_width(bgr.shape[:2])} pixels cannot become a JPEG")
    return CompressedImage(
        header=image.header,
        format="rgb8; jpeg compressed bgr8",
        data=array.array("B", data.tobytes()),
    )


def _without_image(request: msg.CorrectionRequest) -> msg.CorrectionRequest:
    """The request less its image, which is kept as a frame."""
    fields = {name: getattr(request, name) for name in request.get_fields_and_field_types()}
    return msg.CorrectionRequest(**{**fields, "image": Image(header=request.header)})

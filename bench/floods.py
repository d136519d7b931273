# SPDX-License-Identifier: Apache-2.0
"""What floods of masks, corrections and calls leave of the tracker's frame rate.

A camera, the tracker with the model that comes with the package, and the flood are processes of
their own. The tracker follows three objects, and may follow no more (`max_objects`): what is
measured is the flood, not the objects that it brings. What counts is how many frames' masks come.

A tracker that can just follow the camera loses frames to whatever else the machine does. So it has
one thread and few rows inside. The flood's process has less priority; the last row has what it
costs by itself. All are in the ROS domain that ROS_DOMAIN_ID names, else in one of their own.

tools/run python bench/floods.py [--rate 10] [--rows 96] [--seconds 10] [--only detector masks]
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header, UInt64
from std_srvs.srv import Trigger

from bench.processes import running
from bench.spinning import Spinner
from lazyxmem_ros.basics import stamp_of
from lazyxmem_ros.entry import interruptible
from lazyxmem_ros.msg import Correction, NewObject, Prompt
from lazyxmem_ros.nodes.conversions import (
    image_message,
    labels_message,
    mask_message,
)
from lazyxmem_ros.srv import AddObjects

HEIGHT, WIDTH, RADIUS = 240, 320, 30
TRACKER = "/lazyxmem_tracker"
QUALITY = QoSProfile(depth=10)
TIMEOUT_S = 120.0
SETTLE_S = 2.0
COUNT_PERIOD_S = 0.2
CALLS_UNDER_WAY = 50
FLOOD_NICENESS = 5
"""Above the tracker's: the processor time of the flood itself is not what is measured."""


def disc(index: int, row: int, column: int) -> NDArray[np.bool_]:
    """A disc that moves to and fro: bool [H, W]."""
    shift = round(40 * np.sin(index / 15))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside: NDArray[np.bool_] = (rows - row) ** 2 + (columns - column - shift) ** 2 < RADIUS**2
    return inside


FRAMES = 94
"""So often the discs move before they are where they were, about."""
PLACES = ((60, 90), (60, 220), (170, 160))


def objects(index: int) -> NDArray[np.uint16]:
    """The label map [H, W] of the three discs."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    for object_id, place in enumerate(PLACES, 1):
        labels[disc(index, *place)] = object_id
    return labels


def scene(index: int) -> NDArray[np.uint8]:
    """Three discs over noise: RGB uint8 [H, W, 3]."""
    image = np.random.default_rng(3).integers(0, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for color, place in zip(((220, 40, 40), (40, 200, 60), (60, 80, 230)), PLACES, strict=True):
        image[disc(index, *place)] = color
    return image


# ---- the camera's process


def camera(rate: float) -> None:
    """Publish the scene until the process is ended."""
    rclpy.init()
    node = Node("camera")
    publisher = node.create_publisher(Image, "image", qos_profile_sensor_data)
    images = [scene(index) for index in range(FRAMES)]
    due, index = time.monotonic(), 0
    while rclpy.ok():
        due += 1 / rate
        time.sleep(max(0.0, due - time.monotonic()))
        header = Header(stamp=node.get_clock().now().to_msg(), frame_id=str(index))
        publisher.publish(image_message(images[index % FRAMES], "rgb8", header))
        index += 1


# ---- the floods' process


class Flood:
    """Knows the newest image's header, and sends as often as it is told to."""

    def __init__(self) -> None:
        self.node = Node("flood")
        self._header: Header | None = None
        self._answered: set[int] = set()
        self.node.create_subscription(Image, "image", self._see, qos_profile_sensor_data)
        self._masks = self.node.create_publisher(Image, f"{TRACKER}/init_mask", QUALITY)
        self._corrections = self.node.create_publisher(
            Correction, f"{TRACKER}/operator_correction", QUALITY
        )
        self._elsewhere = self.node.create_publisher(Image, "elsewhere", QUALITY)
        self._adding = self.node.create_client(AddObjects, f"{TRACKER}/add_objects")
        # Made before: the flood shall cost the machine little beside what it costs the tracker.
        self._objects = [objects(index) for index in range(FRAMES)]
        self._first = [(labels == 1).astype(np.uint16) for labels in self._objects]
        self._empty = np.zeros((HEIGHT, WIDTH), np.uint16)
        self._garbage = b"\0\1\0\0" + os.urandom(HEIGHT * WIDTH)
        self._under_way = 0
        self._next_id = 1000
        self._sent = 0
        self._counts = self.node.create_publisher(UInt64, "sent", QUALITY)
        self.node.create_timer(COUNT_PERIOD_S, self._say_count)

    def _see(self, message: Image) -> None:
        self._header = message.header

    def _say_count(self) -> None:
        self._counts.publish(UInt64(data=self._sent))

    def run(self, kind: str, rate: float) -> None:
        """Send what `kind` names, `rate` times a second, until the process is ended."""
        send: Callable[[Header, int], None] = getattr(self, f"_send_{kind}")
        Spinner(self.node)
        due = time.monotonic()
        while rclpy.ok():
            due = max(due + 1 / rate, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))
            header = self._header
            if header is not None:
                send(header, int(header.frame_id))
                self._sent += 1

    def _send_masks(self, header: Header, index: int) -> None:
        self._masks.publish(labels_message(self._first[index % FRAMES], header))

    def _send_detector(self, header: Header, index: int) -> None:
        self._masks.publish(labels_message(self._objects[index % FRAMES], header))

    def _send_corrections(self, header: Header, index: int) -> None:
        prompt = Prompt(mask=mask_message(self._first[index % FRAMES] > 0, header))
        self._corrections.publish(Correction(header=header, id=1, prompt=prompt))

    def _send_correction_each(self, header: Header, index: int) -> None:
        stamp = stamp_of(header.stamp)
        if stamp not in self._answered:
            self._answered.add(stamp)
            self._send_corrections(header, index)

    def _send_calls(self, header: Header, index: int) -> None:
        if self._under_way >= CALLS_UNDER_WAY:
            return
        self._next_id += 1
        prompt = Prompt(mask=mask_message(self._first[index % FRAMES] > 0, header))
        request = AddObjects.Request(objects=[NewObject(id=self._next_id, prompt=prompt)])
        self._under_way += 1
        self._adding.call_async(request).add_done_callback(self._after_call)

    def _after_call(self, _: object) -> None:
        self._under_way -= 1

    def _send_empty(self, header: Header, index: int) -> None:
        self._masks.publish(labels_message(self._empty, header))

    def _send_elsewhere(self, header: Header, index: int) -> None:
        self._elsewhere.publish(labels_message(self._objects[index % FRAMES], header))

    def _send_garbage(self, header: Header, index: int) -> None:
        """Random bytes in place of serialized label maps."""
        self._masks.publish(self._garbage)


def flood(kind: str, rate: float) -> None:
    os.nice(FLOOD_NICENESS)
    rclpy.init()
    Flood().run(kind, rate)


FLOODS = (
    ("a detector's label map of three objects", "detector", 5.0),
    ("a detector's label map of three objects", "detector", 10.0),
    ("a detector's label map of three objects", "detector", 30.0),
    ("a detector's label map of three objects", "detector", 200.0),
    ("`~/init_mask` of one object", "masks", 200.0),
    ("a mask correction of every frame", "correction_each", 200.0),
    ("mask corrections of the newest frame", "corrections", 200.0),
    ("`~/add_objects` with new ids", "calls", 200.0),
    ("label maps without an object", "empty", 200.0),
    ("label maps of random bytes", "garbage", 200.0),
    ("label maps that nobody reads", "elsewhere", 200.0),
)


# ---- measuring


@dataclass
class Measured:
    """Frames whose mask came, and messages that the flood sent, per second; and the longest time
    without a mask.
    """

    rate: float
    sent: float
    longest_gap: float


class Bench:
    """Counts masks; starts the others."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        rclpy.init()
        self._node = Node("bench")
        self._came: dict[int, float] = {}
        self._headers: list[Header] = []
        self._shows_object = False
        self._sent = 0
        self._node.create_subscription(Image, f"{TRACKER}/mask", self._on_mask, QUALITY)
        self._node.create_subscription(UInt64, "sent", self._on_count, QUALITY)
        self._masks = self._node.create_publisher(Image, f"{TRACKER}/init_mask", QUALITY)
        self._resetting = self._node.create_client(Trigger, f"{TRACKER}/reset")
        self._spinner = Spinner(self._node)

    def close(self) -> None:
        """Leave the graph."""
        self._spinner.close()
        rclpy.shutdown()

    def _on_mask(self, message: Image) -> None:
        self._headers.append(message.header)
        self._shows_object = bool(np.any(message.data))
        self._came.setdefault(stamp_of(message.header.stamp), time.monotonic())

    def _on_count(self, message: UInt64) -> None:
        self._sent = message.data

    def begin(self) -> None:
        """Reset the tracker, show it the objects, and let it settle."""
        self._wait(self._resetting.service_is_ready, "the tracker")
        done = self._resetting.call_async(Trigger.Request())
        self._wait(done.done, "the reset")
        self._headers.clear()
        self._shows_object = False
        self._wait(self._show, "the objects")
        time.sleep(SETTLE_S)

    def _show(self) -> bool:
        """Show the objects on the newest frame whose mask came; returns whether they are there.

        That frame may be one of before the reset, which is forgotten.
        """
        if self._headers and not self._shows_object:
            header = self._headers[-1]
            self._headers.clear()
            self._masks.publish(labels_message(objects(int(header.frame_id)), header))
        return self._shows_object

    def measure(self, kind: str, rate: float) -> Measured:
        """The frames that are tracked during a flood; "" for none."""
        self._sent = 0
        with child("flood", kind, str(rate)) if kind else _nothing():
            if kind:
                self._wait(lambda: self._sent, "the flood")
            time.sleep(SETTLE_S)
            begun, before = time.monotonic(), self._sent
            time.sleep(self._seconds)
            ended, sent = time.monotonic(), self._sent - before
        times = [moment for moment in list(self._came.values()) if begun <= moment <= ended]
        gaps = np.diff([begun, *times, ended])
        seconds = ended - begun
        return Measured(len(times) / seconds, sent / seconds, float(gaps.max()))

    @staticmethod
    def _wait(done: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not come within {TIMEOUT_S:g} s")
            time.sleep(0.02)


@contextmanager
def child(*role: str) -> Iterator[None]:
    """This program in another role, for as long as the block runs."""
    with running([sys.executable, __file__, "--role", *role]):
        yield


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def tracker(rows: int, threads: int) -> Iterator[None]:
    """The node under test, with so many rows inside."""
    command = [sys.executable, "-m", "lazyxmem_ros.nodes", "tracker", "--ros-args"]
    parameters = {
        "operator_corrections": "false",
        "pseudo_corrections": "false",
        "max_objects": str(len(PLACES)),
        "max_internal_size": str(rows),
    }
    pairs = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with running(
        [*command, *pairs], patience=TIMEOUT_S, stderr=subprocess.DEVNULL, env=environment
    ):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=10.0, help="images per second")
    parser.add_argument(
        "--rows", type=int, default=96, help=f"inside the tracker; {HEIGHT} are the image's"
    )
    parser.add_argument("--threads", type=int, default=1, help="of the tracker")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--only", nargs="+", help="floods of these kinds alone, such as detector")
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        kind, *values = options.role
        camera(float(values[0])) if kind == "camera" else flood(values[0], float(values[1]))
        return
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.randint(1, 101)))
    with (
        interruptible(),
        tracker(options.rows, options.threads),
        child("camera", str(options.rate)),
    ):
        bench = Bench(options.seconds)
        print("| flood | sent, Hz | frames per second | without it | share | longest gap (s) |")
        print("| --- | --- | --- | --- | --- | --- |")
        for name, kind, rate in FLOODS:
            if options.only and kind not in options.only:
                continue
            bench.begin()
            before = bench.measure("", 0.0)
            found = bench.measure(kind, rate)
            bench.begin()
            # On both sides, for the machine may have become quicker or slower meanwhile.
            alone = (before.rate + bench.measure("", 0.0).rate) / 2
            row = (name, f"{found.sent:.0f} of {rate:g}", f"{found.rate:.1f}", f"{alone:.1f}")
            share = f"{found.rate / alone:.2f}"
            print(f"| {' | '.join(row)} | {share} | {found.longest_gap:.2f} |", flush=True)
    bench.close()


if __name__ == "__main__":
    main()

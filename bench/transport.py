# SPDX-License-Identifier: Apache-2.0
"""Images between processes: to a subscriber alone, and through the tracker's node to their masks.

    tools/run python bench/transport.py [--frames 150] [--rate 30] [--masks 60]

First images go from one process to another and no further, with Fast DDS' defaults and with
config/fastdds.xml. Then, with config/fastdds.xml, a camera's process publishes images, the
tracker's node follows an object on them with the model that comes with the package, and the camera
waits for the masks. From publishing an image to having its mask there passes the tracker's own time
(`LazyTracker.step`, noted in its process frame by frame) and what transport, decoding, conversion
and publishing add to it, which is shown. So that nothing waits, an image is published when the mask
of the one before has come; then the camera is twice as fast as that.

The processes are in the ROS domain that ROS_DOMAIN_ID names, else in one of their own. Best effort,
as cameras publish and the tracker subscribes. Every figure is a median over images,
with quartiles or the 99th percentile. Writes out/bench/transport.md.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rich.console import Console
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from bench.processes import running
from bench.spinning import Spinner
from lazyxmem_ros.basics import SECOND, stamp_of
from lazyxmem_ros.data.layouts.scene import SceneSequence
from lazyxmem_ros.data.pond import SceneConfig
from lazyxmem_ros.entry import interruptible
from lazyxmem_ros.nodes.conversions import image_message, labels_message, time_message

OUT = Path("out/bench")
PROFILE = Path(__file__).parent.parent / "config" / "fastdds.xml"
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
SIZES = ((480, 854), (720, 1280), (1080, 1920))
TRACKER = "/lazyxmem_tracker"
QUIET = ("operator_corrections:=false", "pseudo_corrections:=false")
MATCH_TIMEOUT_S = 20.0
MASK_TIMEOUT_S = 120.0
"""The tracker's node loads PyTorch, and may translate its network, before the first mask comes."""
FIRST_MASK_PERIOD_S = 0.5
LAST_FRAME_GRACE_S = 1.0
SCENE_FRAMES = 20
WARM_UP = 10
"""Masks before the first that counts."""
CAMERA_SPEED = 2.0
"""Images of the faster camera for each mask that the tracker makes."""

Latencies = dict[int, float]
"""Stamp (ns) -> seconds."""


# ---- images to a subscriber alone


def publish(height: int, width: int, frames: int, rate: float) -> None:
    """Publish `frames` rgb8 images stamped with the monotonic clock."""
    rclpy.init()
    node = Node("transport_publisher")
    publisher = node.create_publisher(Image, "bench_image", qos_profile_sensor_data)
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.data = array.array("B", bytes(height * width * 3))
    deadline = time.monotonic() + MATCH_TIMEOUT_S
    while not publisher.get_subscription_count():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no subscriber within {MATCH_TIMEOUT_S:g} s")
        time.sleep(0.05)
    due = time.monotonic()
    for _ in range(frames):
        due += 1 / rate
        time.sleep(max(0.0, due - time.monotonic()))
        message.header.stamp = time_message(time.monotonic_ns())
        publisher.publish(message)
    time.sleep(LAST_FRAME_GRACE_S)
    rclpy.shutdown()


def receive() -> None:
    """Print the latencies, seconds, of the images that come until SIGINT."""
    rclpy.init()
    node = Node("transport_subscriber")
    latencies: list[float] = []

    def on_image(message: Image) -> None:
        latencies.append((time.monotonic_ns() - stamp_of(message.header.stamp)) / SECOND)

    node.create_subscription(Image, "bench_image", on_image, qos_profile_sensor_data)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    print(json.dumps(latencies))


def images_alone(size: tuple[int, int], profile: Path | None, frames: int, rate: float) -> Any:
    """A row of the table: how many images arrived, and when."""
    surroundings = environment(profile)
    with (
        role("receive", environment=surroundings) as receiver,
        role("publish", *size, frames, rate, environment=surroundings) as publisher,
    ):
        end_of(publisher)
        receiver.send_signal(signal.SIGINT)
        seconds = answer_of(receiver)
    # Nothing may arrive: best effort does not send the lost pieces again.
    p50, p99 = (
        [f"{1000 * value:.1f}" for value in np.percentile(seconds, [50, 99])]
        if seconds
        else ["", ""]
    )
    return {
        "image": f"{size[1]}x{size[0]}",
        "profile": "default" if profile is None else profile.name,
        "arrived": f"{len(seconds)} of {frames}",
        "p50, ms": p50,
        "p99, ms": p99,
    }


# ---- images through the tracker


def track() -> None:
    """The tracker's node until SIGINT; then print how long each frame's step took."""
    from lazyxmem_ros.lazy import LazyTracker
    from lazyxmem_ros.nodes.tracker.node import main as run_tracker

    step, seconds = LazyTracker.step, Latencies()

    def timed(self: LazyTracker, image: NDArray[np.uint8], stamp: int, **shown: Any) -> Any:
        began = time.monotonic()
        result = step(self, image, stamp, **shown)
        seconds[stamp] = time.monotonic() - began
        return result

    LazyTracker.step = timed  # type: ignore[method-assign, assignment]
    run_tracker(["tracker", "--ros-args", *(part for p in QUIET for part in ("-p", p))])
    print(json.dumps(seconds))


class Camera:
    """Publishes the pond in a size, and notes when the masks come."""

    def __init__(self, height: int, width: int) -> None:
        self._node = Node("camera")
        self._publisher = self._node.create_publisher(Image, "image", qos_profile_sensor_data)
        self._shower = self._node.create_publisher(
            Image, f"{TRACKER}/init_mask", QoSProfile(depth=1)
        )
        self._node.create_subscription(
            Image, f"{TRACKER}/mask", self._on_mask, QoSProfile(depth=10)
        )
        samples = SceneSequence(SceneConfig(duration=SCENE_FRAMES / 10)).samples()
        pictures = [(s.image, s.truth) for s in samples if s.image is not None]
        there_and_back = [*pictures, *pictures[-2:0:-1]]
        self._images = [
            image_message(cv2.resize(image, (width, height))[..., ::-1], "bgr8", Header())
            for image, _ in there_and_back
        ]
        truth = there_and_back[0][1]
        assert truth is not None
        self._object = cv2.resize((truth == 1).astype(np.uint8), (width, height)).astype(np.uint16)
        self._sent = 0
        self._changed = threading.Condition()
        self._latencies = Latencies()
        self._shows_object = False
        self._spinner = Spinner(self._node)

    def close(self) -> None:
        """Leave the graph."""
        self._spinner.close()
        self._node.destroy_node()

    def _on_mask(self, message: Image) -> None:
        now, stamp = time.monotonic_ns(), stamp_of(message.header.stamp)
        with self._changed:
            # A frame's mask may come again, as when an object is shown on it.
            self._latencies.setdefault(stamp, (now - stamp) / SECOND)
            self._shows_object = bool(np.any(message.data))
            self._changed.notify_all()

    def publish(self) -> int:
        """Publish the next image; returns its stamp."""
        message = self._images[self._sent % len(self._images)]
        stamp = time.monotonic_ns()
        message.header.stamp = time_message(stamp)
        self._publisher.publish(message)
        self._sent += 1
        return stamp

    def wait(self, stamp: int, timeout: float = MASK_TIMEOUT_S) -> bool:
        """Until the mask of a frame has come; whether it has within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: stamp in self._latencies, timeout)

    def begin(self) -> None:
        """Show the tracker an object on an image that it has taken."""
        deadline = time.monotonic() + MASK_TIMEOUT_S
        while not self.wait(self.publish(), FIRST_MASK_PERIOD_S):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no mask came within {MASK_TIMEOUT_S:g} s")
        self._sent = 0
        header = self._images[0].header
        self.wait(self.publish())
        self._shower.publish(labels_message(self._object, header))
        with self._changed:
            if not self._changed.wait_for(lambda: self._shows_object, MASK_TIMEOUT_S):
                raise TimeoutError(f"the object was not there within {MASK_TIMEOUT_S:g} s")

    def one_at_a_time(self, count: int) -> Latencies:
        """Publish each image when the mask of the one before has come."""
        stamps = []
        for _ in range(count):
            stamps.append(self.publish())
            if not self.wait(stamps[-1]):
                raise TimeoutError("the mask of an image did not come")
        with self._changed:
            return {stamp: self._latencies[stamp] for stamp in stamps}

    def steadily(self, count: int, period: float) -> Latencies:
        """Publish images at a rate, whatever becomes of them."""
        stamps, due = [], time.monotonic()
        for _ in range(count):
            due += period
            time.sleep(max(0.0, due - time.monotonic()))
            stamps.append(self.publish())
        self.wait(stamps[-1])  # nothing comes after it, for which it could be dropped
        with self._changed:
            return {stamp: self._latencies[stamp] for stamp in stamps if stamp in self._latencies}


def photograph(height: int, width: int, masks: int) -> None:
    """Print the latencies of masks, one image at a time and from the faster camera."""
    rclpy.init()
    camera = Camera(height, width)
    camera.begin()
    camera.one_at_a_time(WARM_UP)
    alone = camera.one_at_a_time(masks)
    period = float(np.median([*alone.values()])) / CAMERA_SPEED
    fast = camera.steadily(round(CAMERA_SPEED * masks), period)
    camera.close()
    rclpy.shutdown()
    print(json.dumps([alone, fast]))


def images_tracked(size: tuple[int, int], masks: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two rows: what is added to the tracker's time, and what a camera finds that is too fast."""
    surroundings = environment(PROFILE)
    with role("track", environment=surroundings) as tracker:
        with role("photograph", *size, masks, environment=surroundings) as photographer:
            measured: list[Mapping[str, float]] = answer_of(photographer)
        tracker.send_signal(signal.SIGINT)
        own: Mapping[str, float] = answer_of(tracker)
    alone, fast = (
        np.array([(latency, own[stamp]) for stamp, latency in each.items()]) for each in measured
    )
    image = f"{size[1]}x{size[0]}"
    low, added, high, worst = 1e3 * np.percentile(alone[:, 0] - alone[:, 1], [25, 50, 75, 99])
    latency, tracking = 1e3 * np.median(alone, axis=0)
    typical, slow = 1e3 * np.percentile(fast[:, 0], [50, 99])
    frames = fast[:, 0] / np.median(fast[:, 1])
    return (
        {
            "image": image,
            "to the mask, ms": f"{latency:.1f}",
            "the tracker's own, ms": f"{tracking:.1f}",
            "added, ms": f"{added:.1f}",
            "quartiles": f"{low:.1f} to {high:.1f}",
            "p99, ms": f"{worst:.1f}",
        },
        {
            "image": image,
            "images": round(CAMERA_SPEED * masks),
            "masks": len(fast),
            "to the mask, p50, ms": f"{typical:.1f}",
            "p99, ms": f"{slow:.1f}",
            "in frames of the tracker, p50": f"{np.median(frames):.2f}",
            "p99": f"{np.percentile(frames, 99):.2f}",
        },
    )


# ---- processes


def environment(profile: Path | None) -> dict[str, str]:
    """Surroundings of processes that hear nobody else, unless ROS_DOMAIN_ID says where they are;
    with a profile of Fast DDS or without.
    """
    values = {key: value for key, value in os.environ.items() if key not in PROFILE_VARIABLES}
    values.setdefault("ROS_DOMAIN_ID", str(random.randint(1, 101)))
    if profile is not None:
        values.update(dict.fromkeys(PROFILE_VARIABLES, str(profile)))
    return values


@contextmanager
def role(
    name: str, *values: float, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """This file as another process, which ends with the block at the latest."""
    command = [sys.executable, __file__, "--role", name, *map(str, values)]
    with running(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        yield process


def end_of(process: subprocess.Popen[str]) -> str:
    """What a process has printed, once it has ended well."""
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{process.args!r} ended with {process.returncode}")
    return output


def answer_of(process: subprocess.Popen[str]) -> Any:
    """What a process prints last, once it has ended well."""
    return json.loads(end_of(process).splitlines()[-1])


def play(name: str, values: Sequence[str]) -> None:
    """What this process is for, where it is one of the others."""
    if name == "track":
        track()
    elif name == "receive":
        receive()
    elif name == "photograph":
        photograph(*(int(value) for value in values))
    else:
        height, width, frames = (int(value) for value in values[:3])
        publish(height, width, frames, float(values[3]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=150, help="images to a subscriber alone")
    parser.add_argument("--rate", type=float, default=30.0, help="of these images per second")
    parser.add_argument("--masks", type=int, default=60, help="images through the tracker")
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        play(options.role[0], options.role[1:])
        return
    with interruptible():  # what was started ends with this program
        alone = [
            images_alone(size, profile, options.frames, options.rate)
            for size in SIZES
            for profile in (None, PROFILE)
        ]
        tracked, fast = zip(*(images_tracked(size, options.masks) for size in SIZES), strict=True)
    tables = {
        f"Images to a subscriber alone, {options.rate:g} a second": alone,
        "From publishing an image to having its mask, one image at a time": tracked,
        "A camera twice as fast": fast,
    }
    # Late: it loads pandas, which takes seconds that the other roles spare.
    from lazyxmem_ros.evaluation.printing import markdown_table, screen_table

    OUT.mkdir(parents=True, exist_ok=True)
    sections = [f"{title}:\n\n{markdown_table(rows)}" for title, rows in tables.items()]
    (OUT / "transport.md").write_text("\n".join(sections))
    for title, rows in tables.items():
        Console().print(screen_table(rows, title=title))


if __name__ == "__main__":
    main()

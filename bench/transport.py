# SPDX-License-Identifier: Apache-2.0
"""Latency of images between two processes, with Fast DDS' defaults and with config/fastdds.xml.

Sensor-data quality of service (best effort), as cameras publish and the tracker subscribes.

tools/run python bench/transport.py [--frames 150] [--rate 30]
"""

from __future__ import annotations

import argparse
import array
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from lazyxmem_ros.basics import SECOND

PROFILE = Path(__file__).parent.parent / "config" / "fastdds.xml"
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
SIZES = ((480, 854), (720, 1280), (1080, 1920))
MATCH_TIMEOUT_S = 20.0
LAST_FRAME_GRACE_S = 1.0


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
        now = time.monotonic_ns()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, SECOND)
        publisher.publish(message)
    time.sleep(LAST_FRAME_GRACE_S)
    rclpy.shutdown()


def receive(height: int, width: int, frames: int, rate: float) -> None:
    """Print the latencies, seconds, of the images that a publisher process sends."""
    rclpy.init()
    node = Node("transport_subscriber")
    latencies: list[float] = []

    def on_image(message: Image) -> None:
        sent = message.header.stamp.sec * SECOND + message.header.stamp.nanosec
        latencies.append((time.monotonic_ns() - sent) / SECOND)

    node.create_subscription(Image, "bench_image", on_image, qos_profile_sensor_data)
    arguments = ("publish", str(height), str(width), str(frames), str(rate))
    with subprocess.Popen([sys.executable, __file__, "--role", *arguments]) as publisher:
        while publisher.poll() is None:
            rclpy.spin_once(node, timeout_sec=0.05)
    rclpy.shutdown()
    print(json.dumps(latencies))


def measure(profile: Path | None, size: tuple[int, int], frames: int, rate: float) -> list[float]:
    """Latencies in seconds of the images that arrived."""
    environment = {key: value for key, value in os.environ.items() if key not in PROFILE_VARIABLES}
    environment["ROS_DOMAIN_ID"] = str(random.randint(1, 100))
    if profile is not None:
        environment.update(dict.fromkeys(PROFILE_VARIABLES, str(profile)))
    arguments = ("receive", str(size[0]), str(size[1]), str(frames), str(rate))
    done = subprocess.run(
        [sys.executable, __file__, "--role", *arguments],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    latencies: list[float] = json.loads(done.stdout.splitlines()[-1])
    return latencies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--rate", type=float, default=30.0, help="images per second")
    parser.add_argument("--role", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        role = {"publish": publish, "receive": receive}[options.role[0]]
        height, width, frames = (int(value) for value in options.role[1:4])
        role(height, width, frames, float(options.role[4]))
        return
    print(f"{'size':>10} {'profile':>12} {'arrived':>9} {'p50 ms':>8} {'p99 ms':>8}")
    for size in SIZES:
        for name, profile in (("default", None), ("fastdds.xml", PROFILE)):
            seconds = measure(profile, size, options.frames, options.rate)
            # NaN where nothing arrived: best effort does not send the lost pieces again.
            p50, p99 = (1000 * np.percentile(seconds or [np.nan], [50, 99])).tolist()
            arrived = f"{len(seconds)}/{options.frames}"
            label = f"{size[0]}x{size[1]}"
            print(f"{label:>10} {name:>12} {arrived:>9} {p50:8.1f} {p99:8.1f}", flush=True)


if __name__ == "__main__":
    main()

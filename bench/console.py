# SPDX-License-Identifier: Apache-2.0
"""What the operator's console leaves of the tracker's frame rate.

A camera, the tracker with the model that comes with the package, the console and its browsers are
processes of their own. The camera gives more frames than the tracker can take, so that whatever the
console costs is missed. The browsers stand for those of other machines: they take what they get and
say so, but decode nothing; a stalled one reads nothing. What counts is how many masks come. Each
way is measured several times, in turn with the tracker alone, and its ratio to that is given, with
the processor time of the console's process as its share of the cores. All are in the ROS domain
that ROS_DOMAIN_ID names, else in one of their own.

tools/run python bench/console.py [--seconds 10] [--rounds 3] [--rate 30]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import aiohttp
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from bench.processes import running
from bench.spinning import Spinner
from lazyxmem_ros.data.layouts.scene import SceneSequence
from lazyxmem_ros.data.pond import SceneConfig
from lazyxmem_ros.entry import interruptible
from lazyxmem_ros.evaluation.machine import usable_cores
from lazyxmem_ros.msg import TrackArray
from lazyxmem_ros.nodes.conversions import image_message, labels_message
from lazyxmem_ros.nodes.operator.messages import PROTOCOL

TRACKER = "/lazyxmem_tracker"
PORT = 18_080
FRAMES = 20
SHOWN = 3
"""How often the tracker is shown its objects, in case a frame is dropped."""
TIMEOUT_S = 120.0
SETTLE_S = 2.0
WAYS = {
    "no browser": (0, False),
    "one browser": (1, False),
    "five browsers": (5, False),
    "five, and one stalled": (5, True),
}
"""How many browsers look, and whether there is one besides that reads nothing."""
ALONE = "no console"


def camera(rate: float) -> None:
    """Publish the pond to and fro until the process is ended."""
    rclpy.init()
    node = Node("camera")
    publisher = node.create_publisher(Image, "image", qos_profile_sensor_data)
    scene = SceneSequence(SceneConfig(duration=FRAMES / 10)).samples()
    samples = [(s.image, s.truth) for s in scene if s.image is not None and s.truth is not None]
    masks = node.create_publisher(Image, f"{TRACKER}/init_mask", QoSProfile(depth=1))
    order = [*samples, *samples[-2:0:-1]]
    due, index, shown = time.monotonic(), 0, 0
    while rclpy.ok():
        due = max(due + 1 / rate, time.monotonic() - 1)
        time.sleep(max(0.0, due - time.monotonic()))
        header = Header(stamp=node.get_clock().now().to_msg(), frame_id="camera")
        image, truth = order[index % len(order)]
        try:
            publisher.publish(image_message(image, "rgb8", header))
            if shown < SHOWN and masks.get_subscription_count() and index % len(order) == 0:
                masks.publish(labels_message(truth, header))
                shown += 1
        except RuntimeError:  # rclpy's, where the process was ended meanwhile
            if rclpy.ok():
                raise
        index += 1


async def browse(stalls: bool) -> None:
    """A browser, until the process is ended."""
    url = f"http://127.0.0.1:{PORT}"
    async with aiohttp.ClientSession() as session:
        socket = await session.ws_connect(f"{url}/connect", headers={"Origin": url})
        number = random.getrandbits(64)
        hello = {"type": "hello", "protocol": PROTOCOL, "session": f"{number:016x}"}
        await socket.send_json(hello)
        await socket.send_json({"type": "watch", "tracker": TRACKER})
        print("looks", flush=True)
        if stalls:
            await asyncio.sleep(3600)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                (length,) = struct.unpack_from("<I", message.data)
                header = json.loads(message.data[4 : 4 + length])
                shown = {"type": "shown", "number": header["number"]}
                await socket.send_json(shown)


class Counter:
    """Notes when masks come, of frames on which objects are followed."""

    def __init__(self) -> None:
        self.node = Node("counter")
        self.times: list[float] = []
        self.node.create_subscription(
            TrackArray, f"{TRACKER}/tracks", self._count, QoSProfile(depth=10)
        )
        self._spinner = Spinner(self.node)

    def _count(self, message: TrackArray) -> None:
        if message.tracks:
            self.times.append(time.monotonic())

    def rate(self, seconds: float) -> float:
        """Masks per second, from one that comes to the last within so many seconds."""
        self.wait()
        first = len(self.times) - 1
        time.sleep(seconds)
        times = self.times[first:]
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0

    def wait(self) -> None:
        """Until the next mask."""
        before, deadline = len(self.times), time.monotonic() + TIMEOUT_S
        while len(self.times) == before:
            if time.monotonic() > deadline:
                raise SystemExit(f"no object was followed within {TIMEOUT_S:.0f} s")
            time.sleep(0.01)


@contextmanager
def process(*command: str, output: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    """A process of Python's that is ended with the block."""
    with running([sys.executable, *command], patience=20.0, stdout=output) as started:
        yield started


@contextmanager
def console(browsers: int, stalled: bool) -> Iterator[subprocess.Popen[bytes]]:
    """The console's process, with its browsers in another one."""
    node = ("-m", "lazyxmem_ros.nodes", "operator", "--ros-args", "-p", f"port:={PORT}")
    with process(*node) as started:
        wait_for_port()
        if not browsers:
            yield started
            return
        command = [__file__, "--browsers", str(browsers)] + ["--stalled"] * stalled
        with process(*command, output=subprocess.PIPE) as looking:
            assert looking.stdout is not None
            for _ in range(browsers + stalled):
                looking.stdout.readline()
            yield started


def processor_seconds(started: subprocess.Popen[bytes]) -> float:
    """What a process has used until now, all its threads together (Linux)."""
    fields = Path(f"/proc/{started.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for_port() -> None:
    """Until the console serves."""
    import socket

    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", PORT), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit("the console does not serve") from None
            time.sleep(0.2)


def measure(options: argparse.Namespace) -> None:
    """All ways, in turn with the tracker alone."""
    rclpy.init()
    counter = Counter()
    rates: dict[str, list[float]] = {name: [] for name in (ALONE, *WAYS)}
    ratios: dict[str, list[float]] = {name: [] for name in WAYS}
    cores: dict[str, list[float]] = {name: [] for name in WAYS}
    tracker = ("-m", "lazyxmem_ros.nodes", "tracker", "--ros-args")
    quiet = ("-p", "operator_corrections:=false", "-p", "pseudo_corrections:=false")
    with process(*tracker, *quiet), process(__file__, "--camera", "--rate", str(options.rate)):
        counter.wait()
        time.sleep(4 * SETTLE_S)
        for _ in range(options.rounds):
            for name, way in WAYS.items():
                alone = counter.rate(options.seconds)
                with console(*way) as started:
                    time.sleep(SETTLE_S)
                    used, began = processor_seconds(started), time.monotonic()
                    rate = counter.rate(options.seconds)
                    used, passed = processor_seconds(started) - used, time.monotonic() - began
                cores[name].append(used / passed)
                again = counter.rate(options.seconds)
                rates[ALONE] += [alone, again]
                rates[name].append(rate)
                ratios[name].append(2 * rate / (alone + again))
    report(rates, ratios, cores)


def report(
    rates: dict[str, list[float]], ratios: dict[str, list[float]], cores: dict[str, list[float]]
) -> None:
    """The table: medians, of the ratios with their least and greatest."""
    print("| | masks per second | of the tracker alone | the console's share of all cores |")
    print("| --- | --- | --- | --- |")
    for name, measured in rates.items():
        ratio, share = "1", ""
        if name in ratios:
            few, many = min(ratios[name]), max(ratios[name])
            ratio = f"{median(ratios[name]):.2f} ({few:.2f} to {many:.2f})"
            share = f"{median(cores[name]) / usable_cores():.1%}"
        print(f"| {name} | {median(measured):.2f} | {ratio} | {share} |")


async def browse_all(browsers: int, stalled: bool) -> None:
    """All browsers of a way."""
    stalls = [False] * browsers + [True] * stalled
    await asyncio.gather(*(browse(each) for each in stalls))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=30.0, help="of the camera")
    parser.add_argument("--camera", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--browsers", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--stalled", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.camera:
        camera(options.rate)
    elif options.browsers is not None:
        os.nice(19)  # on the machines that they stand for they would not be in the tracker's way
        asyncio.run(browse_all(options.browsers, options.stalled))
    else:
        os.environ.setdefault("ROS_DOMAIN_ID", str(random.randint(1, 101)))
        with interruptible():  # what was started ends with this program
            measure(options)


if __name__ == "__main__":
    main()

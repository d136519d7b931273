# SPDX-License-Identifier: Apache-2.0
"""The replay node, in its own process, heard by a probe."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_graph import FIRST_STAMP, STEP, Probe, header, parameters, scene, stamps, wait_for
from node_process import NodeProcess
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from lazyxmem_ros.basics import stamp_of
from lazyxmem_ros.data.bag_messages import StampedImage, StampedLabels
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.data.errors import BagError
from lazyxmem_ros.images import read_image
from lazyxmem_ros.msg import CorrectionRequest
from lazyxmem_ros.nodes.bags.pacer import Pacer
from lazyxmem_ros.nodes.bags.replay import ReplayNode
from lazyxmem_ros.nodes.bags.source import BagSource, header_stamp, with_header_stamp
from lazyxmem_ros.nodes.bags.stamped import find_message_type
from lazyxmem_ros.nodes.conversions import labels_message, read_labels
from lazyxmem_ros.nodes.parameters import ParameterError
from lazyxmem_ros.nodes.running import NodeStartError

FRAMES = 10
Start = Callable[..., NodeProcess]
numbers = itertools.count()


def write_bag(path: Path, *, storage: str = "mcap", compression: str = "none") -> Path:
    topic = "/image" if compression == "none" else "/image/compressed"
    with BagWriter(path, storage=storage) as bag:
        for index in range(FRAMES):
            image, mask = scene(index)
            stamp = FIRST_STAMP + index * STEP
            bag.write_image(topic, StampedImage(stamp, image), compression=compression)
            bag.write_labels("/truth", StampedLabels(stamp, mask.astype(np.uint16)))
    return path


@pytest.fixture
def topics() -> dict[str, str]:
    """Names of this test alone, so that nothing of the test before is heard."""
    prefix = f"/replay{next(numbers)}"
    return {name: prefix + name for name in ("/image", "/image/compressed", "/truth", "/mask")}


def renamed(topics: dict[str, str]) -> list[str]:
    return [part for old, new in topics.items() for part in ("-r", f"{old}:={new}")]


def listen(probe: Probe, process: NodeProcess, message_type: Any, topic: str) -> None:
    assert process.exit_code() is None, process.log
    probe.listen(message_type, topic)


def test_every_message_comes_with_its_stamp_and_none_too_early(
    tmp_path: Path, probe: Probe, start: Start, topics: dict[str, str]
) -> None:
    """Never quicker than asked; how much slower is the machine's affair."""
    values = {"bag": write_bag(tmp_path / "bag"), "wait_for_subscribers": 1, "rate": 2.0}
    replay = start("replay", values, *renamed(topics))
    listen(probe, replay, Image, topics["/image"])
    listen(probe, replay, Image, topics["/truth"])
    wait_for(lambda: probe.messages(topics["/image"]), "the first image")
    began = time.monotonic()
    assert replay.wait() == 0, replay.log
    assert time.monotonic() - began >= 0.8 * (FRAMES - 1) * STEP / 1e9 / 2.0
    expected = [FIRST_STAMP + i * STEP for i in range(FRAMES)]
    wait_for(lambda: len(probe.messages(topics["/truth"])) == FRAMES, "the last message")
    images, truth = probe.messages(topics["/image"]), probe.messages(topics["/truth"])
    assert stamps(images) == expected
    assert stamps(truth) == expected
    for index in (0, FRAMES - 1):
        image, mask = scene(index)
        np.testing.assert_array_equal(read_image(images[index]).rgb(), image)
        np.testing.assert_array_equal(read_labels(truth[index]), mask)
    assert f"played {2 * FRAMES} messages" in replay.log


def test_part_of_a_compressed_recording_with_its_clock(
    tmp_path: Path, probe: Probe, start: Start, topics: dict[str, str]
) -> None:
    bag = write_bag(tmp_path / "bag", compression="png")
    replay = start(
        "replay",
        {
            "bag": bag,
            "topics": ["/image/compressed"],
            "start_offset": 0.25,
            "duration": 0.5,
            "clock": True,
            "wait_for_subscribers": 1,
        },
        *renamed(topics),
        "-r",
        f"/clock:={topics['/mask']}",
    )
    listen(probe, replay, Clock, topics["/mask"])
    listen(probe, replay, CompressedImage, topics["/image/compressed"])
    assert replay.wait() == 0, replay.log
    # Recorded at 0.3, 0.4, 0.5, 0.6 and 0.7 s, which lie within 0.25 .. 0.75 s.
    expected = [FIRST_STAMP + i * STEP for i in range(3, 8)]
    images = probe.messages(topics["/image/compressed"])
    assert stamps(images) == expected
    np.testing.assert_array_equal(read_image(images[0]).rgb(), scene(3)[0])
    clock = [stamp_of(message.clock) for message in probe.messages(topics["/mask"])]
    assert clock == sorted(clock)
    assert set(expected) <= set(clock)
    assert len(clock) > len(expected)  # it goes on between messages


def test_stamps_go_on_rising_in_a_loop(
    tmp_path: Path, probe: Probe, start: Start, topics: dict[str, str]
) -> None:
    bag = write_bag(tmp_path / "bag")
    replay = start(
        "replay",
        {
            "bag": bag,
            "topics": ["/image"],
            "loop": True,
            "rate": 10.0,
            "wait_for_subscribers": 1,
        },
        *renamed(topics),
    )
    listen(probe, replay, Image, topics["/image"])
    wait_for(lambda: len(probe.messages(topics["/image"])) > 2 * FRAMES + 2, "a third round")
    assert replay.stop() == 0
    received = probe.messages(topics["/image"])
    assert set(np.diff(stamps(received))) == {STEP}
    np.testing.assert_array_equal(
        read_image(received[FRAMES + 1]).rgb(), read_image(received[1]).rgb()
    )


def test_lockstep_waits_for_each_mask(
    tmp_path: Path, probe: Probe, start: Start, topics: dict[str, str]
) -> None:
    bag = write_bag(tmp_path / "bag")
    replay = start(
        "replay",
        {
            "bag": bag,
            "topics": ["/image"],
            "rate": 0.0,
            "wait_for_subscribers": 1,
            "lockstep_topic": topics["/mask"],
            "lockstep_wait_for_object": True,
            "lockstep_timeout": 60.0,
        },
        *renamed(topics),
    )
    listen(probe, replay, Image, topics["/image"])

    def answer(index: int, *, shows_object: bool) -> None:
        image = probe.messages(topics["/image"])[index]
        labels = scene(index)[1].astype(np.uint16) * shows_object
        probe.publish(topics["/mask"], labels_message(labels, image.header))

    def came(count: int) -> bool:
        return len(probe.messages(topics["/image"])) == count

    wait_for(lambda: came(1), "the first image")
    answer(0, shows_object=False)  # tracked, but nothing was shown to the tracker yet
    time.sleep(0.3)
    assert came(1)
    answer(0, shows_object=True)
    for index in range(1, FRAMES):
        wait_for(lambda index=index: came(index + 1), f"image {index}")
        if index == 1:
            time.sleep(0.2)
            assert came(2)
        answer(index, shows_object=False)
    assert replay.wait() == 0, replay.log
    assert "did not come" not in replay.log


def test_lockstep_goes_on_where_stamps_fall_back(
    tmp_path: Path, probe: Probe, start: Start, topics: dict[str, str]
) -> None:
    """A simulator has begun anew. What is still said of the time before is no mask of now."""
    bag = tmp_path / "bag"
    with BagWriter(bag) as writer:
        for place, index in enumerate((5, 6, 1, 2)):
            stamp = FIRST_STAMP + index * STEP
            message = writer._image(writer._header(stamp, ""), scene(index)[0], "rgb8")
            writer.write("/image", message, FIRST_STAMP + place * STEP)
    values = {"bag": bag, "rate": 0.0, "wait_for_subscribers": 1, "lockstep_timeout": 60.0}
    replay = start("replay", {**values, "lockstep_topic": topics["/mask"]}, *renamed(topics))
    listen(probe, replay, Image, topics["/image"])
    for count, index in enumerate((5, 6, 1, 2), start=1):
        wait_for(lambda n=count: len(probe.messages(topics["/image"])) >= n, f"image {index}")
        for said in (6, index) if index < 5 else (index,):
            time.sleep(0.2)
            assert len(probe.messages(topics["/image"])) == count
            probe.publish(topics["/mask"], labels_message(scene(0)[1], header(said)))
    assert replay.wait() == 0, replay.log
    assert "did not come" not in replay.log


def test_only_messages_of_topics_have_a_class() -> None:
    assert find_message_type("sensor_msgs/msg/Image") is Image
    others = ("srv/SetParameters_Event", "action/Move_FeedbackMessage", "msg/_image", "msg/Nothing")
    for name in (*(f"rcl_interfaces/{other}" for other in others), "/msg/X", "", "Image"):
        assert find_message_type(name) is None


def test_lockstep_goes_on_without_a_mask_after_its_timeout(
    tmp_path: Path, start: Start, topics: dict[str, str]
) -> None:
    bag = write_bag(tmp_path / "bag")
    replay = start(
        "replay",
        {
            "bag": bag,
            "duration": 0.25,
            "lockstep_topic": topics["/mask"],
            "lockstep_timeout": 0.05,
            "rate": 0.0,
        },
        *renamed(topics),
    )
    assert replay.wait() == 0, replay.log
    assert replay.log.count("; going on") == 1
    assert "3 masks did not come in time" in replay.log


def test_masks_that_did_not_come_are_counted_where_it_is_interrupted(
    tmp_path: Path, start: Start, topics: dict[str, str]
) -> None:
    bag = write_bag(tmp_path / "bag")
    values = {"bag": bag, "loop": True, "rate": 0.0}
    lockstep = {"lockstep_topic": topics["/mask"], "lockstep_timeout": 0.001}
    replay = start("replay", {**values, **lockstep}, *renamed(topics))
    wait_for(lambda: "; going on" in replay.log, "a mask that did not come")
    assert replay.stop() == 0, replay.log
    assert " masks did not come in time" in replay.log


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "give the bag to play"),
        ({"bag": "/nowhere/bag"}, "there is no bag at /nowhere/bag"),
        ({"bag": "BAG", "topics": ["/img"]}, "no topic /img; it has /image (sensor_msgs/msg/Image"),
        ({"bag": "BAG", "rate": -1.0}, "out of range"),
        (
            {
                "bag": "BAG",
                "lockstep_topic": "/m",
                "topics": ["/truth"],
                "lockstep_image_topic": "/x",
            },
            "lockstep_image_topic /x is not an image topic that is played; those are /truth",
        ),
    ],
)
def test_what_cannot_be_played_is_refused_at_the_start(
    values: dict[str, Any], reason: str, tmp_path: Path, ros: None
) -> None:
    if values.get("bag") == "BAG":
        values = {**values, "bag": str(write_bag(tmp_path / "bag"))}
    with pytest.raises((NodeStartError, ParameterError)) as caught:
        ReplayNode(parameter_overrides=parameters(**values))
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"bag": "/nowhere/bag"}, "error: there is no bag at /nowhere/bag"),
        ({"bag": "BAG", "start_offset": 9.0}, "lies beyond the bag's 0.900 s"),
        ({"bag": "BAG", "wait_for_subscribers": 3, "wait_timeout": 0.2}, "no subscribers after"),
        ({"bag": "BAG", "lockstep_topic": "/no name"}, "error: Invalid topic name"),
    ],
)
def test_what_cannot_be_played_is_said_in_a_line(
    values: dict[str, Any], reason: str, tmp_path: Path, start: Start, topics: dict[str, str]
) -> None:
    if values["bag"] == "BAG":
        values = {**values, "bag": write_bag(tmp_path / "bag")}
    replay = start("replay", values, *renamed(topics))
    assert replay.wait() == 1
    assert reason in replay.log
    assert "Traceback" not in replay.log


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_bag_is_named(storage: str, kept: float, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", storage=storage)
    file = next(path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * kept)])

    def read() -> int:
        with BagSource(bag) as source:
            return len(list(source.messages(source.start, source.end)))

    with pytest.raises(BagError, match=r"bag: cannot be read .*(reindex|recover)"):
        read()


def bag_without_its_last_messages(path: Path, missing: int) -> Path:
    """A bag whose storage is intact but holds less than the metadata says, as after a crash."""
    bag = write_bag(path, storage="sqlite3")
    with sqlite3.connect(next(bag.glob("*.db3"))) as storage:
        storage.execute(
            "DELETE FROM messages WHERE id IN (SELECT id FROM messages ORDER BY id DESC LIMIT ?)",
            [missing],
        )
    return bag


def test_fewer_messages_than_promised_are_noticed_when_the_intact_ones_are_read(
    tmp_path: Path,
) -> None:
    bag = bag_without_its_last_messages(tmp_path / "bag", 3)
    read = []
    with BagSource(bag) as source:
        with pytest.raises(BagError, match=f"17 of {2 * FRAMES} messages"):
            read.extend(source.messages(source.start, source.end))
        assert len(list(source.messages(source.start, source.start + 2 * STEP))) == 6
    with BagSource(bag, ["/truth"]) as source, pytest.raises(BagError, match="8 of 10 messages"):
        list(source.messages(source.start, source.end))
    assert len(read) == 17


def test_a_bag_that_ends_early_ends_the_node_with_an_error(tmp_path: Path, start: Start) -> None:
    bag = bag_without_its_last_messages(tmp_path / "bag", 3)
    replay = start("replay", {"bag": bag, "rate": 100.0, "loop": True})
    assert replay.wait() == 1
    assert f"17 of {2 * FRAMES} messages" in replay.log
    assert "Traceback" not in replay.log


@pytest.mark.parametrize("short", [7, 20])
def test_a_message_that_cannot_be_read_is_left_out_and_spoils_no_other(
    short: int, tmp_path: Path, probe: Probe, start: Start, topics: dict[str, str]
) -> None:
    """Cut within its stamp or after it; a request has images in it, whose stamps are looked for."""
    bag = tmp_path / "bag"
    kind = "lazyxmem_ros/msg/CorrectionRequest"
    with BagWriter(bag) as writer:
        for index in range(3):
            request = CorrectionRequest(header=header(index), id=1 + index)
            data = bytes(serialize_message(request))[: short if index == 1 else None]
            writer.write_raw("/image", kind, FIRST_STAMP + index * STEP, data)
    replay = start("replay", {"bag": bag, "wait_for_subscribers": 1}, *renamed(topics))
    listen(probe, replay, CorrectionRequest, topics["/image"])
    assert replay.wait() == 0, replay.log
    wait_for(lambda: len(probe.messages(topics["/image"])) == 2, "the others")
    assert [request.id for request in probe.messages(topics["/image"])] == [1, 3]
    assert "/image: left out: " in replay.log
    assert "played 2 messages, 1 cannot be read" in replay.log


CONTEXT_ENDS = """
import sys, threading
from lazyxmem_ros.nodes.bags.replay import ReplayNode
from lazyxmem_ros.nodes.running import run_node

def make():
    node = ReplayNode()
    threading.Timer(0.5, node.context.handle.shutdown).start()
    return node

sys.exit(run_node(make, ["--ros-args", "-p", "loop:=true", "-p", "bag:=" + sys.argv[1]]))
"""


def test_a_context_that_ends_first_ends_the_player_without_a_complaint(tmp_path: Path) -> None:
    """As by SIGTERM: the player then has publishers that cannot send any more."""
    bag = write_bag(tmp_path / "bag")
    command = [sys.executable, "-c", CONTEXT_ENDS, str(bag)]
    ended = subprocess.run(command, timeout=60, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


PLAYER_FAILS = """
import sys
from lazyxmem_ros.nodes.bags.replay import ReplayNode
from lazyxmem_ros.nodes.running import run_node

def fail(self):
    raise KeyError("what nobody expects")

ReplayNode._play = fail
sys.exit(run_node(ReplayNode, ["--ros-args", "-p", "bag:=" + sys.argv[1]]))
"""


def test_whatever_ends_the_player_early_is_no_success(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PLAYER_FAILS, str(write_bag(tmp_path / "bag"))]
    ended = subprocess.run(command, timeout=60, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "what nobody expects" in ended.stderr


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_single_file_of_a_bag(storage: str, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", storage=storage)
    with BagSource(bag) as source:
        whole = list(source.messages(source.start, source.end))
    file = next(path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))
    alone = file.rename(tmp_path / f"alone{file.suffix}")
    with BagSource(alone) as source:
        assert list(source.messages(source.start, source.end)) == whole


def test_a_folder_that_is_no_bag(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="is no bag: it holds neither"):
        BagSource(tmp_path)


@pytest.mark.parametrize("order", ["<", ">"])
def test_stamps_are_changed_in_the_serialized_message(order: str) -> None:
    import struct

    prefix = bytes([0, 1 if order == "<" else 0, 0, 0])
    data = prefix + struct.pack(order + "iI", 12, 34) + b"rest"
    assert header_stamp(data) == 12_000_000_034
    changed = with_header_stamp(data, 99_000_000_001)
    assert header_stamp(changed) == 99_000_000_001
    assert changed[12:] == b"rest"
    with pytest.raises(BagError, match="too short"):
        header_stamp(data[:8])


def test_pacer_maps_recorded_to_steady_time() -> None:
    pacer = Pacer(2.0, start=1_000_000_000)
    assert 0.4 < pacer.remaining(2_000_000_000) <= 0.5
    assert pacer.remaining(1_000_000_000) <= 0
    pacer.postpone(10.0)
    assert pacer.remaining(1_000_000_000) > 9
    assert Pacer(0.0, start=0).remaining(10**18) == 0

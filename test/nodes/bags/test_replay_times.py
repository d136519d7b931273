# SPDX-License-Identifier: Apache-2.0
"""The replay node on recordings whose times are odd: simulated, of 1970, with gaps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from node_graph import FIRST_STAMP, STEP, Probe, scene, stamps, wait_for
from node_process import NodeProcess
from rclpy.serialization import deserialize_message, serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String
from visualization_msgs.msg import (
    InteractiveMarker,
    InteractiveMarkerControl,
    Marker,
    MarkerArray,
)

from lazyxmem_ros.basics import stamp_fields, stamp_of
from lazyxmem_ros.data.bag_messages import StampedImage, message_types
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.nodes.bags.rounds import Rounds
from lazyxmem_ros.nodes.bags.source import SerializedMessage, header_stamp
from lazyxmem_ros.nodes.bags.stamped import Stamps

Start = Callable[..., NodeProcess]
FRAMES, CLOCKS = 6, 24
CLOCK_TYPE = "rosgraph_msgs/msg/Clock"
HOUR = 3600 * 10**9
numbers = itertools.count()


def write_clock(bag: BagWriter, stamp: int, received: int) -> None:
    types = message_types().types
    sec, nanosec = stamp_fields(stamp)
    time_of_it = types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
    bag.write("/clock", types[CLOCK_TYPE](clock=time_of_it), received)


def write_bag(path: Path, *, times: Sequence[int], simulated: float = 0.0) -> Path:
    """Images recorded at `times`; simulated: a clock that runs so many times as fast as those."""
    entries: list[tuple[int, int | None]] = [(received, i) for i, received in enumerate(times)]
    if simulated:
        span = times[-1] - times[0]
        entries += [(times[0] + span * i // CLOCKS, None) for i in range(CLOCKS)]
    with BagWriter(path) as bag:
        for received, index in sorted(entries, key=lambda entry: entry[0]):
            stamp = round((received - times[0]) * simulated) + STEP if simulated else received
            if index is None:
                write_clock(bag, stamp, received)
                continue
            frame = StampedImage(stamp, scene(index)[0])
            kind = message_types().types["builtin_interfaces/msg/Time"]
            sec, nanosec = stamp_fields(frame.stamp)
            header = message_types().types["std_msgs/msg/Header"](
                stamp=kind(sec=sec, nanosec=nanosec), frame_id="camera"
            )
            image = np.ascontiguousarray(frame.image)
            message = message_types().types["sensor_msgs/msg/Image"](
                header=header,
                height=image.shape[0],
                width=image.shape[1],
                encoding="rgb8",
                is_bigendian=0,
                step=image.shape[1] * 3,
                data=image.reshape(-1),
            )
            bag.write("/image", message, received)
    return path


@pytest.fixture
def topics() -> dict[str, str]:
    prefix = f"/replay_times{next(numbers)}"
    return {name: prefix + name for name in ("/image", "/clock")}


def renamed(topics: dict[str, str]) -> list[str]:
    return [part for old, new in topics.items() for part in ("-r", f"{old}:={new}")]


def clock_times(probe: Probe, topic: str) -> list[int]:
    return [stamp_of(message.clock) for message in probe.messages(topic)]


@pytest.mark.parametrize(("own", "simulated"), [(True, 0.3), (False, 0.3), (False, 3.0)])
def test_there_is_one_clock_and_it_rises_in_a_loop_too(
    own: bool, simulated: float, tmp_path: Path, probe: Probe, start: Start, topics: dict[str, str]
) -> None:
    times = [FIRST_STAMP + i * STEP for i in range(FRAMES)]
    bag = write_bag(tmp_path / "bag", times=times, simulated=simulated)
    values = {"bag": bag, "loop": True, "rate": 3.0, "clock": own, "wait_for_subscribers": 1}
    replay = start("replay", values, *renamed(topics))
    probe.listen(Clock, topics["/clock"])
    probe.listen(Image, topics["/image"])
    assert probe.node.count_publishers(topics["/clock"]) == 1
    wait_for(lambda: len(probe.messages(topics["/image"])) > 2 * FRAMES + 2, "a third round")
    assert replay.stop() == 0, replay.log
    clock, images = clock_times(probe, topics["/clock"]), stamps(probe.messages(topics["/image"]))
    assert len(clock) > (len(images) if own else 2 * CLOCKS)
    assert clock == sorted(clock)
    assert images == sorted(set(images))
    if own:
        assert clock[0] >= FIRST_STAMP
        assert "the recorded /clock is left out" in replay.log
    else:
        assert clock[0] == STEP  # the simulated time


def test_gaps_are_said_and_cut_where_that_is_asked_for(
    tmp_path: Path, probe: Probe, start: Start, topics: dict[str, str]
) -> None:
    """The first message is of 1970, the next one an hour before the others."""
    times = [0, FIRST_STAMP - HOUR, *(FIRST_STAMP + i * STEP for i in range(FRAMES))]
    bag = write_bag(tmp_path / "bag", times=times)
    values = {"bag": bag, "wait_for_subscribers": 1}
    waiting = start("replay", values, *renamed(topics))
    probe.listen(Image, topics["/image"])
    wait_for(lambda: "skip_gaps cuts such pauses" in waiting.log, "the word that it waits")
    assert waiting.stop() == 0, waiting.log
    assert len(probe.messages(topics["/image"])) == 1
    probe.forget()
    cutting = start("replay", {**values, "skip_gaps": 0.5}, *renamed(topics))
    assert cutting.wait() == 0, cutting.log
    assert "are cut to 0.5 s" in cutting.log
    wait_for(lambda: len(probe.messages(topics["/image"])) == len(times), "every image")


def test_topics_that_are_not_played_do_not_make_it_wait(
    tmp_path: Path, start: Start, topics: dict[str, str]
) -> None:
    """Another topic was recorded an hour before."""
    bag_path = tmp_path / "bag"
    with BagWriter(bag_path) as bag:
        write_clock(bag, STEP, FIRST_STAMP - HOUR)
        for index in range(FRAMES):
            stamp = FIRST_STAMP + index * STEP
            bag.write_image("/image", StampedImage(stamp, scene(index)[0]))
    replay = start("replay", {"bag": bag_path, "topics": ["/image"]}, *renamed(topics))
    assert replay.wait() == 0, replay.log
    assert f"played {FRAMES} messages" in replay.log


@pytest.mark.parametrize(("names", "code"), [(["start_offset"], 1), (["duration", "skip_gaps"], 0)])
def test_endless_seconds(
    names: list[str], code: int, tmp_path: Path, start: Start, topics: dict[str, str]
) -> None:
    bag = write_bag(tmp_path / "bag", times=[FIRST_STAMP, FIRST_STAMP + STEP])
    values = dict.fromkeys(names, float("inf"))
    replay = start("replay", {"bag": bag, **values}, *renamed(topics))
    assert replay.wait() == code, replay.log
    assert "Traceback" not in replay.log


def message(topic: str, recorded_at: int, sec: int, nanosec: int = 0) -> SerializedMessage:
    data = b"\0\1\0\0" + np.array([sec, nanosec], "<i4").tobytes()
    return SerializedMessage(topic, recorded_at, data)


def stamps_of_rounds(
    rounds: Rounds, messages: Sequence[SerializedMessage], count: int
) -> list[Any]:
    played = []
    for _ in range(count):
        played += [rounds.shifted(each) for each in messages]
        rounds.next(messages[-1].recorded_at - messages[0].recorded_at)
    return played


def test_stamps_rise_from_round_to_round_at_any_pace() -> None:
    second = 10**9
    for pace in (0, 1, 5):
        rounds = Rounds("/a", {"/a": Stamps(Image)})
        recorded = [message("/a", 100 * second + i * second, 10 + pace * i) for i in range(4)]
        played = [header_stamp(data) for data in stamps_of_rounds(rounds, recorded, 3)]
        assert played == sorted(played)
        assert played[4] - played[0] == max(4, 3 * pace + 1) * second
        assert rounds.due(recorded[0]) == 112 * second


def test_a_stamp_of_another_time_does_not_shift_all_others() -> None:
    """That of a camera before its clock was set; that of a map from an hour before."""
    second = 10**9
    rounds = Rounds("/a", {"/a": Stamps(Image), "/map": Stamps(Image)})
    recorded = [message("/a", 5000 * second, 3)]
    recorded += [message("/a", (5000 + i) * second, 5000 + i) for i in range(1, 4)]
    recorded += [message("/map", 5003 * second, at) for at in (1400, 5003)]
    played = [header_stamp(data) for data in stamps_of_rounds(rounds, recorded, 3)]
    shifts = [late - early for early, late in zip(played, played[6:], strict=False)]
    assert shifts == [4 * second] * 12


def test_what_has_no_stamp_gets_none() -> None:
    rounds = Rounds("/a", {"/a": Stamps(Image), "/plain": Stamps(String)})
    recorded = [message("/a", 0, 5), message("/a", 1, 0), message("/a", 2, 1, 2**31 - 1)]
    recorded.append(message("/plain", 3, 7))
    played = stamps_of_rounds(rounds, recorded, 2)
    assert played[1:4] == played[5:8] == [each.data for each in recorded[1:]]
    assert played[4] != played[0]


def test_stamps_inside_of_a_message_rise_too() -> None:
    """As those of /tf, whose messages begin with none."""
    markers = [Marker(ns="one"), Marker(ns="unset"), Marker(ns="odd")]
    markers[0].header.stamp = Time(sec=5, nanosec=7)
    markers[2].header.stamp = Time(sec=5, nanosec=2**32 - 1)
    data = serialize_message(MarkerArray(markers=markers))
    moving = Stamps(MarkerArray)
    assert moving.moved(data, 0) == (data, [5 * 10**9 + 7])
    later, before = moving.moved(data, 10**9)
    assert before == [5 * 10**9 + 7]
    moved = deserialize_message(later, MarkerArray)
    assert [each.ns for each in moved.markers] == ["one", "unset", "odd"]
    found = [(each.header.stamp.sec, each.header.stamp.nanosec) for each in moved.markers]
    assert found == [(6, 7), (0, 0), (5, 2**32 - 1)]


def test_a_message_with_stamps_before_and_inside_has_all_of_them_moved_once() -> None:
    handle = Marker(header=Header(stamp=Time(sec=4)))
    marker = InteractiveMarker(header=Header(stamp=Time(sec=3)))
    marker.controls = [InteractiveMarkerControl(markers=[handle])]
    moving = Stamps(InteractiveMarker)
    data, before = moving.moved(serialize_message(marker), 10**9)
    assert before == [3 * 10**9, 4 * 10**9]
    assert moving.moved(data, 0) == (data, [4 * 10**9, 5 * 10**9])


def test_an_empty_list_of_messages_has_no_stamps() -> None:
    data = serialize_message(MarkerArray())
    assert Stamps(MarkerArray).moved(data, 5) == (data, [])

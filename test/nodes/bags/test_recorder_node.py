# SPDX-License-Identifier: Apache-2.0
"""The recorder node: what it cannot record is left out and said, the rest is recorded."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from node_graph import Probe, Spinner, header, parameters, scene_message, wait_for
from node_process import NodeProcess
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String

from lazyxmem_ros.data.bag_messages import message_types
from lazyxmem_ros.data.bag_reader import BagReader
from lazyxmem_ros.data.errors import BagError
from lazyxmem_ros.nodes.bags.recorder import RecorderNode
from lazyxmem_ros.nodes.bags.source import BagSource
from lazyxmem_ros.nodes.conversions import image_message

UNKNOWN, KNOWN = "/recorder_node/clock", "/recorder_node/image"
FRAMES = 3


def test_a_type_that_bags_do_not_know_costs_its_topic_alone(
    ros: None,
    probe: Probe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delitem(message_types().types, "rosgraph_msgs/msg/Clock")
    unknown = probe.node.create_publisher(Clock, UNKNOWN, 10)
    node = RecorderNode(
        parameter_overrides=parameters(bag=str(tmp_path / "bag"), topics=[UNKNOWN, KNOWN])
    )
    spinner = Spinner(node)
    try:
        wait_for(lambda: UNKNOWN not in node._waiting, "the topic's discovery")
        for index in range(FRAMES):
            unknown.publish(Clock())
            probe.publish(KNOWN, scene_message(index))
            wait_for(lambda index=index: node._recorded[KNOWN] > index, "a recorded image")
    finally:
        spinner.close()
    assert f"{UNKNOWN}: left out" in capfd.readouterr().err
    with BagReader(tmp_path / "bag") as bag:
        assert list(bag.topics) == [KNOWN]
        assert len(list(bag.messages(KNOWN))) == FRAMES


def test_what_is_latched_is_replayed_latched(ros: None, probe: Probe, tmp_path: Path) -> None:
    """Whoever comes late gets it from the bag as from the robot: /tf_static, say."""
    latched, plain = "/recorder_node/latched", "/recorder_node/plain"
    kept = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    probe.node.create_publisher(String, latched, kept).publish(String(data="before"))
    node = RecorderNode(
        parameter_overrides=parameters(bag=str(tmp_path / "bag"), topics=[latched, plain])
    )
    spinner = Spinner(node)
    try:
        wait_for(lambda: node._recorded[latched], "what was published before")
        probe.publish(plain, String(data="now"))
        wait_for(lambda: node._recorded[plain], "the other one")
    finally:
        spinner.close()
    with BagSource(tmp_path / "bag") as bag:
        assert {topic.name: topic.transient_local for topic in bag.topics} == {
            latched: True,
            plain: False,
        }


def test_it_records_where_the_clock_stands_still_and_says_what_nobody_publishes(
    tmp_path: Path, probe: Probe, start: Callable[..., NodeProcess]
) -> None:
    topic, nobodys = "/still_clock/image", "/still_clock/nobody"
    values = {"bag": tmp_path / "bag", "topics": [topic, nobodys], "use_sim_time": True}
    recorder = start("recorder", {**values, "report_period": 0.1})
    publisher = probe.node.create_publisher(type(scene_message(0)), topic, 10)
    wait_for(publisher.get_subscription_count, "the recorder")
    publisher.publish(scene_message(0))
    wait_for(lambda: f"recorded {topic}=1" in recorder.log, "the report")
    wait_for(lambda: f"nobody publishes {nobodys}:" in recorder.log, "the warning")
    assert recorder.stop() == 0
    assert recorder.log.count("nobody publishes") == 1


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_full_disk_ends_it_in_a_line_and_leaves_a_bag(
    storage: str, small_disk: Path, probe: Probe, start: Callable[..., NodeProcess]
) -> None:
    topic = f"/full_disk/{storage}"
    values = {"bag": small_disk / "bag", "topics": [topic], "storage": storage}
    publisher = probe.node.create_publisher(type(scene_message(0)), topic, 10)
    recorder = start("recorder", values)
    wait_for(publisher.get_subscription_count, "the recorder")
    noise = np.random.default_rng(0)
    for index in range(500):
        image = noise.integers(0, 255, (120, 160, 3), dtype=np.uint8)
        publisher.publish(image_message(image, "rgb8", header(index)))
        time.sleep(0.04)
        if recorder.exit_code() is not None:
            break
    assert recorder.wait() == 1, recorder.log
    assert "Traceback" not in recorder.log
    [line] = [line for line in recorder.log.splitlines() if "cannot be written" in line]
    assert "The bag holds what was recorded before" in line
    with BagReader(small_disk / "bag") as bag:
        assert bag.topics[topic].messages == len(list(bag.messages(topic))) > 0


def test_a_bag_that_is_deleted_ends_it_in_a_line(
    tmp_path: Path, probe: Probe, start: Callable[..., NodeProcess]
) -> None:
    topic, path = "/deleted_bag/image", tmp_path / "bag"
    recorder = start("recorder", {"bag": path, "topics": [topic]})
    publisher = probe.node.create_publisher(type(scene_message(0)), topic, 10)
    wait_for(publisher.get_subscription_count, "the recorder")
    shutil.rmtree(path)
    assert recorder.wait() == 1, recorder.log
    [line] = [line for line in recorder.log.splitlines() if "ERROR" in line]
    assert "it was deleted or replaced while it was being written. It is lost" in line


def test_killed_it_leaves_all_but_the_last_second(
    tmp_path: Path, probe: Probe, start: Callable[..., NodeProcess]
) -> None:
    topic, path = "/killed_recorder/image", tmp_path / "bag"
    recorder = start("recorder", {"bag": path, "topics": [topic], "storage": "sqlite3"})
    publisher = probe.node.create_publisher(type(scene_message(0)), topic, 10)
    wait_for(publisher.get_subscription_count, "the recorder")
    for index in range(FRAMES):
        publisher.publish(scene_message(index))

    def recorded() -> int:
        with contextlib.suppress(BagError), BagReader(path / "bag.db3") as bag:
            return len(list(bag.messages(topic)))
        return 0

    wait_for(lambda: recorded() == FRAMES, "the commit")
    recorder.kill()
    assert recorded() == FRAMES


def test_it_records_while_the_ros_clock_stands_still(
    ros: None, probe: Probe, tmp_path: Path
) -> None:
    """As in a recording that is paused, for nodes with use_sim_time."""
    topic = "/recorder_node/standing"
    publisher = probe.node.create_publisher(type(scene_message(0)), topic, 10)
    values = {"bag": str(tmp_path / "bag"), "topics": [topic], "use_sim_time": True}
    node = RecorderNode(parameter_overrides=parameters(**values))
    spinner = Spinner(node)
    try:
        wait_for(lambda: not node._waiting, "the topic's discovery")
    finally:
        spinner.close()
        probe.node.destroy_publisher(publisher)

# SPDX-License-Identifier: Apache-2.0
"""The recorder node: what it cannot record is left out and said, the rest is recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
from node_graph import Probe, Spinner, parameters, scene_message, wait_for
from rosgraph_msgs.msg import Clock

from lazyxmem_ros.data.bags import BagReader, message_types
from lazyxmem_ros.nodes.bags.recorder import RecorderNode

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

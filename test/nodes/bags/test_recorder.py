# SPDX-License-Identifier: Apache-2.0
"""A bag played by the replay node and recorded by the recorder node, each in its own process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from node_graph import wait_for
from node_process import NodeProcess

from lazyxmem_ros.data.bag_messages import StampedImage, StampedLabels
from lazyxmem_ros.data.bag_reader import BagReader
from lazyxmem_ros.data.bag_writer import BagWriter

Start = Callable[..., NodeProcess]
FIRST_STAMP = 1_700_000_000_000_000_000
STEP = 50_000_000
FRAMES = 8


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    with BagWriter(path) as writer:
        for index in range(FRAMES):
            stamp = FIRST_STAMP + index * STEP
            image = np.full((48, 64, 3), 20 * index, np.uint8)
            writer.write_image("/recorder_test/image", StampedImage(stamp, image))
            labels = np.full((48, 64), index, np.uint16)
            writer.write_labels("/recorder_test/labels", StampedLabels(stamp, labels))
    return path


def test_replayed_messages_are_recorded(bag: Path, tmp_path: Path, start: Start) -> None:
    target = tmp_path / "recorded"
    topics = ["/recorder_test/image", "/recorder_test/labels"]
    recorder = start("recorder", {"bag": target, "topics": topics, "report_period": 0.1})
    replay = start("replay", {"bag": bag, "wait_for_subscribers": 1})
    assert replay.wait() == 0, replay.log
    whole = "recorded " + " ".join(f"{topic}={FRAMES}" for topic in topics)
    wait_for(lambda: whole in recorder.log, "every message")
    assert recorder.stop() == 0, recorder.log
    with BagReader(target) as recorded, BagReader(bag) as source:
        for topic in ("/recorder_test/image", "/recorder_test/labels"):
            assert recorded.topics[topic] == source.topics[topic]
        images = list(recorded.images("/recorder_test/image"))
        labels = list(recorded.labels("/recorder_test/labels"))
    assert [frame.stamp for frame in images] == [FIRST_STAMP + i * STEP for i in range(FRAMES)]
    assert [int(frame.image[0, 0, 0]) for frame in images] == [20 * i for i in range(FRAMES)]
    assert [int(frame.labels[0, 0]) for frame in labels] == list(range(FRAMES))


def test_says_what_it_needs(start: Start) -> None:
    recorder = start("recorder", {})
    assert recorder.wait() == 1
    assert "give the new bag and its topics" in recorder.log

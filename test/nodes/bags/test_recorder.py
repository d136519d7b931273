# SPDX-License-Identifier: Apache-2.0
"""A bag played by the replay node and recorded by the recorder node, each in its own process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lazyxmem_ros.data.bags import BagReader, BagWriter, StampedImage, StampedLabels

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


def start(name: str, *parameters: str) -> subprocess.Popen[bytes]:
    pairs = [part for parameter in parameters for part in ("-p", parameter)]
    return subprocess.Popen(
        [sys.executable, "-m", "lazyxmem_ros.nodes", name, "--ros-args", *pairs]
    )


def test_replayed_messages_are_recorded(bag: Path, tmp_path: Path) -> None:
    target = tmp_path / "recorded"
    recorder = start(
        "recorder",
        f"bag:={target}",
        "topics:=[/recorder_test/image,/recorder_test/labels]",
    )
    try:
        replay = start("replay", f"bag:={bag}", "wait_for_subscribers:=1")
        assert replay.wait(timeout=40) == 0
        time.sleep(0.5)
    finally:
        recorder.send_signal(signal.SIGINT)
        assert recorder.wait(timeout=10) == 0
    with BagReader(target) as recorded, BagReader(bag) as source:
        for topic in ("/recorder_test/image", "/recorder_test/labels"):
            assert recorded.topics[topic] == source.topics[topic]
        images = list(recorded.images("/recorder_test/image"))
        labels = list(recorded.labels("/recorder_test/labels"))
    assert [frame.stamp for frame in images] == [FIRST_STAMP + i * STEP for i in range(FRAMES)]
    assert [int(frame.image[0, 0, 0]) for frame in images] == [20 * i for i in range(FRAMES)]
    assert [int(frame.labels[0, 0]) for frame in labels] == list(range(FRAMES))


def test_says_what_it_needs() -> None:
    started = subprocess.run(
        [sys.executable, "-m", "lazyxmem_ros.nodes", "recorder"],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert started.returncode == 1
    assert "give the new bag and its topics" in started.stderr

# SPDX-License-Identifier: Apache-2.0
"""A tracker that dies goes on with the same objects: real processes, killed at random moments."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from node_graph import Probe, repeat_until, scene, scene_message, wait_for
from node_process import NodeProcess
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from lazyxmem_ros.msg import NewObject, Prompt, TrackArray
from lazyxmem_ros.nodes.conversions import mask_message
from lazyxmem_ros.srv import AddObjects

pytestmark = pytest.mark.slow
NS = "/snapshot_test"
NODE = f"{NS}/lazyxmem_tracker"
KILLS = 3
PERIOD_S = 0.05
Start = Callable[..., NodeProcess]


def start_tracker(start: Start, weights: Path, path: Path, period: float) -> NodeProcess:
    values = {
        "weights": weights,
        "device": "cpu",
        "snapshot_path": str(path),
        "snapshot_period": period,
        "operator_corrections": False,
        "pseudo_corrections": False,
    }
    return start("tracker", values, "-r", f"__ns:={NS}")


class Camera:
    """Publishes the scene's frames, each with a new stamp."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.index = -1

    def show_until(self, done: Callable[[], object], what: str) -> None:
        """Best-effort images may be lost, the first ones above all: show the next, and wait."""
        repeat_until(done, self._show, what)

    def _show(self) -> None:
        self.index += 1
        self.probe.publish(f"{NS}/image", scene_message(self.index))

    def tracks(self, count: int = 4) -> list[TrackArray]:
        """The tracks of so many frames."""
        topic = f"{NODE}/tracks"
        self.probe.listen(TrackArray, topic)
        self.probe.forget()
        for n in range(1, count + 1):
            self.show_until(lambda n=n: len(self.probe.messages(topic)) >= n, "tracks")
        return self.probe.messages(topic)

    def add_cup(self) -> None:
        """Show the tracker the scene's square on the newest frame."""
        topic = f"{NODE}/mask"
        self.probe.listen(Image, topic)
        self.probe.forget()
        self.show_until(lambda: self.probe.messages(topic), "a mask")
        shown = mask_message(scene(self.index)[1], scene_message(self.index).header)
        request = AddObjects.Request(
            objects=[NewObject(id=7, label="cup", prompt=Prompt(mask=shown))]
        )
        answer = self.probe.call(AddObjects, f"{NODE}/add_objects", request)
        assert answer.success, answer.message


@pytest.fixture
def camera(probe: Probe) -> Camera:
    return Camera(probe)


def follows_the_cup(tracks: list[TrackArray]) -> bool:
    return all([(t.id, t.label) for t in message.tracks] == [(7, "cup")] for message in tracks)


def test_killed_at_random_moments_it_resumes(
    weights: Path, probe: Probe, camera: Camera, start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "state" / "tracker.snapshot"
    moments = random.Random(0)
    tracker = start_tracker(start, weights, path, PERIOD_S)
    camera.add_cup()
    for _ in range(KILLS):
        assert follows_the_cup(camera.tracks())
        wait_for(path.exists, "a snapshot")
        # Files are written nearly all the time, so some of the kills hit one in the middle.
        time.sleep(4 * PERIOD_S + moments.uniform(0, PERIOD_S))
        tracker.send(signal.SIGKILL)
        tracker.wait()
        tracker = start_tracker(start, weights, path, PERIOD_S)
        wait_for(lambda t=tracker: "going on with object 7" in t.log, "going on")
    assert follows_the_cup(camera.tracks())
    assert tracker.stop() == 0
    leftovers = [p.name for p in path.parent.iterdir() if p.name.endswith(".partial")]
    assert leftovers in ([], [f".{path.name}.partial"])


def test_saved_on_request_and_at_the_end_and_named_where_it_is_damaged(
    weights: Path, probe: Probe, camera: Camera, start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "tracker.snapshot"
    tracker = start_tracker(start, weights, path, 0.0)
    camera.add_cup()
    camera.tracks()
    assert not path.exists()
    answer = probe.call(Trigger, f"{NODE}/save_snapshot", Trigger.Request())
    assert answer.success, answer.message
    assert f"{path.stat().st_size} bytes" in answer.message
    path.unlink()
    assert tracker.stop() == 0
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # other damages: lazy/test_snapshot.py
    path.write_bytes(content)
    tracker = start_tracker(start, weights, path, 0.0)
    wait_for(lambda: "tracking starts empty" in tracker.log, "the warning")
    assert str(path) in tracker.log
    probe.listen(Image, f"{NODE}/mask")
    probe.forget()
    camera.show_until(lambda: probe.messages(f"{NODE}/mask"), "a mask")
    assert not np.frombuffer(probe.messages(f"{NODE}/mask")[0].data, np.uint8).any()
    assert tracker.stop() == 0

# SPDX-License-Identifier: Apache-2.0
"""The whole graph in processes of its own: a bag in, masks out, helpers that die and return."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from node_graph import (
    FIRST_STAMP,
    STEP,
    WAIT_S,
    Probe,
    labels_of,
    scene,
    stamps,
    wait_for,
)
from node_process import NodeProcess
from sensor_msgs.msg import Image
from tracker_harness import Service, sees_service

from lazyxmem_ros.data.bag_messages import StampedImage, StampedLabels
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.msg import Correction, TrackArray

pytestmark = pytest.mark.slow  # each test starts several processes
FRAMES = 12
NS = "/graph_test"
NODE = f"{NS}/lazyxmem_tracker"
NAMESPACE = ("-r", f"__ns:={NS}")
QUICK = {"corrector": "grabcut"}
"""A corrector that starts without PyTorch."""
Start = Callable[..., NodeProcess]


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """Frames, and the first one's label map for the tracker."""
    path = tmp_path / "bag"
    with BagWriter(path) as writer:
        for index in range(FRAMES):
            stamp = FIRST_STAMP + index * STEP
            writer.write_image(f"{NS}/image", StampedImage(stamp, scene(index)[0]))
            if index == 0:
                labels = scene(0)[1].astype(np.uint16)
                writer.write_labels(f"{NODE}/init_mask", StampedLabels(stamp, labels))
    return path


def start_tracker(
    start: Start, weights: Path, *, fresh: bool = False, **parameters: Any
) -> NodeProcess:
    values = {"weights": weights, "device": "cpu", "diagnostics_period": 0.1, **parameters}
    return start("tracker", values, *NAMESPACE, fresh=fresh)


def test_a_bag_in_masks_out(bag: Path, weights: Path, probe: Probe, start: Start) -> None:
    """Every frame's mask with the frame's own stamp; the correction server helps."""
    tracker = start_tracker(
        start,
        weights,
        operator_corrections=False,
        pseudo_entropy=0.0,
        pseudo_cooldown_frames=0,
        correction_wait=WAIT_S,
        correction_timeout=WAIT_S,
    )
    start("correction", {}, *NAMESPACE)
    for kind, name in ((Image, "mask"), (TrackArray, "tracks"), (Correction, "corrected")):
        probe.listen(kind, f"{NODE}/{name}")
    probe.listen(DiagnosticArray, "/diagnostics")
    wait_for(lambda: sees_service(probe, NODE), "the correction service, as the tracker sees it")
    replay = start(
        "replay",
        {
            "bag": bag,
            "rate": 0.0,
            "wait_for_subscribers": 1,
            "lockstep_topic": f"{NODE}/mask",
            "lockstep_wait_for_object": True,
        },
    )
    assert replay.wait() == 0, replay.log + tracker.log
    assert "did not come in time" not in replay.log
    expected = [FIRST_STAMP + i * STEP for i in range(FRAMES)]
    wait_for(lambda: expected[-1] in stamps(probe.messages(f"{NODE}/tracks")), "the last tracks")
    masks = probe.messages(f"{NODE}/mask")
    assert sorted(set(stamps(masks))) == expected
    assert all(message.header.frame_id == "camera" for message in masks)
    first = [m for m in masks if stamps([m]) == expected[:1]][-1]
    np.testing.assert_array_equal(labels_of(first), scene(0)[1])
    tracks = probe.messages(f"{NODE}/tracks")
    assert [track.id for track in tracks[-1].tracks] == [1]
    # No frame but the first, which shows the object, is certain to an untrained network.
    corrections = probe.messages(f"{NODE}/corrected")
    assert len(corrections) >= FRAMES // 2
    assert {c.source for c in corrections} == {"pseudo"}
    assert {s for s in stamps(corrections)} <= set(expected[1:])
    assert any(c.applied for c in corrections), [c.message for c in corrections]
    for corrected in (c for c in corrections if c.applied):
        mask = [m for m in masks if m.header == corrected.header][-1]
        # The frame waited for it, so the published mask is the corrected one.
        np.testing.assert_array_equal(labels_of(mask) == 1, labels_of(corrected.prompt.mask) > 0)


def test_a_service_that_dies_and_returns(
    bag: Path, weights: Path, probe: Probe, start: Start
) -> None:
    """Killed without a word and started again, while frames go on."""
    start_tracker(
        start,
        weights,
        operator_corrections=False,
        pseudo_entropy=0.0,
        pseudo_cooldown_frames=0,
        correction_timeout=2.0,
    )
    probe.listen(Correction, f"{NODE}/corrected")
    probe.listen(Image, f"{NODE}/mask")
    probe.listen(DiagnosticArray, "/diagnostics")
    probe.forget()
    server = start("correction", QUICK, *NAMESPACE)
    start(
        "replay",
        {"bag": bag, "loop": True, "rate": 1.0, "wait_for_subscribers": 1},
    )

    def answered(count: int, since: int) -> bool:
        """Answers of the service, applied or found useless; failures to answer are no answers."""
        tail = probe.messages(f"{NODE}/corrected")[since:]
        return sum(message.prompt.mask.height > 0 for message in tail) >= count

    wait_for(lambda: answered(2, 0), "corrections")
    server.send(signal.SIGKILL)
    server.wait()
    before = len(probe.messages(f"{NODE}/corrected"))
    wait_for(
        lambda: any(
            message.prompt.mask.height == 0 and message.message
            for message in probe.messages(f"{NODE}/corrected")[before:]
        ),
        "the report of a correction that did not come",
    )
    frames = len(probe.messages(f"{NODE}/mask"))
    wait_for(lambda: len(probe.messages(f"{NODE}/mask")) > frames + 5, "frames without help")

    def warnings() -> list[str]:
        return [
            status.message
            for array in probe.messages("/diagnostics")
            for status in array.status
            if status.name == f"{NODE[1:]}: corrections" and status.level != b"\0"
        ]

    wait_for(
        lambda: any("did not answer" in text or "is not there" in text for text in warnings()),
        "the warning on /diagnostics",
    )
    before = len(probe.messages(f"{NODE}/corrected"))
    start("correction", QUICK, *NAMESPACE)
    wait_for(lambda: answered(2, before), "corrections by the service's return")


def test_ctrl_c_ends_every_node_cleanly(
    bag: Path, weights: Path, probe: Probe, start: Start
) -> None:
    tracker = start_tracker(start, weights, fresh=True)
    correction = start("correction", QUICK, *NAMESPACE, fresh=True)
    probe.listen(Image, f"{NODE}/mask")
    probe.forget()
    replay = start("replay", {"bag": bag, "loop": True, "wait_for_subscribers": 1}, fresh=True)
    wait_for(lambda: len(probe.messages(f"{NODE}/mask")) > 3, "masks")
    wait_for(lambda: "serves" in correction.log, "the correction server")
    nodes = (tracker, correction, replay)
    for node in nodes:  # as a terminal does: all at once
        node.send(signal.SIGINT)
    for node in nodes:
        assert node.wait() == 0, node.log
        assert "Traceback" not in node.log


def test_a_request_to_end_while_a_correction_is_awaited(
    bag: Path, weights: Path, probe: Probe, start: Start
) -> None:
    service = Service(probe, NS)
    service.mode = "silent"
    tracker = start_tracker(
        start, weights, operator_corrections=False, pseudo_entropy=0.0, correction_timeout=600.0
    )
    replay = start("replay", {"bag": bag, "loop": True, "wait_for_subscribers": 1})
    wait_for(lambda: service.requests, "a request")
    service.stop()
    for node in (tracker, replay):
        assert node.stop(signal.SIGTERM) == 0, node.log
        assert "Traceback" not in node.log


def test_what_cannot_start_says_so_in_a_line(start: Start) -> None:
    tracker = start("tracker", {"weights": "/nowhere/xmem.pth", "device": "cpu"}, *NAMESPACE)
    assert tracker.wait() == 1
    assert "error: the tracker cannot be configured: there is no weights file" in tracker.log
    assert "Traceback" not in tracker.log

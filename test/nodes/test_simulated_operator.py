# SPDX-License-Identifier: Apache-2.0
"""The simulated operator's node, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_graph import FIRST_STAMP, Probe, header, repeat_until, scene, scene_message, wait_for
from sensor_msgs.msg import Image

from lazyxmem_ros.data.bag_messages import StampedLabels
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.msg import Correction, CorrectionRequest
from lazyxmem_ros.nodes.conversions import mask_message
from lazyxmem_ros.nodes.simulated_operator import MAX_PENDING

OperatorNode = Callable[..., tuple[Any, str]]


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    with BagWriter(tmp_path / "bag") as writer:
        labels = scene(0)[1].astype(np.uint16)
        writer.write_labels("/ground_truth", StampedLabels(FIRST_STAMP, labels))
    return tmp_path / "bag"


@pytest.fixture
def operator(bag: Path, probe: Probe, start: Callable[..., Any]) -> OperatorNode:
    """Starts the node in a namespace of its own; returns its process and the namespace."""

    def make(ns: str, **values: Any) -> tuple[Any, str]:
        node = start("simulated_operator", {"bag": bag, **values}, "-r", f"__ns:={ns}")
        probe.listen(Correction, f"{ns}/operator_correction")
        return node, ns

    return make


def request(mask: Image) -> CorrectionRequest:
    return CorrectionRequest(header=header(0), id=1, image=scene_message(0), mask=mask)


def test_what_it_cannot_answer_it_says_and_a_clock_that_stands_still_costs_no_memory(
    operator: OperatorNode, probe: Probe
) -> None:
    node, ns = operator("/timeless", use_sim_time=True)
    nothing = mask_message(np.zeros_like(scene(0)[1]), header(0))
    asked = 0

    def ask() -> None:
        nonlocal asked
        asked += 1
        probe.publish(f"{ns}/correction_request", request(nothing))

    repeat_until(lambda: len(answers(probe, ns)) >= 3, ask, "a refusal", every=0.02)
    assert asked >= MAX_PENDING
    assert {answer.message for answer in answers(probe, ns)} == {
        f"{MAX_PENDING} answers wait for their time already: does the clock go on?"
    }
    assert node.exit_code() is None, node.log
    assert node.log.count("does the clock go on?") == 1


def test_a_request_with_a_broken_mask_is_answered_in_words(
    operator: OperatorNode, probe: Probe
) -> None:
    node, ns = operator("/puzzled", reaction_delay=0.0)
    sound = request(mask_message(scene(0)[1], header(0)))

    def ask() -> None:
        probe.publish(f"{ns}/correction_request", sound)

    repeat_until(lambda: answers(probe, ns), ask, "an answer")
    broken = mask_message(scene(0)[1], header(0))
    broken.encoding = "x" * 100_000

    def in_words() -> list[Any]:
        return [answer for answer in answers(probe, ns) if "encoding" in answer.message]

    for count in range(5):
        probe.publish(f"{ns}/correction_request", request(broken))
        wait_for(lambda n=count: len(in_words()) > n, "the answer")
    assert node.exit_code() is None, node.log
    assert len(in_words()[0].message) < 3000
    assert len(node.log) < 20_000


def test_without_a_bag_it_says_what_to_give(start: Callable[..., Any]) -> None:
    node = start("simulated_operator", {})
    assert node.wait() == 1
    assert "give the bag that holds the truth: --ros-args -p bag:=PATH" in node.log


def test_ground_truth_that_is_none_costs_its_frame_alone(
    tmp_path: Path, start: Callable[..., Any]
) -> None:
    frames = [StampedLabels(FIRST_STAMP, scene(0)[1].astype(np.uint16))]
    depth = np.arange(64 * 96, dtype=np.uint16).reshape(64, 96)
    frames.append(StampedLabels(FIRST_STAMP + 1, depth))
    for name, kept in (("some", frames), ("none", frames[1:])):
        with BagWriter(tmp_path / name) as writer:
            for frame in kept:
                writer.write_labels("/ground_truth", frame)
    node = start("simulated_operator", {"bag": tmp_path / "some"})
    wait_for(lambda: "1 frames of ground truth: ready" in node.log, "the start")
    assert "some ground truth is left out, because /ground_truth" in node.log
    assert "different values" in node.log
    assert node.stop() == 0
    node = start("simulated_operator", {"bag": tmp_path / "none"}, fresh=True)
    assert node.wait() == 1
    assert "error: there is no ground truth, because /ground_truth" in node.log


def answers(probe: Probe, ns: str) -> list[Any]:
    return probe.messages(f"{ns}/operator_correction")

# SPDX-License-Identifier: Apache-2.0
"""Slow enough, a run through the real ROS graph is the offline run, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rclpy
from evaluations import Watcher
from PIL import Image
from rclpy.context import Context
from rclpy.node import Node

from lazyxmem_ros.data.bag_messages import StampedImage
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.layouts.options import DatasetOptions
from lazyxmem_ros.evaluation.graph.launch import (
    LOCKSTEP_WAIT_S,
    GraphSettings,
    _command,
    corrector_parameters,
    patience_for,
    tracker_parameters,
)
from lazyxmem_ros.evaluation.methods import MethodOptions, choose_methods
from lazyxmem_ros.evaluation.plan import EvaluationPlan, GraphMode, TrackerSettings
from lazyxmem_ros.evaluation.run import Results, evaluate
from lazyxmem_ros.evaluation.simulated_operator import Gesture, OperatorConfig
from lazyxmem_ros.lazy import OFF, HoldRule, LazyConfig
from lazyxmem_ros.nodes.corrector import PARAMETERS as CORRECTOR_PARAMETERS
from lazyxmem_ros.nodes.tracker import parameters as node_parameters
from lazyxmem_ros.xmem import MemoryConfig

pytestmark = pytest.mark.slow
HELP_WANTED = LazyConfig(
    operator_rate=0.0,
    pseudo_rate=OFF,
    pseudo_entropy=0.0,
    cooldown_frames=3,
    pseudo_cooldown_frames=0,
)
"""Asks a person where uncertainty rises, and else corrects itself."""


def both_ways(plan: EvaluationPlan, folder: Path) -> tuple[Results, Results]:
    """The plan offline and through the graph in lockstep; their frames are the same, bit by bit."""
    offline = evaluate(plan, folder / "offline", Watcher())
    graph = evaluate(replace(plan, graph=GraphMode(lockstep=True)), folder / "graph", Watcher())
    assert all(report.error is None for report in (*offline.reports, *graph.reports))
    exact = ["index", "key", "object", "j", "f", "area", "scored", "state"]
    pd.testing.assert_frame_equal(graph.frames[exact], offline.frames[exact], check_exact=True)
    uncertainty = graph.frames["uncertainty"], offline.frames["uncertainty"]
    np.testing.assert_allclose(*uncertainty, atol=1e-4)
    pictures = [sorted((folder / way).glob("jobs/*/*/masks/*.png")) for way in ("offline", "graph")]
    assert len(pictures[0]) == offline.frames["index"].nunique()
    for first, second in zip(*pictures, strict=True):
        assert first.name == second.name
        with Image.open(first) as one, Image.open(second) as other:
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    return offline, graph


@pytest.mark.parametrize(
    ("gesture", "size"),
    [(Gesture.CLICK, 64), (Gesture.MASK, 48)],  # as large as the images, and scaled down
)
def test_it_agrees_with_an_operator_and_the_trackers_own_corrections(
    gesture: Gesture, size: int, tiny_weights: Path, make_tree: Callable[..., Path], tmp_path: Path
) -> None:
    """Requests, answers through the correction service, learning from them; two objects.

    On some frames the operator has nothing to say: those are not annotated.
    """
    annotated = {index: (1, 2) for index in range(16) if index not in (5, 6, 7)}
    plan = EvaluationPlan(
        sequences=tuple(open_dataset(make_tree("walk", 16, annotated))),
        methods=tuple(choose_methods(["lazy"], MethodOptions(HELP_WANTED))),
        tracker=TrackerSettings(tiny_weights, device="cpu", max_internal_size=size),
        operator=OperatorConfig(gesture, click_noise=2.0),
        save_masks=True,
    )
    offline, graph = both_ways(plan, tmp_path)
    place = ["index", "object", "source"]
    facts = [*place, "applied"]
    first, second = (
        run.events[facts].sort_values(place, ignore_index=True) for run in (offline, graph)
    )
    pd.testing.assert_frame_equal(first, second)
    assert set(first[first["applied"]]["source"]) == {"operator", "pseudo"}
    assert first["applied"].sum() > 10


def test_it_agrees_on_a_recording_without_ground_truth(
    tiny_weights: Path,
    make_tree: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stamps are since the epoch, one mask is all there is, and nobody knows an answer.

    The nodes are awaited however their logs look.
    """
    monkeypatch.setenv("RCUTILS_COLORIZED_OUTPUT", "1")
    monkeypatch.setenv("RCUTILS_CONSOLE_OUTPUT_FORMAT", "{severity} of {name}: {message}!")
    tree = make_tree("walk", 12, {0: (1,)})
    with BagWriter(tmp_path / "drive") as bag:
        for sample in open_dataset(tree)[0].samples():
            stamp = 1_750_000_000_000_000_000 + sample.stamp
            bag.write_image("/camera", StampedImage(stamp, sample.image))
    options = DatasetOptions(first_mask=tree / "Annotations/480p/walk/00000.png")
    plan = EvaluationPlan(
        sequences=tuple(open_dataset(tmp_path / "drive", options)),
        methods=tuple(choose_methods(["lazy"], MethodOptions(HELP_WANTED))),
        tracker=TrackerSettings(tiny_weights, device="cpu", corrector="grabcut"),
        save_masks=True,
    )
    for results in both_ways(plan, tmp_path):
        assert len(results.frames) == 12
        assert not results.frames["scored"].any()
        asked = results.events[results.events["source"] == "operator"]
        assert set(asked["outcome"]) == {"the frame is not annotated"}
    (log,) = tmp_path.glob("graph/jobs/*/*/logs/recorder.log")
    assert "\033[" in log.read_text()


def test_settings_reach_the_node_as_they_are(tiny_weights: Path) -> None:
    lazy = LazyConfig(operator_rate=0.3, hold_rule=HoldRule.ALL, lost_after=1_500_000_000)
    memory = MemoryConfig(memory_every=3)
    parameters = tracker_parameters(TrackerSettings(tiny_weights, "cpu", 96, memory=memory), lazy)
    defaults = {spec.name: spec.default for spec in node_parameters.table()}
    assert set(parameters) <= set(defaults)
    values = {**defaults, **parameters}
    assert node_parameters.lazy_config(values) == lazy
    assert node_parameters.memory_config(values) == memory


@pytest.mark.parametrize("checkpoint", [None, Path("some.pth")])
def test_settings_reach_the_correction_server_too(
    checkpoint: Path | None, tiny_weights: Path
) -> None:
    settings = TrackerSettings(
        tiny_weights, "cuda:1", corrector_checkpoint=checkpoint, corrector_model="vit_b"
    )
    parameters = corrector_parameters(settings)
    assert set(parameters) <= {spec.name for spec in CORRECTOR_PARAMETERS}
    assert (parameters["device"], parameters["model_type"]) == ("cuda:1", "vit_b")
    assert ("checkpoint" in parameters) == (checkpoint is not None)


def test_paths_reach_a_node_whatever_is_in_them() -> None:
    """ROS reads values as YAML, in which they may be comments, mappings and other numbers."""
    given = {
        "path": Path("/out/my #1 run/it's: 2/bag"),
        "name": "0123",
        "names": ("/a #1", "/b"),
        "endless": float("inf"),
        "on": True,
        "count": 3,
    }
    context = Context()
    rclpy.init(args=_command((), given, ())[2:], context=context)
    try:
        node = Node("named", context=context, automatically_declare_parameters_from_overrides=True)
        found = {name: node.get_parameter(name).value for name in given}
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
    assert found == {**given, "path": str(given["path"]), "names": ["/a #1", "/b"]}


def test_a_slow_machine_has_the_time_that_lockstep_needs(tmp_path: Path) -> None:
    """Each frame has its own limit there; a replay at its own pace takes what it takes."""
    for duration, rate, lockstep in ((3.0, 1.0, True), (3.0, 0.001, False)):
        settings = GraphSettings(
            tmp_path, "/image", "/truth", duration=duration, rate=rate, lockstep=lockstep
        )
        frames = 24 * duration
        needed = LOCKSTEP_WAIT_S * frames if lockstep else duration / rate
        assert patience_for(settings) > needed

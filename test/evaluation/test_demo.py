# SPDX-License-Identifier: Apache-2.0
"""The demonstration on the real graph, with a tiny untrained network; and Ctrl-C at any time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lazyxmem_ros.evaluation.bags import BagReader
from lazyxmem_ros.evaluation.errors import MethodError
from lazyxmem_ros.evaluation.graph import MASK_TOPIC, tracker_parameters
from lazyxmem_ros.evaluation.graph_jobs import GraphMode
from lazyxmem_ros.evaluation.jobs import JobReport, TrackerSettings
from lazyxmem_ros.evaluation.methods import choose_methods
from lazyxmem_ros.evaluation.run import EvaluationPlan, evaluate
from lazyxmem_ros.evaluation.scene import SceneConfig
from lazyxmem_ros.evaluation.sequences import SceneSequence
from lazyxmem_ros.lazy import HoldRule, LazyConfig
from lazyxmem_ros.nodes import tracker_parameters as node_parameters
from lazyxmem_ros.xmem import MemoryConfig

pytestmark = pytest.mark.slow
MARKER = "LAZYXMEM_TEST_RUN"
SIZE = 64
"""Short side inside the tracker, pixels."""


def demo_command(weights: Path, out: Path) -> list[str]:
    arguments = ["--weights", str(weights), "--out", str(out), "--device", "cpu"]
    quick = ["--internal-size", str(SIZE), "--duration", "3"]
    return [sys.executable, "-m", "lazyxmem_ros.demo", *arguments, *quick]


def marked_processes(mark: str) -> list[str]:
    """Command lines of the processes whose environment carries the mark."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes():
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if command:  # a zombie has none
                    found.append(command)
        except OSError:
            continue
    return found


def test_the_whole_demonstration(tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    mark = uuid.uuid4().hex
    done = subprocess.run(
        demo_command(tiny_weights, out),
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
        env={**os.environ, MARKER: mark},
    )
    assert done.returncode == 0, done.stderr
    for line in ("frames in", "tracked", "dropped", "latency image -> mask, p99", "30"):
        assert line in done.stdout
    for line in ("J with corrections", "J without corrections", "corrections given and applied"):
        assert line in done.stdout
    assert (out / "overlay.mp4").stat().st_size > 50_000
    with Image.open(out / "contact_sheet.png") as sheet, Image.open(out / "timeline.png") as line:
        assert min(sheet.size) > 800
        assert np.asarray(line.convert("L")).std() > 5
    with BagReader(out / "published") as bag:
        masks = list(bag.labels(MASK_TOPIC))
    assert len(masks) > 10
    assert masks[0].labels.shape == (480, 640)
    frames = pd.read_csv(out / "frames.csv")
    assert len(frames) == len(masks)
    assert frames["stamp"].is_monotonic_increasing
    assert marked_processes(mark) == []


@pytest.mark.parametrize("moment", ["starting", "playing", "drawing"])
def test_ctrl_c_leaves_no_process(moment: str, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    mark = uuid.uuid4().hex
    demo = subprocess.Popen(
        demo_command(tiny_weights, out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, MARKER: mark},
        start_new_session=True,
    )
    reached = {
        "starting": lambda: (out / "logs" / "tracker.log").is_file(),
        "playing": lambda: (
            "played" in text_of(out / "logs/replay.log")
            or f"{MASK_TOPIC}=" in text_of(out / "logs/recorder.log")
        ),
        "drawing": lambda: (out / "timeline.png").is_file(),
    }[moment]
    deadline = time.monotonic() + 120
    while not reached() and time.monotonic() < deadline:
        assert demo.poll() is None, "the demonstration ended before it could be interrupted"
        time.sleep(0.02)
    os.killpg(demo.pid, signal.SIGINT)  # as the terminal does
    assert demo.wait(timeout=40) == 130
    deadline = time.monotonic() + 5
    while marked_processes(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert marked_processes(mark) == []


def test_slow_enough_the_graph_agrees_with_the_offline_run(
    tiny_weights: Path, tmp_path: Path
) -> None:
    """Replay in lockstep, corrections off: the same rows, frame by frame."""
    plan = EvaluationPlan(
        (SceneSequence(SceneConfig(duration=2.0)),),
        tuple(choose_methods(["udu"])),
        TrackerSettings(tiny_weights, device="cpu", max_internal_size=SIZE),
        save_masks=True,
    )
    offline = evaluate(plan, tmp_path / "offline", Watcher())
    graph = evaluate(replace(plan, graph=GraphMode(lockstep=True)), tmp_path / "graph", Watcher())
    assert len(graph.frames) == len(offline.frames) == 20
    for column in ("index", "object", "j", "f", "area", "scored", "state"):
        assert graph.frames[column].to_list() == offline.frames[column].to_list()
    uncertainty = graph.frames["uncertainty"], offline.frames["uncertainty"]
    np.testing.assert_allclose(*uncertainty, atol=1e-4)
    for index in range(20):
        first, second = (
            sorted((tmp_path / way / "jobs/pond/udu/masks").glob("*.png"))[index]
            for way in ("offline", "graph")
        )
        with Image.open(first) as one, Image.open(second) as other:
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_only_the_tracker_asks_in_the_graph(tiny_weights: Path) -> None:
    settings = TrackerSettings(tiny_weights)
    with pytest.raises(MethodError, match="oracle cannot run through the graph"):
        EvaluationPlan(
            (SceneSequence(),), tuple(choose_methods(["oracle"])), settings, graph=GraphMode()
        )


def test_settings_reach_the_node_as_they_are(tiny_weights: Path) -> None:
    lazy = LazyConfig(user_rate=0.3, hold_rule=HoldRule.ALL, lost_after=1_500_000_000)
    memory = MemoryConfig(memory_every=3)
    parameters = tracker_parameters(tiny_weights, "cpu", 96, memory, lazy)
    defaults = {spec.name: spec.default for spec in node_parameters.TABLE}
    assert set(parameters) <= set(defaults)
    values = {**defaults, **parameters}
    assert node_parameters.lazy_config(values) == lazy
    assert node_parameters.memory_config(values) == memory


class Watcher:
    """An Observer that looks away."""

    def planned(self, names: Sequence[str], frames: Sequence[int]) -> None: ...

    def progressed(self, name: str, frames: int) -> None: ...

    def finished(self, report: JobReport, *, kept: bool) -> None:
        assert report.error is None


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

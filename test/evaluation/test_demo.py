# SPDX-License-Identifier: Apache-2.0
"""The demonstration on the real graph, with a tiny untrained network; and Ctrl-C at any time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lazyxmem_ros.correction import make_corrector
from lazyxmem_ros.evaluation.bag_export import TRUTH_TOPIC, export_bag
from lazyxmem_ros.evaluation.bags import BagReader
from lazyxmem_ros.evaluation.graph import MASK_TOPIC, GraphSettings, run_graph
from lazyxmem_ros.evaluation.graph_record import read_record, score_record
from lazyxmem_ros.evaluation.methods import all_methods
from lazyxmem_ros.evaluation.offline import SequenceRunner
from lazyxmem_ros.evaluation.operator import SimulatedOperator
from lazyxmem_ros.evaluation.scene import SceneConfig
from lazyxmem_ros.evaluation.sequences import SceneSequence
from lazyxmem_ros.lazy import LazyTracker
from lazyxmem_ros.xmem import XMem, XMemTracker

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
    """Replay in lockstep, corrections off: the same masks, frame by frame."""
    scene = SceneSequence(SceneConfig(duration=2.0))
    bag = export_bag(scene, tmp_path / "bag")
    parameters = {
        "weights": tiny_weights,
        "device": "cpu",
        "max_internal_size": SIZE,
        "user_corrections": False,
        "pseudo_corrections": False,
        "image_reliability": "reliable",
    }
    settings = GraphSettings(
        bag.path, bag.image_topic, True, TRUTH_TOPIC, 2.0, tracker=parameters, lockstep=True
    )
    run_graph(settings, tmp_path / "published", tmp_path / "logs")
    record = read_record(tmp_path / "published", bag.image_topic)
    assert len(record.masks) == len(bag) == 20
    frames, events = score_record(record, bag, method="graph")
    assert events.empty

    method = all_methods()["udu"]
    network = XMem.from_checkpoint(tiny_weights)
    tracker = LazyTracker(XMemTracker(network, device="cpu", max_internal_size=SIZE), method.lazy)
    runner = SequenceRunner(tracker, make_corrector("grabcut"), SimulatedOperator(), method)
    for outcome in runner.run(bag):
        published = record.labels_at(outcome.sample.stamp)
        assert published is not None
        np.testing.assert_array_equal(published, outcome.labels)
    offline = pd.DataFrame(runner.log.frames)
    for column in ("index", "object", "j", "f", "area"):
        np.testing.assert_allclose(frames[column], offline[column])
    np.testing.assert_allclose(frames["uncertainty"], offline["uncertainty"], atol=1e-4)


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

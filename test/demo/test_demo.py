# SPDX-License-Identifier: Apache-2.0
"""The demonstration on the real graph, with a tiny untrained network; and Ctrl-C at any time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.data.bag_reader import BagReader
from lazyxmem_ros.demo.options import open_sequence, parse_options
from lazyxmem_ros.demo.run import main
from lazyxmem_ros.demo.story import story_of
from lazyxmem_ros.evaluation.graph.names import MASK_TOPIC

MARKER = "LAZYXMEM_TEST_RUN"
PATIENCE_S = 120
FRAMES = 24
SIZE = 64
"""Short side inside the tracker, pixels."""


def demo_command(weights: Path, out: Path, *more: str) -> list[str]:
    arguments = ["--weights", str(weights), "--out", str(out), "--device", "cpu"]
    quick = ["--internal-size", str(SIZE), *more]
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


@pytest.mark.slow
def test_the_whole_demonstration(tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    mark = uuid.uuid4().hex
    done = subprocess.run(
        demo_command(tiny_weights, out, "--duration", "3"),
        capture_output=True,
        text=True,
        timeout=280,
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


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["starting", "playing", "drawing"])
def test_ctrl_c_leaves_no_process(
    moment: str, tiny_weights: Path, make_tree: Callable[..., Path], tmp_path: Path
) -> None:
    tree = make_tree("walk", FRAMES, {index: (1,) for index in range(FRAMES)})
    out = tmp_path / "demo"
    mark = uuid.uuid4().hex
    demo = subprocess.Popen(
        demo_command(tiny_weights, out, "--sequence", "walk", "--data", str(tree)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, MARKER: mark},
        start_new_session=True,
    )
    reached = {
        "starting": lambda: (out / "logs" / "tracker.log").is_file(),
        "playing": lambda: (
            "played" in text_of(out / "logs/replay.log")
            or '"masks": 0' not in (text_of(out / "logs/graph.json") or '"masks": 0')
        ),
        "drawing": lambda: (out / "timeline.png").is_file(),
    }[moment]
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert demo.poll() is None, "the demonstration ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(demo.pid, signal.SIGINT)  # as the terminal does
    assert demo.wait(timeout=PATIENCE_S) == -signal.SIGINT
    assert marked_processes(mark) == []


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def test_clicks_on_another_object_are_not_shown() -> None:
    def answer(object_id: int, stamp: int, x: float) -> SimpleNamespace:
        prompt = SimpleNamespace(positive=[SimpleNamespace(x=x, y=2.0)], negative=[])
        header = SimpleNamespace(stamp=SimpleNamespace(sec=stamp, nanosec=0))
        return SimpleNamespace(id=object_id, header=header, prompt=prompt)

    answers = [answer(7, 1, 3.0), answer(8, 1, 90.0), answer(8, 2, 90.0)]
    record = SimpleNamespace(answers=answers, received={}, labels_at=None)
    rows = pd.DataFrame({"object": [7, 8], "stamp": [0, 0]})
    story = story_of(
        SimpleNamespace(  # type: ignore[arg-type]
            frames=rows,
            events=rows,
            record=record,
            bag=SimpleNamespace(name="walk"),
            compared={},
            rate=1.0,
        )
    )
    assert {stamp: clicks.positive.tolist() for stamp, clicks in story.clicks.items()} == {
        SECOND: [[3.0, 2.0]]
    }


@pytest.mark.parametrize("name", ["bag", "published", "logs", "frames.csv", "overlay.mp4"])
def test_what_no_demonstration_has_made_is_not_replaced(
    name: str, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine").write_text("mine")
    command = ["--weights", str(tiny_weights), "--duration", "0.3", "--out", str(tmp_path)]
    assert main(command) == 1
    assert f"{name}: is there already" in capsys.readouterr().err
    assert [file.name for file in tmp_path.rglob("*")] == [name, "mine"]


@pytest.mark.parametrize("more", [[], ["--sequence", "camel"]])
def test_an_internal_size_of_0_is_the_images_own(more: list[str], tiny_weights: Path) -> None:
    given = ["--weights", str(tiny_weights), *more]
    assert parse_options([*given, "--internal-size", "0"]).internal_size == 0
    assert parse_options(given).internal_size > 0


def test_a_real_sequence_is_looked_for_in_the_named_folder(
    make_tree: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["--out", str(tmp_path / "demo"), "--sequence", "camel"]

    def complaint(*more: str) -> str:
        assert main([*command, *more]) == 1
        return " ".join(capsys.readouterr().err.split())

    monkeypatch.delenv("LAZYXMEM_DATA", raising=False)
    assert "no folder is named; name it by --data or $LAZYXMEM_DATA" in complaint()
    assert "there is no folder /nowhere" in complaint("--data", "/nowhere")
    tree = make_tree("walk", 2, {0: (1,)})
    assert "there is no sequence camel" in complaint("--data", str(tree))
    monkeypatch.setenv("LAZYXMEM_DATA", str(tree.parent))
    assert "there are walk" in complaint()
    assert not (tmp_path / "demo").exists(), "nothing was begun"


def test_another_tree_beside_it_keeps_no_sequence_from_being_found(
    make_tree: Callable[..., Path], tiny_weights: Path
) -> None:
    data = make_tree("walk", 2, {0: (1,)}).parent
    (data / "youtube-test" / "JPEGImages" / "abc").mkdir(parents=True)
    for resolution in ("720p", "1080p"):
        (data / "large" / "JPEGImages" / resolution).mkdir(parents=True)
    given = ["--sequence", "walk", "--data", str(data), "--weights", str(tiny_weights)]
    assert open_sequence(parse_options(given)).name == "walk"

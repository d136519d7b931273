# SPDX-License-Identifier: Apache-2.0
"""The examples and the README's Python run as they stand, on a tiny generated clip."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lazyxmem_ros.data.label_maps import read_label_map, save_label_map
from lazyxmem_ros.data.pond import Scene, SceneConfig
from lazyxmem_ros.images.files import write_video

FRAMES = 5


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first frames of the generated scene as `video.mp4`, and their `first.png`."""
    folder = tmp_path_factory.mktemp("clip")
    frames = list(islice(Scene(SceneConfig()), FRAMES))
    save_label_map(folder / "first.png", frames[0].labels)
    write_video(folder / "video.mp4", (frame.image for frame in frames), rate=10)
    return folder


@pytest.fixture
def printed(
    clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """Runs a program on the clip; returns the lines that it prints."""

    def run(program: Path, *arguments: str) -> list[str]:
        monkeypatch.chdir(clip)
        monkeypatch.setattr(sys, "argv", [str(program), *arguments])
        runpy.run_path(str(program), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


def test_track_a_video(root: Path, clip: Path, printed: Callable[..., list[str]]) -> None:
    lines = printed(root / "examples/track_a_video.py", "video.mp4", "first.png", "out")
    masks = sorted((clip / "out").iterdir())
    assert [mask.stem for mask in masks] == [f"{index:05d}" for index in range(FRAMES)]
    given, last = read_label_map(clip / "first.png") == 1, read_label_map(masks[-1]) == 1
    assert (given & last).sum() / (given | last).sum() > 0.3, "the koi moves little in five frames"
    assert [line.split()[:3] for line in lines] == [[mask.stem, "1", "TRACKED"] for mask in masks]


@pytest.mark.parametrize("name", ["track_a_video", "own_corrector"])
def test_without_its_files_it_says_what_it_wants(
    name: str, root: Path, printed: Callable[..., list[str]]
) -> None:
    with pytest.raises(SystemExit, match=f"{name}.py VIDEO MASK.PNG"):
        printed(root / "examples" / f"{name}.py", "video.mp4")


def test_a_black_and_white_mask_is_object_1_there_too(
    root: Path, clip: Path, printed: Callable[..., list[str]]
) -> None:
    """The most usual of first masks."""
    shown = read_label_map(clip / "first.png") > 0
    Image.fromarray(np.where(shown, np.uint8(255), np.uint8(0))).save(clip / "black_white.png")
    lines = printed(root / "examples/track_a_video.py", "video.mp4", "black_white.png", "bw")
    assert [line.split()[1] for line in lines] == ["1"] * FRAMES


def test_own_corrector(root: Path, printed: Callable[..., list[str]]) -> None:
    lines = printed(root / "examples/own_corrector.py", "video.mp4", "first.png")
    changed = [int(re.findall(r"\d+", line)[-1]) for line in lines]
    assert len(changed) == FRAMES
    assert changed[0] == 0, "the first mask is given"
    assert max(changed) > 0, "the corrector has had no effect"


def test_the_readmes_python(root: Path, clip: Path, tmp_path: Path) -> None:
    """In a process of its own, as whoever tries it."""
    (code,) = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 15
    program = tmp_path / "readme.py"
    program.write_text(code)
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=clip,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [f"{index:05d}" for index in range(FRAMES)]
    assert all(0 <= float(line.split()[-1]) <= 1 for line in lines[1:]), "its predicted IoU"
    assert np.isfinite([float(line.split()[-2]) for line in lines]).all(), "its uncertainty"

# SPDX-License-Identifier: Apache-2.0
"""Material that travels: half the rows, the same folders, and it trains."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.config import load_tracker_training
from training.material import DAVIS_TRAIN, MaterialError, load_material
from training.pack import pack

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three frames and a photograph."""
    for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        folder = tmp_path / "data" / DAVIS_TRAIN / kind / "360p" / "bear"
        folder.mkdir(parents=True)
        picture = np.zeros((36, 64, 3) if suffix == "jpg" else (36, 64), np.uint8)
        picture[8:28, 20:40] = 255
        for index in range(3):
            cv2.imwrite(str(folder / f"{index:05d}.{suffix}"), picture)
    for kind, suffix in (("images", "jpg"), ("regions", "png")):
        folder = tmp_path / "data" / "bsds500" / kind
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / f"1.{suffix}"), np.full((40, 60), 7, np.uint8))
    return tmp_path / "data"


def test_what_was_packed_is_read_like_the_data_at_half_its_size(data: Path, tmp_path: Path) -> None:
    size = pack(data, tmp_path / "small")
    assert size == sum(path.stat().st_size for path in (tmp_path / "small").rglob("*.*g"))
    whole, small = (
        load_material(folder, sequences=("bear",)) for folder in (data, tmp_path / "small")
    )
    assert len(small.sequences[0]) == len(whole.sequences[0]) == 3
    assert small.sequences[0].picture(1).shape == (18, 32, 4)
    np.testing.assert_array_equal(
        small.sequences[0].picture(1)[..., 3], whole.sequences[0].picture(1)[::2, ::2, 3]
    )
    (photograph,) = small.with_regions
    assert photograph.image.shape == (20, 30, 3)
    assert photograph.regions is not None
    assert set(np.unique(photograph.regions)) == {7}


def test_packing_says_what_is_missing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(MaterialError, match="holds none of davis2016-train, bsds500, clothing"):
        pack(tmp_path / "nowhere", tmp_path / "small")
    (data / "bsds500" / "images" / "1.jpg").write_bytes(b"")
    with pytest.raises(MaterialError, match=r"cannot read .*1\.jpg"):
        pack(data, tmp_path / "small")
    assert list(tmp_path.iterdir()) == [data], "a part of it would be trained on"


def test_the_run_on_a_gpu_goes_on_from_the_network_of_the_other() -> None:
    configs = ROOT / "training" / "configs"
    other = load_tracker_training(configs / "tracker.yaml")
    assert load_tracker_training(configs / "tracker_gpu.yaml").network == other.network


def test_the_script_says_how_it_is_used() -> None:
    done = subprocess.run(
        [ROOT / "training" / "gpu.sh"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Usage: training/gpu.sh DATA OUT" in done.stderr


def test_the_script_takes_folders_where_it_is_called(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        [ROOT / "training" / "gpu.sh", "my data", "out", "60", "w.safetensors"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"},
    )
    given = done.stdout.splitlines()
    options = {name: given[given.index(name) + 1] for name in ("--data", "--out", "--weights")}
    names = ("my data", "out", "w.safetensors")
    assert list(options.values()) == [str(tmp_path / name) for name in names]

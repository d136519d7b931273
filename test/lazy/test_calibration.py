# SPDX-License-Identifier: Apache-2.0
"""A calibration's file: what is read is what was written, and what is none is refused by name."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from late_runs import CALIBRATION

from lazyxmem_ros.lazy import (
    Calibration,
    CalibrationError,
    calibration_beside,
    calibration_path,
)
from lazyxmem_ros.weights import locate, sha256


def test_a_calibration_is_written_and_read(tmp_path: Path) -> None:
    weights = tmp_path / "mine.safetensors"
    assert calibration_beside(weights) is None
    Calibration(CALIBRATION, {"operator_rate": 0.4}, {"frames": 7}).save(calibration_path(weights))
    read = calibration_beside(weights)
    assert read is not None
    assert read.iou_predictor == CALIBRATION
    assert read.thresholds == {"operator_rate": 0.4}


def test_a_calibration_of_other_weights_is_refused(tmp_path: Path) -> None:
    """Weights that were replaced, whose calibration was left."""
    file = tmp_path / "mine.safetensors"
    file.write_bytes(b"the first")
    Calibration(CALIBRATION, {}, {}, sha256(file)).save(calibration_path(file))
    assert calibration_beside(file) is not None
    file.write_bytes(b"the second")
    with pytest.raises(CalibrationError, match=r"is of other weights than mine\.safetensors"):
        calibration_beside(file)


def test_the_embedded_tracker_s_calibration_is_its_own() -> None:
    file = locate("")
    calibration = calibration_beside(file)
    assert calibration is not None
    assert calibration.weights == sha256(file)


def test_a_full_disk_leaves_the_old_calibration_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "mine.safetensors"
    Calibration(CALIBRATION, {}, {"frames": 7}).save(calibration_path(weights))

    def write_half(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(OSError, match="No space left"):
        Calibration(CALIBRATION, {}, {"frames": 8}).save(calibration_path(weights))
    read = calibration_beside(weights)
    assert read is not None
    assert read.about == {"frames": 7}
    assert list(tmp_path.iterdir()) == [calibration_path(weights)]


@pytest.mark.parametrize("text", ["", "[]", '{"format": "another 3"}', "{}"])
def test_a_strange_calibration_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = calibration_path(tmp_path / "mine.safetensors")
    path.write_text(text)
    with pytest.raises(CalibrationError, match=r"mine\.calibration\.json"):
        calibration_beside(tmp_path / "mine.safetensors")


def test_a_calibration_with_a_missing_weight_is_refused(tmp_path: Path) -> None:
    path = calibration_path(tmp_path / "mine.safetensors")
    Calibration(CALIBRATION, {}, {}).save(path)
    values = json.loads(path.read_text())
    del values["iou_predictor"]["weight"]["likeness"]
    path.write_text(json.dumps(values))
    with pytest.raises(CalibrationError, match="likeness"):
        calibration_beside(tmp_path / "mine.safetensors")

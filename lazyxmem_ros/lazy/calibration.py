# SPDX-License-Identifier: Apache-2.0
"""What was found out about one network's weights, in a file beside them: how its evidence weighs in
a predicted IoU, and the settings that suit it. `python -m training.calibrate` fits and writes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lazyxmem_ros.images.files import write_whole
from lazyxmem_ros.lazy.predicted_iou import Evidence, IouPredictor
from lazyxmem_ros.weights import sha256
from lazyxmem_ros.xmem import TrackerError

FORMAT = "lazyxmem_ros calibration 2"


class CalibrationError(TrackerError):
    """A calibration file cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Calibration:
    """What `training.calibrate` found out about one network's weights.

    Attributes:
        iou_predictor: the function.
        thresholds: settings of LazyConfig that suit the weights.
        about: how it was made.
        weights: SHA-256 of the weights' file; "" where that is not known.
    """

    iou_predictor: IouPredictor
    thresholds: Mapping[str, float]
    about: Mapping[str, object]
    weights: str = ""

    def save(self, path: Path) -> None:
        """Writes the file. Raises WriteError, leaving an old one whole, where that fails."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=2)
        write_whole(path, f"{text}\n".encode())

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Reads the file. Raises CalibrationError where that fails."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                raise CalibrationError(
                    f"{path} is of format {values['format']!r}, not {FORMAT!r}: calibrate anew"
                )
            iou = values["iou_predictor"]
            return cls(
                IouPredictor(
                    mean=Evidence(**iou["mean"]),
                    scale=Evidence(**iou["scale"]),
                    weight=Evidence(**iou["weight"]),
                    bias=float(iou["bias"]),
                ),
                dict(values["thresholds"]),
                dict(values["about"]),
                str(values.get("weights", "")),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, CalibrationError):
                raise
            raise CalibrationError(
                f"{path} cannot be read as a calibration ({error}); remove it or calibrate anew"
            ) from error


def calibration_path(weights: Path) -> Path:
    """Where the calibration of a weights file lies: x.safetensors -> x.calibration.json."""
    return weights.with_name(f"{weights.stem}.calibration.json")


def iou_predictor_of(weights: Path) -> IouPredictor | None:
    """The predicted IoU of a weights file's calibration. Raises CalibrationError."""
    calibration = calibration_beside(weights)
    return calibration.iou_predictor if calibration else None


def calibration_beside(weights: Path) -> Calibration | None:
    """The calibration of a weights file, None where it has none. Raises CalibrationError, also for
    one that was made of other weights, of whose masks it would promise anything.
    """
    path = calibration_path(weights)
    if not path.is_file():
        return None
    calibration = Calibration.load(path)
    if calibration.weights and weights.is_file() and calibration.weights != sha256(weights):
        raise CalibrationError(
            f"{path} is of other weights than {weights.name}, which lies beside it: calibrate anew "
            "(python -m training.calibrate), or remove it to track without predicted IoUs"
        )
    return calibration

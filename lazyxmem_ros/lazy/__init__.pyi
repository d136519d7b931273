# SPDX-License-Identifier: Apache-2.0
from .calibration import (
    Calibration,
    CalibrationError,
    calibration_beside,
    calibration_path,
    iou_predictor_of,
)
from .config import OFF, HoldRule, LazyConfig, Source
from .corrections import Correction
from .opening import open_tracker
from .packed import PackedLabels
from .policy import TrackState
from .predicted_iou import Evidence, IouPredictor
from .prompts import operator_prompt, pseudo_click, pseudo_prompt
from .record import Request
from .results import Outcome, StateChange, StepResult, Track
from .snapshot import (
    Snapshot,
    SnapshotError,
    read_snapshot,
    write_snapshot,
)
from .tracker import LabelError, LazyTracker, StampError, check_labels
from .uncertainty import (
    ObjectUncertainty,
    Uncertainty,
    entropy_map,
    measure,
)

__all__ = [
    "OFF",
    "Calibration",
    "CalibrationError",
    "Correction",
    "Evidence",
    "HoldRule",
    "IouPredictor",
    "LabelError",
    "LazyConfig",
    "LazyTracker",
    "ObjectUncertainty",
    "Outcome",
    "PackedLabels",
    "Request",
    "Snapshot",
    "SnapshotError",
    "Source",
    "StampError",
    "StateChange",
    "StepResult",
    "Track",
    "TrackState",
    "Uncertainty",
    "calibration_beside",
    "calibration_path",
    "check_labels",
    "entropy_map",
    "iou_predictor_of",
    "measure",
    "open_tracker",
    "operator_prompt",
    "pseudo_click",
    "pseudo_prompt",
    "read_snapshot",
    "write_snapshot",
]

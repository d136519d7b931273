# SPDX-License-Identifier: Apache-2.0
"""Lazy tracking: when to ask for a correction, what to ask, and what memory learns."""

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.lazy.calibration import (
    Calibration,
    CalibrationError,
    calibration_beside,
    calibration_path,
    iou_predictor_of,
)
from lazyxmem_ros.lazy.config import OFF, HoldRule, LazyConfig, Source
from lazyxmem_ros.lazy.corrections import Correction
from lazyxmem_ros.lazy.opening import open_tracker
from lazyxmem_ros.lazy.policy import TrackState
from lazyxmem_ros.lazy.predicted_iou import Evidence, IouPredictor
from lazyxmem_ros.lazy.prompts import operator_prompt, pseudo_click, pseudo_prompt
from lazyxmem_ros.lazy.record import Request
from lazyxmem_ros.lazy.results import Outcome, StateChange, StepResult, Track
from lazyxmem_ros.lazy.snapshot import (
    Snapshot,
    SnapshotError,
    read_snapshot,
    write_snapshot,
)
from lazyxmem_ros.lazy.tracker import LabelError, LazyTracker, StampError, check_labels
from lazyxmem_ros.lazy.uncertainty import (
    ObjectUncertainty,
    Uncertainty,
    entropy_map,
    measure,
)
from lazyxmem_ros.settings import ConfigError

__all__ = [
    "OFF",
    "SECOND",
    "Calibration",
    "CalibrationError",
    "ConfigError",
    "Correction",
    "Evidence",
    "HoldRule",
    "IouPredictor",
    "LabelError",
    "LazyConfig",
    "LazyTracker",
    "ObjectUncertainty",
    "Outcome",
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

# SPDX-License-Identifier: Apache-2.0
"""Lazy tracking: when to ask for a correction, what to ask, and what memory learns."""

from lazyxmem_ros.lazy.expected_iou import (
    Calibration,
    CalibrationError,
    Evidence,
    ExpectedIou,
    calibration_beside,
    calibration_path,
    expected_iou_of,
)
from lazyxmem_ros.lazy.pipeline import LazyTracker
from lazyxmem_ros.lazy.policy import (
    OFF,
    SECOND,
    ConfigError,
    HoldRule,
    LazyConfig,
    RequestKind,
    TrackState,
)
from lazyxmem_ros.lazy.prompts import box_of_mask, pseudo_click, pseudo_prompt, user_prompt
from lazyxmem_ros.lazy.snapshot import (
    Snapshot,
    SnapshotError,
    read_snapshot,
    write_snapshot,
)
from lazyxmem_ros.lazy.types import (
    Correction,
    Outcome,
    Request,
    Source,
    StampError,
    StateChange,
    StepResult,
    Track,
)
from lazyxmem_ros.lazy.uncertainty import (
    ObjectUncertainty,
    Uncertainty,
    entropy_map,
    masked_entropy,
    measure,
)

__all__ = [
    "OFF",
    "SECOND",
    "Calibration",
    "CalibrationError",
    "ConfigError",
    "Correction",
    "Evidence",
    "ExpectedIou",
    "HoldRule",
    "LazyConfig",
    "LazyTracker",
    "ObjectUncertainty",
    "Outcome",
    "Request",
    "RequestKind",
    "Snapshot",
    "SnapshotError",
    "Source",
    "StampError",
    "StateChange",
    "StepResult",
    "Track",
    "TrackState",
    "Uncertainty",
    "box_of_mask",
    "calibration_beside",
    "calibration_path",
    "entropy_map",
    "expected_iou_of",
    "masked_entropy",
    "measure",
    "pseudo_click",
    "pseudo_prompt",
    "read_snapshot",
    "user_prompt",
    "write_snapshot",
]

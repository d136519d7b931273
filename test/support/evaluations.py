# SPDX-License-Identifier: Apache-2.0
"""What the tests of whole evaluations share: a plan, an observer, a bag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lazyxmem_ros.data.bag_messages import StampedImage
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.evaluation.job import JobReport
from lazyxmem_ros.evaluation.methods import MethodOptions, choose_methods
from lazyxmem_ros.evaluation.plan import EvaluationPlan, TrackerSettings
from lazyxmem_ros.evaluation.simulated_operator import Gesture, OperatorConfig
from lazyxmem_ros.lazy import OFF, LazyConfig

OFTEN = LazyConfig(operator_rate=0.0, operator_entropy=0.0, pseudo_rate=OFF, cooldown_frames=3)
"""Asks whenever it may, so that a tiny untrained network has something to show."""


class Watcher:
    """An Observer that takes notes."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.kept: list[str] = []
        self.run: list[str] = []

    def planned(self, names: Sequence[str], frames: Sequence[int]) -> None:
        self.names = list(names)

    def progressed(self, name: str, frames: int) -> None:
        pass

    def finished(self, report: JobReport, *, kept: bool) -> None:
        (self.kept if kept else self.run).append(report.name)


def plan_of(root: Path, weights: Path, methods: list[str], **changes: object) -> EvaluationPlan:
    plan = EvaluationPlan(
        sequences=tuple(open_dataset(root)),
        methods=tuple(choose_methods(methods, MethodOptions(OFTEN))),
        tracker=TrackerSettings(weights, device="cpu"),
        operator=OperatorConfig(Gesture.MASK),
        workers=2,
        random_repeats=2,
    )
    return replace(plan, **changes)  # type: ignore[arg-type]


def walking_bag(path: Path, frames: int) -> None:
    """A bag of images alone, with a wandering square."""
    with BagWriter(path, storage="sqlite3") as writer:
        for index in range(frames):
            image = np.full((64, 96, 3), 60, np.uint8)
            image[10:30, 5 + 2 * index : 25 + 2 * index] = (220, 60, 40)
            writer.write_image("/camera", StampedImage(10**9 + index * 10**8, image))

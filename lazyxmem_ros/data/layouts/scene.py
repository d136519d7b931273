# SPDX-License-Identifier: Apache-2.0
"""The generated scene as a sequence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.data.pond import Scene, SceneConfig
from lazyxmem_ros.data.samples import Sample, introduce


@dataclass(frozen=True)
class SceneSequence:
    """The generated scene."""

    config: SceneConfig = field(default_factory=SceneConfig)
    name: str = "pond"
    has_truth: bool = True
    files: tuple[Path, ...] = ()
    mask_advice: str = "let objects be in it"

    def __len__(self) -> int:
        return self.config.frames

    def samples(self) -> Iterator[Sample]:
        """Renders one frame at a time."""
        known: set[int] = set()
        for frame in Scene(self.config):
            stamp = round(frame.time * SECOND)
            sample = Sample(frame.index, f"{frame.index:05d}", stamp, frame.image, frame.labels)
            introduce(sample, known)
            yield sample

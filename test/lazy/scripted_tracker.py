# SPDX-License-Identifier: Apache-2.0
"""A tracker whose masks and uncertainty are scripted, behind XMemTracker's door."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from lazyxmem_ros.xmem.gating import Place

SIZE = (48, 64)
SECOND = 1_000_000_000
FRAME_TIME = SECOND // 30


def square(x: int, y: int = 10, side: int = 16, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def confidence_for(entropy: float, classes: int) -> float:
    """The probability of one class, the others sharing the rest, that has this entropy."""

    def of(p: float) -> float:
        rest = (1 - p) / (classes - 1)
        terms = [p, *[rest] * (classes - 1)]
        return -sum(t * math.log(t) for t in terms if t > 0) / math.log(classes)

    low, high = 1 / classes, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if of(middle) > entropy else (low, middle)
    return high


def scene(objects: dict[int, tuple[np.ndarray, float]]) -> torch.Tensor:
    """Probabilities [K + 1, H, W]: each object's mask with this entropy, all else certain."""
    classes = len(objects) + 1
    size = next(iter(objects.values()))[0].shape if objects else SIZE
    probabilities = torch.zeros(classes, *size)
    probabilities[0] = 1.0
    for position, (mask, entropy) in enumerate(objects.values(), start=1):
        p = confidence_for(entropy, classes)
        where = torch.from_numpy(mask)
        probabilities[:, where] = (1 - p) / (classes - 1)
        probabilities[position, where] = p
    return probabilities


@dataclass
class ScriptedFrame:
    index: int
    stamp: int
    size: tuple[int, int]
    object_ids: tuple[int, ...]
    probabilities: torch.Tensor
    open: bool = True
    predicted: bool = True
    places: dict[int, Place] = field(default_factory=dict)
    given: dict[int, np.ndarray] = field(default_factory=dict)

    def labels(self) -> np.ndarray:
        ids = np.array([0, *self.object_ids], np.uint16)
        return ids[self.probabilities.argmax(0).numpy()]


@dataclass
class ScriptedTracker:
    """XMemTracker's door, with masks and entropies from `script[frame][object]`.

    A missing frame repeats the last one; objects are those that were given.
    """

    script: list[dict[int, tuple[np.ndarray, float]]]
    calls: list[tuple] = field(default_factory=list)
    object_ids: tuple[int, ...] = ()
    frames: int = 0
    newest: ScriptedFrame | None = None

    def segment(self, image, masks=None, *, stamp=0):
        assert self.newest is None or not self.newest.open
        shown = self.script[min(self.frames, len(self.script) - 1)]
        self.object_ids += tuple(i for i in masks or {} if i not in self.object_ids)
        size = image.shape[:2]
        empty = (np.zeros(size, bool), 0.0)
        objects = {i: shown.get(i, empty) for i in self.object_ids}
        probabilities = scene(objects) if objects else torch.ones(1, *size)
        self.newest = ScriptedFrame(self.frames, stamp, size, self.object_ids, probabilities)
        self.newest.given = dict(masks or {})
        self.frames += 1
        return self.newest

    def preview(self, frame, masks):
        probabilities = frame.probabilities.clone()
        for object_id, mask in masks.items():
            position = frame.object_ids.index(object_id) + 1
            where = torch.from_numpy(mask)
            # What a mask leaves goes to the background; what it covers is the object's.
            was = probabilities.argmax(0) == position
            for region, winner in ((was & ~where, 0), (where, position)):
                probabilities[:, region] = 0.0
                probabilities[winner, region] = 1.0
        return probabilities

    def _close(self, frame, *call):
        assert frame is self.newest
        assert frame.open
        frame.open = False
        self.calls.append((*call[:1], frame.index, *call[1:]))

    def memorize(self, frame):
        self._close(frame, "memorize")

    def hold(self, frame):
        self._close(frame, "hold")

    def correct(self, frame, masks, *, told=(), doubted_since=None):
        assert frame is self.newest
        frame.open = False
        frame.probabilities = self.preview(frame, masks)
        self.calls.append(("correct", frame.index, dict(masks)))

    def add_objects(self, frame, masks):
        new = tuple(i for i in masks if i not in self.object_ids)
        self.object_ids += new
        frame.object_ids = self.object_ids
        frame.given |= masks
        zeros = torch.zeros(len(new), *frame.size)
        frame.probabilities = self.preview(
            _with(frame, torch.cat([frame.probabilities, zeros])), masks
        )

    def remove_objects(self, ids):
        frame = self.newest
        keep = [0, *[n for n, i in enumerate(frame.object_ids, 1) if i not in ids]]
        self.object_ids = tuple(i for i in self.object_ids if i not in ids)
        frame.object_ids = self.object_ids
        frame.probabilities = frame.probabilities[keep]
        frame.given = {i: mask for i, mask in frame.given.items() if i not in ids}

    def reset(self):
        self.object_ids, self.frames, self.newest = (), 0, None


def _with(frame: ScriptedFrame, probabilities: torch.Tensor) -> ScriptedFrame:
    return ScriptedFrame(frame.index, frame.stamp, frame.size, frame.object_ids, probabilities)

# SPDX-License-Identifier: Apache-2.0
"""One image on its way through the tracker."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lazyxmem_ros.xmem.inputs import outputs
from lazyxmem_ros.xmem.network import KeyFeatures


class Closing(enum.Enum):
    """How a frame was closed."""

    MEMORIZED = "memorized"
    HELD = "held"
    CORRECTED = "corrected"


@dataclass
class Frame:
    """One image on its way through the tracker, and what a later correction of it needs."""

    index: int
    """Counts the images since the start or the last reset."""
    stamp: int
    """Nanoseconds since the epoch, as given to `segment`."""
    size: tuple[int, int]
    """Height and width of the image as given, pixels."""
    object_ids: tuple[int, ...]
    """The objects, in the order of `probabilities`."""
    image: Tensor
    """Normalised, scaled and padded image [1, 3, H', W']."""
    features: KeyFeatures | None
    """The key encoder's features; None while there has been nothing to track."""
    distribution: Tensor
    """Probabilities [K + 1, H', W'] at the padded internal size."""
    hidden: dict[int, Tensor]
    """Hidden state [C_h, h, w] of each object after this frame's decoding."""
    clock: int
    """The memory clock's reading that this frame has if it is not held."""
    deep_update: bool
    """Whether the frame is due for a deep update of the hidden state."""
    inner_size: tuple[int, int]
    """Height and width of the scaled image, without its padding."""
    given: dict[int, Tensor] = field(default_factory=dict)
    """Masks given on this frame, float [H', W'] in 0..1."""
    closing: Closing | None = None
    """How it was closed; None while it is open."""
    _probabilities: Tensor | None = None

    @property
    def open(self) -> bool:
        """Not yet memorized, held or corrected."""
        return self.closing is None

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that it keeps for corrections."""
        features = [] if self.features is None else list(self.features)
        parts = [*features, *self.given.values(), *self.hidden.values()]
        return sum(t.nbytes for t in (self.image, self.distribution, *parts))

    @property
    def probabilities(self) -> Tensor:
        """Float tensor [K + 1, H, W] on the device: background, then the objects in order."""
        if self._probabilities is None:
            self._probabilities = self.at_output_size(self.distribution)
        return self._probabilities

    def copy(self) -> Frame:
        """The same frame, with a life of its own; tensors are shared, nothing writes into them."""
        return replace(self, hidden=dict(self.hidden), given=dict(self.given))

    def labels(self) -> NDArray[np.uint16]:
        """Label map [H, W]: the most probable object's id, 0 for background."""
        ids = torch.tensor([0, *self.object_ids], device=self.distribution.device)
        return ids[self.probabilities.max(0).indices].cpu().numpy().astype(np.uint16)

    def at_output_size(self, distribution: Tensor) -> Tensor:
        """[K, H', W'] -> [K, H, W]."""
        return outputs(distribution, self.inner_size, self.size)

    def set_distribution(self, distribution: Tensor) -> None:
        """Replace the probabilities [K + 1, H', W']."""
        self.distribution = distribution
        self._probabilities = None

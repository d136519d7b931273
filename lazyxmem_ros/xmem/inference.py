# SPDX-License-Identifier: Apache-2.0
"""The network at work on a frame: its parts with what they need of it, and what comes out.

The convolutions compute in the precision that was chosen; all that comes out and is compared or
kept is float32. Tokens are the cells of the stride-16 grid in row order, hw of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lazyxmem_ros.xmem.device import autocast
from lazyxmem_ros.xmem.frame import Frame
from lazyxmem_ros.xmem.inputs import Inputs
from lazyxmem_ros.xmem.network import KeyFeatures, XMem


class Inference:
    """Runs a network, which is on its device and ready, on frames."""

    def __init__(
        self, network: XMem, inputs: Inputs, *, device: torch.device, precision: torch.dtype
    ) -> None:
        """`precision`: what the convolutions compute in, of `resolve_precision`."""
        self._network = network
        self._inputs = inputs
        self._device = device
        self._precision = precision

    def image(self, frame: Frame) -> Tensor:
        """The frame's image [1, 3, H', W'], computed again where it was let go."""
        if frame.image is None:
            assert frame.pixels is not None
            frame.image = self._inputs.image(frame.pixels)[0]
        return frame.image

    def features(self, frame: Frame) -> KeyFeatures:
        """The frame's features, computed where it has none."""
        if frame.features is None:
            with autocast(self._device, self._precision):
                features = self._network.encode_key(self.image(frame))
            frame.features = KeyFeatures(
                features.key.float(),
                features.shrinkage.float(),
                features.selection.float(),
                *features[3:],
            )
        return frame.features

    def decode(
        self, frame: Frame, readout: Tensor, *, update_hidden: bool
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Each object's probabilities [K, H', W'] as if there were no other, and its hidden state
        [C_h, h, w], renewed if `update_hidden`; no states where the network has none.

        `readout`: [K, hw, C_v], in the order of the frame's objects.
        """
        features = self.features(frame)
        grid = readout.transpose(1, 2).unflatten(2, features.key.shape[-2:])
        with autocast(self._device, self._precision):
            logits, hidden = self._network.decode(
                features, grid[None], self._hidden(frame), update_hidden=update_hidden
            )
        return torch.sigmoid(logits[0].float()), _by_object(frame, hidden)

    def encode_values(
        self, frame: Frame, distribution: Tensor, *, deep_update: bool
    ) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Each object's values [hw, C_v], and its hidden state [C_h, h, w], renewed on a deep
        update; no states where the network has none.

        `distribution`: probabilities [K + 1, H', W'] that the values are of.
        """
        features = self.features(frame)
        with autocast(self._device, self._precision):
            value, hidden = self._network.encode_value(
                self.image(frame),
                features.f16,
                distribution[None, 1:],
                self._hidden(frame),
                deep_update=deep_update,
            )
        values = {i: as_tokens(v) for i, v in _by_object(frame, value).items()}
        return values, _by_object(frame, hidden)

    def _hidden(self, frame: Frame) -> Tensor | None:
        """Hidden states [1, K, C_h, h, w] in the order of the frame's objects."""
        if not self._network.config.hidden_dim:
            return None
        return torch.stack([frame.hidden[i] for i in frame.object_ids])[None]


def as_tokens(x: Tensor) -> Tensor:
    """[C, h, w] -> [h*w, C]."""
    return x.flatten(1).T


def _by_object(frame: Frame, x: Tensor | None) -> dict[int, Tensor]:
    """[1, K, C, h, w] -> float32 [C, h, w] of each of the frame's objects; None -> of none."""
    if x is None:
        return {}
    return dict(zip(frame.object_ids, x[0].float(), strict=True))

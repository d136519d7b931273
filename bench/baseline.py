# SPDX-License-Identifier: Apache-2.0
"""XMem as its paper describes it, in plain PyTorch and float32: what other benches compare with.

Nothing here is fast on purpose, and nothing else uses it. The network is the package's, unfolded
and in the usual memory layout. Memory grows by concatenation, similarity and readout are dense
products, and entropy is NumPy's. `test/bench/test_baseline.py` holds it to the golden vectors of
the published code.

Shapes: K objects, N memory tokens, Q = h*w query tokens, C_k and C_v channels of key and value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lazyxmem_ros.lazy.uncertainty import disc_kernel, kernel_side
from lazyxmem_ros.xmem import MemoryConfig, XMem
from lazyxmem_ros.xmem.network import IMAGE_MEAN, IMAGE_STD, STRIDE, aggregate

LIFE_AT_BIRTH = 1e-7
"""Frames: the life of a token that was never read."""
SMALLEST_PROBABILITY = 1e-7
"""Smaller ones are taken for this before their logarithm is."""


@dataclass
class Tokens:
    """One of the two memories; each write and each loss makes new tensors."""

    key: Tensor  # [C_k, N]
    shrinkage: Tensor  # [N]
    selection: Tensor  # [C_k, N]
    value: Tensor  # [K, C_v, N]
    use: Tensor  # [N]
    life: Tensor  # [N]

    def __len__(self) -> int:
        return self.key.shape[1]

    def take(self, columns: Tensor) -> Tokens:
        """Those of the given columns, in that order."""
        return Tokens(*(tensor[..., columns] for tensor in vars(self).values()))

    def followed_by(self, other: Tokens) -> Tokens:
        """These and then the others."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Tokens(*(torch.cat(pair, dim=-1) for pair in pairs))


def fresh(key: Tensor, shrinkage: Tensor, selection: Tensor, value: Tensor) -> Tokens:
    """Tokens that were never read."""
    use = torch.zeros_like(shrinkage)
    return Tokens(key, shrinkage, selection, value, use, use + LIFE_AT_BIRTH)


def similarity(memory: Tokens, key: Tensor, selection: Tensor) -> Tensor:
    """[N, Q] of queries [C_k, Q] (XMem, equation 2)."""
    squared = (memory.key**2).T @ selection
    product = 2 * (memory.key.T @ (key * selection))
    constant = (selection * key**2).sum(0)
    distance = squared - product + constant
    return -memory.shrinkage[:, None] * distance / math.sqrt(len(key))


class BaselineTracker:
    """Follows the objects of the first frame; `step` takes one frame after the other."""

    def __init__(self, network: XMem, config: MemoryConfig) -> None:
        self.network = network.eval()
        self.config = config
        self.working: Tokens | None = None
        self.long_term: Tokens | None = None
        self._hidden: Tensor | None = None  # [1, K, C_h, h, w]
        self._tokens_per_frame = 0
        self._frame = 0
        self._last_memory = -config.memory_every
        self._last_deep_update = -max(config.deep_update_every, 0)

    @torch.inference_mode()
    def step(
        self,
        image: NDArray[np.uint8],
        masks: NDArray[np.bool_] | None = None,
        *,
        last: bool = False,
    ) -> Tensor:
        """RGB uint8 [H, W, 3] -> probabilities [K + 1, H, W], background first.

        `masks` [K, H, W] are the first frame's and of that alone. The `last` frame is not learnt.
        """
        padded, (top, left) = self._image(image)
        features = self.network.encode_key(padded)
        key, selection = features.key[0].flatten(1), features.selection[0].flatten(1)
        h, w = features.key.shape[-2:]
        deep_update = self._deep_update_due()
        if masks is not None:
            self._tokens_per_frame = h * w
            given = torch.from_numpy(masks).float()
            inside = padded.new_zeros(len(masks), *padded.shape[-2:])
            inside[:, top : top + masks.shape[1], left : left + masks.shape[2]] = given
            distribution = aggregate(inside)
            self._hidden = padded.new_zeros(1, len(masks), self.network.config.hidden_dim, h, w)
        else:
            readout = self._read(key, selection).unflatten(2, (h, w))[None]
            synchronous = self.config.deep_update_every < 0
            logits, self._hidden = self.network.decode(
                features, readout, self._hidden, update_hidden=not (synchronous and deep_update)
            )
            distribution = aggregate(torch.sigmoid(logits[0]))
        due = self._frame - self._last_memory >= self.config.memory_every
        if (due or masks is not None) and not last:
            value, self._hidden = self.network.encode_value(
                padded,
                features.f16,
                distribution[None, 1:],
                self._hidden,
                deep_update=deep_update,
            )
            self._write(fresh(key, features.shrinkage.flatten(), selection, value[0].flatten(2)))
            self._last_memory = self._frame
            if deep_update:
                self._last_deep_update = self._frame
        self._frame += 1
        height, width = image.shape[:2]
        return distribution[:, top : top + height, left : left + width]

    def _deep_update_due(self) -> bool:
        if self.config.deep_update_every < 0:
            return self._frame - self._last_memory >= self.config.memory_every
        return self._frame - self._last_deep_update >= self.config.deep_update_every

    def _image(self, image: NDArray[np.uint8]) -> tuple[Tensor, tuple[int, int]]:
        """Normalised and padded image [1, 3, H', W'], and the padding above and on the left."""
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(each)[:, None, None] for each in (IMAGE_MEAN, IMAGE_STD))
        rows, columns = (-side % STRIDE for side in image.shape[:2])
        top, left = rows // 2, columns // 2
        padding = (left, columns - left, top, rows - top)
        return torch.nn.functional.pad((pixels - mean) / std, padding)[None], (top, left)

    def _read(self, key: Tensor, selection: Tensor) -> Tensor:
        """Queries [C_k, Q] -> readout [K, C_v, Q]."""
        assert self.working is not None
        memory = self.working
        if self.long_term is not None:
            memory = self.long_term.followed_by(memory)
        scores = similarity(memory, key, selection)
        top = torch.topk(scores, min(self.config.top_k, len(memory)), dim=0)
        affinity = torch.zeros_like(scores).scatter_(0, top.indices, top.values.softmax(0))
        use = affinity.sum(1)
        long_term = 0 if self.long_term is None else len(self.long_term)
        if self.long_term is not None:
            self.long_term.use += use[:long_term]
            self.long_term.life += 1
        self.working.use += use[long_term:]
        self.working.life += 1
        return memory.value @ affinity

    def _write(self, tokens: Tokens) -> None:
        full = self.config.max_working_frames * self._tokens_per_frame
        self.working = tokens if self.working is None else self.working.followed_by(tokens)
        if len(self.working) < full:
            return
        if self.config.long_term:
            self._consolidate()
        elif len(self.working) > full:
            a_frame = self._tokens_per_frame
            stays = torch.ones(len(self.working), dtype=torch.bool)
            stays[a_frame : 2 * a_frame] = False
            self.working = self.working.take(stays.nonzero()[:, 0])

    def _consolidate(self) -> None:
        """All frames but the first and the newest ones become prototypes."""
        assert self.working is not None
        a_frame = self._tokens_per_frame
        columns = torch.arange(len(self.working))
        newest = len(self.working) - (self.config.min_working_frames - 1) * a_frame
        candidates = self.working.take(columns[a_frame:newest])
        usage = candidates.use / candidates.life
        chosen = candidates.take(torch.topk(usage, self.config.prototypes).indices)
        weights = similarity(candidates, chosen.key, chosen.selection).softmax(0)
        prototypes = fresh(
            chosen.key,
            candidates.shrinkage @ weights,
            chosen.selection,
            candidates.value @ weights,
        )
        room = self.config.max_long_term_tokens - self.config.prototypes
        if self.long_term is None:
            self.long_term = prototypes
        else:
            if len(self.long_term) > room:
                usage = self.long_term.use / self.long_term.life
                most_used = torch.topk(usage, room).indices.sort().values
                self.long_term = self.long_term.take(most_used)
            self.long_term = self.long_term.followed_by(prototypes)
        self.working = self.working.take(torch.cat([columns[:a_frame], columns[newest:]]))


def masked_entropy(probabilities: NDArray[np.float32]) -> list[float]:
    """Each object's entropy over its mask and the rim around it, per pixel of the mask.

    `probabilities` [K + 1, H, W]; 0 where a mask is empty (Lazy-XMem, section 3).
    """
    classes = len(probabilities)
    logs = np.log(np.maximum(probabilities, SMALLEST_PROBABILITY))
    entropy = -(probabilities * logs).sum(0) / math.log(classes)
    winner = probabilities.argmax(0)
    values = []
    for object_number in range(1, classes):
        mask = (winner == object_number).astype(np.uint8)
        area = int(mask.sum())
        around = cv2.dilate(mask, disc_kernel(kernel_side(area)))
        values.append(float((entropy * around).sum()) / max(area, 1))
    return values

# SPDX-License-Identifier: Apache-2.0
"""XMem run over whole batches of clips with memory in the loop, differentiable.

Inference has its own memory (`lazyxmem_ros.xmem`), made for one endless stream; training needs
many short clips at once and gradients through memory. Both share the network and its equations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lazyxmem_ros.xmem.network import (
    IMAGE_MEAN,
    IMAGE_STD,
    KeyFeatures,
    XMem,
    aggregate_logits,
)


class Plan(NamedTuple):
    """Which earlier frames each frame sees in memory, and where deep updates happen."""

    memory: tuple[tuple[int, ...], ...]
    """For frame t (1 ...): the frames in memory, the first always among them. A frame may be
    there several times, as after a scene that stood still."""
    deep: tuple[bool, ...]
    """For frame t: the value encoder renews the hidden state instead of the decoder."""


STILL_TIMES = 12  # most often that memory holds one frame: 60 frames of a scene that stands still


def random_plan(
    rng: np.random.Generator,
    frames: int,
    memory_frames: int,
    deep_share: float,
    *,
    still_share: float = 0.0,
) -> Plan:
    """The first frame and random earlier ones, as XMem trains (section 4).

    still_share: probability that one of the frames is in memory many times, as if the scene had
    stood still there.
    """
    memory: list[tuple[int, ...]] = [()]
    still, times = 0, 1
    if still_share and frames > 2 and rng.random() < still_share:
        still, times = int(rng.integers(1, frames - 1)), int(rng.integers(2, STILL_TIMES + 1))
    for t in range(1, frames):
        extra = min(t - 1, memory_frames - 1)
        chosen: set[int] = set()
        if extra:
            chosen = {int(i) for i in rng.choice(np.arange(1, t), extra, replace=False)}
        if times > 1 and still < t:
            chosen.add(still)
        seen = [i for i in sorted(chosen) for _ in range(times if i == still else 1)]
        memory.append((0, *seen))
    return Plan(tuple(memory), tuple(bool(d) for d in rng.random(frames) < deep_share))


def regular_plan(frames: int, every: int) -> Plan:
    """The first and every `every`-th frame, with deep updates there, as inference does."""
    kept = [t for t in range(frames) if t % every == 0]
    memory = tuple(tuple(i for i in kept if i < t) for t in range(frames))
    return Plan(memory, tuple(t in kept for t in range(frames)))


def normalise(frames: Tensor) -> Tensor:
    """RGB uint8 [..., H, W, 3] -> float [..., 3, H, W] with ImageNet's statistics."""
    mean = torch.tensor(IMAGE_MEAN, device=frames.device) * 255
    std = torch.tensor(IMAGE_STD, device=frames.device) * 255
    return ((frames.float() - mean) / std).movedim(-1, -3)


def read_memory(
    query: Tensor, selection: Tensor, key: Tensor, shrinkage: Tensor, value: Tensor
) -> Tensor:
    """XMem's equation 2 with a softmax over all of a short memory, in float32.

    query, selection [B, C_k, Q]; key [B, C_k, N]; shrinkage [B, 1, N]; value [B, K, C_v, N]
    -> [B, K, C_v, Q].
    """
    query, selection, key = query.float(), selection.float(), key.float()
    squared = (key * key).transpose(1, 2) @ selection
    crossed = 2 * key.transpose(1, 2) @ (query * selection)
    constant = (selection * query * query).sum(1, keepdim=True)
    distance = squared - crossed + constant
    similarity = -distance * shrinkage.float().transpose(1, 2) / query.shape[1] ** 0.5
    affinity = torch.softmax(similarity, dim=1)
    return value.flatten(1, 2).float().matmul(affinity).unflatten(1, value.shape[1:3])


def roll_out(network: XMem, frames: Tensor, first_masks: Tensor, plan: Plan) -> Tensor:
    """Tracks a batch of clips from their first masks.

    frames: normalised [B, T, 3, H, W]; first_masks: 0..1 [B, K, H, W]. Returns the class logits
    of frames 1 ... T-1, [B, T-1, K+1, H, W], background first (soft aggregation). Predicted
    masks are fed back into memory; gradients flow through it.
    """
    batch, count = frames.shape[:2]
    objects = first_masks.shape[1]
    flat = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    everything = network.encode_key(flat)

    def of_frame(t: int) -> KeyFeatures:
        return KeyFeatures(*(x.unflatten(0, (batch, count))[:, t] for x in everything))

    features = [of_frame(t) for t in range(count)]
    needed = {i for memory in plan.memory for i in memory}
    h, w = features[0].key.shape[-2:]
    hidden: Tensor | None = None
    if network.config.hidden_dim:
        hidden = frames.new_zeros(batch, objects, network.config.hidden_dim, h, w)
    value, hidden = network.encode_value(
        frames[:, 0], features[0].f16, first_masks, hidden, deep_update=True
    )
    values = {0: value.flatten(3)}
    outputs = []
    for t in range(1, count):
        memory: Sequence[int] = plan.memory[t]
        now = features[t]
        with torch.autocast(frames.device.type, enabled=False):
            readout = read_memory(
                now.key.flatten(2),
                now.selection.flatten(2),
                torch.cat([features[i].key.flatten(2) for i in memory], dim=2),
                torch.cat([features[i].shrinkage.flatten(2) for i in memory], dim=2),
                torch.cat([values[i] for i in memory], dim=3),
            ).unflatten(3, (h, w))
        last = t == count - 1
        deep = plan.deep[t] and not last
        logits, hidden = network.decode(now, readout, hidden, update_hidden=not (last or deep))
        with torch.autocast(frames.device.type, enabled=False):
            classes = aggregate_logits(torch.sigmoid(logits.float()), dim=1)
            masks = torch.softmax(classes, dim=1)[:, 1:]
        outputs.append(classes)
        if not last and (deep or t in needed):
            value, hidden = network.encode_value(
                frames[:, t], now.f16, masks, hidden, deep_update=deep
            )
            values[t] = value.flatten(3)
    return torch.stack(outputs, dim=1)


def tracking_loss(logits: Tensor, labels: Tensor, keep: float) -> Tensor:
    """Bootstrapped cross-entropy plus Dice (XMem, section 4).

    logits [B, T, K+1, H, W]; labels int64 [B, T, H, W]; keep: share of the hardest pixels of
    each frame that cross-entropy counts.
    """
    flat, truth = logits.flatten(0, 1), labels.flatten(0, 1)
    losses = F.cross_entropy(flat, truth, reduction="none").flatten(1)
    kept = max(1, int(keep * losses.shape[1]))
    cross_entropy = losses.topk(kept, dim=1, sorted=False).values.mean()
    probability = torch.softmax(flat, dim=1)[:, 1:].flatten(2)
    wanted = F.one_hot(truth, flat.shape[1]).movedim(-1, 1)[:, 1:].flatten(2)
    overlap = (probability * wanted).sum(2)
    dice = 1 - (2 * overlap + 1) / (probability.sum(2) + wanted.sum(2) + 1)
    return cross_entropy + dice.mean()


def mean_j(logits: Tensor, labels: Tensor) -> float:
    """Mean region IoU over frames and objects; an empty object rightly left empty counts 1."""
    predicted = logits.argmax(dim=2)
    scores = []
    for k in range(1, logits.shape[2]):
        a, b = predicted == k, labels == k
        union = (a | b).sum((2, 3)).float()
        both = (a & b).sum((2, 3)).float()
        scores.append(torch.where(union > 0, both / union.clamp(min=1), torch.ones_like(union)))
    return float(torch.stack(scores).mean())

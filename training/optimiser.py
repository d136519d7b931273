# SPDX-License-Identifier: Apache-2.0
"""Which parameters of a network learn, how fast, and with which statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lazyxmem_ros.xmem.network import KeyEncoder


def parameter_groups(
    network: nn.Module, encoder: KeyEncoder, *, encoder_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups for an optimiser; "share" is each one's learning rate as a share of the run's.

    Weight decay acts on matrices and kernels alone, not on norms and biases. encoder: a part of
    the network that learns at the share `encoder_rate`.
    """
    groups = []
    of_encoder = set(encoder.parameters())
    for share, inside in ((encoder_rate, True), (1.0, False)):
        mine = [p for p in network.parameters() if (p in of_encoder) == inside]
        for decay, matrices in ((weight_decay, True), (0.0, False)):
            parameters = [p for p in mine if (p.ndim > 1) == matrices]
            groups.append({"params": parameters, "weight_decay": decay, "share": share})
    return groups


def clip_gradients(network: nn.Module, most: float) -> None:
    """Scales the gradients down to a norm of `most`. Raises RuntimeError where one is no number.

    A step with such a gradient would end the run: no later one brings the weights back, and the
    next checkpoint would be of these.
    """
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), most)
    if not torch.isfinite(norm):
        raise RuntimeError(f"the gradients' norm is {float(norm)}; lower learning_rate")


def go_on(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Takes an optimiser's state from a checkpoint, but for what the configuration decides."""
    mine = [{n: group[n] for n in ("weight_decay", "share")} for group in optimiser.param_groups]
    optimiser.load_state_dict(state)
    for group, settings in zip(optimiser.param_groups, mine, strict=True):
        group.update(settings)


def freeze_batch_norm(network: nn.Module) -> None:
    """Batch norm uses its running statistics, as inference does, and leaves them as they are."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def let_early_layers_learn(encoder: KeyEncoder, learn: bool) -> None:
    """Whether the encoder learns up to stride 4. Where it does not, a step takes a quarter less."""
    for part in (encoder.conv1, encoder.bn1, encoder.res2):
        part.requires_grad_(learn)

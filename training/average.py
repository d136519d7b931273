# SPDX-License-Identifier: Apache-2.0
"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


class Average(Generic[N]):
    """Averages parameters AND batch-norm statistics: averaged weights need the statistics of
    the features that they make, and those of the newest weights alone are not theirs.
    """

    def __init__(self, network: N, decay: float) -> None:
        self.network = copy.deepcopy(network).eval()
        self.decay = decay
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Moves the average towards the network; in the first steps faster, so that the random
        initial weights are forgotten.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        new = network.state_dict()
        mine, theirs = [], []
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                mine.append(value)
                theirs.append(new[name])
            else:
                value.copy_(new[name])
        torch._foreach_lerp_(mine, theirs, 1 - decay)

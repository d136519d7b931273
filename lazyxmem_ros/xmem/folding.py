# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation folded into the convolutions before it: the same network, sooner done."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import chain

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lazyxmem_ros.xmem.network import XMem


@torch.no_grad()
def fold_batch_norm(network: XMem) -> XMem:
    """A copy, for inference alone, that answers the same but for rounding.

    Tensors that folding leaves as they are, are shared with `network`, which is not changed. A
    network with nothing to fold is returned itself.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    shared = {id(tensor): tensor for tensor in chain(network.parameters(), network.buffers())}
    folded = copy.deepcopy(network, shared).eval()
    for parent in list(folded.modules()):
        for convolution, normalisation in _pairs(parent):
            fused = fuse_conv_bn_eval(
                parent.get_submodule(convolution), parent.get_submodule(normalisation)
            )
            setattr(parent, convolution, fused)
            setattr(parent, normalisation, nn.Identity())
    return folded


def _pairs(parent: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of a module's convolutions and of the normalisations that follow them."""
    children = dict(parent.named_children())
    names = [(f"conv{n}", f"bn{n}") for n in (1, 2, 3)] + [("0", "1")]
    for convolution, normalisation in names:
        if isinstance(children.get(normalisation), nn.BatchNorm2d):
            yield convolution, normalisation

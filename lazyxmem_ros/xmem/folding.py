# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation folded into the convolutions before it: the same network, sooner done."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lazyxmem_ros.xmem.network import XMem

PAIRS = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1"))
"""Names of convolutions and of the normalisations that follow them; the last are of shortcuts."""


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
        children = dict(parent.named_children())
        for first, second in PAIRS:
            convolution, normalisation = children.get(first), children.get(second)
            if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
                setattr(parent, first, fuse_conv_bn_eval(convolution, normalisation))
                setattr(parent, second, nn.Identity())
    return folded

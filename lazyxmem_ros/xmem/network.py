# SPDX-License-Identifier: Apache-2.0
"""The XMem network (Cheng and Schwing, ECCV 2022, section 3), read from top to bottom.

Shapes: B images, K objects each, H x W pixels (multiples of 16), h x w = H/16 x W/16. Image
features are [B, C, h, w], object features [B, K, C, h, w]. Suffixes 16, 8 and 4 are strides.
Module names are those of the published checkpoints, so that these load as they are; every width
is a field of `NetworkConfig`, so that a smaller network of the same plan is the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 16
"""Pixels of one memory token's side; images are padded to multiples of it."""

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""ImageNet's statistics of RGB scaled to 0..1, which the published weights expect."""

PROBABILITY_MARGIN = 1e-7
"""Probabilities are kept this far from 0 and 1 before their logit is taken."""


RESNET_STRIDES = (1, 2, 2)
"""Of ResNet's first three groups of blocks, after a stem and pooling of stride 4 together."""


class GroupPlan(NamedTuple):
    """What a group of inverted residuals has in common; its first block has the stride."""

    kernel: int
    stride: int
    expansion: int


EFFICIENTNET_GROUPS = (
    GroupPlan(kernel=3, stride=1, expansion=1),
    GroupPlan(kernel=3, stride=2, expansion=6),
    GroupPlan(kernel=5, stride=2, expansion=6),
    GroupPlan(kernel=3, stride=2, expansion=6),
    GroupPlan(kernel=5, stride=1, expansion=6),
)
"""EfficientNet's first five groups (Tan and Le, ICML 2019, table 1), after a stem of stride 2. The
lite networks have ReLU6 and no squeeze-and-excitation."""

EFFICIENTNET_STAGES = ((0, 1), (2,), (3, 4))
"""Which of these groups lead to stride 4, 8 and 16."""


@dataclass(frozen=True)
class EncoderConfig:
    """A ResNet or an EfficientNet-lite, cut where its features reach stride 16.

    Raises ValueError for another number of groups than its kind of block has.
    """

    block: Literal["basic", "bottleneck", "inverted"]
    """ResNet's two kinds, or the inverted residual of MobileNetV2 and EfficientNet."""
    stem: int
    """Channels of the first convolution."""
    blocks: tuple[int, ...]
    """Blocks of each group: ResNet has three groups, EfficientNet the five of
    `EFFICIENTNET_GROUPS`."""
    widths: tuple[int, ...]
    """Channels of each group; those of a bottleneck are what it narrows to."""

    def __post_init__(self) -> None:
        groups = len(EFFICIENTNET_GROUPS) if self.block == "inverted" else len(RESNET_STRIDES)
        if not len(self.blocks) == len(self.widths) == groups:
            raise ValueError(
                f"an encoder of {self.block} blocks needs {groups} numbers of blocks and as many "
                f"widths, not {list(self.blocks)} and {list(self.widths)}"
            )

    @property
    def channels(self) -> tuple[int, int, int]:
        """Output channels at strides 4, 8 and 16."""
        if self.block == "inverted":
            a, b, c = (self.widths[groups[-1]] for groups in EFFICIENTNET_STAGES)
            return a, b, c
        expansion = Bottleneck.expansion if self.block == "bottleneck" else BasicBlock.expansion
        a, b, c = self.widths
        return a * expansion, b * expansion, c * expansion


@dataclass(frozen=True)
class NetworkConfig:
    """Widths of the network; the defaults are the published XMem's."""

    key_encoder: EncoderConfig = EncoderConfig("bottleneck", 64, (3, 4, 6), (64, 128, 256))
    value_encoder: EncoderConfig = EncoderConfig("basic", 64, (2, 2, 2), (64, 128, 256))
    key_dim: int = 64
    value_dim: int = 512
    hidden_dim: int = 64
    """0: a network without a hidden state."""
    decoder_dims: tuple[int, int, int] = (512, 256, 256)
    """Decoder channels at strides 16, 8 and 4."""
    hidden_update_dim: int = 256
    """Channels to which the decoder's scales are brought before the hidden state's GRU step."""


class KeyFeatures(NamedTuple):
    """What the key encoder says of a batch of images."""

    key: Tensor  # [B, C_k, h, w]
    shrinkage: Tensor  # [B, 1, h, w], >= 1
    selection: Tensor  # [B, C_k, h, w], 0..1
    f16: Tensor  # [B, C_16, h, w]
    f8: Tensor  # [B, C_8, 2h, 2w]
    f4: Tensor  # [B, C_4, 4h, 4w]


# ---------------------------------------------------------------------------------------------
# Building blocks


class BasicBlock(nn.Module):
    """ResNet's block of two 3x3 convolutions."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class Bottleneck(nn.Module):
    """ResNet's block of 1x1, 3x3 and 1x1 convolutions, the stride on the middle one."""

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        channels_out = width * self.expansion
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.downsample = _shortcut(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class InvertedResidual(nn.Module):
    """MobileNetV2's block (Sandler et al., CVPR 2018): 1x1 to more channels, a depthwise
    convolution, and a linear 1x1 back; without the first where nothing is expanded.
    """

    epsilon = 1e-3
    """Of batch normalisation, as the published weights were trained."""

    def __init__(self, channels_in: int, width: int, *, stride: int, plan: GroupPlan) -> None:
        super().__init__()
        middle, kernel = channels_in * plan.expansion, plan.kernel
        self.adds = stride == 1 and channels_in == width
        self.expands = plan.expansion > 1
        if self.expands:
            self.conv1 = nn.Conv2d(channels_in, middle, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(middle, eps=self.epsilon)
        self.conv2 = nn.Conv2d(
            middle, middle, kernel, stride=stride, padding=kernel // 2, groups=middle, bias=False
        )
        self.bn2 = nn.BatchNorm2d(middle, eps=self.epsilon)
        self.conv3 = nn.Conv2d(middle, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width, eps=self.epsilon)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.bn1(self.conv1(x)), inplace=True) if self.expands else x
        y = F.relu6(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return x + y if self.adds else y


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels_in == channels_out:
        return None
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False),
        nn.BatchNorm2d(channels_out),
    )


def encoder_stem(config: EncoderConfig, channels_in: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """The first convolution, of stride 2, and its normalisation; `stem_features` applies them."""
    if config.block == "inverted":
        convolution = nn.Conv2d(channels_in, config.stem, 3, stride=2, padding=1, bias=False)
        return convolution, nn.BatchNorm2d(config.stem, eps=InvertedResidual.epsilon)
    convolution = nn.Conv2d(channels_in, config.stem, 7, stride=2, padding=3, bias=False)
    return convolution, nn.BatchNorm2d(config.stem)


def stem_features(config: EncoderConfig, normalised: Tensor) -> Tensor:
    """The stem's activation, of features at stride 2."""
    activation = F.relu6 if config.block == "inverted" else F.relu
    return activation(normalised, inplace=True)


def pool_stem(config: EncoderConfig, f2: Tensor) -> Tensor:
    """The stem's features as the first stage wants them: ResNet's pooled to stride 4."""
    return f2 if config.block == "inverted" else F.max_pool2d(f2, 3, stride=2, padding=1)


def encoder_stage(config: EncoderConfig, stage: int) -> nn.Sequential:
    """Stage 0, 1 or 2 of an encoder: it leads to features at stride 4, 8 or 16."""
    channels_in = config.stem if stage == 0 else config.channels[stage - 1]
    layers: list[nn.Module] = []
    if config.block == "inverted":
        for group in EFFICIENTNET_STAGES[stage]:
            width, plan = config.widths[group], EFFICIENTNET_GROUPS[group]
            for i in range(config.blocks[group]):
                stride = plan.stride if i == 0 else 1
                layers.append(InvertedResidual(channels_in, width, stride=stride, plan=plan))
                channels_in = width
        return nn.Sequential(*layers)
    block = Bottleneck if config.block == "bottleneck" else BasicBlock
    for i in range(config.blocks[stage]):
        stride = RESNET_STRIDES[stage] if i == 0 else 1
        layers.append(block(channels_in, config.widths[stage], stride))
        channels_in = config.channels[stage]
    return nn.Sequential(*layers)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions of ReLU'd features, without normalisation."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        same = channels_in == channels_out
        self.downsample = None if same else nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(F.relu(x))))
        return y + (x if self.downsample is None else self.downsample(x))


class ChannelGate(nn.Module):
    """CBAM's first gate: average- and max-pooled channels through one shared MLP."""

    reduction = 16

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = max(channels // self.reduction, 1)
        self.mlp = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels, middle),
            nn.ReLU(),
            nn.Linear(middle, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        score = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        return x * torch.sigmoid(score)[:, :, None, None]


class SpatialGate(nn.Module):
    """CBAM's second gate: a 7x7 convolution of the channels' maximum and mean."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.ModuleDict({"conv": nn.Conv2d(2, 1, 7, padding=3)})

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.spatial["conv"](pooled))


class CBAM(nn.Module):
    """Convolutional block attention (Woo et al., ECCV 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ChannelGate = ChannelGate(channels)
        self.SpatialGate = SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        return self.SpatialGate(self.ChannelGate(x))


class Fuser(nn.Module):
    """Image features and an object's features become the object's fused features."""

    def __init__(self, image_dim: int, object_dim: int, channels_out: int) -> None:
        super().__init__()
        self.block1 = ResidualBlock(image_dim + object_dim, channels_out)
        self.attention = CBAM(channels_out)
        self.block2 = ResidualBlock(channels_out, channels_out)

    def forward(self, image: Tensor, objects: Tensor) -> Tensor:
        """[B, C_i, h, w], [B, K, C_o, h, w] -> [B*K, C, h, w]."""
        k = objects.shape[1]
        return self.fuse(torch.cat([_per_object(image, k), objects.flatten(0, 1)], dim=1))

    def fuse(self, both: Tensor) -> Tensor:
        """Image and object features in one, [N, C_i + C_o, h, w] -> [N, C, h, w]."""
        x = self.block1(both)
        return self.block2(x + self.attention(x))


class UpsampleBlock(nn.Module):
    """Up by two, plus the projected skip features of that stride."""

    def __init__(self, skip_dim: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.skip_conv = nn.Conv2d(skip_dim, channels_in, 3, padding=1)
        self.out_conv = ResidualBlock(channels_in, channels_out)

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        """[B, C_s, 2h, 2w], [B*K, C, h, w] -> [B*K, C', 2h, 2w]."""
        return self.join(_per_object(self.skip_conv(skip), x.shape[0] // skip.shape[0]), x)

    def join(self, projected: Tensor, x: Tensor) -> Tensor:
        """Projected skip features [N, C, 2h, 2w], [N, C, h, w] -> [N, C', 2h, 2w]."""
        return self.out_conv(projected + resize(x, 2))


def _per_object(image: Tensor, k: int) -> Tensor:
    """[B, C, h, w] -> [B*K, C, h, w], each image once for each of its objects."""
    return image if k == 1 else image.repeat_interleave(k, dim=0)


def resize(x: Tensor, factor: float) -> Tensor:
    """[N, C, H, W] larger, bilinearly, or smaller by a whole number, by means."""
    if factor < 1:
        return F.avg_pool2d(x, round(1 / factor))
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def _gru(transform: nn.Conv2d, x: Tensor, hidden: Tensor) -> Tensor:
    """One step of the hidden state: h' = f * h * (1 - u) + u * c (spec: GRU step)."""
    forget, update, candidate = transform(torch.cat([x, hidden], dim=1)).chunk(3, dim=1)
    forget, update = torch.sigmoid(forget), torch.sigmoid(update)
    return forget * hidden * (1 - update) + update * torch.tanh(candidate)


class HiddenReinforcer(nn.Module):
    """The deep update: the hidden state renewed from the fused value."""

    def __init__(self, value_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.transform = nn.Conv2d(value_dim + hidden_dim, 3 * hidden_dim, 3, padding=1)

    def forward(self, value: Tensor, hidden: Tensor) -> Tensor:
        return _gru(self.transform, value, hidden)


class HiddenUpdater(nn.Module):
    """The normal update: the hidden state renewed from the decoder's three scales."""

    def __init__(self, dims: tuple[int, int, int], middle: int, hidden_dim: int) -> None:
        super().__init__()
        self.g16_conv = nn.Conv2d(dims[0], middle, 1)
        self.g8_conv = nn.Conv2d(dims[1], middle, 1)
        self.g4_conv = nn.Conv2d(dims[2] + 1, middle, 1)
        self.transform = nn.Conv2d(middle + hidden_dim, 3 * hidden_dim, 3, padding=1)

    def forward(self, g16: Tensor, g8: Tensor, g4: Tensor, hidden: Tensor) -> Tensor:
        x = self.g16_conv(g16) + self.g8_conv(resize(g8, 1 / 2)) + self.g4_conv(resize(g4, 1 / 4))
        return _gru(self.transform, x, hidden)


# ---------------------------------------------------------------------------------------------
# The three parts


class KeyEncoder(nn.Module):
    """Image -> features at strides 16, 8 and 4."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1, self.bn1 = encoder_stem(config, 3)
        self.res2 = encoder_stage(config, 0)
        self.layer2 = encoder_stage(config, 1)
        self.layer3 = encoder_stage(config, 2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.stages(self.stem(image))

    def stem(self, image: Tensor) -> Tensor:
        """Features at stride 2."""
        return stem_features(self.config, self.bn1(self.conv1(image)))

    def stages(self, f2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The stem's features -> those at strides 16, 8 and 4."""
        f4 = self.res2(pool_stem(self.config, f2))
        f8 = self.layer2(f4)
        return self.layer3(f8), f8, f4


class KeyProjection(nn.Module):
    """f16 -> key, shrinkage and selection (XMem, equations 3 and 4)."""

    def __init__(self, image_dim: int, key_dim: int) -> None:
        super().__init__()
        self.key_proj = nn.Conv2d(image_dim, key_dim, 3, padding=1)
        self.d_proj = nn.Conv2d(image_dim, 1, 3, padding=1)
        self.e_proj = nn.Conv2d(image_dim, key_dim, 3, padding=1)

    def forward(self, f16: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shrinkage = self.d_proj(f16) ** 2 + 1
        return self.key_proj(f16), shrinkage, torch.sigmoid(self.e_proj(f16))


class ValueEncoder(nn.Module):
    """Image, an object's mask and the other objects' masks -> the object's value."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        encoder = self.config = config.value_encoder
        self.conv1, self.bn1 = encoder_stem(encoder, 5)
        self.layer1 = encoder_stage(encoder, 0)
        self.layer2 = encoder_stage(encoder, 1)
        self.layer3 = encoder_stage(encoder, 2)
        image_dim = config.key_encoder.channels[2]
        self.fuser = Fuser(image_dim, encoder.channels[2], config.value_dim)
        self.hidden_reinforce = (
            HiddenReinforcer(config.value_dim, config.hidden_dim) if config.hidden_dim else None
        )

    def forward(
        self,
        image: Tensor,
        f16: Tensor,
        masks: Tensor,
        hidden: Tensor | None,
        *,
        deep_update: bool,
    ) -> tuple[Tensor, Tensor | None]:
        b, k = masks.shape[:2]
        others = masks.sum(1, keepdim=True) - masks
        stacked = torch.stack([masks, others], dim=2).flatten(0, 1)
        x = self.features(torch.cat([_per_object(image, k), stacked], dim=1))
        value = self.fuser(f16, x.unflatten(0, (b, k)))
        if deep_update and self.hidden_reinforce is not None and hidden is not None:
            hidden = self.hidden_reinforce(value, hidden.flatten(0, 1)).unflatten(0, (b, k))
        return value.unflatten(0, (b, k)), hidden

    def features(self, pixels: Tensor) -> Tensor:
        """Image, mask and other objects' masks [N, 5, H, W] -> [N, C, h, w]."""
        x = self.bn1(self.conv1(pixels))
        x = pool_stem(self.config, stem_features(self.config, x))
        return self.layer3(self.layer2(self.layer1(x)))


class Decoder(nn.Module):
    """Image features, memory readout and hidden state -> one logit per object and pixel."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        c4, c8, c16 = config.key_encoder.channels
        d16, d8, d4 = config.decoder_dims
        self.fuser = Fuser(c16, config.value_dim + config.hidden_dim, d16)
        self.hidden_update = (
            HiddenUpdater(config.decoder_dims, config.hidden_update_dim, config.hidden_dim)
            if config.hidden_dim
            else None
        )
        self.up_16_8 = UpsampleBlock(c8, d16, d8)
        self.up_8_4 = UpsampleBlock(c4, d8, d4)
        self.pred = nn.Conv2d(d4, 1, 3, padding=1)

    def forward(
        self,
        f16: Tensor,
        f8: Tensor,
        f4: Tensor,
        readout: Tensor,
        hidden: Tensor | None,
        *,
        update_hidden: bool,
    ) -> tuple[Tensor, Tensor | None]:
        b, k = readout.shape[:2]
        objects = readout if hidden is None else torch.cat([readout, hidden], dim=2)
        g16 = self.fuser(f16, objects)
        g8 = self.up_16_8(f8, g16)
        g4 = self.up_8_4(f4, g8)
        logits = self.pred(F.relu(g4))
        if update_hidden and self.hidden_update is not None and hidden is not None:
            g4 = torch.cat([g4, logits], dim=1)
            hidden = self.hidden_update(g16, g8, g4, hidden.flatten(0, 1)).unflatten(0, (b, k))
        return resize(logits, 4).squeeze(1).unflatten(0, (b, k)), hidden


class XMem(nn.Module):
    """The whole network. `tracker.XMemTracker` runs it; `training/` trains it."""

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or NetworkConfig()
        self.key_encoder = KeyEncoder(self.config.key_encoder)
        self.key_proj = KeyProjection(self.config.key_encoder.channels[2], self.config.key_dim)
        self.value_encoder = ValueEncoder(self.config)
        self.decoder = Decoder(self.config)

    def encode_key(self, image: Tensor) -> KeyFeatures:
        """Normalised image [B, 3, H, W] -> its key features."""
        f16, f8, f4 = self.key_encoder(image)
        key, shrinkage, selection = self.key_proj(f16)
        return KeyFeatures(key, shrinkage, selection, f16, f8, f4)

    def encode_value(
        self,
        image: Tensor,
        f16: Tensor,
        masks: Tensor,
        hidden: Tensor | None,
        *,
        deep_update: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Normalised image [B, 3, H, W], f16 and masks [B, K, H, W] in 0..1 -> values.

        Returns the value [B, K, C_v, h, w] and the hidden state [B, K, C_h, h, w], renewed on a
        deep update.
        """
        return self.value_encoder(image, f16, masks, hidden, deep_update=deep_update)

    def decode(
        self,
        features: KeyFeatures,
        readout: Tensor,
        hidden: Tensor | None,
        *,
        update_hidden: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Readout [B, K, C_v, h, w] and hidden state -> logits [B, K, H, W], hidden state."""
        return self.decoder(
            features.f16,
            features.f8,
            features.f4,
            readout,
            hidden,
            update_hidden=update_hidden,
        )


def aggregate_logits(probabilities: Tensor, dim: int = 0) -> Tensor:
    """Soft aggregation (Oh et al., ICCV 2019), before its softmax.

    `probabilities` has the K objects along `dim`, each 0..1 on its own; the result has K + 1
    entries there, background first: log(p / (1 - p)) of each, the background being the product
    of the objects' complements.
    """
    background = torch.prod(1 - probabilities, dim=dim, keepdim=True)
    p = torch.cat([background, probabilities], dim=dim)
    return torch.logit(p.clamp(PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN))


def aggregate(probabilities: Tensor, dim: int = 0) -> Tensor:
    """Soft aggregation: K independent probabilities -> a distribution over K + 1 classes."""
    return torch.softmax(aggregate_logits(probabilities, dim), dim=dim)

# SPDX-License-Identifier: Apache-2.0
"""The embedded corrector: a small network that segments a crop from clicks, a box and a prior.

A U-shaped network on a 160x160 crop around the object. Its input channels are the image, the prior
mask, the clicks as Gaussians and the box; its output is the mask and how good that mask will be.
`training/train_refiner.py` trains it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import cv2
import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from lazyxmem_ros.correction.base import (
    BoolMask,
    CorrectorError,
    Prompt,
    Refinement,
    box_of_mask,
    validate_image,
    validate_prompt,
)
from lazyxmem_ros.correction.device import resolve_device

CROP = 160
"""Pixels of the crop's side that the network sees."""
CLICK_SIGMA = 4.0
"""Pixels: width of a click's Gaussian, in the crop."""
CHANNELS = 8
"""RGB, prior (-1 where there is none), its expected IoU (-1 where nobody knows), positive clicks,
negative clicks, box."""
PRIOR, PRIOR_IOU, POSITIVE, NEGATIVE, BOX = 3, 4, 5, 6, 7
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
MARGIN = 1.6
"""Side of the crop as a multiple of what is known of the object."""
SEARCH_SHARES = (0.3, 0.55, 1.0)
"""Sides of the first crops, as shares of the image's shorter side, where only clicks are known: the
answer that the network itself expects most of is kept."""
SAME_WINDOW = 0.7
"""Overlap of two windows from which a second look would show nothing new."""
MIN_SIDE = 48
"""Least side of a crop in image pixels."""
DETAIL = 2.0
"""Pixels of the crop: half the width below which a change along an outline is none."""
SURE = 0.9
"""Probability from which the network, not the colours, decides about a pixel."""
GRABCUT_ROUNDS = 2
TRUSTED = 0.85
"""Expected IoU of a prior from which only the places clicked on change."""
AGREEMENT = 0.7
"""IoU of prior and answer from which only the places clicked on change."""
WIDTHS = (24, 48, 80, 128, 160)


def _convolution(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class _Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.first = _convolution(channels_in, channels_out, stride)
        self.second = nn.Sequential(
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x), inplace=True)


class RefinerNetwork(nn.Module):
    """Crop [B, 8, 160, 160] -> mask logits [B, 160, 160] and predicted IoU logits [B]."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.stem = _convolution(CHANNELS, widths[0], stride=2)
        self.down = nn.ModuleList(_Block(a, b, stride=2) for a, b in itertools.pairwise(widths))
        self.context = nn.Sequential(_Block(widths[-1], widths[-1]), _Block(widths[-1], widths[-1]))
        self.up = nn.ModuleList(
            _Block(widths[i + 1] + widths[i], widths[i]) for i in reversed(range(len(widths) - 1))
        )
        self.detail = _convolution(widths[0] + CHANNELS, 16)
        self.mask = nn.Conv2d(16, 1, 3, padding=1)
        self.quality = nn.Sequential(
            nn.Linear(widths[-1] + widths[0], 64), nn.ReLU(), nn.Linear(64, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        features = [self.stem(x)]
        for block in self.down:
            features.append(block(features[-1]))
        y = self.context(features[-1])
        deep = y.mean((2, 3))
        for block, skip in zip(self.up, reversed(features[:-1]), strict=True):
            up = F.interpolate(y, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            y = block(torch.cat([up, skip], dim=1))
        quality = self.quality(torch.cat([deep, y.mean((2, 3))], dim=1)).squeeze(1)
        full = F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return self.mask(self.detail(torch.cat([full, x], dim=1))).squeeze(1), quality


@dataclass(frozen=True)
class Window:
    """A square window of the image that becomes the crop: corner and side, whole pixels."""

    x: int
    y: int
    side: int

    def take(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The crop of a picture uint8 [H, W] or [H, W, C]; zeros beyond the image."""
        method = cv2.INTER_AREA if self.side > CROP else cv2.INTER_LINEAR
        x0, y0, side = self.x, self.y, self.side
        height, width = picture.shape[:2]
        left, top = max(0, -x0), max(0, -y0)
        right, bottom = max(0, x0 + side - width), max(0, y0 + side - height)
        inner = picture[max(0, y0) : y0 + side, max(0, x0) : x0 + side]
        whole = cv2.copyMakeBorder(inner, top, bottom, left, right, cv2.BORDER_CONSTANT)
        crop = cv2.resize(whole, (CROP, CROP), interpolation=method)
        return crop.astype(np.uint8, copy=False)

    def put_back(self, crop: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
        """A crop's values [160, 160] at their place in an image of `size` (H, W); 0 elsewhere."""
        x0, y0, side = self.x, self.y, self.side
        scaled = cv2.resize(crop, (side, side), interpolation=cv2.INTER_LINEAR)
        out = np.zeros(size, np.float32)
        top, left = max(0, y0), max(0, x0)
        bottom, right = min(size[0], y0 + side), min(size[1], x0 + side)
        out[top:bottom, left:right] = scaled[top - y0 : bottom - y0, left - x0 : right - x0]
        return out


def choose_window(
    prompt: Prompt, size: tuple[int, int], *, search_share: float = SEARCH_SHARES[1]
) -> Window:
    """The window around all that a prompt knows of the object, in an image of `size` (H, W).

    search_share: its least side where only clicks are known, as a share of the shorter side.
    """
    boxes = [] if prompt.box is None else [prompt.box]
    prior = None if prompt.mask is None else box_of_mask(prompt.mask)
    if prior is not None:
        boxes.append(prior)
    points = prompt.positive
    xs = [b[0] for b in boxes] + [b[2] for b in boxes] + [float(x) for x in points[:, 0]]
    ys = [b[1] for b in boxes] + [b[3] for b in boxes] + [float(y) for y in points[:, 1]]
    extent = MARGIN * max(max(xs) - min(xs), max(ys) - min(ys))
    least = float(MIN_SIDE) if boxes else search_share * min(size)
    side = round(max(extent, least))
    x, y = (min(xs) + max(xs) - side) / 2, (min(ys) + max(ys) - side) / 2
    return Window(round(x), round(y), side)


def draw_clicks(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clicks [P, 2] (x, y) in the crop as one map [160, 160]: the highest of their Gaussians."""
    out = np.zeros((CROP, CROP), np.float32)
    axis = np.arange(CROP, dtype=np.float32)
    for x, y in points:
        gx = np.exp(-((axis - x) ** 2) / (2 * CLICK_SIGMA**2))
        gy = np.exp(-((axis - y) ** 2) / (2 * CLICK_SIGMA**2))
        np.maximum(out, gy[:, None] * gx[None, :], out=out)
    return out


def network_input(
    image: NDArray[np.uint8],
    prior: NDArray[np.bool_] | None,
    positive: NDArray[np.float32],
    negative: NDArray[np.float32],
    box: tuple[float, float, float, float] | None,
    *,
    prior_iou: float | None = None,
) -> NDArray[np.float32]:
    """A crop's channels [8, 160, 160] from its image, prior, and prompts in crop pixels."""
    out = np.zeros((CHANNELS, CROP, CROP), np.float32)
    colour = (image.astype(np.float32) / 255 - IMAGE_MEAN) / IMAGE_STD
    out[:3] = colour.transpose(2, 0, 1)
    out[PRIOR] = -1 if prior is None else prior
    out[PRIOR_IOU] = -1 if prior is None or prior_iou is None else prior_iou
    out[POSITIVE], out[NEGATIVE] = draw_clicks(positive), draw_clicks(negative)
    if box is not None:
        x0, y0, x1, y1 = (int(np.clip(round(v), 0, CROP)) for v in box)
        out[BOX, y0:y1, x0:x1] = 1
    return out


def load_refiner(path: str | PathLike[str]) -> RefinerNetwork:
    """The network from its safetensors. Raises CorrectorError where they are missing or odd."""
    file = Path(path)
    if not file.is_file():
        raise CorrectorError(f"there are no refiner weights {file}; train them or use grabcut")
    try:
        state = safetensors.torch.load_file(file)
        network = RefinerNetwork()
        network.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        )
    except (SafetensorError, RuntimeError, OSError) as error:
        raise CorrectorError(f"{file} cannot be read as refiner weights: {error}") from error
    return network.eval()


class RefinerCorrector:
    """Corrects masks with the embedded network (a `Corrector`)."""

    name = "refiner"

    def __init__(self, network: RefinerNetwork, *, device: str | torch.device = "cpu") -> None:
        """`network` is moved to `device`: "auto", "cpu", "cuda" or "cuda:N"."""
        self.device = resolve_device(device)
        self._network = network.to(self.device).eval()

    def refine(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[Prompt],
        *,
        image_key: Hashable | None = None,
    ) -> list[Refinement]:
        """One mask per prompt; see `Corrector.refine`."""
        size = validate_image(image)
        for prompt in prompts:
            validate_prompt(prompt, size)
        return [self._one(image, prompt, size) for prompt in prompts]

    def _one(self, image: NDArray[np.uint8], prompt: Prompt, size: tuple[int, int]) -> Refinement:
        # One and the same window wherever more than clicks is known.
        tried = (choose_window(prompt, size, search_share=share) for share in SEARCH_SHARES)
        windows = list(dict.fromkeys(tried))
        probability, score, window = self._best(image, prompt, windows)
        found = probability > 0.5
        if found.any():
            # What was found may be larger or smaller than the window was made for: look again.
            seen = dataclasses.replace(prompt, mask=found)
            closer = choose_window(seen, size)
            if overlap(closer, window) < SAME_WINDOW:
                probability, score, window = self._best(image, prompt, [closer])
                found = probability > 0.5
        if prompt.mask is not None and prompt.mask.any():
            found = merge(prompt.mask, found, prompt, radius=round(DETAIL * window.side / CROP))
        return Refinement(_connected(found, prompt), score)

    @torch.inference_mode()
    def _best(
        self, image: NDArray[np.uint8], prompt: Prompt, windows: Sequence[Window]
    ) -> tuple[NDArray[np.float32], float, Window]:
        """Mask values [H, W] and predicted IoU of the window that the network expects most of.

        Each window is seen as it is and mirrored, and the mean is taken.
        """
        inputs = [_window_input(image, prompt, window) for window in windows]
        stacked = np.stack([*inputs, *(x[..., ::-1] for x in inputs)])
        logits, quality = self._network(torch.from_numpy(stacked).to(self.device))
        count = len(windows)
        scores = torch.sigmoid(quality.float()).unflatten(0, (2, count)).mean(0)
        best = int(scores.argmax())
        seen = torch.sigmoid(logits.float())
        crop = ((seen[best] + seen[count + best].flip(-1)) / 2).cpu().numpy()
        crop = follow_colours(windows[best].take(image), crop)
        whole = windows[best].put_back(crop, (image.shape[0], image.shape[1]))
        return whole, float(scores[best]), windows[best]


def follow_colours(
    crop: NDArray[np.uint8], probability: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Where the network is unsure, GrabCut decides: the colours of what it is sure of know edges
    that so small a network has not learnt to see.

    crop: RGB uint8 [160, 160, 3]; probability: float [160, 160]. Returns 0 or 1, [160, 160].
    """
    found = probability > 0.5
    if found.all() or not found.any():
        return found.astype(np.float32)
    labels = np.where(found, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[probability > SURE] = cv2.GC_FGD
    labels[probability < 1 - SURE] = cv2.GC_BGD
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # it draws; the same prompt shall have the same answer
    cv2.grabCut(crop, labels, None, *models, GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
    return np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)


def merge(prior: BoolMask, found: BoolMask, prompt: Prompt, *, radius: int) -> BoolMask:
    """The prior with those changes that the network means.

    What it redraws along an outline, thinner than 2 * `radius` + 1 pixels, is the coarseness of its
    crop, not a change. And where the prior is known to be good (or, where nothing is known, where
    the network agrees with it by and large) a click is about the place that it points at, and
    nothing else changes (as in FocalClick's progressive merge).
    """
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    both, either = np.count_nonzero(prior & found), np.count_nonzero(prior | found)
    if prompt.prior_iou is not None:
        agrees = prompt.prior_iou >= TRUSTED
    else:
        agrees = both > AGREEMENT * either
    near_a_click = np.zeros(prior.shape, np.uint8)
    for x, y in np.rint(np.concatenate([prompt.positive, prompt.negative])):
        cv2.circle(near_a_click, (int(x), int(y)), 2 * radius, (1,), -1)
    merged = prior.copy()
    for change, value in ((found & ~prior, True), (prior & ~found, False)):
        thick = cv2.morphologyEx(change.astype(np.uint8), cv2.MORPH_OPEN, kernel)
        count, parts = cv2.connectedComponents(thick)
        meant = np.full(count, not agrees)
        meant[parts[(near_a_click > 0) & change]] = True
        meant[0] = False
        whole = cv2.dilate(meant[parts].astype(np.uint8), kernel) > 0
        merged[change & (whole | (near_a_click > 0))] = value
    return merged


def overlap(a: Window, b: Window) -> float:
    """IoU of two windows."""
    width = min(a.x + a.side, b.x + b.side) - max(a.x, b.x)
    height = min(a.y + a.side, b.y + b.side) - max(a.y, b.y)
    both = max(0, width) * max(0, height)
    return both / (a.side**2 + b.side**2 - both)


def _window_input(image: NDArray[np.uint8], prompt: Prompt, window: Window) -> NDArray[np.float32]:
    """The network's input [8, 160, 160] for one window of an image."""
    scale, corner = CROP / window.side, np.array([window.x, window.y], np.float32)
    box = None
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box
        box = (
            (x0 - window.x) * scale,
            (y0 - window.y) * scale,
            (x1 - window.x) * scale,
            (y1 - window.y) * scale,
        )
    prior = None
    if prompt.mask is not None and prompt.mask.any():
        prior = window.take(np.where(prompt.mask, 255, 0).astype(np.uint8)) > 127
    return network_input(
        window.take(image),
        prior,
        ((prompt.positive - corner) * scale).astype(np.float32),
        ((prompt.negative - corner) * scale).astype(np.float32),
        box,
        prior_iou=prompt.prior_iou,
    )


def _connected(mask: BoolMask, prompt: Prompt) -> BoolMask:
    """Without the specks that no prompt points at: parts below 1 % of the largest."""
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count <= 2:
        return mask
    areas = statistics[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    keep = areas >= 0.01 * areas.max()
    for x, y in prompt.positive:
        keep[labels[round(float(y)), round(float(x))]] = True
    keep[0] = False
    return np.asarray(keep[labels], dtype=np.bool_)

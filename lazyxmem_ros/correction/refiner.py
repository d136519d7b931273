# SPDX-License-Identifier: Apache-2.0
"""The embedded corrector: a small network that segments a crop from clicks, a box and a prior.

This module decides how often the network (`refiner_network.py`) looks, at which crops
(`refiner_input.py`), and what its answers change. `training/train_refiner.py` trains the network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from os import PathLike
from pathlib import Path

import cv2
import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

import lazyxmem_ros.xmem.device as compute
from lazyxmem_ros.correction.base import (
    BoolMask,
    CorrectorError,
    Prompt,
    Refinement,
    box_of_mask,
    discs,
    mask_iou,
    surroundings,
    validate_image,
    validate_prompt,
)
from lazyxmem_ros.correction.gpu_memory import full_memory_explained
from lazyxmem_ros.correction.refiner_input import (
    CLICK_SIGMA,
    SEARCH_SHARES,
    Window,
    choose_window,
    overlap,
    window_input,
)
from lazyxmem_ros.correction.refiner_network import CROP, RefinerConfig, RefinerNetwork
from lazyxmem_ros.xmem.checkpoint import CheckpointError, check_values

SAME_WINDOW = 0.7
"""IoU of two windows from which on a second look would show nothing new."""
DETAIL = 2.0
"""Half the width, pixels of the crop, below which a change along an outline counts as none."""
SURE = 0.8
"""Probability from which on the network, not the colours, decides about a pixel."""
FINE = 2 * CROP
"""Side, in pixels, of the fine crop: it is looked at in parts, and on it the colours decide."""
RIM = CROP // 20
"""Pixels of the fine crop that the parts show around what was found."""
BESIDE = 16
"""Pixels of the fine crop around all that may be the object; the colours decide within them."""
FIRST_WEIGHT = 0.1
"""Weight of the first answer; those of the parts fall from 1 in their middle to 0."""
PINNED = round(CLICK_SIGMA * FINE / CROP)
"""Pixels of the fine crop around a click that the colours leave as the network saw them."""
GRABCUT_ROUNDS = 1
"""Iterations of GrabCut on the fine crop."""
SAMPLED = 4
"""Step, in pixels, between the samples that the colours' models start from: all take too long."""
TRUSTED = 0.75
"""Expected IoU of a prior from which on only the places that are clicked on change."""
GOOD = 0.85
"""Expected IoU of a prior from which on not even those change by more than is allowed."""
SLACK, DOUBT_SHARE = 0.03, 0.5
"""Largest change allowed, as a share of the prior's area: SLACK + DOUBT_SHARE · (1 - IoU)."""
AGREEMENT = 0.7
"""IoU of prior and answer from which on only the places that are clicked on change, where nothing
is known of the prior."""
MOVED, NEARER = 0.5, 0.15
"""A prior is also tried where it was moved onto the answer, if there its IoU with the answer is at
least MOVED, and higher by at least NEARER than where it was given."""
MATCHED = 160
"""Longer side, in pixels, of the masks that are laid on one another to find the move."""
_RAMP = 1 - np.abs((np.arange(CROP, dtype=np.float32) + 0.5) / (CROP / 2) - 1)
PYRAMID = np.minimum(_RAMP[:, None], _RAMP[None, :])
"""Weight of a part's pixels: 1 in its middle, 0 at its border; [160, 160]."""


def load_refiner(path: str | PathLike[str]) -> RefinerNetwork:
    """Read the network from its safetensors.

    Raises CorrectorError where they are missing or hold something else.
    """
    file = Path(path)
    if not file.is_file():
        raise CorrectorError(f"there are no refiner weights {file}; train them or use grabcut")
    try:
        state = safetensors.torch.load_file(file)
        check_values(state, str(file))
        network = RefinerNetwork(RefinerConfig.of_state(state))
        network.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        )
    except KeyError as error:
        raise CorrectorError(f"{file} holds no refiner: it has no entry {error}") from None
    except CheckpointError as error:
        raise CorrectorError(str(error)) from error
    except (SafetensorError, RuntimeError, OSError, IndexError) as error:
        raise CorrectorError(f"{file} cannot be read as refiner weights: {error}") from error
    return network.eval()


class RefinerCorrector:
    """Corrects masks with the embedded network; a `Corrector`."""

    name = "refiner"

    def __init__(
        self,
        network: RefinerNetwork,
        *,
        device: str | torch.device = "cpu",
        precision: str = "auto",
    ) -> None:
        """`network` is moved to `device`: "auto", "cpu", "cuda" or "cuda:N". precision: "float32",
        "bfloat16", "float16", or "auto", bfloat16 where that is quick.
        """
        self.device = compute.resolve_device(device)
        self._precision = compute.resolve_precision(precision, self.device)
        self._network = network.to(self.device).eval()
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def refine(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[Prompt],
        *,
        image_key: Hashable | None = None,
    ) -> list[Refinement]:
        """See `Corrector.refine`; nothing is kept between calls."""
        size = validate_image(image)
        for prompt in prompts:
            validate_prompt(prompt, size)
        with full_memory_explained("the refiner", "another device"):
            return [self._one(image, prompt, size) for prompt in prompts]

    def _one(self, image: NDArray[np.uint8], prompt: Prompt, size: tuple[int, int]) -> Refinement:
        answer = self._look(image, prompt, size)
        trusted = prompt.prior_iou is not None and prompt.prior_iou >= TRUSTED
        if prompt.mask is None or not prompt.mask.any() or trusted:
            return answer
        moved, agreement = moved_onto(prompt.mask, answer.mask)
        if agreement < max(MOVED, mask_iou(prompt.mask, answer.mask) + NEARER):
            return answer
        # Its shape may be right where its place was not.
        again = dataclasses.replace(prompt, mask=moved, prior_iou=agreement)
        return max(answer, self._look(image, again, size), key=lambda seen: seen.score)

    def _look(self, image: NDArray[np.uint8], prompt: Prompt, size: tuple[int, int]) -> Refinement:
        # One and the same window wherever more than clicks is known.
        tried = (choose_window(prompt, size, search_share=share) for share in SEARCH_SHARES)
        windows = list(dict.fromkeys(tried))
        crop, score, window = self._best(image, prompt, windows)
        found = window.put_back(crop, size) > 0.5
        if found.any():
            # What was found may be larger or smaller than the window was made for: look again.
            closer = choose_window(dataclasses.replace(prompt, mask=found), size)
            if overlap(closer, window) < SAME_WINDOW:
                crop, score, window = self._best(image, prompt, [closer])
        crop = cv2.resize(crop, (FINE, FINE), interpolation=cv2.INTER_LINEAR)
        picture = window.take(image, FINE)
        positive, negative = (window.place(p, FINE) for p in (prompt.positive, prompt.negative))
        if window.side > CROP:
            crop = self._in_parts(picture, crop, positive, negative, score)
        crop = follow_colours(picture, crop, np.concatenate([positive, negative]))
        found = window.put_back(crop, size) > 0.5
        if prompt.mask is not None and prompt.mask.any():
            found = merge(prompt.mask, found, prompt, radius=round(DETAIL * window.side / CROP))
        return Refinement(_connected(found, prompt), score)

    def _best(
        self, image: NDArray[np.uint8], prompt: Prompt, windows: Sequence[Window]
    ) -> tuple[NDArray[np.float32], float, Window]:
        """Mask values [160, 160] and predicted IoU of the window that the network expects most of.

        Each is seen mirrored, too, and the mean is taken.
        """
        inputs = [window_input(image, prompt, window) for window in windows]
        seen, scores = self._see([*inputs, *(one[..., ::-1] for one in inputs)])
        count = len(windows)
        expected = (scores[:count] + scores[count:]) / 2
        best = int(expected.argmax())
        return (seen[best] + seen[count + best][:, ::-1]) / 2, float(expected[best]), windows[best]

    def _in_parts(
        self,
        picture: NDArray[np.uint8],
        probability: NDArray[np.float32],
        positive: NDArray[np.float32],
        negative: NDArray[np.float32],
        score: float,
    ) -> NDArray[np.float32]:
        """Mask values [320, 320], seen again in parts of 160 pixels, twice as fine as at first.

        picture: RGB [320, 320, 3]; probability: the first answer; clicks: in that crop's pixels;
        score: the IoU that the first answer is expected to have.
        """
        found = probability > 0.5
        parts = choose_parts(found)
        if not parts:
            return probability
        prompt = Prompt(positive, negative, mask=found, prior_iou=score)
        seen, _ = self._see([window_input(picture, prompt, part) for part in parts])
        total = FIRST_WEIGHT * probability
        weight = np.full_like(probability, FIRST_WEIGHT)
        for part, answer in zip(parts, seen, strict=True):
            pixels = slice(part.y, part.y + CROP), slice(part.x, part.x + CROP)
            total[pixels] += PYRAMID * answer
            weight[pixels] += PYRAMID
        return total / weight

    @torch.inference_mode()
    def _see(
        self, inputs: list[NDArray[np.float32]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mask values [N, 160, 160] and predicted IoU [N] of inputs [8, 160, 160]."""
        stacked = torch.from_numpy(np.stack(inputs))
        stacked = stacked.to(self.device, memory_format=torch.channels_last)
        with compute.autocast(self.device, self._precision):
            logits, quality = self._network(stacked)
        return (
            torch.sigmoid(logits.float()).cpu().numpy(),
            torch.sigmoid(quality.float()).cpu().numpy(),
        )


def choose_parts(found: BoolMask) -> list[Window]:
    """The windows, at most four, of 160x160 pixels that show the outline of a mask [320, 320].

    There are none where there is no outline.
    """
    box = box_of_mask(found)
    if box is None:
        return []
    (left, right), (top, bottom) = _along(box[0], box[2]), _along(box[1], box[3])
    parts = dict.fromkeys(Window(x, y, CROP) for y in (top, bottom) for x in (left, right))
    shown = {p: found[p.y : p.y + CROP, p.x : p.x + CROP] for p in parts}
    return [part for part, mask in shown.items() if mask.any() and not mask.all()]


def _along(start: int, stop: int) -> tuple[int, int]:
    """The beginnings of the first and the last part that cover start ... stop and a rim around."""
    if stop - start + 2 * RIM <= CROP:
        middle = min(max((start + stop - CROP) // 2, 0), FINE - CROP)
        return middle, middle
    return min(max(start - RIM, 0), FINE - CROP), min(max(stop + RIM - CROP, 0), FINE - CROP)


def follow_colours(
    crop: NDArray[np.uint8], probability: NDArray[np.float32], clicks: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Let GrabCut decide where the network is unsure; returns float32 [H, W], 0 or 1.

    GrabCut learns the colours of what the network is sure of, and so finds edges that so small a
    network has not learnt to see. Around clicks the network is believed, for it has seen them.

    crop: RGB uint8 [H, W, 3]; probability: float32 [H, W]; clicks: [P, 2] (x, y) in the crop.
    """
    found = probability > 0.5
    if found.all() or not found.any():
        return found.astype(np.float32)
    labels = np.where(found, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    sure = np.abs(probability - 0.5) > SURE - 0.5
    sure |= discs(found.shape, np.rint(clicks).astype(np.intp), PINNED)
    labels[sure] = np.where(found, cv2.GC_FGD, cv2.GC_BGD)[sure]
    step = SAMPLED if len(np.unique(found[::SAMPLED, ::SAMPLED])) == 2 else 1
    some, theirs = (np.ascontiguousarray(a[::step, ::step]) for a in (crop, labels))
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # it draws; the same prompt shall have the same answer
    cv2.grabCut(some, theirs, None, *models, 0, cv2.GC_INIT_WITH_MASK)
    near = surroundings(labels != cv2.GC_BGD, BESIDE)
    assert near is not None
    some, theirs = (np.ascontiguousarray(a[near]) for a in (crop, labels))
    cv2.grabCut(some, theirs, None, *models, GRABCUT_ROUNDS, cv2.GC_EVAL)
    labels[near] = theirs
    return np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)


def merge(prior: BoolMask, found: BoolMask, prompt: Prompt, *, radius: int) -> BoolMask:
    """The prior with those changes that the network means; masks bool [H, W].

    Changes along an outline that are thinner than 2 * `radius` + 1 pixels come of the coarse crop
    and are left out. Where the prior is trusted (or, if nothing is known of it, where the network
    agrees with it by and large), a click is about the place that it points at, and nothing else
    changes, as in FocalClick's progressive merge. Where the prior is expected to be good, a larger
    change than it leaves room for is taken to be the network's mistake.
    """
    around = surroundings(prior ^ found, 1)
    if around is None:
        return prior.copy()
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    if prompt.prior_iou is not None:
        agrees = prompt.prior_iou >= TRUSTED
    else:
        agrees = mask_iou(prior, found) > AGREEMENT
    room = prior.size
    if prompt.prior_iou is not None and prompt.prior_iou >= GOOD:
        room = int((SLACK + DOUBT_SHARE * (1 - prompt.prior_iou)) * np.count_nonzero(prior))
    clicks = np.rint(np.concatenate([prompt.positive, prompt.negative])).astype(np.intp)
    near_a_click = discs(prior.shape, clicks, 2 * radius)[around]
    merged = prior.copy()
    before, after = prior[around], found[around]
    for change, value in ((after & ~before, True), (before & ~after, False)):
        thick = cv2.morphologyEx(change.astype(np.uint8), cv2.MORPH_OPEN, kernel)
        count, parts = cv2.connectedComponents(thick)
        meant = np.full(count, not agrees)
        meant[parts[near_a_click & change]] = True
        meant &= np.bincount(parts.ravel(), minlength=count) <= room
        meant[0] = False
        whole = cv2.dilate(meant[parts].astype(np.uint8), kernel) > 0
        merged[around][change & (whole | near_a_click)] = value
    return merged


def moved_onto(prior: BoolMask, found: BoolMask) -> tuple[BoolMask, float]:
    """The prior, moved to where it covers `found` best, and about the IoU that it has there.

    prior, found: bool [H, W]. Where nothing was found the prior stays, with IoU 0.
    """
    known, there = box_of_mask(prior), box_of_mask(found)
    if known is None or there is None:
        return prior, 0.0
    extent = max(known[2] - known[0], known[3] - known[1], there[2] - there[0], there[3] - there[1])
    scale = min(1.0, MATCHED / extent)
    shape, place = _scaled(prior, known, scale), _scaled(found, there, scale)
    height, width = shape.shape
    room = cv2.copyMakeBorder(place, height, height, width, width, cv2.BORDER_CONSTANT)
    both = cv2.matchTemplate(room, shape, cv2.TM_CCORR)
    _, most, _, (x, y) = cv2.minMaxLoc(both)
    right = there[0] - known[0] + (x - width) / scale
    down = there[1] - known[1] + (y - height) / scale
    move = np.array([[1, 0, right], [0, 1, down]], np.float32)
    moved = cv2.warpAffine(prior.astype(np.uint8), move, prior.shape[::-1]) > 0
    agreement = most / (float(shape.sum() + place.sum()) - most)
    return np.asarray(moved), min(1.0, agreement)  # above by what the correlation rounds


def _scaled(mask: BoolMask, box: tuple[int, int, int, int], scale: float) -> NDArray[np.float32]:
    """The part of a mask in a box, scaled: each pixel is the share that the mask covers, 0..1."""
    x0, y0, x1, y1 = box
    size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    part = mask[y0:y1, x0:x1].astype(np.float32)
    return cv2.resize(part, size, interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)


def _connected(mask: BoolMask, prompt: Prompt) -> BoolMask:
    """The mask without specks, parts below 1 % of the largest, that no click points at."""
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

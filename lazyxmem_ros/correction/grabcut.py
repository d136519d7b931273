# SPDX-License-Identifier: Apache-2.0
"""GrabCut as a corrector, which needs no weights and so always works.

Rother, Kolmogorov and Blake, "GrabCut: interactive foreground extraction using iterated graph
cuts", SIGGRAPH 2004, in OpenCV's implementation, on a crop around the prompt.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.correction.base import (
    BoolMask,
    Prompt,
    Refinement,
    box_of_mask,
    pixels_of,
    validate_image,
    validate_prompt,
)
from lazyxmem_ros.correction.trimap import (
    Scene,
    Trimap,
    component_of,
    grow,
    make_trimap,
    outer_rim,
    parts_touching,
    usable_prior,
)

_SEED = 20_080
"""OpenCV's GrabCut draws its first colour clusters at random: the same prompt must give the
same mask."""
_ITERATIONS = 4
_WORKING_SIDE = 224
"""Longest side in pixels of the crop that GrabCut sees; larger crops are reduced to it."""
_CLICK_WORKING_SIDE = 160
"""The same where only clicks are known: all of the crop is in question then, and the cut takes
several times as long."""
_CLICK_WINDOW = 0.3
"""Half side of the crop around a lone click, as a share of the image's short side."""
_WIDE_CLICK_WINDOW = 0.5
"""The same for a second look at an object that the first crop has cut off."""
_MIN_MARGIN = 16
"""Pixels of surroundings that GrabCut is always given to learn the background from."""
_MARGIN = 0.6
"""Surroundings on each side, as a share of the prompt's own extent."""
_MIN_SAMPLES = 8
"""Fewer pixels than this cannot make the five-colour models of GrabCut."""
_MIN_PART = 0.05
"""Parts of the result smaller than this share of its largest part are dropped."""
_COLLAPSED = 0.08
"""A cut has lost the object when it is smaller than this share of what it started from."""

Crop = tuple[int, int, int, int]


class GrabCutCorrector:
    """Refines masks with OpenCV's GrabCut, seeded by the prompt and its prior mask.

    One click without a prior finds the region of like colour around it. The score is the
    confidence that the cut is not an accident: how little it changed in its last iteration, and
    0 where the answer is only what the cut was started from.
    """

    name = "grabcut"

    def refine(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[Prompt],
        *,
        image_key: Hashable | None = None,
    ) -> list[Refinement]:
        """See `Corrector.refine`; `image_key` is not needed, nothing is kept between calls."""
        size = validate_image(image)
        for prompt in prompts:
            validate_prompt(prompt, size)
        return [_refine_one(image, prompt) for prompt in prompts]


def _refine_one(image: NDArray[np.uint8], prompt: Prompt) -> Refinement:
    size = (image.shape[0], image.shape[1])
    crop = _crop_around(prompt, size)
    scene = _make_scene(image, prompt, crop)
    prior = usable_prior(scene)
    if prior is None and scene.prior is not None and scene.box is None:
        # The object is elsewhere: look at the click's surroundings, not at those of both.
        prompt = Prompt(prompt.positive, prompt.negative)
        crop = _crop_around(prompt, size)
        scene = _make_scene(image, prompt, crop)
    located = bool(len(scene.positive)) or scene.box is not None
    if not located and (prior is None or not prior.any()):
        # Negative clicks have taken the whole prior: the object is not in view.
        return Refinement(np.zeros(size, bool), 0.5)
    cut, score = _segment(scene, prior)
    if scene.prior is None and scene.box is None and (cut & grow(outer_rim(scene), 1)).any():
        # Nothing told the object's size, and it is larger than was looked at.
        crop = _crop_around(prompt, size, click_window=_WIDE_CLICK_WINDOW)
        scene = _make_scene(image, prompt, crop)
        cut, score = _segment(scene, None)
    mask = _paste(cut, crop, size)
    _obey_clicks(mask, prompt)
    return Refinement(mask, score)


def _segment(scene: Scene, prior: BoolMask | None) -> tuple[BoolMask, float]:
    """The object bool [H, W] at working resolution, and a confidence 0..1."""
    labels = make_trimap(scene, prior)
    cut, score = _cut(scene.image, labels)
    cut = _keep_parts(cut, scene, prior)
    start = _keep_parts(_foreground(labels), scene, prior)
    if cut.sum() < _COLLAPSED * start.sum():
        return start, 0.0
    return cut, score


def _crop_around(
    prompt: Prompt, size: tuple[int, int], *, click_window: float = _CLICK_WINDOW
) -> Crop:
    """The part of the image (x0, y0, x1, y1) that GrabCut is to see."""
    height, width = size
    boxes: list[tuple[float, float, float, float]] = []
    if prompt.box is not None:
        boxes.append(prompt.box)
    elif prompt.mask is not None:
        tight = box_of_mask(prompt.mask)
        if tight is not None:
            boxes.append(tight)
    points = np.concatenate([prompt.positive, prompt.negative])
    if len(points):
        low, high = points.min(0), points.max(0) + 1
        boxes.append((float(low[0]), float(low[1]), float(high[0]), float(high[1])))
    x0, y0 = min(box[0] for box in boxes), min(box[1] for box in boxes)
    x1, y1 = max(box[2] for box in boxes), max(box[3] for box in boxes)
    only_points = len(boxes) == 1 and len(points) > 0
    window = click_window * min(size) if only_points else 0.0
    margin = max(_MIN_MARGIN, _MARGIN * max(x1 - x0, y1 - y0), window)
    return (
        max(int(x0 - margin), 0),
        max(int(y0 - margin), 0),
        min(int(np.ceil(x1 + margin)), width),
        min(int(np.ceil(y1 + margin)), height),
    )


def _make_scene(image: NDArray[np.uint8], prompt: Prompt, crop: Crop) -> Scene:
    x0, y0, x1, y1 = crop
    height, width = image.shape[:2]
    only_clicks = prompt.box is None and (prompt.mask is None or not prompt.mask.any())
    working_side = _CLICK_WORKING_SIDE if only_clicks else _WORKING_SIDE
    scale = min(1.0, working_side / max(x1 - x0, y1 - y0))
    columns, rows = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    view = cv2.resize(image[y0:y1, x0:x1], (columns, rows), interpolation=cv2.INTER_AREA)
    ratio = np.array([columns / (x1 - x0), rows / (y1 - y0)])

    def to_crop(points: NDArray[np.float32]) -> NDArray[np.intp]:
        pixels = pixels_of(points, (height, width)) - np.array([x0, y0])
        return np.clip(pixels * ratio, 0, [columns - 1, rows - 1]).astype(np.intp)

    box = None
    if prompt.box is not None:
        corners = (np.array(prompt.box).reshape(2, 2) - [x0, y0]) * ratio
        (left, top), (right, bottom) = np.floor(corners[0]), np.ceil(corners[1])
        box = (int(left), int(top), min(int(right), columns), min(int(bottom), rows))
    prior = None
    if prompt.mask is not None and prompt.mask.any():
        part = prompt.mask[y0:y1, x0:x1].astype(np.uint8) * 255
        prior = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA) > 127
        if not prior.any():
            prior = None
    open_sides = (x0 > 0, y0 > 0, x1 < width, y1 < height)
    return Scene(view, to_crop(prompt.positive), to_crop(prompt.negative), box, prior, open_sides)


def _cut(image: NDArray[np.uint8], labels: Trimap) -> tuple[BoolMask, float]:
    """Run GrabCut; returns the foreground bool [H, W] and a confidence 0..1.

    Where there is nothing to learn one of the two colour models from, the starting labels are
    the answer, with confidence 0.
    """
    before = _foreground(labels)
    if before.sum() < _MIN_SAMPLES or (~before).sum() < _MIN_SAMPLES:
        return before, 0.0
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    labels = labels.copy()

    def run(iterations: int, mode: int) -> BoolMask:
        whole = (0, 0, 0, 0)  # the rectangle is of no use to these modes
        cv2.grabCut(image, labels, whole, background, foreground, iterations, mode)
        return _foreground(labels)

    cv2.setRNGSeed(_SEED)
    try:
        earlier = run(_ITERATIONS - 1, cv2.GC_INIT_WITH_MASK)
        after = run(1, cv2.GC_EVAL)
    except cv2.error:
        # A colour model collapsed (all its pixels went to the other side, or had one colour).
        return before, 0.0
    if not after.any():
        return before, 0.0
    return after, float((earlier & after).sum() / (earlier | after).sum())


def _foreground(labels: Trimap) -> BoolMask:
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def _keep_parts(cut: BoolMask, scene: Scene, prior: BoolMask | None) -> BoolMask:
    """Drop what GrabCut found elsewhere of the same colour, and fill pinholes."""
    kept = np.zeros_like(cut)
    if len(scene.positive):
        kept |= component_of(cut, scene.positive)
    if prior is not None and prior.any():
        # Parts of the object that the prior already had, even if no click names them.
        kept |= parts_touching(cut, prior)
    if not kept.any():
        kept = cut
    count, parts, stats, _ = cv2.connectedComponentsWithStats(kept.astype(np.uint8), connectivity=8)
    if count > 2:
        areas = stats[1:, cv2.CC_STAT_AREA]
        large = 1 + np.flatnonzero(areas >= _MIN_PART * areas.max())
        clicked = [int(parts[y, x]) for x, y in scene.positive if parts[y, x]]
        kept = np.isin(parts, [*large, *clicked])
    closed = cv2.morphologyEx(kept.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    return closed > 0


def _paste(cut: BoolMask, crop: Crop, size: tuple[int, int]) -> BoolMask:
    x0, y0, x1, y1 = crop
    mask = np.zeros(size, bool)
    target = (x1 - x0, y1 - y0)
    if cut.shape[::-1] == target:
        mask[y0:y1, x0:x1] = cut
    else:
        soft = cv2.resize(cut.astype(np.float32), target, interpolation=cv2.INTER_LINEAR)
        mask[y0:y1, x0:x1] = soft > 0.5
    return mask


def _obey_clicks(mask: BoolMask, prompt: Prompt) -> None:
    """Set the clicked pixels as clicked, whatever the colours say."""
    size = (mask.shape[0], mask.shape[1])
    off, on = pixels_of(prompt.negative, size), pixels_of(prompt.positive, size)
    mask[off[:, 1], off[:, 0]] = False
    mask[on[:, 1], on[:, 0]] = True

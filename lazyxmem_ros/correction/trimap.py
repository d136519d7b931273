# SPDX-License-Identifier: Apache-2.0
"""Turns a prompt into GrabCut's trimap: what is surely, probably or not of the object.

All arrays here are crops at working resolution; `Scene` holds those of one prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.correction.base import BoolMask, discs

Trimap = NDArray[np.uint8]
"""uint8 [H, W] of cv2.GC_BGD, GC_FGD, GC_PR_BGD, GC_PR_FGD."""

_SEED_RADIUS = 0.012
"""Radius of a click's certain disc, as a share of the crop's long side."""
_BAND = 0.12
"""Half width of the band around a prior's outline that the colours decide about, as a share of
the square root of its area. Beyond it the prior is believed."""
_CLICK_DISC = 0.06
"""Radius of what is probably the object around a lone click, as a share of the crop's side."""
_NEAR = 0.5
"""A click within this many roots of the prior's area still speaks of the prior's object."""
_MIN_KEPT = 0.2
"""A negative click that leaves less than this share of its part of the prior takes it all."""
_BLUR = 1.5
"""Standard deviation, in working pixels, of the smoothing before colours are compared."""
_FRAME = 0.06
"""Width of the rim of an unbounded crop that counts as background, as a share of its side."""


@dataclass(frozen=True)
class Scene:
    """One prompt at working resolution.

    Attributes:
        image: uint8 [H, W, 3].
        positive, negative: int [P, 2], (x, y) pixels.
        box: (x0, y0, x1, y1) half-open pixels, or None.
        prior: bool [H, W] with at least one pixel, or None.
        open_sides: (left, top, right, bottom): whether the crop ends within the image there, so
            that its rim may be taken for background.

    """

    image: NDArray[np.uint8]
    positive: NDArray[np.intp]
    negative: NDArray[np.intp]
    box: tuple[int, int, int, int] | None
    prior: BoolMask | None
    open_sides: tuple[bool, bool, bool, bool]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.image.shape[0], self.image.shape[1]


def distance_inside(mask: BoolMask) -> NDArray[np.float32]:
    """Euclidean distance in pixels of each pixel of the mask to the nearest one outside it."""
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def grow(mask: BoolMask, distance: float) -> BoolMask:
    """The mask and everything within `distance` pixels of it."""
    return distance_inside(~mask) <= distance


def parts_touching(mask: BoolMask, seeds: BoolMask) -> BoolMask:
    """The connected parts of the mask that share a pixel with the seeds, both bool [H, W]."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    wanted = np.zeros(count, bool)
    wanted[parts[seeds]] = True
    wanted[0] = False
    return wanted[parts]


def component_of(mask: BoolMask, points: NDArray[np.intp]) -> BoolMask:
    """The connected parts of the mask that contain one of the points (x, y)."""
    return parts_touching(mask, discs(mask.shape, points, 0))


def similar_region(image: NDArray[np.uint8], point: NDArray[np.intp], radius: int) -> BoolMask:
    """The connected region around a point whose colour is like that at the point.

    The threshold between like and unlike is Otsu's, on the distance in CIELAB.
    """
    smooth = cv2.GaussianBlur(image, (0, 0), _BLUR)
    lab = cv2.cvtColor(smooth, cv2.COLOR_RGB2LAB).astype(np.float32)
    x, y = int(point[0]), int(point[1])
    patch = lab[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1]
    distance = np.linalg.norm(lab - np.median(patch, axis=(0, 1)), axis=2)
    scaled = np.clip(distance * (255.0 / max(float(distance.max()), 1e-6)), 0, 255)
    _, like = cv2.threshold(
        scaled.astype(np.uint8), 0, 255, cv2.THRESH_BINARY_INV + cv2.THRESH_OTSU
    )
    mask = like > 0
    seed = discs(mask.shape, np.array([[x, y]]), radius)
    return component_of(mask | seed, np.array([[x, y]]))


def _seed_radius(scene: Scene) -> int:
    return max(1, round(_SEED_RADIUS * max(scene.size)))


def usable_prior(scene: Scene) -> BoolMask | None:
    """The prior, less what the clicks say is wrong with it.

    Positive clicks that all lie far from it say that the object is elsewhere: no prior is
    left. A negative click takes away what looks like the clicked pixel in its part of the
    prior, or all of that part if little would remain and no positive click defends it.
    """
    prior = scene.prior
    if prior is None:
        return None
    if len(scene.positive):
        reach = _NEAR * float(np.sqrt(prior.sum()))
        near = grow(prior, reach)
        if not near[scene.positive[:, 1], scene.positive[:, 0]].any():
            return None
    for point in scene.negative:
        if not prior[point[1], point[0]]:
            continue
        part = component_of(prior, point[None])
        wrong = similar_region(scene.image, point, _seed_radius(scene)) & part
        defended = len(scene.positive) and part[scene.positive[:, 1], scene.positive[:, 0]].any()
        if not defended and (part & ~wrong).sum() < _MIN_KEPT * part.sum():
            wrong = part
        prior = prior & ~wrong
    return prior


def outer_rim(scene: Scene) -> BoolMask:
    """The outermost pixels on those sides where the crop, not the image, ends."""
    height, width = scene.size
    rim = np.zeros((height, width), bool)
    thickness = max(1, round(_FRAME * min(height, width)))
    left, top, right, bottom = scene.open_sides
    if left:
        rim[:, :thickness] = True
    if top:
        rim[:thickness] = True
    if right:
        rim[:, -thickness:] = True
    if bottom:
        rim[-thickness:] = True
    return rim


def make_trimap(scene: Scene, prior: BoolMask | None) -> Trimap:
    """GrabCut's starting labels of a scene. prior: the part of it that is to be used, or None."""
    radius = _seed_radius(scene)
    possible, probable, certain = (np.zeros(scene.size, bool) for _ in range(3))
    if prior is not None and prior.any():
        band = max(_BAND * float(np.sqrt(prior.sum())), 2.0)
        possible |= grow(prior, band)
        probable |= prior
        certain |= distance_inside(prior) > band
    elif scene.box is not None:
        possible |= _inside(scene.box, scene.size)
        if not len(scene.positive):
            probable |= possible
    else:
        possible |= ~outer_rim(scene)
    for point in scene.positive:
        if not probable[point[1], point[0]]:
            around = discs(scene.size, point[None], round(_CLICK_DISC * max(scene.size)))
            probable |= around | similar_region(scene.image, point, radius)
            possible |= ~outer_rim(scene)
    if scene.box is not None:
        possible &= _inside(scene.box, scene.size)
    labels = np.full(scene.size, cv2.GC_BGD, np.uint8)
    labels[possible] = cv2.GC_PR_BGD
    labels[probable & possible] = cv2.GC_PR_FGD
    labels[certain & possible] = cv2.GC_FGD
    labels[discs(scene.size, scene.negative, radius)] = cv2.GC_BGD
    labels[discs(scene.size, scene.positive, radius)] = cv2.GC_FGD
    # Where discs of both kinds overlap, the clicked pixels themselves have the last word.
    labels[scene.negative[:, 1], scene.negative[:, 0]] = cv2.GC_BGD
    labels[scene.positive[:, 1], scene.positive[:, 0]] = cv2.GC_FGD
    return labels


def _inside(box: tuple[int, int, int, int], size: tuple[int, int]) -> BoolMask:
    x0, y0, x1, y1 = box
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask

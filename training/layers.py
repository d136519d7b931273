# SPDX-License-Identifier: Apache-2.0
"""The layers that a clip is composed of: motion paths, cut-outs and moving backgrounds."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.material import (
    Material,
    Photograph,
    Sequence,
    UInt8Array,
    blob_mask,
    choose_region,
    choose_thing,
    fractal_texture,
    thin_mask,
)

FloatArray = NDArray[np.float32]

LONGEST_GAP = 5  # frames between two that a clip takes of a real sequence
OBJECT_SHARE = 0.25, 0.8  # of the view's side that a followed object's longer side takes
CLOSEST_VIEW = 0.2  # of a real frame's shorter side; what is nearer is blurred
CUT_MARGIN = 4  # transparent pixels around a cut-out, so that its edge can be interpolated
MASK_THRESHOLD = 127
TWIN_REACH = 0.8, 2.0  # boxes of the object from it to where its twin comes from


def wobble(rng: np.random.Generator, times: FloatArray, amplitude: float) -> FloatArray:
    """A smooth random function of time (seconds), [T] or so, of about the given amplitude."""
    frequency = rng.uniform(0.2, 1.2, 3)
    phase = rng.uniform(0, 2 * np.pi, 3)
    weight = rng.standard_normal(3) / (1 + frequency)
    waves = np.sin(2 * np.pi * frequency * times[:, None] + phase)
    return (amplitude * (waves * weight).sum(axis=1)).astype(np.float32)


@dataclass(frozen=True)
class Path:
    """Pose over the T frames of a clip: centre [T, 2] (x, y) pixels, log scale [T], angle [T]
    rad, shear [T]; bend [T, 2, 4, 4]: a coarse displacement field in units of the layer.
    """

    centre: FloatArray
    log_scale: FloatArray
    angle: FloatArray
    shear: FloatArray
    bend: FloatArray | None

    def matrix(self, t: int) -> FloatArray:
        """Layer coordinates (origin at its centre) -> canvas pixels, [2, 3]."""
        s = np.exp(self.log_scale[t])
        c, d = np.cos(self.angle[t]), np.sin(self.angle[t])
        a = s * np.array([[c, -d], [d, c]]) @ np.array([[1, self.shear[t]], [0, 1]])
        return np.concatenate([a, self.centre[t][:, None]], axis=1).astype(np.float32)


def random_path(
    rng: np.random.Generator,
    times: FloatArray,
    start: NDArray[np.float64],
    *,
    reach: float,
    energy: float,
    bend: float,
) -> Path:
    """A path from `start` (x, y) that travels about reach·energy pixels a second and turns,
    shears, grows and (where bend > 0) bends with it.
    """
    heading = rng.uniform(0, 2 * np.pi)
    speed = reach * energy * rng.exponential(0.6)
    drift = speed * times[:, None] * np.array([np.cos(heading), np.sin(heading)])
    sway = np.stack([wobble(rng, times, 0.15 * reach * energy) for _ in range(2)], axis=1)
    centre = start + drift + sway - sway[:1]
    grow = rng.normal(0, 0.25) * energy * times + wobble(rng, times, 0.12 * energy)
    turn = rng.normal(0, 0.6) * energy * times + wobble(rng, times, 0.25 * energy)
    field = None
    if bend > 0:
        shapes = rng.normal(0, bend, (3, 2, 4, 4)).astype(np.float32)
        sway2 = np.stack([wobble(rng, times, 1.0) for _ in range(2)])
        field = shapes[0] + sway2[0][:, None, None, None] * shapes[1]
        field = field + sway2[1][:, None, None, None] * shapes[2]
    return Path(
        centre.astype(np.float32),
        (grow - grow[:1]).astype(np.float32),
        (turn + rng.normal(0, 0.3)).astype(np.float32),
        wobble(rng, times, 0.15 * energy),
        field,
    )


def warp(
    image: UInt8Array, path: Path, t: int, size: int, *, scale: float = 1.0, border: int
) -> UInt8Array:
    """The image [h, w, C] as it lies on the canvas [size, size, C] at time t.

    scale: canvas pixels per image pixel when the path's log scale is 0.
    """
    height, width = image.shape[:2]
    forward = path.matrix(t).astype(np.float64)
    forward[:, :2] *= scale
    inverse = cv2.invertAffineTransform(forward)
    inverse[:, 2] += ((width - 1) / 2, (height - 1) / 2)
    if path.bend is None:
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = cv2.warpAffine(image, inverse, (size, size), flags=flags, borderMode=border)
    else:
        xs, ys = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
        m = inverse.astype(np.float32)
        map_x, map_y = m[0, 0] * xs + m[0, 1] * ys + m[0, 2], m[1, 0] * xs + m[1, 1] * ys + m[1, 2]
        # The field is fixed to the layer: it is looked up where the layer lies now.
        extent = float(max(height, width))
        grid = 16
        step = np.linspace(-0.75, 0.75, grid, dtype=np.float32)
        fine = cv2.resize(
            path.bend[t].transpose(1, 2, 0), (grid, grid), interpolation=cv2.INTER_CUBIC
        )
        u = (map_x / extent - 0.5 * width / extent - step[0]) * ((grid - 1) / (2 * -step[0]))
        v = (map_y / extent - 0.5 * height / extent - step[0]) * ((grid - 1) / (2 * -step[0]))
        moved = cv2.remap(fine, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        map_x = map_x + extent * moved[..., 0]
        map_y = map_y + extent * moved[..., 1]
        warped = cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=border)
    return warped if warped.ndim == 3 else warped[..., None]


@dataclass(frozen=True)
class CutOut:
    """An object cut free: RGBA uint8, one [h, w, 4] picture or one for each frame."""

    pictures: list[UInt8Array]

    def at(self, t: int) -> UInt8Array:
        """The picture of frame t."""
        return self.pictures[min(t, len(self.pictures) - 1)]

    @property
    def extent(self) -> int:
        """Pixels of the longer side of the first picture."""
        return max(self.pictures[0].shape[:2])


def _cut(image: UInt8Array, mask: UInt8Array, extent: float) -> UInt8Array | None:
    """The masked part as RGBA, its longer side brought to about `extent` pixels."""
    x, y, w, h = cv2.boundingRect(mask)
    if w < 8 or h < 8:
        return None
    rgba = np.dstack([image[y : y + h, x : x + w], mask[y : y + h, x : x + w]])
    factor = extent / max(w, h)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    new_size = (max(4, round(w * factor)), max(4, round(h * factor)))
    rgba = cv2.resize(rgba, new_size, interpolation=method)
    m = CUT_MARGIN
    return cv2.copyMakeBorder(rgba, m, m, m, m, cv2.BORDER_REPLICATE)


def _clear_margin(rgba: UInt8Array) -> UInt8Array:
    m = CUT_MARGIN
    alpha = np.zeros(rgba.shape[:2], np.uint8)
    alpha[m:-m, m:-m] = rgba[m:-m, m:-m, 3]
    rgba[..., 3] = alpha
    return rgba


def still_cut_out(
    rng: np.random.Generator, material: Material, extent: float, *, thing_share: float = 0.0
) -> CutOut:
    """A region of a photograph (or, `thing_share` of them, a whole thing), or a random shape filled
    with a photograph or a texture.
    """
    kind = rng.random()
    rgba: UInt8Array | None = None
    with_regions = material.with_regions
    if kind < 0.6 and with_regions:
        photograph = with_regions[int(rng.integers(len(with_regions)))]
        assert photograph.regions is not None
        mask = _choose(rng, photograph.regions, thing_share=thing_share)
        if mask is not None:
            rgba = _cut(photograph.image, mask, extent)
    if rgba is None:
        side = max(24, int(extent))
        mask = blob_mask(rng, side)
        if kind < 0.85:
            surface = random_window(rng, material, side)
        else:
            surface = fractal_texture(rng, side, side)
        rgba = _cut(surface, mask, extent)
        if rgba is None:  # a shape too thin to be seen
            rgba = _cut(surface, np.full_like(mask, 255), extent)
    assert rgba is not None  # a full square is never too thin
    return CutOut([_clear_margin(rgba)])


def thin_cut_out(rng: np.random.Generator, material: Material, extent: float) -> CutOut:
    """Rods, rings and frames of them, filled with a photograph or a texture."""
    side = max(24, int(extent))
    mask = thin_mask(rng, side)
    surface = (
        random_window(rng, material, side)
        if rng.random() < 0.6
        else fractal_texture(rng, side, side)
    )
    rgba = np.dstack([surface, mask])
    m = CUT_MARGIN
    return CutOut([_clear_margin(cv2.copyMakeBorder(rgba, m, m, m, m, cv2.BORDER_REPLICATE))])


def _choose(
    rng: np.random.Generator,
    regions: UInt8Array,
    *,
    thing_share: float,
    border_share: float = 1.0,
) -> UInt8Array | None:
    """A whole thing, `thing_share` of the time, else a few regions."""
    if thing_share and rng.random() < thing_share:
        return choose_thing(rng, regions)
    return choose_region(rng, regions, border_share=border_share)


def random_window(rng: np.random.Generator, material: Material, side: int) -> UInt8Array:
    """A square window of a random photograph, RGB uint8 [side, side, 3]."""
    image = material.photographs[int(rng.integers(len(material.photographs)))].image
    edge = int(min(min(image.shape[:2]), side * rng.uniform(0.8, 2.5)))
    y = int(rng.integers(image.shape[0] - edge + 1))
    x = int(rng.integers(image.shape[1] - edge + 1))
    window = image[y : y + edge, x : x + edge]
    return cv2.resize(window, (side, side), interpolation=cv2.INTER_AREA)


def frame_indices(rng: np.random.Generator, length: int, count: int) -> NDArray[np.intp]:
    """`count` rising (or, half the time, falling) frame numbers with gaps of 1 to LONGEST_GAP."""
    longest = max(1, min(LONGEST_GAP, (length - 1) // max(1, count - 1)))
    step = int(rng.integers(1, longest + 1))
    gaps = np.clip(rng.integers(step - 1, step + 2, count - 1), 1, longest)
    indices = np.concatenate([[0], np.cumsum(gaps)])
    indices = indices + int(rng.integers(length - indices[-1]))
    return indices[::-1] if rng.random() < 0.5 else indices


def real_cut_out(
    rng: np.random.Generator, sequence: Sequence, frames: int, extent: float
) -> CutOut | None:
    """A real object with its real deformation, centred on its own centroid."""
    seen = [sequence.picture(int(i)) for i in frame_indices(rng, len(sequence), frames)]
    boxes = [cv2.boundingRect(np.ascontiguousarray(picture[..., 3])) for picture in seen]
    side = max(max(w, h) for _, _, w, h in boxes)
    if side < 12 or min(min(w, h) for _, _, w, h in boxes) < 4:
        return None
    pictures = []
    factor = extent / side
    target = max(8, round(side * factor))
    for whole, (x, y, w, h) in zip(seen, boxes, strict=True):
        window = np.zeros((side, side, 4), np.uint8)
        oy, ox = (side - h) // 2, (side - w) // 2
        window[oy : oy + h, ox : ox + w] = whole[y : y + h, x : x + w]
        picture = cv2.resize(window, (target, target), interpolation=cv2.INTER_AREA)
        m = CUT_MARGIN
        picture = cv2.copyMakeBorder(picture, m, m, m, m, cv2.BORDER_CONSTANT)
        pictures.append(picture)
    return CutOut(pictures)


@dataclass(frozen=True)
class Base:
    """The clip's background over time: RGBA [h, w, 4], alpha marking the object in it."""

    pictures: list[UInt8Array]
    path: Path
    scale: float
    has_object: bool

    def render(self, t: int, size: int) -> UInt8Array:
        """What the camera sees at frame t, RGBA [size, size, 4]."""
        picture = self.pictures[min(t, len(self.pictures) - 1)]
        return warp(picture, self.path, t, size, scale=self.scale, border=cv2.BORDER_REFLECT_101)


def _view(
    rng: np.random.Generator, picture: UInt8Array, size: int, zoom: float, *, aim: bool
) -> tuple[NDArray[np.float64], float]:
    """The canvas position of the picture's centre, and canvas pixels per picture pixel.

    zoom: shorter sides of the picture that the canvas shows. aim: keep the object in view.
    """
    height, width = picture.shape[:2]
    window = min(height, width) * zoom
    scale = size / window
    half = window / 2
    if aim:
        x, y, w, h = cv2.boundingRect(np.ascontiguousarray(picture[..., 3]))
        away = rng.uniform(-0.35, 0.35, 2) * window
        look = np.array([x + w / 2, y + h / 2]) + away
    else:
        look = rng.uniform(0, 1, 2) * (width, height)
    look[0] = np.clip(look[0], half, max(half, width - half))
    look[1] = np.clip(look[1], half, max(half, height - half))
    centre = np.array([width / 2, height / 2])
    return (centre - look) * scale + size / 2, scale


def still_base(
    rng: np.random.Generator,
    material: Material,
    times: FloatArray,
    size: int,
    *,
    energy: float,
    with_object: bool,
    border_share: float,
    thing_share: float,
    nearest: float,
) -> Base:
    """A photograph (or, rarely, a texture) seen by a moving camera.

    with_object: `thing_share` of the time a whole thing in it is an object, else some of its
    regions that lie along no more than `border_share` of its border.
    nearest: least part of its shorter side that the first frame shows.
    """
    photographs = material.with_regions if with_object else material.photographs
    photograph: Photograph
    if not with_object and rng.random() < 0.08:
        photograph = Photograph(fractal_texture(rng, 240, 320))
    else:
        photograph = photographs[int(rng.integers(len(photographs)))]
    mask = np.zeros(photograph.image.shape[:2], np.uint8)
    if with_object and photograph.regions is not None:
        chosen = _choose(
            rng, photograph.regions, thing_share=thing_share, border_share=border_share
        )
        with_object = chosen is not None
        mask = mask if chosen is None else chosen
    picture = np.dstack([photograph.image, mask])
    zoom = float(np.exp(rng.uniform(np.log(nearest), np.log(1.0))))
    start, scale = _view(rng, picture, size, zoom, aim=with_object)
    bend = rng.uniform(0, 0.04) * energy if with_object or rng.random() < 0.3 else 0.0
    path = random_path(rng, times, start, reach=0.25 * size, energy=energy, bend=bend)
    return Base([picture], path, scale, with_object)


def real_base(
    rng: np.random.Generator,
    sequence: Sequence,
    times: FloatArray,
    size: int,
    *,
    energy: float,
    nearest: float,
    follow: bool = False,
    twin: bool = False,
) -> Base:
    """Real frames of a training sequence, its object being the mask in alpha.

    nearest: as of a photograph. follow: the view suits the object's size and stays with it.
    twin: see `with_twin`.
    """
    indices = frame_indices(rng, len(sequence), len(times))
    pictures = [sequence.picture(int(i)) for i in indices]
    zoom = float(np.exp(rng.uniform(np.log(nearest), np.log(1.0))))
    if follow:
        _, _, w, h = cv2.boundingRect(np.ascontiguousarray(pictures[0][..., 3]))
        wanted = max(w, h) / rng.uniform(*OBJECT_SHARE) / min(pictures[0].shape[:2])
        zoom = float(np.clip(wanted, CLOSEST_VIEW, 1.0))
    start, scale = _view(rng, pictures[0], size, zoom, aim=True)
    path = random_path(rng, times, start, reach=0.15 * size, energy=0.4 * energy, bend=0.0)
    centre = path.centre
    if follow:
        lag = scale * rng.uniform(0.5, 1.1)
        centre = (centre - lag * _travel(pictures)).astype(np.float32)
    path = Path(centre, path.log_scale, 0.3 * path.angle, path.shear, None)
    if twin:
        pictures = with_twin(rng, pictures)
    return Base(pictures, path, scale, True)


def with_twin(rng: np.random.Generator, pictures: list[UInt8Array]) -> list[UInt8Array]:
    """Real frames, RGBA uint8 [h, w, 4], with a twin of their object that crosses it or turns back.

    The twin is the object as the same frame shows it or as the clip played backwards does, mirrored
    or not. It passes behind the object or in front of it, behind it on the first frame. Alpha marks
    what is left to be seen of the object.
    """
    mirrored, backwards, in_front = (bool(coin < 0.5) for coin in rng.random(3))
    heading = rng.uniform(0, 2 * np.pi)
    reach = rng.uniform(*TWIN_REACH) * np.array([np.cos(heading), np.sin(heading)])
    # From 1 (where it comes from) to -1 (through the object and as far on the other side).
    ways = np.linspace(1, 1 - 2 * rng.uniform(0.3, 1.0), len(pictures))
    aside = rng.normal(0, 0.15, 2)
    shown = []
    for t, picture in enumerate(pictures):
        source = pictures[-1 - t] if backwards else picture
        x, y, w, h = cv2.boundingRect(np.ascontiguousarray(picture[..., 3]))
        u, v, across, down = cv2.boundingRect(np.ascontiguousarray(source[..., 3]))
        if not w or not across:
            shown.append(picture)
            continue
        goal = np.array([x + w / 2, y + h / 2]) + (ways[t] * reach + aside) * (w, h)
        turn = -1.0 if mirrored else 1.0
        move = np.array(
            [[turn, 0, goal[0] - turn * (u + across / 2)], [0, 1, goal[1] - (v + down / 2)]]
        )
        twin = cv2.warpAffine(source, move, picture.shape[1::-1], borderMode=cv2.BORDER_CONSTANT)
        opacity = cv2.GaussianBlur(twin[..., 3], (0, 0), 1.0).astype(np.float32) / 255
        if t == 0 or not in_front:
            opacity *= 1 - picture[..., 3].astype(np.float32) / 255
        drawn = picture.copy()
        colour = picture[..., :3] + opacity[..., None] * (
            twin[..., :3].astype(np.float32) - picture[..., :3]
        )
        drawn[..., :3] = colour.round().astype(np.uint8)
        drawn[..., 3][opacity > 0.5] = 0
        shown.append(drawn)
    return shown


def _travel(pictures: list[UInt8Array]) -> FloatArray:
    """How far the middle of an object's box has come since the first picture, pixels [T, 2].

    Where it is not to be seen it stays where it was.
    """
    middles: list[NDArray[np.float64]] = []
    for picture in pictures:
        x, y, w, h = cv2.boundingRect(np.ascontiguousarray(picture[..., 3]))
        seen = w > 0 or not middles
        middles.append(np.array([x + w / 2, y + h / 2]) if seen else middles[-1])
    return (np.stack(middles) - middles[0]).astype(np.float32)

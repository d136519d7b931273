# SPDX-License-Identifier: Apache-2.0
"""A generated scene with ground truth: a koi in a pond, filmed from above by a drifting camera.

The script: the koi swims and bends, disappears fully under a footbridge for more than a second
while one of its look-alikes comes out from under that bridge, comes back on the other side, and
crosses a second look-alike in open water, which then leaves under the bridge. Everything is a
function of the frame's time and the seed: the same configuration gives the same pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from lazyxmem_ros.data import textures
from lazyxmem_ros.data.errors import DatasetError

FRAME_SIZE = (480, 640)
WORLD_SIZE = (540, 900)
"""Rows, columns of the pond; the camera sees a part of it."""
BRIDGE_COLUMNS = (281, 508)
PLANK_HEIGHT = 30
SHADE_COLUMNS = (490, 800)
SHADE_ROW = 232
"""The trees' shade lies between these columns, below this row."""
SHADE_COLOUR = np.array([1.0, 0.92, 0.78], np.float32)
"""How much of red, green and blue it takes: what is left is bluish."""
FISH_LENGTH = 164.0
FISH_HALF_WIDTH = 36.0
SHADOW_OFFSET = (9, 13)
"""Columns, rows from a fish to its shadow on the ground."""
WATER = np.array([0.20, 0.36, 0.36], np.float32)
TARGET_ID = 1
TARGET_INK = 0.16
"""How much of the target's skin is black."""
MAX_DURATION = 15.0

FAILURE_SPAN = (3.8, 8.2)
"""Seconds of the scripted failure: from half under the bridge to fully back in view."""

# Time (s), column, row of the fish's middle in the pond.
TARGET_PATH = (
    (-0.5, 95, 130),
    (0.0, 104, 165),
    (1.4, 150, 268),
    (2.8, 222, 325),
    (4.0, 292, 330),
    (5.2, 356, 318),
    (6.6, 428, 312),
    (7.8, 510, 330),
    (9.2, 612, 372),
    (10.6, 700, 305),
    (12.0, 694, 205),
    (13.4, 640, 145),
    (15.5, 588, 205),
)
LOOK_ALIKE_UNDER_BRIDGE_PATH = (
    (-0.5, 640, 150),
    (0.0, 612, 160),
    (2.0, 500, 200),
    (4.0, 415, 235),
    (5.4, 340, 255),
    (7.0, 258, 244),
    (9.0, 198, 204),
    (11.0, 112, 150),
    (12.5, 40, 100),
    (15.5, -60, 0),
)
LOOK_ALIKE_CROSSING_PATH = (
    (-0.5, 960, 120),
    (5.0, 930, 160),
    (7.5, 845, 225),
    (9.4, 768, 264),
    (10.6, 690, 276),
    (11.6, 592, 292),
    (12.5, 490, 300),
    (13.4, 408, 302),
    (15.5, 392, 304),
)
GREY_KOI_PATH = (
    (-0.5, 40, 430),
    (3.0, 130, 452),
    (6.5, 250, 440),
    (10.0, 520, 455),
    (13.0, 640, 420),
    (15.5, 760, 350),
)
LILY_PADS = (
    (40, 60, 52),
    (118, 30, 40),
    (228, 470, 46),
    (176, 505, 38),
    (568, 60, 54),
    (640, 34, 38),
    (820, 450, 60),
    (742, 484, 44),
    (862, 360, 36),
)
"""Column, row, radius."""


@dataclass(frozen=True)
class SceneConfig:
    """Settings of the generated scene.

    rate: frames per second. duration: seconds, at most 15 (the length of the script).
    seed: of all textures and noise. likeness: of the first look-alike's colours to the target's, 0
    (as golden as the second one's) to 1 (the same); the closer, the harder to tell apart.
    shade: how dark it is under the trees beyond the bridge, 0 (not at all) to 1.
    """

    rate: float = 10.0
    duration: float = 15.0
    seed: int = 7
    likeness: float = 0.4
    shade: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 120:
            raise DatasetError(f"the scene's rate must be in 0..120 frames/s, got {self.rate}")
        if not 0 < self.duration <= MAX_DURATION:
            raise DatasetError(
                f"the scene's duration must be in 0..{MAX_DURATION} s, got {self.duration}"
            )
        for name in ("likeness", "shade"):
            if not 0 <= getattr(self, name) <= 1:
                raise DatasetError(f"the scene's {name} must be in 0..1, not {getattr(self, name)}")

    @property
    def frames(self) -> int:
        """Number of frames."""
        return max(1, round(self.duration * self.rate))


@dataclass(frozen=True)
class SceneFrame:
    """index from 0; time in s; image uint8 [H, W, 3] RGB; labels uint16 [H, W], 1 = the target.

    labels covers only what is visible of the target.
    """

    index: int
    time: float
    image: NDArray[np.uint8]
    labels: NDArray[np.uint16]


@dataclass(frozen=True)
class _Fish:
    skin: textures.Image
    path: CubicSpline
    scale: float
    phase: float

    def pose(self, time: float) -> tuple[tuple[float, float], float, float]:
        """Position (x, y), heading (rad) and turning rate (rad/s)."""
        velocity, acceleration = self.path(time, 1), self.path(time, 2)
        speed = max(float(np.hypot(*velocity)), 1e-6)
        turning = float(velocity[0] * acceleration[1] - velocity[1] * acceleration[0]) / speed**2
        x, y = self.path(time)
        # Python floats keep single-precision arrays single.
        return (float(x), float(y)), float(np.arctan2(velocity[1], velocity[0])), turning


class Scene:
    """Renders the frames of a SceneConfig; iterate, or ask for one by its index."""

    def __init__(self, config: SceneConfig = SceneConfig()) -> None:
        self.config = config
        random = np.random.default_rng(config.seed)
        self._floor = textures.pond_floor(random, WORLD_SIZE)
        self._caustics = [textures.smooth_noise(random, (620, 1000), 26.0) for _ in range(2)]
        self._shade = _tree_shade(random, config.shade)
        bridge_width = BRIDGE_COLUMNS[1] - BRIDGE_COLUMNS[0]
        self._bridge = textures.wood_planks(random, (WORLD_SIZE[0], bridge_width), PLANK_HEIGHT)
        self._pads = [textures.lily_pad(random, radius) for _, _, radius in LILY_PADS]
        skin = textures.koi_skin
        # Drawn in this order, so that a setting of the look-alikes does not change the target.
        target = _fish(skin(random, ink=TARGET_INK), TARGET_PATH, 1.0, 0.0)
        under = skin(random, **_golden(1 - config.likeness), ink=0.03, orange=0.4)
        crossing = skin(random, **_golden(1.0), ink=0.03, orange=0.5)
        slate = textures.SLATE
        grey = skin(random, base=slate, patch=slate * 0.7, ink=0.05)
        # Painted in this order: the crossing look-alike swims above the target.
        self._fish = (
            _fish(grey, GREY_KOI_PATH, 0.85, 0.7),
            _fish(under, LOOK_ALIKE_UNDER_BRIDGE_PATH, 0.92, 1.3),
            target,
            _fish(crossing, LOOK_ALIKE_CROSSING_PATH, 0.90, 2.1),
        )
        self._target = target

    def __len__(self) -> int:
        return self.config.frames

    def __iter__(self) -> Iterator[SceneFrame]:
        return (self.render(index) for index in range(len(self)))

    def render(self, index: int) -> SceneFrame:
        """Render frame `index`, 0 <= index < len(self); raises IndexError outside."""
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} lies outside 0..{len(self) - 1}")
        time = index / self.config.rate
        camera = self._camera(time)
        image = self._view(self._floor, camera)
        visible = np.zeros(FRAME_SIZE, np.float32)
        for fish in self._fish:
            window, colour, alpha = _draw_fish(fish, time, camera)
            part = image[window]
            _darken(part, _shifted(alpha, SHADOW_OFFSET), 0.45, blur=6.0)
            part += alpha[..., None] * (colour - part)
            visible[window] *= 1 - alpha
            if fish is self._target:
                visible[window] += alpha
        self._water(image, time, camera)
        image *= self._view(self._shade, camera)
        self._paint_cover(image, visible, camera, time)
        image += np.random.default_rng((self.config.seed, index)).normal(0, 0.012, image.shape)
        pixels = np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
        labels = np.where(visible > 0.5, TARGET_ID, 0).astype(np.uint16)
        return SceneFrame(index, time, pixels, labels)

    def _camera(self, time: float) -> tuple[float, float]:
        """Column and row of the view's upper left corner: a slow pan with a hand's sway."""
        progress = np.clip((time - 3.5) / 9.0, 0, 1)
        eased = progress**2 * (3 - 2 * progress)
        column = 12 + 235 * eased + 3.0 * np.sin(1.7 * time)
        return float(column), float(28 + 5 * np.sin(0.9 * time) + 2 * np.sin(2.3 * time))

    def _view(self, world: textures.Image, camera: tuple[float, float]) -> textures.Image:
        """The camera's window of a world-sized image, at sub-pixel position."""
        shift = np.array([[1, 0, -camera[0]], [0, 1, -camera[1]]], np.float32)
        view = cv2.warpAffine(
            world, shift, FRAME_SIZE[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        return np.asarray(view, dtype=np.float32)

    def _water(self, image: textures.Image, time: float, camera: tuple[float, float]) -> None:
        """Colour of the water and the moving net of light that waves throw through it."""
        height, width = FRAME_SIZE
        image += 0.14 * (WATER - image)
        layers = []
        for layer, (speed, sign) in zip(self._caustics, ((11.0, 1), (8.0, -1)), strict=True):
            column = int(camera[0] * 0.3 + 100 + sign * speed * np.sin(0.35 * time) * 4) % 300
            row = int(50 + speed * time * 0.4) % 130
            layers.append(layer[row : row + height, column : column + width])
        net = np.exp(-3.5 * np.abs(layers[0] + layers[1]))
        image *= (0.94 + 0.20 * net)[..., None]

    def _paint_cover(
        self,
        image: textures.Image,
        visible: textures.Plane,
        camera: tuple[float, float],
        time: float,
    ) -> None:
        """Lily pads and the bridge, above everything that swims; `visible` loses what they hide."""
        for number, ((column, row, radius), (leaf, opacity)) in enumerate(
            zip(LILY_PADS, self._pads, strict=True)
        ):
            sway = 2.5 * np.sin(0.8 * time + number)
            corner = (column - camera[0] - radius + sway, row - camera[1] - radius)
            _paste(image, visible, leaf, opacity, corner)
        left, right = BRIDGE_COLUMNS
        opacity = np.ones(self._bridge.shape[:2], np.float32)
        shade = np.zeros(FRAME_SIZE, np.float32)
        start, stop = (int(np.clip(edge - camera[0], 0, FRAME_SIZE[1])) for edge in (left, right))
        shade[:, start : min(stop + 16, FRAME_SIZE[1])] = 1.0
        _darken(image, shade, 0.45, blur=5.0)
        _paste(image, visible, self._bridge, opacity, (left - camera[0], -camera[1]))


def _tree_shade(random: np.random.Generator, strength: float) -> textures.Image:
    """What the trees beyond the bridge leave of the light, RGB factors of the world's size."""
    columns, rows = np.meshgrid(
        np.arange(WORLD_SIZE[1], dtype=np.float32), np.arange(WORLD_SIZE[0], dtype=np.float32)
    )
    (left, right), top = SHADE_COLUMNS, SHADE_ROW
    leaves = 14 * textures.smooth_noise(random, WORLD_SIZE, 34.0)
    inside = np.minimum(np.minimum(columns - left, right - columns), rows - top) + leaves
    covered = 1 / (1 + np.exp(-np.clip(inside / 12, -20, 20)))
    darkness = strength * covered[..., None] * SHADE_COLOUR
    return np.asarray(1 - darkness, dtype=np.float32)


def _golden(share: float) -> dict[str, textures.Image]:
    """Colours of a koi's skin on the way from the target's (0) to those of a golden koi (1)."""
    pale, gold = textures.PALE_GOLD, textures.GOLD
    cream, orange = textures.CREAM, textures.ORANGE
    return {
        "base": np.asarray(cream + share * (pale - cream), dtype=np.float32),
        "patch": np.asarray(orange + share * (gold - orange), dtype=np.float32),
    }


def _fish(
    skin: textures.Image, path: tuple[tuple[float, float, float], ...], scale: float, phase: float
) -> _Fish:
    knots = np.array(path, np.float64)
    return _Fish(skin, CubicSpline(knots[:, 0], knots[:, 1:]), scale, phase)


def _half_width(along: NDArray[np.float32]) -> NDArray[np.float32]:
    """Half the body's width at `along` (0 nose .. 1 tail tip), as a share of its greatest."""
    stations = np.array([0.0, 0.03, 0.10, 0.20, 0.34, 0.50, 0.66, 0.78, 0.84, 0.93, 1.0])
    widths = np.array([0.0, 0.36, 0.68, 0.90, 1.0, 0.86, 0.54, 0.27, 0.34, 0.66, 0.78])
    return np.asarray(np.interp(along, stations, widths, left=-1, right=-1), dtype=np.float32)


def _draw_fish(
    fish: _Fish, time: float, camera: tuple[float, float]
) -> tuple[tuple[slice, slice], textures.Image, textures.Plane]:
    """A fish in the camera's view: a window [h, w] of the frame, its colours and its opacity.

    The window leaves room for the shadow; it is empty for a fish out of view.
    """
    position, heading, turning = fish.pose(time)
    length, half_width = FISH_LENGTH * fish.scale, FISH_HALF_WIDTH * fish.scale
    middle_x, middle_y = position[0] - camera[0], position[1] - camera[1]
    columns = _span(middle_x, reach=0.8 * length, limit=FRAME_SIZE[1])
    rows = _span(middle_y, reach=0.8 * length, limit=FRAME_SIZE[0])
    window = slice(*rows), slice(*columns)
    x, y = np.meshgrid(
        np.arange(*columns, dtype=np.float32) - middle_x,
        np.arange(*rows, dtype=np.float32) - middle_y,
    )
    if x.size == 0:
        return window, np.zeros((*x.shape, 3), np.float32), np.zeros(x.shape, np.float32)
    # Body axes: `behind` grows from the middle towards the tail, `aside` to the fish's right.
    behind = -(x * math.cos(heading) + y * math.sin(heading))
    aside = -x * math.sin(heading) + y * math.cos(heading)
    along = np.asarray(behind / length + 0.5, dtype=np.float32)
    beat = 2 * math.pi * 1.1 * time + fish.phase
    swing = 0.028 + 0.085 * np.clip(along, 0, 1) ** 2
    bend = -max(-1.4, min(1.4, turning)) * 0.30 * (along - 0.35) ** 2
    wave = swing * np.sin(4.6 * along - beat) + bend
    off_spine: NDArray[np.float32] = np.asarray(aside - length * wave, np.float32)
    # The tail is forked: its middle ends sooner.
    fork = 0.06 * (1 - np.clip(np.abs(off_spine) / (0.75 * half_width), 0, 1))
    width = _half_width(along + np.where(along > 0.85, fork, 0)) * half_width
    body = np.clip(width - np.abs(off_spine) + 0.5, 0, 1)
    fins = _pectoral_fins(length * along, off_spine, length, half_width, beat)
    alpha = np.maximum(body, fins)
    skin_rows, skin_columns = fish.skin.shape[:2]
    map_x = np.clip(along, 0, 1) * (skin_columns - 1)
    across = off_spine / np.maximum(width, 1.0)
    map_y = (np.clip(across, -1, 1) * 0.5 + 0.5) * (skin_rows - 1)
    colour = cv2.remap(fish.skin, map_x, map_y, cv2.INTER_LINEAR)
    roundness = 1.04 - 0.34 * np.clip(np.abs(across), 0, 1) ** 3
    shaded = colour * np.where(body > 0, roundness, 0.86)[..., None]
    return window, np.asarray(shaded, np.float32), np.asarray(alpha, np.float32)


def _span(middle: float, *, reach: float, limit: int) -> tuple[int, int]:
    """The pixels within `reach` of `middle` that lie in 0..limit, as a half-open range."""
    start = min(max(0, round(middle - reach)), limit)
    return start, max(start, min(limit, round(middle + reach)))


def _pectoral_fins(
    station: NDArray[np.float32],
    aside: NDArray[np.float32],
    length: float,
    half_width: float,
    beat: float,
) -> textures.Plane:
    """Opacity of the two paddling fins behind the head."""
    opacity = np.zeros(station.shape, np.float32)
    for side in (-1.0, 1.0):
        sweep = 0.75 + 0.25 * math.sin(beat + side)
        dx, dy = station - 0.36 * length, side * aside - 1.05 * half_width
        major = dx * math.cos(sweep) + dy * math.sin(sweep)
        minor = -dx * math.sin(sweep) + dy * math.cos(sweep)
        distance = np.hypot(major / (0.52 * half_width), minor / (0.24 * half_width))
        opacity = np.maximum(opacity, np.clip((1 - distance) * 0.24 * half_width, 0, 1))
    return np.asarray(opacity, dtype=np.float32)


def _shifted(plane: textures.Plane, offset: tuple[int, int]) -> textures.Plane:
    if plane.size == 0:
        return plane
    shift = np.array([[1, 0, offset[0]], [0, 1, offset[1]]], np.float32)
    return np.asarray(cv2.warpAffine(plane, shift, plane.shape[::-1]), dtype=np.float32)


def _darken(image: textures.Image, shade: textures.Plane, strength: float, *, blur: float) -> None:
    if shade.size == 0:
        return
    image *= (1 - strength * cv2.GaussianBlur(shade, (0, 0), blur))[..., None]


def _paste(
    image: textures.Image,
    visible: textures.Plane,
    colour: textures.Image,
    opacity: textures.Plane,
    corner: tuple[float, float],
) -> None:
    """Lay a picture over the image with its upper left corner at (column, row)."""
    (left, right), (top, bottom) = (
        _span(start + size / 2, reach=size / 2 + 1, limit=limit)
        for start, size, limit in zip(corner, opacity.shape[::-1], FRAME_SIZE[::-1], strict=True)
    )
    if left == right or top == bottom:
        return
    part, size = image[top:bottom, left:right], (right - left, bottom - top)
    shift = np.array([[1, 0, corner[0] - left], [0, 1, corner[1] - top]], np.float32)
    alpha = cv2.warpAffine(opacity, shift, size)
    paint = cv2.warpAffine(colour, shift, size, borderMode=cv2.BORDER_REPLICATE)
    part += alpha[..., None] * (paint - part)
    visible[top:bottom, left:right] *= 1 - alpha

# SPDX-License-Identifier: Apache-2.0
"""Clips composed on the fly: objects that move, deform, hide, return and resemble each other.

A clip is a pure function of (material, settings, seed): nothing is stored, and any clip of a
training run can be made again.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.camera import Clip, move_light, shoot
from training.layers import (
    MASK_THRESHOLD,
    Base,
    CutOut,
    FloatArray,
    Path,
    random_path,
    random_window,
    real_base,
    real_cut_out,
    still_base,
    still_cut_out,
    thin_cut_out,
    warp,
)
from training.material import Material, MaterialError, UInt8Array, fractal_texture

MIN_TARGET_PIXELS = 48  # of a target on the first frame; fewer say nothing about it
ATTEMPTS = 30
OUT_OF_VIEW = -10.0  # sides of the clip from its corner: far enough for everything
THIN_LEAST = 0.25  # of the clip's side: the least extent of thin objects
SHORTEST = 0.25  # seconds that a clip spans at least
FASTEST = 3.0  # speeds of an ordinary object: the most that a thin one has


@dataclass(frozen=True)
class ComposeConfig:
    """What clips look like. Shares are probabilities; sizes are fractions of the clip's side."""

    size: int = 160
    """Pixels of a clip's side, a multiple of 16."""
    frames: int = 4
    real_share: float = 0.25
    """Clips whose background is a real sequence with its object as a target."""
    in_place_share: float = 0.15
    """Clips whose first target is a region of the background photograph itself."""
    region_border_share: float = 1.0
    """Most of the photograph's border that such a region may lie along."""
    thing_share: float = 0.0
    """Photographs from which a whole thing is taken, in place or pasted, instead of regions."""
    nearest: float = 0.4
    """Least part of a picture's shorter side that a clip's first frame shows; all of it at most."""
    real_cut_out_share: float = 0.15
    """Pasted objects that are cut out of real sequences, with their real deformation."""
    smallest: float = 0.1
    largest: float = 0.75
    """Range of a pasted object's longer side."""
    look_alike_share: float = 0.3
    occluder_share: float = 0.3
    hiding_share: float = 0.15
    """Clips in which something passes that hides a target completely."""
    swap_share: float = 0.15
    """Clips in which the order of the layers changes on the way."""
    min_target_share: float = 0.0
    """Least area of a target on the first frame, as a share of the frame's."""
    bridge_share: float = 0.0
    """Clips in which a target passes under something that stays where it is."""
    impostor_share: float = 0.0
    """Bridges from under which a look-alike comes out while the target is there."""
    cousin_share: float = 0.0
    """Look-alikes that are like their twin but not the same: other spots, another tint."""
    shadow_share: float = 0.0
    """Pasted objects that throw a shadow."""
    moving_light_share: float = 0.0
    """Clips under light that moves, as through water or leaves."""
    meeting_share: float = 0.5
    """Look-alikes that come to where their twin is at some moment."""
    absence_share: float = 0.0
    """Clips in which a pasted target is away for some frames and comes back at another place."""
    cut_share: float = 0.0
    """Clips that cut to another scene for some frames and back."""
    thin_share: float = 0.0
    """Pasted objects that are thin (rods, rings, frames), many of them fast."""
    follow_share: float = 0.0
    """Clips of real sequences whose view follows the object and shows it at its own scale."""
    real_twin_share: float = 0.0
    """Clips of real sequences in which a twin of the object crosses it."""
    pause_share: float = 0.0
    """Clips that stand still for two or three frames somewhere on the way."""
    longest: float = 3.0
    """Seconds that a clip may span; the motion between frames grows with it."""

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= self.largest:
            raise ValueError(
                f"smallest must be above 0 and not above largest ({self.largest}), not "
                f"{self.smallest}"
            )
        if not 0 < self.nearest <= 1:
            raise ValueError(f"nearest must be above 0 and at most 1, not {self.nearest}")
        if not self.longest >= SHORTEST:
            raise ValueError(f"longest must be at least {SHORTEST}, not {self.longest}")


@dataclass
class _Layer:
    cut_out: CutOut
    path: Path
    label: int
    depth: float
    gain: FloatArray
    shadow: tuple[int, int] | None = None
    """Pixels (x, y) from the object to its shadow."""


def own_stream(seed: tuple[int, ...], number: int) -> np.random.Generator:
    """The `number`-th random stream for what is decided beside the clips of a seed."""
    # NumPy fills short seeds up with zeros: default_rng((a, b)) is that of the clip (a, b, 0, 0).
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))


class Composer:
    """Makes clips. compose(seed, objects=K) always returns the same clip for the same seed."""

    def __init__(self, material: Material, config: ComposeConfig | None = None) -> None:
        self.material = material
        self.config = config or ComposeConfig()

    def compose(self, seed: tuple[int, ...], *, objects: int = 1) -> Clip:
        """One clip in which every target is visible on the first frame.

        Raises MaterialError if no such clip came of many tries.
        """
        least = max(MIN_TARGET_PIXELS, self.config.min_target_share * self.config.size**2)
        for attempt in range(ATTEMPTS):
            clip = self._try((*seed, attempt), objects)
            areas = [np.count_nonzero(clip.labels[0] == k) for k in range(1, objects + 1)]
            if min(areas) >= least:
                return clip
        raise MaterialError(
            f"{ATTEMPTS} tries made no clip of {objects} targets that each show {least:.0f} of "
            f"{self.config.size**2} pixels; lower min_target_share, or give other material"
        )

    def _try(self, seed: tuple[int, ...], objects: int) -> Clip:
        rng = np.random.default_rng(seed)
        config = self.config
        seconds = float(np.exp(rng.uniform(np.log(SHORTEST), np.log(config.longest))))
        times = np.linspace(0, seconds, config.frames)
        times[1:-1] += rng.uniform(-0.3, 0.3, max(0, config.frames - 2)) * times[1]
        if config.pause_share and config.frames > 4 and rng.random() < config.pause_share:
            start = int(rng.integers(1, config.frames - 3))
            times[start + 1 : start + int(rng.integers(2, 4))] = times[start]
        times = times.astype(np.float32)
        energy = float(rng.uniform(0.15, 1.0))

        base = self._base(rng, times, energy)
        layers: list[_Layer] = []
        first_pasted = 2 if base.has_object else 1
        for label in range(first_pasted, objects + 1):
            layers.append(self._pasted(rng, times, energy, label))
        if layers and rng.random() < config.look_alike_share:
            layers.append(self._look_alike(rng, times, energy, layers[-1]))
            if objects >= first_pasted + 1 and rng.random() < 0.5:  # twins, both targets
                layers[-2].cut_out = layers[0].cut_out
        for _ in range(int(rng.choice([0, 1, 2], p=[0.55, 0.3, 0.15]))):
            layers.append(self._pasted(rng, times, energy, 0))
        if rng.random() < config.occluder_share:
            layers.append(self._crossing(rng, times, energy, layers, cover=False))
        targets = [layer for layer in layers if layer.label]
        if targets and config.bridge_share and rng.random() < config.bridge_share:
            target = targets[int(rng.integers(len(targets)))]
            bridge = self._bridge(rng, times, target)
            if config.impostor_share and rng.random() < config.impostor_share:
                layers.append(self._impostor(rng, times, energy, target, bridge))
            layers.append(bridge)
        elif layers and rng.random() < config.hiding_share:
            layers.append(self._crossing(rng, times, energy, layers, cover=True))
        leaves = bool(targets) and config.frames > 2 and config.absence_share > 0
        if leaves and rng.random() < config.absence_share:
            self._absent(rng, targets[int(rng.integers(len(targets)))])
        swap = None
        if rng.random() < config.swap_share and config.frames > 2:
            swap = int(rng.integers(1, config.frames))
        clip = self._render(rng, base, layers, swap)
        if config.cut_share and config.frames > 2 and rng.random() < config.cut_share:
            self._cut_away(rng, clip, times, energy)
        if config.moving_light_share and rng.random() < config.moving_light_share:
            move_light(rng, clip, times)
        return shoot(rng, clip, times)

    def _base(self, rng: np.random.Generator, times: FloatArray, energy: float) -> Base:
        config, kind = self.config, rng.random()
        if self.material.sequences and kind < config.real_share:
            sequence = self.material.sequences[int(rng.integers(len(self.material.sequences)))]
            follow = bool(config.follow_share) and rng.random() < config.follow_share
            return real_base(
                rng,
                sequence,
                times,
                config.size,
                energy=energy,
                nearest=config.nearest,
                follow=follow,
                twin=bool(config.real_twin_share) and rng.random() < config.real_twin_share,
            )
        in_place = bool(self.material.with_regions) and (
            kind < config.real_share + config.in_place_share
        )
        return still_base(
            rng,
            self.material,
            times,
            config.size,
            energy=energy,
            with_object=in_place,
            border_share=config.region_border_share,
            thing_share=config.thing_share,
            nearest=config.nearest,
        )

    def _pasted(
        self, rng: np.random.Generator, times: FloatArray, energy: float, label: int
    ) -> _Layer:
        config, size = self.config, self.config.size
        span = np.log(config.smallest), np.log(config.largest)
        extent = size * float(np.exp(rng.uniform(*span)))
        cut_out: CutOut | None = None
        reach = 0.5 * size
        bend = float(rng.uniform(0, 0.12)) if rng.random() < 0.7 else 0.0
        if self.material.sequences and rng.random() < config.real_cut_out_share:
            sequence = self.material.sequences[int(rng.integers(len(self.material.sequences)))]
            cut_out = real_cut_out(rng, sequence, len(times), extent)
            bend *= 0.3
        elif config.thin_share and rng.random() < config.thin_share:
            cut_out = thin_cut_out(rng, self.material, max(extent, THIN_LEAST * size))
            reach *= float(rng.uniform(1, FASTEST))
        if cut_out is None:
            cut_out = still_cut_out(rng, self.material, extent, thing_share=config.thing_share)
        start = rng.uniform(0.12, 0.88, 2) * size
        path = random_path(rng, times, start, reach=reach, energy=energy, bend=bend)
        gain = (1 + wobble_gain(rng, times)).astype(np.float32)
        layer = _Layer(cut_out, path, label, float(rng.random()), gain)
        if config.shadow_share and rng.random() < config.shadow_share:
            x, y = rng.integers(-int(0.2 * extent) - 1, int(0.2 * extent) + 2, 2)
            layer.shadow = int(x), int(y)
        return layer

    def _look_alike(
        self, rng: np.random.Generator, times: FloatArray, energy: float, twin: _Layer
    ) -> _Layer:
        """The same picture once more, which often comes close to or crosses its twin."""
        copy = self._pasted(rng, times, energy, 0)
        copy.cut_out = twin.cut_out
        if self.config.cousin_share and rng.random() < self.config.cousin_share:
            copy.cut_out = _cousin(rng, twin.cut_out)
        if rng.random() < self.config.meeting_share and len(times) > 2:
            meet = int(rng.integers(1, len(times)))
            offset = twin.path.centre[meet] - copy.path.centre[meet]
            ramp = (times / max(float(times[meet]), 1e-3))[:, None]
            centre = copy.path.centre + np.minimum(ramp, 1.5) * offset
            copy.path = _moved(copy.path, centre)
        return copy

    def _crossing(
        self,
        rng: np.random.Generator,
        times: FloatArray,
        energy: float,
        layers: list[_Layer],
        *,
        cover: bool,
    ) -> _Layer:
        """An occluder in front of everything that passes over a target; cover: hides it whole."""
        size = self.config.size
        layer = self._pasted(rng, times, energy, 0)
        targets = [other for other in layers if other.label]
        meet = int(rng.integers(1, len(times))) if len(times) > 1 else 0
        if targets:
            target = targets[int(rng.integers(len(targets)))]
            goal = target.path.centre[meet]
            grown = float(np.exp(target.path.log_scale[meet]))
            extent = target.cut_out.extent * grown * (rng.uniform(1.3, 1.8) if cover else 0.7)
        else:
            goal = rng.uniform(0.2, 0.8, 2) * size
            extent = rng.uniform(0.2, 0.5) * size
        extent = float(np.clip(extent, 0.08 * size, 1.2 * size))
        layer.cut_out = still_cut_out(rng, self.material, extent)
        if cover:
            layer.cut_out.pictures[0][..., 3] = _filled(layer.cut_out.pictures[0][..., 3])
        heading = rng.uniform(0, 2 * np.pi)
        gap = max(float(times[-1]) / max(1, len(times) - 1), 1e-3)
        # Fast enough to have left the target a frame or two later.
        speed = extent * rng.uniform(0.5, 1.3) / gap
        direction = np.array([np.cos(heading), np.sin(heading)])
        centre = goal + (times - times[meet])[:, None] * speed * direction
        layer.path = _moved(layer.path, centre)
        layer.depth = 2.0
        return layer

    def _bridge(self, rng: np.random.Generator, times: FloatArray, target: _Layer) -> _Layer:
        """A strip across the whole view; the target's path is bent to lead under it."""
        size, extent = self.config.size, target.cut_out.extent
        width = int(np.clip(extent * rng.uniform(0.7, 1.6), 12, 0.5 * size))
        start = target.path.centre[0]
        towards = rng.uniform(0.35, 0.65, 2) * size - start
        direction = towards / (np.linalg.norm(towards) + 1e-3)
        length = width + extent * rng.uniform(1.1, 1.6)
        # Smooth progress that reaches the far side by the last frame or stops under the bridge.
        progress = np.clip(times / (times[-1] * rng.uniform(0.7, 1.2)), 0, 1)
        progress = progress * progress * (3 - 2 * progress)
        target.path = _moved(target.path, start + progress[:, None] * length * direction)
        middle = start + 0.5 * length * direction
        strip = np.full((3 * size, width, 4), 255, np.uint8)
        surface = (
            fractal_texture(rng, 3 * size, width)
            if rng.random() < 0.4
            else cv2.resize(random_window(rng, self.material, size), (width, 3 * size))
        )
        strip[..., :3] = surface
        strip[:, [0, -1], 3] = 0
        count = len(times)
        still = np.zeros(count, np.float32)
        angle = np.full(count, np.arctan2(direction[1], direction[0]), np.float32)
        centre = np.repeat(middle[None].astype(np.float32), count, axis=0)
        path = Path(centre, still, angle, still, None)
        return _Layer(CutOut([strip]), path, 0, 1.5, np.ones(count, np.float32))

    def _impostor(
        self,
        rng: np.random.Generator,
        times: FloatArray,
        energy: float,
        target: _Layer,
        bridge: _Layer,
    ) -> _Layer:
        """A look-alike that starts under the bridge and leaves it on either side."""
        size = self.config.size
        layer = self._look_alike(rng, times, energy, target)
        angle = float(bridge.path.angle[0])
        across = np.array([np.cos(angle), np.sin(angle)])
        along = np.array([-across[1], across[0]])
        start = bridge.path.centre[0] + rng.uniform(-0.35, 0.35) * size * along
        way = rng.choice([-1.0, 1.0]) * across + rng.normal(0, 0.4) * along
        reach = target.cut_out.extent * rng.uniform(1.0, 2.5)
        late = rng.uniform(0.0, 0.5)  # it waits there for a part of the clip
        progress = np.clip((times / times[-1] - late) / (1 - late), 0, 1)
        layer.path = _moved(layer.path, start + progress[:, None] * reach * way)
        return layer

    def _absent(self, rng: np.random.Generator, target: _Layer) -> None:
        """Takes a target out of view for some frames, after which it goes on somewhere else."""
        size, count = self.config.size, self.config.frames
        leaves, returns = sorted(rng.choice(np.arange(1, count), 2, replace=False))
        centre = target.path.centre.copy()
        centre[returns:] += rng.uniform(0.15, 0.85, 2) * size - centre[returns]
        centre[leaves:returns] = OUT_OF_VIEW * size
        target.path = _moved(target.path, centre)

    def _cut_away(
        self, rng: np.random.Generator, clip: Clip, times: FloatArray, energy: float
    ) -> None:
        """Puts another scene, without targets, in the place of some frames."""
        base = self._base(rng, times, energy)
        layers = [self._pasted(rng, times, energy, 0) for _ in range(int(rng.integers(3)))]
        other = self._render(rng, base, layers, None)
        begins, ends = sorted(rng.choice(np.arange(1, self.config.frames), 2, replace=False))
        clip.frames[begins:ends] = other.frames[begins:ends]
        clip.labels[begins:ends] = 0

    def _render(
        self, rng: np.random.Generator, base: Base, layers: list[_Layer], swap: int | None
    ) -> Clip:
        size, count = self.config.size, self.config.frames
        frames = np.empty((count, size, size, 3), np.uint8)
        labels = np.zeros((count, size, size), np.uint8)
        order = sorted(layers, key=lambda layer: layer.depth)
        for t in range(count):
            if t == swap:
                order = [order[i] for i in rng.permutation(len(order))]
            picture = base.render(t, size)
            canvas = np.ascontiguousarray(picture[..., :3])
            if base.has_object:
                labels[t] = picture[..., 3] > MASK_THRESHOLD
            for layer in order:
                _paste(canvas, labels[t], layer, t)
            frames[t] = canvas
        return Clip(frames, labels)


def wobble_gain(rng: np.random.Generator, times: FloatArray) -> FloatArray:
    """Small changes of an object's own brightness, [T] around 0."""
    level = rng.normal(0, 0.08)
    change = rng.normal(0, 0.08) * (times - times[0])
    return np.clip(level + change, -0.4, 0.4).astype(np.float32)


def _moved(path: Path, centre: FloatArray) -> Path:
    return Path(centre.astype(np.float32), path.log_scale, path.angle, path.shear, path.bend)


def _cousin(rng: np.random.Generator, cut_out: CutOut) -> CutOut:
    """Like the cut-out, but mirrored, tinted and spotted another way."""
    tint = rng.normal(1, 0.1, 3)
    height, width = cut_out.pictures[0].shape[:2]
    grid = rng.standard_normal((6, 6)).astype(np.float32)
    spots = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    spotted = spots > rng.uniform(0.3, 1.5)
    ink = rng.uniform(0, 255, 3)
    mirrored = rng.random() < 0.5
    pictures = []
    for picture in cut_out.pictures:
        colour = picture[..., :3].astype(np.float32) * tint
        colour[spotted] = 0.3 * colour[spotted] + 0.7 * ink
        cousin = np.dstack([np.clip(colour, 0, 255).astype(np.uint8), picture[..., 3]])
        pictures.append(np.ascontiguousarray(cousin[::-1] if mirrored else cousin))
    return CutOut(pictures)


def _filled(alpha: UInt8Array) -> UInt8Array:
    """The convex hull of a shape, so that nothing shows through an occluder."""
    contours, _ = cv2.findContours(
        (alpha > MASK_THRESHOLD).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    filled = np.zeros_like(alpha)
    if contours:
        cv2.fillConvexPoly(filled, cv2.convexHull(np.concatenate(contours)), 255)
    return filled


def _paste(canvas: UInt8Array, labels: UInt8Array, layer: _Layer, t: int) -> None:
    picture = layer.cut_out.at(t)
    size = canvas.shape[0]
    if layer.shadow is not None:
        _throw_shadow(canvas, layer, t)
    reach = 0.8 * max(picture.shape[:2]) * float(np.exp(layer.path.log_scale[t])) + 4
    cx, cy = layer.path.centre[t]
    x0, x1 = max(0, int(cx - reach)), min(size, int(cx + reach) + 1)
    y0, y1 = max(0, int(cy - reach)), min(size, int(cy + reach) + 1)
    if x0 >= x1 or y0 >= y1:
        return
    side = max(x1 - x0, y1 - y0)
    shifted = _moved(layer.path, layer.path.centre - np.array([x0, y0], np.float32))
    warped = warp(picture, shifted, t, side, border=cv2.BORDER_CONSTANT)
    warped = warped[: y1 - y0, : x1 - x0]
    alpha = warped[..., 3:].astype(np.float32) * (1 / 255)
    colour = np.clip(warped[..., :3].astype(np.float32) * layer.gain[t], 0, 255)
    window = canvas[y0:y1, x0:x1]
    window[:] = (window + alpha * (colour - window)).astype(np.uint8)
    labels[y0:y1, x0:x1][warped[..., 3] > MASK_THRESHOLD] = layer.label


def _throw_shadow(canvas: UInt8Array, layer: _Layer, t: int) -> None:
    alpha = np.ascontiguousarray(layer.cut_out.at(t)[..., 3])
    assert layer.shadow is not None
    moved = _moved(layer.path, layer.path.centre + np.array(layer.shadow, np.float32))
    shade = warp(alpha, moved, t, canvas.shape[0], border=cv2.BORDER_CONSTANT)
    soft = cv2.GaussianBlur(shade, (0, 0), 2.0).astype(np.float32)
    canvas[:] = (canvas * (1 - soft[..., None] * (0.45 / 255))).astype(np.uint8)

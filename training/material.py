# SPDX-License-Identifier: Apache-2.0
"""What clips are composed of: photographs with regions, real sequences, procedural textures.

Everything here is loaded once and only read afterwards, so worker processes share it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

UInt8Array = NDArray[np.uint8]

# Clips are composed in forked workers, which would wait for ever for OpenCV's threads: those do
# not survive the fork. One thread is also the faster choice on pictures this small.
cv2.setNumThreads(0)

TRAINING_SEQUENCES = (
    "blackswan",
    "car-shadow",
    "dance-twirl",
    "dog",
    "drift-straight",
    "libby",
    "paragliding-launch",
)
HELD_OUT_SEQUENCES = ("breakdance", "camel", "parkour")
SEQUENCE_HEIGHT = 360  # pixels; real frames are kept at this height
# Colour photographs that the scikit-image package itself carries (no download).
SAMPLE_PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "color.png")
SAMPLE_TEXTURES = ("brick.png", "grass.png", "gravel.png")
MIN_REGION_SHARE, MAX_REGION_SHARE = 0.003, 0.45  # of the photograph's area
MAX_THING_SHARE = 0.6
THING_BORDER_SHARE = 0.03
"""Of a photograph's border: a region along more of it is what stands behind things."""


class MaterialError(ValueError):
    """The training material is missing or unreadable."""


@dataclass(frozen=True)
class Photograph:
    """image: RGB uint8 [H, W, 3]; regions: uint8 [H, W] region numbers, or None."""

    image: UInt8Array
    regions: UInt8Array | None = None


@dataclass(frozen=True)
class Sequence:
    """pictures: RGBA uint8 [T, H, W, 4], alpha being the object's mask, 0 or 255."""

    name: str
    pictures: UInt8Array


@dataclass(frozen=True)
class Material:
    """Everything that clips are composed of."""

    photographs: list[Photograph]
    sequences: list[Sequence] = field(default_factory=list)

    @property
    def with_regions(self) -> list[Photograph]:
        """Those that can be cut along their regions."""
        return [p for p in self.photographs if p.regions is not None]


def read_rgb(path: Path) -> UInt8Array:
    """Reads an image file as RGB uint8 [H, W, 3]. Raises MaterialError when it cannot."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise MaterialError(f"cannot read the image {path}; check that the file is complete")
    return np.ascontiguousarray(image[..., ::-1]).astype(np.uint8, copy=False)


def read_grey(path: Path) -> UInt8Array:
    """Reads an 8-bit one-channel file, uint8 [H, W]. Raises MaterialError when it cannot."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 2:
        raise MaterialError(f"cannot read {path} as an 8-bit one-channel image")
    return image.astype(np.uint8, copy=False)


def load_sequence(root: Path, name: str, *, height: int = SEQUENCE_HEIGHT) -> Sequence:
    """Loads one sequence of a DAVIS-like folder at the given height (pixels)."""
    pictures = []
    paths = sorted((root / "JPEGImages" / "480p" / name).glob("*.jpg"))
    if not paths:
        raise MaterialError(f"no frames of {name!r} under {root}; expected JPEGImages/480p/{name}")
    for path in paths:
        image = read_rgb(path)
        mask = read_grey(root / "Annotations" / "480p" / name / f"{path.stem}.png")
        width = round(image.shape[1] * height / image.shape[0])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
        pictures.append(np.dstack([image, np.where(mask > 127, 255, 0).astype(np.uint8)]))
    return Sequence(name, np.stack(pictures))


def load_samples() -> list[Photograph]:
    """The sample photographs and textures that scikit-image carries in its wheel."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    found = [folder / n for n in SAMPLE_PHOTOGRAPHS + SAMPLE_TEXTURES if (folder / n).is_file()]
    if not found:
        raise MaterialError(f"scikit-image's sample photographs are not in {folder}; reinstall it")
    photographs = []
    for path in found:
        image = read_rgb(path)
        scale = 360 / min(image.shape[:2])
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        photographs.append(Photograph(image.astype(np.uint8, copy=False)))
    return photographs


def load_material(
    data_root: Path | None,
    *,
    max_photographs: int | None = None,
    sequences: tuple[str, ...] = TRAINING_SEQUENCES,
) -> Material:
    """Loads what is there: scikit-image's samples always, BSDS500 and real clips if found.

    data_root: the folder that holds ``bsds500`` and ``davis2016-dev``, or None.
    Raises MaterialError when a held-out sequence is asked for.
    """
    held_out = set(sequences) & set(HELD_OUT_SEQUENCES)
    if held_out:
        raise MaterialError(f"{sorted(held_out)} are held out and are never trained on")
    photographs = load_samples()
    real: list[Sequence] = []
    if data_root is not None and data_root.is_dir():
        paths = sorted((data_root / "bsds500" / "images").glob("*.jpg"))[:max_photographs]
        for path in paths:
            regions = data_root / "bsds500" / "regions" / f"{path.stem}.png"
            photographs.append(Photograph(read_rgb(path), read_grey(regions)))
        davis = data_root / "davis2016-dev"
        if davis.is_dir():
            real = [load_sequence(davis, name) for name in sequences]
    return Material(photographs, real)


def fractal_texture(rng: np.random.Generator, height: int, width: int) -> UInt8Array:
    """A procedural texture, RGB uint8 [height, width, 3]: octaves of noise through a palette.

    Sometimes overlaid with stripes or checks, so that man-made surfaces occur too.
    """
    value = np.zeros((height, width), np.float32)
    cells, weight = int(rng.integers(2, 7)), 1.0
    persistence = rng.uniform(0.45, 0.8)
    while cells < min(height, width):
        grid = rng.standard_normal((cells, cells)).astype(np.float32)
        value += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2, weight * persistence
    value = (value - value.mean()) / (value.std() + 1e-6)
    if rng.random() < 0.4:
        angle, period = rng.uniform(0, np.pi), rng.uniform(6, 40)
        ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
        phase = 2 * np.pi * (xs * np.cos(angle) + ys * np.sin(angle)) / period
        stripes = np.sign(np.sin(phase + value))
        if rng.random() < 0.4:
            across = 2 * np.pi * (ys * np.cos(angle) - xs * np.sin(angle)) / period
            stripes = stripes * np.sign(np.sin(across))
        value = 0.4 * value + stripes
    palette = rng.uniform(0, 255, (5, 3)).astype(np.float32)
    stops = np.linspace(-2, 2, len(palette))
    colour = np.stack([np.interp(value, stops, palette[:, c]) for c in range(3)], axis=-1)
    return colour.astype(np.uint8)


def blob_mask(rng: np.random.Generator, size: int) -> UInt8Array:
    """A closed smooth or jagged shape, uint8 [size, size] with 0 or 255."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = np.ones_like(angles)
    roughness = rng.uniform(0.1, 0.5)
    for harmonic in range(2, 7):
        phase = rng.uniform(0, 2 * np.pi)
        radius += roughness * rng.standard_normal() / harmonic * np.cos(harmonic * angles + phase)
    radius = np.clip(radius, 0.2, 2.0)
    squash = rng.uniform(0.35, 1.0)
    points = np.stack([radius * np.cos(angles), squash * radius * np.sin(angles)], axis=1)
    points *= 0.48 * size / np.abs(points).max()
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(points + size / 2).astype(np.int32)], 255)
    return mask


def choose_region(
    rng: np.random.Generator, regions: UInt8Array, *, border_share: float = 1.0
) -> UInt8Array | None:
    """The union of one to three neighbouring regions, uint8 [H, W] with 0 or 255; None if
    the photograph has no region of a useful size.

    border_share: most of the photograph's border that it may lie along.
    """
    share = np.bincount(regions.ravel(), minlength=256) / regions.size
    along = _along_border(regions)
    useful = np.flatnonzero(
        (share > MIN_REGION_SHARE) & (share < MAX_REGION_SHARE) & (along <= border_share)
    )
    if len(useful) == 0:
        return None
    taken = [int(rng.choice(useful))]
    mask = np.where(regions == taken[0], 255, 0).astype(np.uint8)
    for _ in range(int(rng.choice([0, 1, 2], p=[0.5, 0.3, 0.2]))):
        ring = cv2.dilate(mask, np.ones((5, 5), np.uint8)) > mask
        neighbours = np.setdiff1d(np.flatnonzero(np.bincount(regions[ring])), taken)
        if len(neighbours) == 0:
            break
        taken.append(int(rng.choice(neighbours)))
        grown = mask | np.where(regions == taken[-1], 255, 0).astype(np.uint8)
        if np.count_nonzero(grown) / grown.size > MAX_REGION_SHARE:
            break
        if along[taken].sum() > border_share:
            break
        mask = grown
    return mask


def choose_thing(rng: np.random.Generator, regions: UInt8Array) -> UInt8Array | None:
    """A whole thing, uint8 [H, W] with 0 or 255: a person with clothes and bag, an animal with its
    spots. None if the photograph has none of a useful size.

    All regions that hardly lie along the photograph's border, as far as they hang together. Things
    are drawn in proportion to their areas.
    """
    inner = (_along_border(regions) <= THING_BORDER_SHARE)[regions]
    _, things = cv2.connectedComponents(inner.astype(np.uint8), connectivity=4)
    areas = np.bincount(things.ravel()) / things.size
    areas[0] = 0  # what is behind them
    areas[(areas < MIN_REGION_SHARE) | (areas > MAX_THING_SHARE)] = 0
    if not areas.any():
        return None
    chosen = int(rng.choice(len(areas), p=areas / areas.sum()))
    return np.where(things == chosen, 255, 0).astype(np.uint8)


def _along_border(regions: UInt8Array) -> NDArray[np.float64]:
    """The share of the photograph's border that each region lies along, float [256]."""
    edges = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    return np.bincount(edges, minlength=256) / edges.size

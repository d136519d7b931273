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

TUNING_SEQUENCES = (
    "bmx-bumps",
    "dance-jump",
    "drift-turn",
    "mallard-water",
    "scooter-gray",
    "soccerball",
)
"""Of DAVIS 2016's training set, kept for tuning, early stopping, calibration and settings."""
TRAINING_SEQUENCES = (
    "bear",
    "boat",
    "breakdance-flare",
    "bus",
    "car-turn",
    "dog-agility",
    "elephant",
    "flamingo",
    "hike",
    "hockey",
    "horsejump-low",
    "kite-walk",
    "lucia",
    "mallard-fly",
    "motocross-bumps",
    "motorbike",
    "paragliding",
    "rhino",
    "rollerblade",
    "stroller",
    "surf",
    "swing",
    "tennis",
    "train",
)
"""The rest of DAVIS 2016's training set. Nothing of its validation set is trained or tuned on."""
DAVIS_TRAIN = "davis2016-train"
"""The folder of both, beneath the data's."""
PHOTOGRAPH_FOLDERS = ("bsds500", "clothing")
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
    """A real sequence, kept as its files' bytes: decoded, 24 of them would fill 1.5 GB twice."""

    name: str
    images: tuple[bytes, ...]
    """Colour images."""
    masks: tuple[bytes, ...]
    """Of each frame the object's mask, 0 or 255."""

    def __len__(self) -> int:
        return len(self.images)

    def picture(self, index: int) -> UInt8Array:
        """A frame as RGBA uint8 [H, W, 4], alpha being the object's mask, 0 or 255."""
        image = cv2.imdecode(np.frombuffer(self.images[index], np.uint8), cv2.IMREAD_COLOR)
        mask = cv2.imdecode(np.frombuffer(self.masks[index], np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None or mask is None or mask.shape != image.shape[:2]:
            raise MaterialError(
                f"frame {index} of {self.name!r} cannot be read or has a wrong mask"
            )
        alpha = np.where(mask > 127, 255, 0)
        return np.dstack([image[..., ::-1], alpha]).astype(np.uint8, copy=False)


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
    if image is None or image.ndim != 2 or image.dtype != np.uint8:
        raise MaterialError(f"cannot read {path} as an 8-bit one-channel image")
    return np.asarray(image, np.uint8)


def load_sequence(root: Path, name: str) -> Sequence:
    """One sequence of DAVIS 2016's training set. Raises MaterialError where it is not there.

    root: the folder that holds JPEGImages/360p/NAME and Annotations/360p/NAME.
    """
    paths = sorted((root / "JPEGImages" / "360p" / name).glob("*.jpg"))
    masks = [root / "Annotations" / "360p" / name / f"{path.stem}.png" for path in paths]
    missing = [path for path in masks if not path.is_file()]
    if not paths or missing:
        where = missing[0] if missing else f"{root}/JPEGImages/360p/{name}"
        raise MaterialError(f"the sequence {name!r} is incomplete: there is no {where}")
    return Sequence(
        name, tuple(p.read_bytes() for p in paths), tuple(p.read_bytes() for p in masks)
    )


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
    folders: tuple[str, ...] = PHOTOGRAPH_FOLDERS,
    sequences: tuple[str, ...] = TRAINING_SEQUENCES,
) -> Material:
    """Loads what is there: scikit-image's samples always, photographs with regions and real
    sequences where they are found.

    data_root: the folder that holds ``bsds500``, ``clothing`` and ``davis2016-train``, or None.
    max_photographs: most of each of the folders, which hold photographs.
    Raises MaterialError when a sequence is asked for that is not for training.
    """
    refused = sorted(set(sequences) - set(TRAINING_SEQUENCES))
    if refused:
        raise MaterialError(
            f"{refused} are not of the training sequences and are never trained on: those are "
            f"{list(TRAINING_SEQUENCES)}"
        )
    photographs = load_samples()
    real: list[Sequence] = []
    if data_root is not None and data_root.is_dir():
        for folder in folders:
            paths = sorted((data_root / folder / "images").glob("*.jpg"))[:max_photographs]
            photographs += [load_photograph(path) for path in paths]
        davis = data_root / DAVIS_TRAIN
        if davis.is_dir():
            real = [load_sequence(davis, name) for name in sequences]
    return Material(photographs, real)


def load_photograph(path: Path) -> Photograph:
    """A photograph images/NAME.jpg with its regions, which lie at regions/NAME.png."""
    beside = path.parents[1] / "regions" / f"{path.stem}.png"
    image, regions = read_rgb(path), read_grey(beside)
    if regions.shape != image.shape[:2]:
        raise MaterialError(
            f"{beside} has {regions.shape[0]} rows of {regions.shape[1]} pixels, its photograph "
            f"{image.shape[0]} of {image.shape[1]}"
        )
    return Photograph(image, regions)


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


def thin_mask(rng: np.random.Generator, size: int) -> UInt8Array:
    """A few rods and rings that hang together, uint8 [size, size] with 0 or 255."""
    mask = np.zeros((size, size), np.uint8)
    thickness = max(2, round(size * rng.uniform(0.03, 0.1)))
    inside = thickness, size - thickness
    here = rng.integers(*inside, 2)
    for _ in range(int(rng.integers(1, 6))):
        there = rng.integers(*inside, 2)
        cv2.line(mask, here.tolist(), there.tolist(), (255,), thickness)
        if rng.random() < 0.35:
            radius = int(rng.uniform(0.08, 0.25) * size)
            cv2.circle(mask, there.tolist(), radius, (255,), thickness)
        here = there
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

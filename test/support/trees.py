# SPDX-License-Identifier: Apache-2.0
"""A tiny untrained network and tiny sequences, for the tests of data, evaluation and demo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lazyxmem_ros.xmem import EncoderConfig, NetworkConfig, XMem, save_network

SIZE = (64, 96)


def moving_labels(index: int, ids: tuple[int, ...]) -> np.ndarray:
    """Squares that wander to the right, one per object id."""
    labels = np.zeros(SIZE, np.uint16)
    for number, object_id in enumerate(ids):
        left = 4 + 3 * index + 30 * number
        labels[10 + 20 * number : 28 + 20 * number, left : left + 18] = object_id
    return labels


def picture_of(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """A picture in which each object has a colour of its own."""
    image = np.random.default_rng(seed).integers(40, 90, (*SIZE, 3), dtype=np.uint8)
    for object_id in np.unique(labels[labels > 0]):
        number = int(object_id)
        image[labels == number] = (250 - 70 * (number % 3), 60, 20 + 90 * (number % 2))
    return image


def save_tiny_weights(folder: Path) -> Path:
    """Saves a checkpoint of an untrained network of XMem's plan, small enough for tests."""
    torch.manual_seed(0)
    encoder = EncoderConfig("basic", 8, (1, 1, 1), (8, 16, 32))
    network = XMem(
        NetworkConfig(encoder, encoder, 16, 32, 8, decoder_dims=(32, 16, 16), hidden_update_dim=16)
    )
    path = folder / "tiny.safetensors"
    save_network(network, path)
    return path


def tree_maker(folder: Path) -> Callable[..., Path]:
    """A maker of DAVIS-like trees: frames, and which objects the masks of which frames show."""

    def make(
        name: str,
        frames: int,
        masks: dict[int, tuple[int, ...]],
        *,
        binary: bool = False,
        resolution: str = "480p",
        start: int = 0,
    ) -> Path:
        root = folder / "tree"
        images = root / "JPEGImages" / resolution / name
        annotations = root / "Annotations" / resolution / name
        images.mkdir(parents=True)
        annotations.mkdir(parents=True)
        everything = tuple(sorted({entry for ids in masks.values() for entry in ids}))
        for index in range(frames):
            labels = moving_labels(index, everything)
            Image.fromarray(picture_of(labels, index)).save(
                images / f"{start + index:05d}.jpg", quality=95
            )
            if index in masks:
                shown = np.where(np.isin(labels, masks[index]), labels, 0).astype(np.uint8)
                if binary:
                    shown = np.where(shown > 0, 255, 0).astype(np.uint8)
                picture = Image.fromarray(shown)
                if not binary:
                    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
                picture.save(annotations / f"{start + index:05d}.png")
        return root

    return make


def save_grey(path: Path, *shown: int) -> None:
    """A grey PNG with a square of each value, as an annotation tool writes it."""
    values = np.zeros((8, 16), np.uint8)
    for number, value in enumerate(shown):
        values[2:6, 1 + 5 * number : 5 + 5 * number] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)

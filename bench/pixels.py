# SPDX-License-Identifier: Apache-2.0
"""Pixels on their way in and out: channel order, normalisation, probabilities at the image's size.

    tools/run python bench/pixels.py [--repeat 15]

Beside each stands the plain way of doing the same: NumPy's reversed channels, normalising before
scaling, PyTorch's interpolation. They run in turn in this process with one thread. Shown are the
medians of processor time, and the median and quartiles of the ratio of each pair; the outcomes must
agree, or the run ends with an error. Writes out/bench/pixels.md.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from bench.pairs import Pair, compared
from lazyxmem_ros.evaluation.printing import markdown_table, screen_table
from lazyxmem_ros.weights import EMBEDDED_INTERNAL_SIZE
from lazyxmem_ros.xmem.inputs import Inputs, inner_size, outputs, pad
from lazyxmem_ros.xmem.network import IMAGE_MEAN, IMAGE_STD, STRIDE

OUT = Path("out/bench")
SIZES = ((480, 854), (1080, 1920))
CLASSES = 2
"""Background and one object."""
TOLERANCE = 1e-4

Image = NDArray[np.uint8]


def reversed_channels(image: Image) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image[..., ::-1]))


def converted(image: Image) -> Tensor:
    return torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def normalised_first(image: Image) -> Tensor:
    mean, std = (torch.tensor(each)[:, None, None] for each in (IMAGE_MEAN, IMAGE_STD))
    pixels = (torch.from_numpy(image).permute(2, 0, 1).float() / 255 - mean) / std
    inner = inner_size((image.shape[0], image.shape[1]), EMBEDDED_INTERNAL_SIZE)
    return pad(F.interpolate(pixels[None], inner, mode="area")[0])[None]


def interpolated(probabilities: Tensor, inner: tuple[int, int], size: tuple[int, int]) -> Tensor:
    top, left = (-inner[0] % STRIDE) // 2, (-inner[1] % STRIDE) // 2
    cropped = probabilities[:, top : top + inner[0], left : left + inner[1]]
    return F.interpolate(cropped[None], size, mode="bilinear", align_corners=False)[0]


def pairs(size: tuple[int, int]) -> dict[str, Pair]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    inputs = Inputs(torch.device("cpu"), EMBEDDED_INTERNAL_SIZE)
    inner = inner_size(size, EMBEDDED_INTERNAL_SIZE)
    padded = [side + -side % STRIDE for side in inner]
    probabilities = torch.rand(CLASSES, *padded)
    return {
        "BGR to RGB": Pair(partial(reversed_channels, image), partial(converted, image)),
        "scaled and normalised": Pair(
            partial(normalised_first, image),
            lambda: inputs.image(torch.from_numpy(image))[0],
        ),
        "probabilities to the image's size": Pair(
            partial(interpolated, probabilities, inner, size),
            partial(outputs, probabilities, inner, size),
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=15, help="runs of each pair, after one more")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows = [
        {"image": f"{size[1]}x{size[0]}", "what": what}
        | compared(pair, repeat=arguments.repeat, tolerance=TOLERANCE)
        for size in SIZES
        for what, pair in pairs(size).items()
    ]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "pixels.md").write_text(markdown_table(rows))
    Console().print(screen_table(rows))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Correctors: time and, on real pictures with known masks, the IoU that prompts lead to.

    tools/run python bench/correctors.py [--folder PATH] [--sam-hq CHECKPOINT] [--model vit_tiny]

The folder is one of DAVIS' plan (JPEGImages/480p/NAME, Annotations/480p/NAME); without one,
and without the sample data beside the project, the pictures are generated. SAM-HQ without a
checkpoint runs untrained: its times count then, its IoU does not and is left out.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lazyxmem_ros.correction import Corrector, Prompt, make_corrector
from lazyxmem_ros.correction.base import box_of_mask
from lazyxmem_ros.evaluation.metrics import region_similarity

SAMPLES = Path(__file__).parents[2] / "shared" / "data" / "davis2016-dev"
MAX_PICTURES = 12
SAM_PICTURES = 3
ROUGHNESS = 0.15
"""How far the spoilt priors are off, as a share of the square root of the object's area."""

Mask = NDArray[np.bool_]
Picture = tuple[NDArray[np.uint8], Mask]


def load_pictures(folder: Path) -> list[Picture]:
    """The first frame of each sequence, RGB uint8 [H, W, 3], and its mask bool [H, W]."""
    pictures = []
    for sequence in sorted((folder / "Annotations" / "480p").iterdir())[:MAX_PICTURES]:
        annotation = min(sequence.glob("*.png"))
        image = folder / "JPEGImages" / "480p" / sequence.name / f"{annotation.stem}.jpg"
        mask = np.array(Image.open(annotation).convert("L")) > 0
        if mask.any():
            pictures.append((np.array(Image.open(image).convert("RGB")), mask))
    return pictures


def make_pictures() -> list[Picture]:
    """Ellipses of one colour on another, under blurred noise."""
    generator = np.random.default_rng(0)
    pictures = []
    for _ in range(MAX_PICTURES // 2):
        canvas = np.zeros((480, 640), np.uint8)
        axes = tuple(int(a) for a in generator.integers(40, 120, 2))
        cv2.ellipse(canvas, (320, 240), axes, 30, 0, 360, (1,), -1)
        colours = generator.integers(0, 256, (2, 3)).astype(np.float32)
        noise = cv2.GaussianBlur(generator.normal(0, 60, (480, 640, 3)), (0, 0), 2)
        image = np.clip(colours[canvas] + noise, 0, 255).astype(np.uint8)
        pictures.append((image, canvas > 0))
    return pictures


def prompts_of(mask: Mask) -> dict[str, Prompt]:
    """One prompt of each kind, from the true mask."""
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    click = np.array([(x, y)], np.float32)
    side = max(3, int(ROUGHNESS * np.sqrt(mask.sum())))
    brush = np.ones((side, side), np.uint8)
    grown = cv2.dilate(mask.astype(np.uint8), brush) > 0
    shifted = np.roll(mask, (side // 2, side // 2), (0, 1))
    return {
        "click": Prompt(click),
        "box": Prompt(box=box_of_mask(mask)),
        "click + box": Prompt(click, box=box_of_mask(mask)),
        "click + grown prior": Prompt(click, mask=grown),
        "click + shifted prior": Prompt(click, mask=shifted),
    }


def measure(
    console: Console, corrector: Corrector, pictures: list[Picture], *, trained: bool
) -> None:
    """Prints a table of one corrector's times and IoU by prompt."""
    times: dict[str, list[float]] = {}
    found: dict[str, list[float]] = {}
    priors: dict[str, list[float]] = {}
    firsts = []
    for number, (image, truth) in enumerate(track(pictures, console=console, transient=True)):
        for position, (name, prompt) in enumerate(prompts_of(truth).items()):
            start = time.perf_counter()
            (result,) = corrector.refine(image, [prompt], image_key=number)
            elapsed = 1e3 * (time.perf_counter() - start)
            if position == 0:
                firsts.append(elapsed)  # the first prompt of an image pays for its embedding
            else:
                times.setdefault(name, []).append(elapsed)
            found.setdefault(name, []).append(region_similarity(result.mask, truth))
            if prompt.mask is not None:
                priors.setdefault(name, []).append(region_similarity(prompt.mask, truth))
    height, width = pictures[0][0].shape[:2]
    title = f"{corrector.name}, {len(pictures)} pictures of about {height}x{width}"
    table = Table("prompt", "ms, median", "IoU", "IoU of the prior", title=title)
    for name, values in found.items():
        elapsed_all = times.get(name, firsts)
        table.add_row(
            name if name in times else f"{name} (first of its image)",
            f"{statistics.median(elapsed_all):.0f}",
            f"{statistics.mean(values):.3f}" if trained else "untrained",
            f"{statistics.mean(priors[name]):.3f}" if name in priors else "",
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="pictures and masks in DAVIS' plan")
    parser.add_argument("--sam-hq", help="SAM-HQ's checkpoint; without it, untrained")
    parser.add_argument("--model", default="vit_tiny", help="SAM-HQ's size")
    parser.add_argument("--device", default="auto", help="SAM-HQ's: auto, cpu, cuda or cuda:N")
    arguments = parser.parse_args()
    console = Console()
    folder = arguments.folder or (SAMPLES if SAMPLES.is_dir() else None)
    pictures = load_pictures(folder) if folder else make_pictures()
    measure(console, make_corrector("grabcut"), pictures, trained=True)
    sam_hq = make_corrector(
        "sam_hq",
        device=arguments.device,
        checkpoint=arguments.sam_hq,
        model_type=arguments.model,
        untrained=arguments.sam_hq is None,
    )
    trained = arguments.sam_hq is not None
    measure(console, sam_hq, pictures if trained else pictures[:SAM_PICTURES], trained=trained)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""How long a correction takes, corrector beside corrector, for every kind of prompt.

    tools/run python bench/correctors.py [--sam-hq CHECKPOINT] [--model vit_tiny] [--repeat 5]

The same prompts about frames of the generated pond, 480x640, in turn in this process; absolute
times are this machine's, the ratios to GrabCut count. SAM-HQ without a checkpoint runs untrained,
which takes as long; its first prompt about an image pays for the image's embedding. How good the
masks are: `python -m training.measure_refiner`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from lazyxmem_ros.correction import Corrector, Prompt, make_corrector
from lazyxmem_ros.correction.base import box_of_mask
from lazyxmem_ros.data.pond import Scene
from lazyxmem_ros.progress import track

FRAMES = (10, 20, 110)
"""Of the scene: the target in open water, in front of different grounds."""
REFERENCE = "grabcut"
FIRST = "click (first of its image)"


def prompts_of(mask: NDArray[np.bool_]) -> dict[str, Prompt]:
    """One prompt of each kind, from the true mask bool [H, W]."""
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    click, box = np.array([(x, y)], np.float32), box_of_mask(mask)
    return {
        FIRST: Prompt(click),
        "box": Prompt(box=box),
        "click + box": Prompt(click, box=box),
        "click + prior": Prompt(click, mask=np.roll(mask, 10, axis=1), prior_iou=0.7),
    }


def measure(correctors: list[Corrector], repeat: int, console: Console) -> dict[str, list[float]]:
    """Milliseconds of every prompt, a median per corrector."""
    scene = Scene()
    pictures = [(f.image, f.labels > 0) for f in scene if f.index in FRAMES]
    times: dict[str, list[list[float]]] = {}
    for number in track(range(repeat), console=console):
        for position, (image, mask) in enumerate(pictures):
            for name, prompt in prompts_of(mask).items():
                taken = times.setdefault(name, [[] for _ in correctors])
                for corrector, seconds in zip(correctors, taken, strict=True):
                    started = time.perf_counter()
                    corrector.refine(image, [prompt], image_key=(number, position))
                    seconds.append(time.perf_counter() - started)
    return {
        name: [1e3 * statistics.median(seconds) for seconds in taken]
        for name, taken in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sam-hq", type=Path, help="SAM-HQ's checkpoint; without it, untrained")
    parser.add_argument("--model", default="vit_tiny", help="SAM-HQ's size")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each, in turn")
    arguments = parser.parse_args()
    console = Console()
    sam_hq = make_corrector(
        "sam_hq",
        device=arguments.device,
        checkpoint=arguments.sam_hq,
        model_type=arguments.model,
        untrained=arguments.sam_hq is None,
    )
    refiner = make_corrector("refiner", device=arguments.device)
    correctors = [make_corrector(REFERENCE), refiner, sam_hq]
    table = Table("prompt", title="ms a correction, and as a multiple of GrabCut's")
    for corrector in correctors:
        table.add_column(corrector.name, justify="right")
    for name, medians in measure(correctors, arguments.repeat, console).items():
        base = medians[0]
        table.add_row(name, f"{base:.0f}", *(f"{ms:.0f} ({ms / base:.2f})" for ms in medians[1:]))
    console.print(table)


if __name__ == "__main__":
    main()

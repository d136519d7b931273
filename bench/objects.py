# SPDX-License-Identifier: Apache-2.0
"""What following many objects costs: processor time for a frame, beside that for one object.

    tools/run python bench/objects.py [--objects 1,2,4,8,16,32] [--frames 10] [--json FILE]

Discs that move over noise, 480x854 pixels, the embedded model with all that the tracker's defaults
bring but corrections. The trackers take each frame in turn in this process, with one thread, whose
own time is measured: other programs on the machine then count for little. The ratio counts.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.evaluation.printing import screen_table
from lazyxmem_ros.lazy import LazyConfig, open_tracker
from lazyxmem_ros.progress import track

HEIGHT, WIDTH = 480, 854
RATE = 10
SHARE = 0.3
"""Of the frame that all discs together cover."""
WARM_UP = 2
"""Frames before the first that counts."""


def discs(count: int, index: int) -> NDArray[np.uint16]:
    """The label map [H, W] of so many discs on a grid, which sway together."""
    columns = math.ceil(math.sqrt(count * WIDTH / HEIGHT))
    rows = math.ceil(count / columns)
    radius = min(
        math.sqrt(SHARE * HEIGHT * WIDTH / (math.pi * count)),
        0.4 * HEIGHT / rows,
        0.4 * WIDTH / columns,
    )
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    shift = 0.2 * radius * math.sin(index / 4)
    for number in range(count):
        row, column = divmod(number, columns)
        centre_y, centre_x = (row + 0.5) * HEIGHT / rows, (column + 0.5) * WIDTH / columns + shift
        labels[(y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2] = number + 1
    return labels


def picture(labels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3]: each disc in a colour of its own over noise."""
    random = np.random.default_rng(0)
    image = random.integers(0, 120, (*labels.shape, 3), dtype=np.uint8)
    colours = random.integers(90, 255, (int(labels.max()) + 1, 3), dtype=np.uint8)
    shown = labels > 0
    image[shown] = colours[labels[shown]]
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", default="1,2,4,8,16,32", help="numbers of objects")
    parser.add_argument("--frames", type=int, default=10, help="frames that count")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    counts = [int(word) for word in arguments.objects.split(",")]
    config = LazyConfig(operator_corrections=False, pseudo_corrections=False)
    trackers = {count: open_tracker(config=config, device="cpu") for count in counts}
    times: dict[int, list[float]] = {count: [] for count in counts}
    console = Console()
    for index in track(range(WARM_UP + arguments.frames), console=console):
        for count, tracker in trackers.items():
            labels = discs(count, index)
            image = picture(labels)
            masks = {number: labels == number for number in range(1, count + 1)}
            began = time.thread_time()
            tracker.step(image, index * SECOND // RATE, masks=masks if index == 0 else None)
            if index >= WARM_UP:
                times[count].append(time.thread_time() - began)
    # One frame in five enters memory and costs more: the mean is what counts for a camera's rate.
    means = {count: statistics.mean(times[count]) for count in counts}
    least = means[counts[0]]
    rows = [
        {
            "objects": count,
            "ms a frame": f"{1000 * mean:.0f}",
            f"ratio to {counts[0]}": f"{mean / least:.2f}",
        }
        for count, mean in means.items()
    ]
    console.print(screen_table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Entropy and masked entropy of a frame: ours beside a plain one on the CPU with NumPy.

    tools/run python bench/entropy.py [--device auto] [--repeat 20]

The plain one does what the definition says: it fetches the probabilities, takes the entropy
with NumPy, and dilates each object's mask with OpenCV over the whole frame. Both run in turn in
this process on the same probabilities; absolute times are this machine's, the ratio counts.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bench.baseline import masked_entropy
from lazyxmem_ros.lazy.uncertainty import measure
from lazyxmem_ros.progress import track
from lazyxmem_ros.xmem import resolve_device

SIZES = ((480, 854), (1080, 1920))
OBJECTS = (1, 5)
OBJECT_SHARE = 0.06
"""Of the frame's area, per object."""
EDGE_SOFTNESS = 4.0
"""Pixels over which an object's probability falls from 0.73 to 0.27."""


def make_probabilities(objects: int, size: tuple[int, int]) -> torch.Tensor:
    """[K + 1, H, W]: discs side by side with soft edges, as a network predicts them."""
    height, width = size
    radius = math.sqrt(OBJECT_SHARE * height * width / math.pi)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    logits = [torch.zeros(size)]
    for index in range(objects):
        centre = (index + 0.5) * width / objects
        distance = torch.hypot(x - centre, y - height / 2)
        logits.append((radius - distance) / EDGE_SOFTNESS)
    return torch.softmax(torch.stack(logits), 0)


def plain(probabilities: torch.Tensor) -> list[float]:
    return masked_entropy(probabilities.cpu().numpy())


def ours(probabilities: torch.Tensor) -> list[float]:
    return [item.entropy for item in measure(probabilities).objects]


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--repeat", type=int, default=20, help="runs of each, in turn")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    table = Table("frame", "objects", "plain, ms", "ours, ms", "ratio", title=f"on {device}")
    console = Console()
    cases = [(size, objects) for size in SIZES for objects in OBJECTS]
    for size, objects in track(cases, console=console):
        probabilities = make_probabilities(objects, size).to(device)
        np.testing.assert_allclose(ours(probabilities), plain(probabilities), atol=1e-3)
        times: dict[str, list[float]] = {"plain": [], "ours": []}
        for _ in range(arguments.repeat):
            times["plain"].append(milliseconds(partial(plain, probabilities)))
            times["ours"].append(milliseconds(partial(ours, probabilities)))
        before, after = (statistics.median(times[name]) for name in ("plain", "ours"))
        table.add_row(
            f"{size[0]}x{size[1]}",
            str(objects),
            f"{before:.1f}",
            f"{after:.1f}",
            f"{before / after:.1f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()

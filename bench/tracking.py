# SPDX-License-Identifier: Apache-2.0
"""Frames per second: XMem as its paper describes it, and ours on each backend that is installed.

    tools/run python bench/tracking.py                    # the embedded network at 360 rows
    tools/run python bench/tracking.py --full-size        # the published one's widths at 480 rows

All track the generated pond in this process, a frame of each in turn, so that whatever else the
machine does slows all of them alike. The plain one is `bench/baseline.py` with its entropy in
NumPy; ours is the LazyTracker that the node runs. Time is processor time with one thread, the
clock's with more. Every frame gives a ratio to the plain one's; shown are their median and
quartiles, for only ratios mean something: milliseconds are this machine's at this moment. The first
frames, on which kernels are made, do not count. All make the same masks, or the run ends with an
error.

The full-size network has weights that were never trained; how quick it is does not depend on them.
Writes out/bench/tracking.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from bench.baseline import BaselineTracker, masked_entropy
from lazyxmem_ros.data.pond import Scene
from lazyxmem_ros.evaluation.printing import markdown_table, screen_table
from lazyxmem_ros.extras import BACKENDS, MODULES
from lazyxmem_ros.lazy import LazyConfig, LazyTracker
from lazyxmem_ros.progress import track
from lazyxmem_ros.weights import EMBEDDED_INTERNAL_SIZE, locate
from lazyxmem_ros.xmem import (
    MemoryConfig,
    XMem,
    XMemTracker,
    load_network,
    with_backend,
)

OUT = Path("out/bench")
FULL_SIZE_ROWS = 480
ASPECT = 854 / 480
WARM_UP = 6
"""Frames at the start that do not count; two of them enter memory."""
FRAME_NS = 100_000_000
"""Between two frames' stamps."""
SAME = 0.999
"""Least share of a frame's pixels that have the same label."""
PLAIN = "plain"

Image = NDArray[np.uint8]
Masks = NDArray[np.bool_]
Step = Callable[[int], NDArray[np.integer]]
"""Tracks the frame of a number; returns its labels."""


def frames_of(rows: int, number: int, objects: int) -> tuple[list[Image], Masks]:
    """The pond's first frames, and masks [K, H, W] of the fish and of patches beside it."""
    size = (round(rows * ASPECT), rows)
    scene = Scene()
    rendered = [scene.render(i) for i in range(number)]
    images = [cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA) for frame in rendered]
    fish = cv2.resize(rendered[0].labels, size, interpolation=cv2.INTER_NEAREST) == 1
    masks = np.zeros((objects, rows, size[0]), bool)
    masks[0] = fish
    for i in range(1, objects):
        left = (i - 1) * size[0] // objects
        masks[i, rows // 8 : rows // 3, left : left + size[0] // (2 * objects)] = True
        masks[i] &= ~fish
    return images, masks


def plain(network: XMem, images: list[Image], masks: Masks) -> Step:
    tracker = BaselineTracker(network, MemoryConfig(keep_first_frames=1, object_quota=0))

    def step(number: int) -> NDArray[np.integer]:
        given = None if number else masks
        probabilities = tracker.step(images[number], given).numpy()
        masked_entropy(probabilities)
        return probabilities.argmax(0)

    return step


def ours(network: XMem, images: list[Image], masks: Masks) -> Step:
    memory = MemoryConfig(keep_first_frames=1, object_quota=0)
    tracker = LazyTracker(XMemTracker(network, memory), LazyConfig().plain_xmem())

    def step(number: int) -> NDArray[np.integer]:
        given = None if number else {i + 1: mask for i, mask in enumerate(masks)}
        result = tracker.step(images[number], (number + 1) * FRAME_NS, given)
        tracker.close()
        return result.labels

    return step


def compared(network: XMem, rows: int, objects: int, frames: int) -> list[dict[str, object]]:
    """A row of figures for each way of tracking."""
    images, masks = frames_of(rows, WARM_UP + frames, objects)
    steps = {PLAIN: plain(network, images, masks)}
    for backend in BACKENDS:
        if backend == "auto" or not all(map(find_spec, MODULES.get(backend, ()))):
            continue
        quick = with_backend(network, backend, device="cpu", precision="float32")
        steps[f"ours, {backend}"] = ours(quick, images, masks)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in track(range(len(images)), console=Console()):
        labels = {}
        for name, step in steps.items():
            start = clock()
            labels[name] = step(number)
            times[name].append(1e3 * (clock() - start))
        for name, found in labels.items():
            if (found == labels[PLAIN]).mean() < SAME:
                raise RuntimeError(f"frame {number}: {name} made another mask than the plain one")
    rows_of_table: list[dict[str, object]] = []
    for name, taken in times.items():
        counted = np.array(taken[WARM_UP:])
        low, ratio, high = np.quantile(
            np.array(times[PLAIN][WARM_UP:]) / counted, (0.25, 0.5, 0.75)
        )
        rows_of_table.append(
            {
                "rows": rows,
                "objects": objects,
                "threads": torch.get_num_threads(),
                "by": name,
                "ms a frame": f"{statistics.median(counted):.0f}",
                "times as fast": f"{ratio:.2f}",
                "quartiles": f"{low:.2f} to {high:.2f}",
            }
        )
    return rows_of_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full-size", action="store_true", help="the published network's widths")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frames", type=int, default=20, help="that count, for each row")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    network = XMem().eval() if arguments.full_size else load_network(locate(""))
    rows = FULL_SIZE_ROWS if arguments.full_size else EMBEDDED_INTERNAL_SIZE
    table = [
        row
        for objects in arguments.objects
        for row in compared(network, rows, objects, arguments.frames)
    ]
    OUT.mkdir(parents=True, exist_ok=True)
    name = "tracking_full_size" if arguments.full_size else "tracking"
    (OUT / f"{name}.md").write_text(markdown_table(table))
    Console().print(screen_table(table))


if __name__ == "__main__":
    main()

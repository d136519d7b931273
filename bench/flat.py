# SPDX-License-Identifier: Apache-2.0
"""Time and memory against the number of frames, with objects coming and going all along.

    tools/run python bench/flat.py                  # 20 000 frames, 10 to 20 minutes
    tools/run python bench/flat.py --frames 2000    # a look

Five objects at a time, 200 in all, with the embedded network, everything that is kept for late
corrections included. Beside it runs a plain implementation: the same network, and a memory that
grows by concatenation, as XMem's does without long-term memory; it follows the first five objects
for ever. It gets slower and slower, and is run for `--plain-frames` only.

Time is processor time of the one thread that works, so that a busy machine does not show. Where
the tracker runs on a GPU, time is the clock's and memory the device's, too. Writes
out/bench/flat.{png,csv,md}.
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.console import Console

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.evaluation.printing import markdown_table, screen_table
from lazyxmem_ros.lazy import LazyConfig, LazyTracker
from lazyxmem_ros.progress import Progress
from lazyxmem_ros.weights import locate
from lazyxmem_ros.xmem import MemoryConfig, XMem, XMemTracker, load_network
from lazyxmem_ros.xmem.memory import Memory
from tools.documents import add_docs_argument, check_docs, into_documents

mpl.use("Agg")
import matplotlib.pyplot as plt

SIZE = (96, 128)
"""Rows and columns of the images."""
RATE = 30
"""Frames a second, by their stamps."""
SQUARE = 24
"""Side of the objects, pixels."""
OBJECTS_AT_A_TIME = 5
OBJECTS_IN_ALL = 200
LONG_TERM_TOKENS = 1000
"""Of long-term memory, so that it is full before frames begin to be compared. With the default
10 000, time and memory rise until it is full, after a few thousand frames."""
EDGE = 1000
"""Frames that are compared: the last so many with those from so many to twice as many."""
PAGE = resource.getpagesize()
COLOURS = {"plain": "#c9503c", "lazyxmem_ros": "#2f6db5"}
OUT = Path("out/bench")

Image = NDArray[np.uint8]
Masks = dict[int, NDArray[np.bool_]]


class GrowingMemory(Memory):
    """What is read and written is ours; it is never full, and grows with every frame."""

    def _full(self) -> bool:
        return False


class GrowingTracker(XMemTracker):
    """XMem with a memory that grows."""

    def _make_memory(self, tokens: tuple[int, int]) -> Memory:
        return GrowingMemory(
            self.config,
            tokens_per_frame=tokens[0] * tokens[1],
            key_dim=self.network.config.key_dim,
            value_dim=self.network.config.value_dim,
            device=self.device,
        )


class Ours:
    """LazyTracker as it is; the oldest object goes when there are too many."""

    def __init__(self, network: XMem, device: str) -> None:
        memory = MemoryConfig(max_long_term_tokens=LONG_TERM_TOKENS)
        self._lazy = LazyTracker(XMemTracker(network, memory, device=device), LazyConfig())
        self.objects = 0

    def follow(self, index: int, picture: Image, new: Masks) -> None:
        """One frame, with new objects."""
        if new and len(self._lazy.object_ids) == OBJECTS_AT_A_TIME:
            self._lazy.remove_objects(self._lazy.object_ids[:1])
        self.objects += len(new)
        self._lazy.step(picture, index * SECOND // RATE, masks=new)


class Plain:
    """The growing one; the first objects stay, and are all."""

    def __init__(self, network: XMem, device: str) -> None:
        self._tracker = GrowingTracker(network, MemoryConfig(long_term=False), device=device)
        self.objects = 0

    def follow(self, index: int, picture: Image, new: Masks) -> None:
        """One frame, with new objects."""
        taken = new if len(self._tracker.object_ids) < OBJECTS_AT_A_TIME else {}
        self.objects += len(taken)
        self._tracker.memorize(self._tracker.segment(picture, taken, stamp=index))


def image(index: int) -> Image:
    """Coarse noise that drifts, so that no two frames are alike."""
    rng = np.random.default_rng(index // 50)
    coarse = rng.integers(0, 256, (SIZE[0] // 8, SIZE[1] // 8, 3), dtype=np.uint8)
    fine = coarse.repeat(8, 0).repeat(8, 1)
    return np.ascontiguousarray(np.roll(fine, index % 50, axis=1))


def mask(object_id: int) -> NDArray[np.bool_]:
    """A square somewhere."""
    rng = np.random.default_rng(object_id)
    top, left = rng.integers(0, SIZE[0] - SQUARE), rng.integers(0, SIZE[1] - SQUARE)
    square = np.zeros(SIZE, bool)
    square[top : top + SQUARE, left : left + SQUARE] = True
    return square


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


class Meter:
    """Time and memory of a frame."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def measure(self, work: Callable[[], None]) -> tuple[float, int, int]:
        """Seconds that the work takes; resident and device bytes after it."""
        if not self._cuda:
            started = time.thread_time()
            work()
            return time.thread_time() - started, resident(), 0
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        return time.perf_counter() - started, resident(), torch.cuda.memory_allocated()


def run(
    tracker: Ours | Plain, frames: int, every: int, meter: Meter, tick: Callable[[], None]
) -> pd.DataFrame:
    """A row per frame: seconds, resident, device. A new object comes `every` so many frames."""
    rows = np.zeros((frames, 3))  # not a list: what is measured must not grow by the measuring
    for index in range(frames):
        picture, number = image(index), index // every + 1
        new = {number: mask(number)} if index % every == 0 and number <= OBJECTS_IN_ALL else {}
        rows[index] = meter.measure(partial(tracker.follow, index, picture, new))
        tick()
    return pd.DataFrame(rows, columns=["seconds", "resident", "device"])


def ratio(rows: pd.DataFrame, column: str, edge: int) -> float:
    """Median of the last `edge` frames to that of frames edge..2*edge."""
    early, late = rows[column][edge : 2 * edge].median(), rows[column][-edge:].median()
    return float(late / early) if early else float("nan")


def summary(name: str, rows: pd.DataFrame, objects: int, edge: int) -> dict[str, object]:
    """The table's row."""
    early, late = rows.seconds[edge : 2 * edge].median(), rows.seconds[-edge:].median()
    row: dict[str, object] = {
        "": name,
        "frames": len(rows),
        "objects": objects,
        f"ms a frame, frames {edge} to {2 * edge}": f"{early * 1e3:.1f}",
        f"last {edge}": f"{late * 1e3:.1f}",
        "ratio": ratio(rows, "seconds", edge),
        "resident memory, ratio": ratio(rows, "resident", edge),
    }
    if rows.device.any():
        row["device memory, ratio"] = ratio(rows, "device", edge)
    return row


def draw(runs: dict[str, pd.DataFrame], clock: str) -> None:
    """Time and memory against frames, medians of windows."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), constrained_layout=True)
    width = max(max(map(len, runs.values())) // 200, 1)
    for name, rows in runs.items():
        windows = rows.groupby(rows.index // width).median()
        x = windows.index * width
        memory = (windows.resident - rows.resident.iloc[0]) / 2**20
        axes[0].plot(x, windows.seconds * 1e3, label=name, color=COLOURS[name])
        axes[1].plot(x, memory, label=name, color=COLOURS[name])
        if len(rows) < max(map(len, runs.values())):
            axes[0].annotate(
                f" stopped after {len(rows)} frames",
                (x[-1], windows.seconds.iloc[-1] * 1e3),
                fontsize=8,
                va="center",
            )
    axes[0].set(xlabel="frame", ylabel=f"{clock} per frame, ms", ylim=(0, None))
    axes[1].set(xlabel="frame", ylabel="resident memory since the first frame, MiB")
    axes[0].legend(frameon=False)
    figure.savefig(OUT / "flat.png", dpi=130)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--plain-frames", type=int, default=5_000, help="frames of the growing one")
    parser.add_argument("--weights", default="")
    parser.add_argument("--device", default="cpu")
    add_docs_argument(parser)
    arguments = parser.parse_args()
    check_docs(parser, arguments)
    torch.set_num_threads(1)
    network = load_network(locate(arguments.weights))
    meter = Meter(torch.device(arguments.device))
    every = max(arguments.frames // OBJECTS_IN_ALL, 1)
    lengths = {
        "lazyxmem_ros": arguments.frames,
        "plain": min(arguments.plain_frames, arguments.frames),
    }
    edge = min(EDGE, min(lengths.values()) // 4)
    runs, rows = {}, []
    try:
        with Progress() as progress:
            for name, frames in lengths.items():
                task = progress.add_task(name, total=frames)
                kind = Ours if name == "lazyxmem_ros" else Plain
                tracker = kind(network, arguments.device)
                runs[name] = run(tracker, frames, every, meter, partial(progress.advance, task))
                rows.append(summary(name, runs[name], tracker.objects, edge))
                del tracker
                gc.collect()
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    OUT.mkdir(parents=True, exist_ok=True)
    draw(runs, "processor time" if arguments.device == "cpu" else "time")
    pd.concat(runs, names=["run", "frame"]).to_csv(OUT / "flat.csv")
    (OUT / "flat.md").write_text(markdown_table(rows))
    Console().print(screen_table(rows), f"see {OUT}/flat.png")
    if arguments.docs:
        into_documents("flat", OUT)
    return 0


if __name__ == "__main__":
    sys.exit(main())

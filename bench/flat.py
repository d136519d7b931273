# SPDX-License-Identifier: Apache-2.0
"""Time and memory against the number of frames, with objects coming and going all along.

    tools/run python bench/flat.py                  # 20 000 frames, about ten minutes
    tools/run python bench/flat.py --frames 2000    # a look

Five objects at a time, 200 in all. Beside our tracker runs a plain one: the same network, and a
memory that grows by concatenation, as XMem's does without long-term memory. Absolute times are
this machine's; the ratios are what counts. Writes out/bench/flat.png.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lazyxmem_ros.weights import locate
from lazyxmem_ros.xmem import MemoryConfig, XMem, XMemTracker
from lazyxmem_ros.xmem.memory import Memory

mpl.use("Agg")
import matplotlib.pyplot as plt

SIZE = (96, 128)
OBJECTS_AT_A_TIME = 5
OBJECTS_IN_ALL = 200
PAGE = resource.getpagesize()
OUT = Path("out/bench")


class GrowingMemory(Memory):
    """What is read and written is ours; what is never done is to let go of a frame."""

    def _leaving(self) -> list[int]:
        return []

    def write(self, frame_index: int, **tokens: object) -> None:
        """Grow every array by a frame, then write."""
        extra = self.tokens_per_frame
        if len(self._working) + 1 > self._rows // extra:
            for name in ("_key", "_shrinkage", "_selection", "_expanded", "_use", "_life", "_born"):
                old = getattr(self, name)
                setattr(self, name, torch.cat([old, old.new_zeros(extra, *old.shape[1:])]))
            for owner in self._owners.values():
                new = owner.values.new_zeros(extra, owner.values.shape[1])
                owner.values = torch.cat([owner.values, new])
            self._rows += extra
        super().write(frame_index, **tokens)  # type: ignore[arg-type]

    def remove_object(self, object_id: int) -> None:
        """Objects cannot be removed: their values stay."""


class PlainTracker(XMemTracker):
    """Memory that grows; objects that stay."""

    def _make_memory(self, tokens: tuple[int, int]) -> Memory:
        self._tokens = tokens
        return GrowingMemory(
            self.config,
            tokens_per_frame=tokens[0] * tokens[1],
            key_dim=self.network.config.key_dim,
            value_dim=self.network.config.value_dim,
            device=self.device,
        )


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def image(index: int) -> np.ndarray:
    """Smooth noise that drifts, so that no two frames are alike."""
    rng = np.random.default_rng(index // 50)
    coarse = rng.integers(0, 256, (SIZE[0] // 8, SIZE[1] // 8, 3), dtype=np.uint8)
    fine = coarse.repeat(8, 0).repeat(8, 1)
    return np.ascontiguousarray(np.roll(fine, index % 50, axis=1))


def mask(object_id: int) -> np.ndarray:
    """A square somewhere."""
    rng = np.random.default_rng(object_id)
    top, left = rng.integers(0, SIZE[0] - 24), rng.integers(0, SIZE[1] - 24)
    m = np.zeros(SIZE, bool)
    m[top : top + 24, left : left + 24] = True
    return m


def run(tracker: XMemTracker, frames: int, label: str, *, remove: bool) -> np.ndarray:
    """Seconds and resident bytes of each frame [frames, 2]."""
    every = max(frames // OBJECTS_IN_ALL, 1)
    rows = np.zeros((frames, 2))
    for index in track(range(frames), label):
        picture = image(index)
        new = {index // every + 1: mask(index // every + 1)} if index % every == 0 else None
        if not remove and index >= every * OBJECTS_AT_A_TIME:
            new = None  # the plain one follows the first five for ever
        started = time.perf_counter()
        frame = tracker.segment(picture, new)
        tracker.memorize(frame)
        if remove and len(tracker.object_ids) > OBJECTS_AT_A_TIME:
            tracker.remove_objects([tracker.object_ids[0]])
        rows[index] = time.perf_counter() - started, resident()
    return rows


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Median over windows of so many frames."""
    usable = len(values) // width * width
    return np.median(values[:usable].reshape(-1, width), axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--plain-frames", type=int, default=4_000, help="frames of the growing one")
    parser.add_argument("--weights", default="")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network = XMem.from_checkpoint(locate(arguments.weights))
    ours = run(XMemTracker(network, MemoryConfig()), arguments.frames, "ours", remove=True)
    growing = PlainTracker(network, MemoryConfig(long_term=False))
    plain = run(growing, min(arguments.plain_frames, arguments.frames), "growing", remove=False)

    width = max(arguments.frames // 200, 1)
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), constrained_layout=True)
    for name, rows, colour in (("growing", plain, "#c9503c"), ("lazyxmem_ros", ours, "#2f6db5")):
        x = np.arange(len(rows) // width) * width
        axes[0].plot(x, smooth(rows[:, 0], width) * 1e3, label=name, color=colour)
        axes[1].plot(x, smooth(rows[:, 1] - rows[0, 1], width) / 2**20, label=name, color=colour)
    axes[0].set(xlabel="frame", ylabel="median time per frame, ms", ylim=(0, None))
    axes[1].set(xlabel="frame", ylabel="resident memory since the first frame, MiB")
    axes[0].legend(frameon=False)
    OUT.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT / "flat.png", dpi=130)

    edge = min(1000, arguments.frames // 4)
    table = Table("", "ours", "growing", title=f"{arguments.frames} frames; growing: {len(plain)}")
    ratios, memory = [], []
    for rows in (ours, plain):
        early, late = rows[edge : 2 * edge], rows[-edge:]
        ratios.append(f"{np.median(late[:, 0]) / np.median(early[:, 0]):.3f}")
        memory.append(f"{np.median(late[:, 1]) / np.median(early[:, 1]):.3f}")
    table.add_row(f"time: last {edge} frames / frames {edge} to {2 * edge}", *ratios)
    table.add_row("resident memory, likewise", *memory)
    Console().print(table, f"picture: {OUT / 'flat.png'}")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""What snapshots cost the frames: with none, and with one every second.

    tools/run python bench/snapshots.py

The node's own worker thread and snapshot keeper, on 640x480 images with three objects and a memory
as full as it gets. Turns of `--frames` frames without and with snapshots alternate, so that a busy
machine disturbs both alike. A frame's time by the clock runs from its being offered to the worker
to its being done, waiting for a copy included. Processor time is what the worker's thread spent
from the frame before to this one, copies included: it is the same on a busy machine. Writes
out/bench/snapshots.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.evaluation.printing import markdown_table, screen_table
from lazyxmem_ros.lazy import LazyConfig, LazyTracker, Snapshot
from lazyxmem_ros.nodes.tracker.snapshots import SnapshotKeeper
from lazyxmem_ros.nodes.tracker.worker import Worker
from lazyxmem_ros.progress import Progress
from lazyxmem_ros.weights import locate
from lazyxmem_ros.xmem import MemoryConfig, XMem, XMemTracker, load_network
from tools.documents import add_docs_argument, check_docs, into_documents

SIZE = (480, 640)
INTERNAL_SIZE = 360
RATE = 10
"""Frames a second, by their stamps."""
OBJECTS = 3
TURNS = 3
PERIOD = 1.0
"""Seconds from one snapshot to the next."""
MILLI = 1e3
OUT = Path("out/bench")
CONFIG = LazyConfig(operator_corrections=False, pseudo_corrections=False)


@dataclass
class Times:
    """Seconds of each frame by the clock and of the worker's processor time; of each copy and
    of each file's writing.
    """

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    copies: list[float] = field(default_factory=list)
    writes: list[float] = field(default_factory=list)


class TimedKeeper(SnapshotKeeper):
    """Notes how long copies and files take."""

    times: Times
    size = 0

    def _copy(self) -> Snapshot:
        started = time.thread_time()
        snapshot = super()._copy()
        self.times.copies.append(time.thread_time() - started)
        return snapshot

    def _write(self, snapshot: Snapshot) -> int:
        started = time.monotonic()
        self.size = super()._write(snapshot)
        self.times.writes.append(time.monotonic() - started)
        return self.size


def picture(index: int) -> NDArray[np.uint8]:
    """Coarse noise that drifts."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (SIZE[0] // 16, SIZE[1] // 16, 3), dtype=np.uint8)
    return np.ascontiguousarray(np.roll(coarse.repeat(16, 0).repeat(16, 1), index % 97, axis=1))


def masks() -> dict[int, NDArray[np.bool_]]:
    """Squares side by side."""
    shown: dict[int, NDArray[np.bool_]] = {}
    for n in range(OBJECTS):
        shown[n + 1] = np.zeros(SIZE, bool)
        shown[n + 1][150:300, 40 + 190 * n : 190 + 190 * n] = True
    return shown


def filled(network: XMem) -> Snapshot:
    """A tracker's state after some frames, its long-term memory filled up with its own tokens."""
    config = MemoryConfig()
    lazy = LazyTracker(
        XMemTracker(network, config, max_internal_size=INTERNAL_SIZE, precision="auto"),
        replace(CONFIG, correction_horizon=0, hold_entropy=float("inf")),
    )
    index = 0
    while not lazy.tracker.memory_tokens[1]:
        lazy.step(picture(index), index * SECOND // RATE, masks=masks() if index == 0 else None)
        lazy.close()
        index += 1
    snapshot = lazy.snapshot()
    memory = snapshot.tracker.memory
    assert memory is not None
    rows = torch.arange(config.max_long_term_tokens - config.prototypes) % memory.long_term
    working = torch.arange(memory.long_term, len(memory.shared["key"]))
    chosen = torch.cat([rows, working])
    full = replace(
        memory,
        shared={name: array[chosen] for name, array in memory.shared.items()},
        values={i: array[chosen] for i, array in memory.values.items()},
        long_term=len(rows),
        numbers=None,  # those that stand there several times are tokens of their own
    )
    return replace(snapshot, tracker=replace(snapshot.tracker, memory=full))


class Bench:
    """A worker, its tracker and its keeper."""

    def __init__(self, network: XMem, state: Snapshot, folder: Path) -> None:
        tracker = XMemTracker(
            network, MemoryConfig(), max_internal_size=INTERNAL_SIZE, precision="auto"
        )
        self._lazy = LazyTracker(tracker, CONFIG)
        self._lazy.resume(state)
        self._worker: Worker[int] = Worker(on_failure=self._fail)
        self.keeper = TimedKeeper(
            folder / "bench.snapshot", self._lazy, self._worker, on_fault=sys.exit
        )
        self._done = threading.Event()
        self._failure: BaseException | None = None
        self._index = 0
        self._processor, self._last = 0.0, 0.0
        self._worker.start(self._frame)

    def _frame(self, index: int) -> None:
        self._lazy.step(picture(index), index * SECOND // RATE)
        now = time.thread_time()
        self._processor, self._last = now - self._last, now
        self._done.set()

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._done.set()

    def turn(self, frames: int, times: Times, *, period: float | None) -> None:
        """Tracks frames; a snapshot every `period` seconds."""
        self.keeper.times = times
        next_save = time.monotonic() + (period or 0.0)
        for _ in range(frames):
            if period is not None and time.monotonic() >= next_save:
                self.keeper.save_in_background()
                next_save += period
            self._done.clear()
            started = time.monotonic()
            self._worker.offer(self._index)
            self._done.wait()
            times.clock.append(time.monotonic() - started)
            if self._failure is not None:
                raise self._failure
            times.processor.append(self._processor)
            self._index += 1
        with self.keeper._writing:
            pass  # a file that is still being written belongs to this turn

    def close(self) -> None:
        """Ends the thread and waits for the last file."""
        self._worker.stop()
        self.keeper.close()


def summary(name: str, times: Times) -> dict[str, object]:
    """The table's row."""
    clock, processor = np.array(times.clock) * MILLI, np.array(times.processor) * MILLI
    return {
        "snapshots": name,
        "frames": len(clock),
        "processor time of a frame, ms: p50": f"{np.median(processor):.0f}",
        "p99": f"{np.percentile(processor, 99):.0f}",
        "max": f"{processor.max():.0f}",
        "by the clock: p50": f"{np.median(clock):.0f}",
        "clock, p99": f"{np.percentile(clock, 99):.0f}",
        "clock, max": f"{clock.max():.0f}",
        "copy, ms: p50 (max)": _spread(times.copies, 1),
        "writing, ms: p50 (max)": _spread(times.writes, 0),
    }


def _spread(seconds: list[float], digits: int) -> str:
    if not seconds:
        return ""
    ms = np.array(seconds) * MILLI
    return f"{np.median(ms):.{digits}f} ({ms.max():.{digits}f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=40, help="of a turn; three turns of each")
    parser.add_argument("--weights", default="")
    add_docs_argument(parser)
    arguments = parser.parse_args()
    check_docs(parser, arguments)
    torch.set_num_threads(1)
    network = load_network(locate(arguments.weights))
    off, on = Times(), Times()
    try:
        with Progress() as progress, tempfile.TemporaryDirectory() as folder:
            bench = Bench(network, filled(network), Path(folder))
            task = progress.add_task("tracking", total=TURNS)
            bench.turn(10, Times(), period=None)
            for _ in range(TURNS):
                bench.turn(arguments.frames, off, period=None)
                bench.turn(arguments.frames, on, period=PERIOD)
                progress.advance(task)
            bench.close()
            size = bench.keeper.size
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    rows = [summary("none", off), summary(f"every {PERIOD:g} s", on)]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "snapshots.md").write_text(markdown_table(rows))
    Console().print(screen_table(rows, title=f"a file of {size / 2**20:.0f} MiB"))
    if arguments.docs:
        into_documents("snapshots", OUT, picture=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())

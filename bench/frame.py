# SPDX-License-Identifier: Apache-2.0
"""One frame: latency, throughput, stages and bytes against size, objects and memory's fill.

    tools/run python bench/frame.py                       # the embedded network
    tools/run python bench/frame.py --full-size --device cuda --precision bfloat16

Each setting runs alone, one after the other, on the generated pond, with the LazyTracker that the
node runs. Latency is from an image in memory to masks and uncertainties; throughput counts in what
is learnt afterwards. The first frames, on which kernels are made, do not count. Then the same
frames go through once more with a clock around each stage, which on a GPU waits for the device.
Absolute times are this machine's. The full-size network has weights that were never trained.

Writes out/bench/frame.{md,json,png}.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
from rich.console import Console

from bench.tracking import FRAME_NS, Image, Masks, frames_of
from lazyxmem_ros.basics import MEBIBYTE
from lazyxmem_ros.evaluation.printing import markdown_table, screen_table
from lazyxmem_ros.extras import BACKENDS
from lazyxmem_ros.lazy import IouPredictor, LazyConfig, LazyTracker, iou_predictor_of, judging
from lazyxmem_ros.progress import track
from lazyxmem_ros.weights import EMBEDDED_INTERNAL_SIZE, locate
from lazyxmem_ros.xmem import MemoryConfig, XMem, XMemTracker, load_network, with_backend
from lazyxmem_ros.xmem import frame as xmem_frame
from lazyxmem_ros.xmem.device import resolve_device
from lazyxmem_ros.xmem.inputs import Inputs
from lazyxmem_ros.xmem.memory import Memory

OUT = Path("out/bench")
WARM_UP = 4
REST = "everything else"
RUNTIMES = {"XMem": "PyTorch", "OpenVinoNetwork": "OpenVINO", "NcnnNetwork": "ncnn"}
"""What computes the convolutions, by the network's class."""


class Setting(NamedTuple):
    """What one measurement is of."""

    rows: int
    objects: int
    fill: int
    """Frames that entered memory before those that count."""


def settings(rows: int, objects: list[int], fills: list[int]) -> list[Setting]:
    """One thing at a time differs from the first."""
    first = Setting(rows, objects[0], fills[0])
    sizes = [first._replace(rows=rows * 2 // 3), first._replace(rows=rows * 4 // 3)]
    more = [first._replace(objects=number) for number in objects[1:]]
    fuller = [first._replace(fill=fill) for fill in fills[1:]]
    return [first, *sizes, *more, *fuller]


class Meter:
    """Makes trackers of one network, and times them."""

    def __init__(self, network: XMem, precision: str, device: torch.device) -> None:
        self.device = device
        self._network = network
        self._precision = precision

    def tracker(self, images: list[Image], masks: Masks, setting: Setting) -> LazyTracker:
        """One that has seen as many images as the setting asks for."""
        config = LazyConfig(operator_corrections=False, pseudo_corrections=False)
        memory = MemoryConfig(memory_every=1)
        core = XMemTracker(
            self._network,
            memory,
            device=self.device,
            max_internal_size=setting.rows,
            precision=self._precision,
        )
        tracker = LazyTracker(core, config, iou_predictor=iou_predictor_of(locate("")))
        for number in range(setting.fill):
            given = None if number else {i + 1: mask for i, mask in enumerate(masks)}
            tracker.step(images[number % len(images)], (number + 1) * FRAME_NS, given)
        tracker.close()
        core.config = MemoryConfig()
        return tracker

    def clock(self) -> float:
        """Seconds, once the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def stages(self, taken: dict[str, float]) -> Iterator[None]:
        """Within, adds up the seconds that each stage takes."""
        places: list[tuple[Any, str, str]] = [
            (Inputs, "image", "image in"),
            (type(self._network), "encode_key", "key encoder"),
            (Memory, "read", "reading memory"),
            (type(self._network), "decode", "decoder"),
            (type(self._network), "encode_value", "value encoder"),
            (Memory, "write", "writing memory"),
            (xmem_frame, "outputs", "to the image's size"),
            (xmem_frame, "lasting_copies", "kept for late corrections"),
            (judging, "measure", "uncertainty"),
            (IouPredictor, "of_frame", "predicted IoU"),
        ]
        patches = [
            patch.object(owner, name, self._clocked(getattr(owner, name), stage, taken))
            for owner, name, stage in places
        ]
        for each in patches:
            each.start()
        try:
            yield
        finally:
            for each in patches:
                each.stop()

    def _clocked(
        self, work: Callable[..., Any], stage: str, taken: dict[str, float]
    ) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            began = self.clock()
            result = work(*arguments, **named)
            taken[stage] += self.clock() - began
            return result

        return timed


def measured(meter: Meter, setting: Setting, frames: int) -> dict[str, object]:
    """The figures of a setting."""
    images, masks = frames_of(setting.rows, WARM_UP + frames, setting.objects)
    tracker = meter.tracker(images, masks, setting)
    tokens = sum(tracker.tracker.memory_tokens)
    if meter.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(meter.device)
    number = setting.fill

    def go_through() -> tuple[list[float], list[float]]:
        nonlocal number
        latencies, wholes = [], []
        for image in images:
            number += 1
            began = meter.clock()
            tracker.step(image, number * FRAME_NS)
            shown = meter.clock()
            tracker.close()
            latencies.append(shown - began)
            wholes.append(meter.clock() - began)
        return latencies[WARM_UP:], wholes[WARM_UP:]

    latencies, wholes = go_through()
    taken: dict[str, float] = defaultdict(float)
    with meter.stages(taken):
        began = meter.clock()
        go_through()
        taken[REST] = meter.clock() - began - sum(taken.values())
    low, p50, high, p99 = (1e3 * np.quantile(latencies, (0.25, 0.5, 0.75, 0.99))).tolist()
    figures: dict[str, object] = {
        "rows": setting.rows,
        "objects": setting.objects,
        "tokens in memory": tokens,
        "p50, ms": round(p50, 1),
        "quartiles, ms": f"{low:.1f} to {high:.1f}",
        "p99, ms": round(p99, 1),
        "frames/s": round(1 / float(np.mean(wholes)), 1),
        "memory, MiB": round(tracker.tracker.nbytes / MEBIBYTE, 1),
        "kept for late corrections, MiB": round(tracker.history_bytes / MEBIBYTE, 1),
        "stages, ms": {name: round(1e3 * s / len(images), 2) for name, s in taken.items()},
    }
    if meter.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(meter.device)
        figures["peak on the device, MiB"] = round(peak / MEBIBYTE, 1)
    return figures


def draw(rows: list[dict[str, Any]], title: str, name: str) -> None:
    """Latency of every setting, and what of it each stage takes."""
    names = [f"{r['rows']} rows\n{r['objects']} obj.\n{r['tokens in memory']} tok." for r in rows]
    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 8), layout="constrained")
    above.bar(names, [r["p99, ms"] for r in rows], color="#c8d5e6", label="p99")
    above.bar(names, [r["p50, ms"] for r in rows], color="#2f6ca8", width=0.6, label="p50")
    above.set(ylabel="latency, ms", title=title)
    above.legend(frameon=False)
    bottom = np.zeros(len(rows))
    colours = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
    for stage, colour in zip(rows[0]["stages, ms"], colours, strict=False):
        heights = np.array([r["stages, ms"].get(stage, 0.0) for r in rows])
        below.bar(names, heights, bottom=bottom, color=colour, label=stage)
        bottom += heights
    below.set(ylabel="a frame's mean time, ms")
    below.legend(frameon=False, fontsize="small", ncols=2)
    figure.savefig(OUT / f"{name}.png", dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full-size", action="store_true", help="the published network's widths")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backend", default="auto", choices=BACKENDS)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rows", type=int, help="of the image, in the middle of three sizes")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 2, 5])
    parser.add_argument("--fill", type=int, nargs="+", default=[2, 10, 60], help="frames in memory")
    parser.add_argument("--frames", type=int, default=20, help="that count, for each setting")
    parser.add_argument("--name", default="frame", help="of the files in out/bench")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    torch.manual_seed(0)
    console = Console()
    device = resolve_device(arguments.device)
    network = with_backend(
        XMem().eval() if arguments.full_size else load_network(locate("")),
        arguments.backend,
        device=device,
        precision=arguments.precision,
        say=console.print,
    )
    rows = arguments.rows or (480 if arguments.full_size else EMBEDDED_INTERNAL_SIZE)
    meter = Meter(network, arguments.precision, device)
    chosen = settings(rows, arguments.objects, arguments.fill)
    found = [measured(meter, each, arguments.frames) for each in track(chosen, console=console)]
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else "the processor"
    size = "full-size" if arguments.full_size else "embedded"
    runtime = RUNTIMES[type(network).__name__]
    title = f"The {size} network by {runtime} on {place}, {arguments.threads} threads"
    OUT.mkdir(parents=True, exist_ok=True)
    draw(found, title, arguments.name)
    (OUT / f"{arguments.name}.json").write_text(json.dumps({"of": title, "rows": found}, indent=1))
    table = [{k: str(v) for k, v in row.items() if not isinstance(v, dict)} for row in found]
    (OUT / f"{arguments.name}.md").write_text(markdown_table(table))
    console.print(title, screen_table(table))


if __name__ == "__main__":
    main()

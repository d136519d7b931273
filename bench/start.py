# SPDX-License-Identifier: Apache-2.0
"""Seconds from nothing to a mask: `lazyxmem --help`, the imports of `track`, the first masks.

    tools/run python bench/start.py [--repeat 5] [--backend auto]

Every run is a fresh process, after one that does not count, so that files are in the page cache and
the network's translation in its own. Medians and quartiles; absolute times are this machine's.
Writes out/bench/start.{md,json}.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from bench.processes import running
from lazyxmem_ros.entry import interruptible
from lazyxmem_ros.evaluation.printing import markdown_table, screen_table
from lazyxmem_ros.progress import track

OUT = Path("out/bench")
HELP = "lazyxmem --help"
IMPORTS = "imports of lazyxmem track"
OPENED = "weights read, backend ready"
FIRST = "first frame, masks given"
SECOND = "second frame, first mask predicted"
SUM = "from open_tracker to the first predicted mask"

PROGRAM = """
import sys, time
began = time.perf_counter()
import lazyxmem_ros.track.command
times = [time.perf_counter() - began]

def lap(work):
    began = time.perf_counter()
    work()
    times.append(time.perf_counter() - began)

from lazyxmem_ros.data.pond import Scene
from lazyxmem_ros.lazy import open_tracker

scene = Scene()
frames = [scene.render(number) for number in range(2)]
held = []
lap(lambda: held.append(open_tracker(backend=sys.argv[1])))
lap(lambda: held[0].step(frames[0].image, 1, {1: frames[0].labels == 1}))
lap(lambda: held[0].step(frames[1].image, 2))
print(*times)
"""


def seconds(backend: str) -> dict[str, float]:
    """What each step of one start took."""
    # Bytecode is kept, as on any robot, whatever this shell says.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    command = [sys.executable, "-m", "lazyxmem_ros.cli", "--help"]
    _output_of(command, environment)
    taken = {HELP: time.perf_counter() - began}
    command = [sys.executable, "-c", PROGRAM, backend]
    laps = map(float, _output_of(command, environment).splitlines()[-1].split())
    taken |= dict(zip((IMPORTS, OPENED, FIRST, SECOND), laps, strict=True))
    return {**taken, SUM: taken[OPENED] + taken[FIRST] + taken[SECOND]}


def _output_of(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a process prints; raises CalledProcessError where it fails."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with running(command, env=environment, text=True, **pipes) as process:
        output, faults = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output, faults)
    return str(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--backend", default="auto")
    arguments = parser.parse_args()
    console = Console()
    with interruptible():  # what was started ends with this program
        runs = [
            seconds(arguments.backend) for _ in track(range(arguments.repeat + 1), console=console)
        ][1:]
    rows: list[dict[str, object]] = []
    for what in runs[0]:
        low, median, high = np.quantile([run[what] for run in runs], (0.25, 0.5, 0.75))
        rows.append({"what": what, "s": f"{median:.2f}", "quartiles": f"{low:.2f} to {high:.2f}"})
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "start.json").write_text(json.dumps({"of": arguments.backend, "rows": rows}, indent=1))
    (OUT / "start.md").write_text(markdown_table(rows))
    console.print(screen_table(rows))


if __name__ == "__main__":
    main()

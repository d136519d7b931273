# SPDX-License-Identifier: Apache-2.0
"""Every benchmark, one after the other, and one page of what came out: `make bench`.

    tools/run python bench/all.py [--only frame tracking] [--quick]

Each runs alone in a process of its own, as by hand; a fault of one does not keep the others from
running, but makes the end a failure. However one ends, none of its processes is left. Writes
out/bench/summary.md: the table over all trackers, sizes and objects first, then what each benchmark
found, with its picture. What they print is in out/bench/logs/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console

from lazyxmem_ros.entry import run_to_the_end
from lazyxmem_ros.evaluation.graph.processes import ProcessError, ProcessSet
from lazyxmem_ros.evaluation.machine import usable_cores
from lazyxmem_ros.evaluation.printing import markdown_table

HERE = Path(__file__).parent
OUT = Path("out/bench")
PATIENCE_S = 3600
WELL = "well"


class Bench(NamedTuple):
    """A benchmark as `make bench` runs it."""

    name: str
    """Of its file."""
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    """More arguments, for a look."""
    files: str = ""
    """What its files in out/bench are called, if otherwise."""

    @property
    def log(self) -> str:
        """What the file of its output is called."""
        return self.files or self.name

    @property
    def title(self) -> str:
        """It and its arguments."""
        return " ".join((self.name, *self.arguments))


BENCHES = (
    Bench("frame", quick=("--frames", "5", "--objects", "1", "2", "--fill", "2", "8")),
    Bench("tracking", quick=("--frames", "3", "--objects", "1")),
    Bench(
        "tracking",
        ("--full-size",),
        quick=("--frames", "1", "--objects", "1"),
        files="tracking_full_size",
    ),
    Bench("start", quick=("--repeat", "1")),
    Bench("pixels", quick=("--repeat", "3")),
    Bench("matching", quick=("--repeat", "3")),
    Bench("entropy", quick=("--repeat", "3")),
    Bench("boundary_f", quick=("--repeat", "3")),
    Bench("objects", quick=("--objects", "1,2", "--frames", "2")),
    Bench("correctors", quick=("--repeat", "1")),
    Bench("transport", quick=("--frames", "15", "--masks", "5")),
    Bench("snapshots", quick=("--frames", "8")),
    Bench("floods", quick=("--seconds", "2", "--only", "detector")),
    Bench("console", quick=("--seconds", "5", "--rounds", "1")),
    Bench("late_corrections", ("--sequences", "pond"), quick=("--delays", "2")),
    Bench("horizon", quick=("--told", "0", "--seconds", "1")),
    Bench(
        "flat",
        ("--frames", "4000", "--plain-frames", "2000"),
        quick=("--frames", "400", "--plain-frames", "200"),
    ),
)
"""Without those of accuracy on real sequences (stress.py)."""


def run(bench: Bench, *, quick: bool) -> dict[str, Any]:
    """Run one; how it ended."""
    command = [sys.executable, str(HERE / f"{bench.name}.py"), *bench.arguments]
    command += bench.quick if quick else ()
    began, ended = time.time(), WELL
    with ProcessSet(OUT / "logs") as processes:
        child = processes.start(bench.log, command, {**os.environ, "COLUMNS": "120"})
        try:
            for _ in processes.wait_for(child, PATIENCE_S):
                pass
        except ProcessError as error:
            ended = f"badly: {str(error).splitlines()[0]}"
    return {
        "benchmark": bench.title,
        "took, s": round(time.time() - began),
        "ended": ended,
        "began": began,
    }


def section(bench: Bench, began: float) -> str:
    """What a benchmark has found, as text of a page."""
    name = bench.log
    parts = [f"## {bench.title}", *_fresh(OUT / f"{name}.md", began)]
    if len(parts) == 1:
        printed = (OUT / "logs" / f"{name}.log").read_text()
        parts.append(f"```\n{printed.strip()}\n```")
    picture = OUT / f"{name}.png"
    if picture.is_file() and picture.stat().st_mtime >= began:
        parts.append(f"![{bench.title}]({picture.name})")
    return "\n\n".join(parts)


def _fresh(page: Path, began: float) -> list[str]:
    """A page's text, if it was written since."""
    return [page.read_text().strip()] if page.is_file() and page.stat().st_mtime >= began else []


def machine() -> str:
    """On what this ran."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{models[0] if models else platform.processor()}, {usable_cores()} processors, "
        f"{torch.backends.cpu.get_cpu_capability()}, {gpu}; PyTorch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=sorted({b.name for b in BENCHES}))
    parser.add_argument("--quick", action="store_true", help="a look, whose figures mean little")
    options = parser.parse_args(arguments)
    return run_to_the_end(lambda: run_all(options), "bench", f"what was printed is in {OUT}/logs")


def run_all(options: argparse.Namespace) -> int:
    """Run those that are chosen, and write the page; returns the exit status."""
    console = Console()
    chosen = [b for b in BENCHES if not options.only or b.name in options.only]
    ended = []
    for bench in chosen:
        console.print(f"{bench.title} …")
        ended.append(run(bench, quick=options.quick))
        console.print(f"  {ended[-1]['took, s']} s, ended {ended[-1]['ended']}")
    table = markdown_table([{k: v for k, v in row.items() if k != "began"} for row in ended])
    sections = [section(b, row["began"]) for b, row in zip(chosen, ended, strict=True)]
    page = "\n\n".join(["# Benchmarks", machine(), *sections, "## How they ended", table])
    (OUT / "summary.md").write_text(page + "\n")
    facts = [{**row, "machine": machine()} for row in ended]
    (OUT / "summary.json").write_text(json.dumps(facts, indent=1))
    console.print(f"see {OUT / 'summary.md'}")
    return 0 if all(row["ended"] == WELL for row in ended) else 1


if __name__ == "__main__":
    sys.exit(main())

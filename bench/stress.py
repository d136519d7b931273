# SPDX-License-Identifier: Apache-2.0
"""Questions and corrections on real sequences, as they are and under each stress view.

    tools/run python bench/stress.py ../shared/data/davis2016-dev [--docs]

Runs `lazyxmem evaluate` once for each view of `data.stress`, with answers of three clicks and the
default settings, and makes one table of all: quiet failures first, means with their intervals over
sequences. What is finished is kept: the same command goes on from there. With --docs the table
goes into docs/results.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from lazyxmem_ros.cli import main as lazyxmem
from lazyxmem_ros.evaluation.printing import HELP, MERIT, QUALITY, Column, markdown_table
from tools.documents import add_docs_argument, check_docs, put_table

PAGE = Path("docs/results.md")
OUT = Path("out") / "stress"
METHODS = "xmem,lazy,random,oracle"
ANSWERS = ("--gesture", "largest_error", "--clicks", "3", "--repeats", "1")
CUT = "camel"
"""The sequence that is cut into the others."""
SHOWN = (
    *("quiet_failures", "jf", "corrections", "gain_per_correction", "oracle_share"),
    *("after_answers", "iou_honesty", "iou_error"),
)


def views(cut: str) -> dict[str, tuple[str, ...]]:
    """Name of each view -> the options that make it."""
    return {
        "as it is": (),
        "every third frame": ("--every-nth-frame", "3"),
        "twin": ("--twin",),
        "cut": ("--cut", cut),
    }


def rows_of(view: str, dataset: pd.DataFrame) -> list[dict[str, object]]:
    """The table's rows of one view, a method each."""
    columns = {column.key: column for column in (*MERIT, *QUALITY, *HELP)}
    return [
        {
            "view": view,
            "method": row["method"],
            **{columns[key].title: _with_interval(columns[key], row) for key in SHOWN},
        }
        for _, row in dataset.iterrows()
    ]


def _with_interval(column: Column, row: pd.Series) -> str:
    interval = column.interval(row)
    return column.text(row) + (f" ({interval})" if interval else "")


def main() -> int:
    """Run what is not finished yet, and make the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--cut", default=CUT, help="the sequence that is cut into the others")
    parser.add_argument("--sequences", help="only these, separated by commas")
    names = list(views(CUT))
    parser.add_argument(
        "--views", nargs="+", choices=names, default=names, help="only these (default: all)"
    )
    parser.add_argument("--workers", default="1")
    add_docs_argument(parser, PAGE)
    arguments = parser.parse_args()
    check_docs(parser, arguments, {"dataset", "out", "views", "workers"})
    rows: list[dict[str, object]] = []
    known = views(arguments.cut)
    for name in arguments.views:
        options = known[name]
        out = arguments.out / name.replace(" ", "-")
        command = ["evaluate", str(arguments.dataset), "--out", str(out), "--methods", METHODS]
        command += [*ANSWERS, *options, "--workers", arguments.workers]
        command += ["--sequences", arguments.sequences] if arguments.sequences else []
        if status := lazyxmem(command):
            return status
        rows += rows_of(name, pd.read_parquet(out / "dataset.parquet"))
    table = markdown_table(rows)
    (arguments.out / "stress.md").write_text(table, encoding="utf-8")
    print(table)
    if arguments.docs:
        put_table(PAGE, "stress", table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

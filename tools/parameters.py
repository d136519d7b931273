# SPDX-License-Identifier: Apache-2.0
"""Writes what is made from the nodes' parameters: their files and their tables in the documents.

Run it after a change of a parameter: `tools/run python -m tools.parameters`. A test fails where
that was forgotten.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

import yaml

from lazyxmem_ros.evaluation.printing import markdown_table
from lazyxmem_ros.nodes import corrector, simulated_operator
from lazyxmem_ros.nodes.bags import recorder, replay
from lazyxmem_ros.nodes.operator import parameters as operator_parameters
from lazyxmem_ros.nodes.parameters import ParameterSpec, parameter_rows
from lazyxmem_ros.nodes.tracker import parameters as tracker_parameters
from tools.documents import put_table

ROOT = Path(__file__).parents[1]
PAGE = Path("docs/topics_and_parameters.md")
TABLES: dict[str, Sequence[ParameterSpec]] = {
    "tracker": tracker_parameters.table(),
    "correction": corrector.PARAMETERS,
    "replay": replay.PARAMETERS,
    "recorder": recorder.PARAMETERS,
    "operator": operator_parameters.PARAMETERS,
    "simulated_operator": simulated_operator.PARAMETERS,
}
"""The parameters of each node, by its executable's name. PAGE has a place for each table."""
FILES = {name: Path(f"config/{name}.yaml") for name in ("tracker", "correction")}
"""Those nodes that have a parameter file."""
WIDTH = 100
INDENT = " " * 4
NO_BREAK = "\u00a0"


def write(root: Path) -> None:
    """Writes the files below `root`, where PAGE has to be already."""
    for name, table in TABLES.items():
        put_table(root / PAGE, name, markdown_table(parameter_rows(table)))
    for name, path in FILES.items():
        (root / path).write_text(parameter_file(name, TABLES[name]), encoding="utf-8")


def parameter_file(name: str, table: Sequence[ParameterSpec]) -> str:
    """A ROS parameter file with every parameter's default, and its text above it."""
    lines = [
        "# SPDX-License-Identifier: Apache-2.0",
        f"# The parameters of `ros2 run lazyxmem_ros {name}`, with their defaults. Change a copy",
        "# of this file, which tools/parameters.py writes. The range of each, and when it may",
        f"# change, is told by `ros2 param describe /lazyxmem_{name} NAME`.",
        "/**:",
        "  ros__parameters:",
    ]
    for position, spec in enumerate(table):
        if spec.heading:
            lines += [""] if position else []
            lines += [f"{INDENT}# ---- {spec.heading}", ""]
        lines += _comment(spec)
        value = list(spec.default) if isinstance(spec.default, tuple) else spec.default
        lines.append(INDENT + yaml.safe_dump({spec.name: value}).strip())
    return "\n".join(lines) + "\n"


def _comment(spec: ParameterSpec) -> list[str]:
    choices = f" One of {', '.join(spec.choices)}." if spec.choices else ""
    together = (spec.text + choices).replace(" = ", f"{NO_BREAK}={NO_BREAK}")
    lines = textwrap.wrap(together, WIDTH - len(INDENT) - len("# "))
    return [f"{INDENT}# {line.replace(NO_BREAK, ' ')}" for line in lines]


def main(given: Sequence[str] | None = None) -> None:
    """The command line, which has no options."""
    argparse.ArgumentParser(
        prog="python -m tools.parameters", description=__doc__.splitlines()[0]
    ).parse_args(given)
    write(ROOT)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""The `lazyxmem` command.

Nothing heavy is imported before the command line is known to be right: PyTorch takes seconds.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from lazyxmem_ros import __version__
from lazyxmem_ros.entry import EXIT_FAULT, ending_at_once, load, run_to_the_end
from lazyxmem_ros.extras import MissingExtraError

PIPE_COLUMNS = 240
"""Width of what goes to a file or a pipe, where lines that are cut help nobody, unless COLUMNS says
another."""


class _Command(NamedTuple):
    """A command's modules: one has `add_arguments`, the other, which may be heavy, `run`."""

    arguments: str
    module: str
    about: str


_COMMANDS = {
    "track": _Command(
        "lazyxmem_ros.track.arguments",
        "lazyxmem_ros.track.command",
        "track objects in a video or a folder of frames",
    ),
    "evaluate": _Command(
        "lazyxmem_ros.evaluation.arguments",
        "lazyxmem_ros.evaluation.command",
        "measure tracking on datasets and bags",
    ),
    "export": _Command(
        "lazyxmem_ros.export",
        "lazyxmem_ros.export",
        "make a dataset of what people told trackers",
    ),
    "weights": _Command(
        "lazyxmem_ros.weights.command",
        "lazyxmem_ros.weights.command",
        "list, fetch and check weights files",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; faults of the user's input end as one sentence and status 1."""
    with ending_at_once():
        return _run(sys.argv[1:] if argv is None else list(argv))


def _run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="lazyxmem", description="Track objects in videos, measure trackers, fetch weights."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = arguments[0] if arguments else ""
    for name, command in _COMMANDS.items():
        sub = commands.add_parser(name, help=command.about, description=command.about)
        if name == chosen:
            load(command.arguments).add_arguments(sub)
    parsed = parser.parse_args(arguments)
    try:
        module = load(_COMMANDS[chosen].module)
    except MissingExtraError as error:
        print(f"lazyxmem {chosen}: {error}", file=sys.stderr)
        return EXIT_FAULT
    from rich.console import Console

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_COLUMNS
    return run_to_the_end(
        lambda: int(module.run(parsed, console)),
        f"lazyxmem {chosen}",
        "what was finished is kept",
    )


if __name__ == "__main__":
    sys.exit(main())

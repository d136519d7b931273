# SPDX-License-Identifier: Apache-2.0
"""The `lazyxmem` command line: track, evaluate, weights."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from rich.console import Console

from lazyxmem_ros import __version__
from lazyxmem_ros.entry import importing

EXIT_FAULT = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_COMMANDS = {
    "track": ("lazyxmem_ros.track", "track objects in a video or a folder of frames"),
    "evaluate": ("lazyxmem_ros.evaluation.command", "measure tracking on datasets and bags"),
    "weights": ("lazyxmem_ros.weights.command", "list, fetch and check weights files"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; faults of the user's input end as one sentence and status 1."""
    console, errors = Console(), Console(stderr=True)
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(prog="lazyxmem", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    modules = {}
    for name, (module, about) in _COMMANDS.items():
        sub = commands.add_parser(name, help=about, description=about)
        # Only the command that is wanted is imported: PyTorch takes seconds.
        if name in arguments:
            with importing():
                modules[name] = importlib.import_module(module)
            modules[name].add_arguments(sub)
    parsed = parser.parse_args(arguments)
    try:
        return int(modules[parsed.command].run(parsed, console))
    except (ValueError, RuntimeError, OSError) as error:
        errors.print(f"[red]lazyxmem {parsed.command}:[/] {error}", soft_wrap=True)
        return EXIT_FAULT
    except KeyboardInterrupt:
        errors.print("interrupted; what was finished is kept")
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())

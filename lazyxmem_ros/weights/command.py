# SPDX-License-Identifier: Apache-2.0
"""`lazyxmem weights` lists, fetches and checks weights files."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lazyxmem_ros.weights import KNOWN, MEGABYTE, Weights, WeightsError, check, fetch, find

EXIT_FAULT = 1
CALIBRATION = (
    "The published trackers have no calibration: they predict no IoU until "
    "`python -m training.calibrate NAME` has made one, in a checkout."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="what is known, and what is on this machine")
    for action, about in (
        ("fetch", "download published weights into the user's cache"),
        ("check", "verify size and checksum of files that are here, and print their SHA-256"),
    ):
        sub = actions.add_parser(action, help=about, description=about)
        names = ", ".join(w.name for w in KNOWN if action == "check" or w.url)
        sub.add_argument(
            "names",
            nargs="*" if action == "check" else "+",
            metavar="NAME",
            help=f"any of {names}" + (" (default: what is here)" if action == "check" else ""),
        )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run the command; returns the exit status."""
    if arguments.action == "list":
        console.print(table())
        return 0
    chosen = [find(name) for name in arguments.names] or [w for w in KNOWN if w.present]
    if not chosen:
        console.print("no known weights are on this machine: see `lazyxmem weights list`")
    faults = 0
    for weights in chosen:
        try:
            path = fetch(weights) if arguments.action == "fetch" else weights.path
            console.print(
                f"[green]{weights.name}[/]  {escape(str(path))}\n  sha256 {check(weights)}"
            )
        except WeightsError as error:
            faults += 1
            console.print(f"[red]{weights.name}[/]  {escape(str(error))}")
    return EXIT_FAULT if faults else 0


def table() -> Table:
    """The known weights, their sizes and licences, and where they lie."""
    result = Table("name", "what", "size", "licence", title="Weights", caption=CALIBRATION)
    result.add_column("where", overflow="fold")
    for weights in KNOWN:
        where = f"[dim]{weights.url or 'missing: reinstall the package'}[/]"
        if weights.present:
            where = f"[green]{escape(str(weights.path))}[/]"
        result.add_row(weights.name, weights.about, _size(weights), weights.licence, where)
    return result


def _size(weights: Weights) -> str:
    if weights.present:
        return f"{weights.path.stat().st_size / MEGABYTE:.0f} MB"
    return f"about {weights.parameters_bytes / MEGABYTE:.0f} MB"

# SPDX-License-Identifier: Apache-2.0
"""What came out of the demonstration, and the table that says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from rich.table import Table

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.data.layouts.bags import BagSequence
from lazyxmem_ros.data.pond import FAILURE_SPAN
from lazyxmem_ros.evaluation.graph.bag_export import FIRST_STAMP
from lazyxmem_ros.evaluation.graph.record import GraphRecord
from lazyxmem_ros.evaluation.rows import asked_of_people, given_corrections


@dataclass(frozen=True)
class Demonstration:
    """A demonstration that has been run.

    bag: what was played, at `rate` times its speed. record: what was published. frames, events:
    its rows (see `evaluation.rows`). compared: name -> frame rows of another run, of the same
    frames. scripted: whether it was the pond.
    """

    bag: BagSequence
    rate: float
    record: GraphRecord
    frames: pd.DataFrame
    events: pd.DataFrame
    compared: Mapping[str, pd.DataFrame]
    scripted: bool


def summary_table(outcome: Demonstration) -> Table:
    """The one table of the demonstration."""
    frames, events, record = outcome.frames, outcome.events, outcome.record
    tracked = len(record.masks)
    table = Table(title=f"{outcome.bag.name}, replayed at {outcome.rate:g}x", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("frames in", str(len(outcome.bag)))
    table.add_row("tracked", str(tracked))
    table.add_row("dropped (a newer one was there)", str(len(outcome.bag) - tracked))
    table.add_row("latency image -> mask, p50", f"{record.latency_ms(50):.0f} ms")
    table.add_row("latency image -> mask, p99", f"{record.latency_ms(99):.0f} ms")
    table.add_section()
    runs = {"with corrections": frames}
    runs |= {f"{name} *": rows for name, rows in outcome.compared.items()}
    for name, rows in runs.items():
        table.add_row(f"J {name}", _mean_j(rows))
    if outcome.scripted:
        for name, rows in runs.items():
            table.add_row(f"J from its return on, {name}", _mean_j(_after_return(rows)))
    table.add_section()
    asked = asked_of_people(events)
    itself = events[events["source"] == "pseudo"]
    table.add_row("corrections asked of the operator", str(len(asked)))
    table.add_row("corrections given and applied", str(len(given_corrections(events))))
    table.add_row("corrections the tracker made itself", str(int(itself["applied"].sum())))
    table.caption = (
        "J: how far masks and truth overlap, the mean over frames\n"
        "* the same frames run again offline, all else equal"
    )
    table.caption_justify = "left"
    return table


def _after_return(frames: pd.DataFrame) -> pd.DataFrame:
    """The frames after the koi has come back from under the bridge, by the pond's script."""
    seconds = (frames["stamp"] - FIRST_STAMP) / SECOND
    return frames[seconds > FAILURE_SPAN[1]]


def _mean_j(frames: pd.DataFrame) -> str:
    scored = frames[frames["scored"].astype(bool)]
    return f"{100 * scored['j'].mean():.1f} %" if len(scored) else "-"

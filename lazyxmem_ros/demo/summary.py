# SPDX-License-Identifier: Apache-2.0
"""What came out of the demonstration, and the table that says it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from rich.table import Table

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.data.pond import FAILURE_SPAN
from lazyxmem_ros.data.sequences import BagSequence
from lazyxmem_ros.evaluation.graph.bag_export import FIRST_STAMP
from lazyxmem_ros.evaluation.graph.record import GraphRecord
from lazyxmem_ros.evaluation.rows import asked_of_people, given_corrections


@dataclass(frozen=True)
class Demonstration:
    """A demonstration that has been run.

    bag: what was played, at `rate` times its speed. record: what was published. frames, events:
    its rows (see `evaluation.rows`). without: frame rows of the same frames without corrections.
    scripted: whether it was the pond.
    """

    bag: BagSequence
    rate: float
    record: GraphRecord
    frames: pd.DataFrame
    events: pd.DataFrame
    without: pd.DataFrame
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
    table.add_row("J with corrections", _mean_j(frames))
    table.add_row("J without corrections *", _mean_j(outcome.without))
    if outcome.scripted:
        for which, rows in (("with", frames), ("without *", outcome.without)):
            outside = _mean_j(_outside_failure(rows))
            table.add_row(f"J outside the scripted failure, {which}", outside)
    table.add_section()
    asked = asked_of_people(events)
    itself = events[events["source"] == "pseudo"]
    table.add_row("corrections asked of the operator", str(len(asked)))
    table.add_row("corrections given and applied", str(len(given_corrections(events))))
    table.add_row("corrections the tracker made itself", str(int(itself["applied"].sum())))
    table.caption = "* the same frames run again offline, corrections off, all else equal"
    table.caption_justify = "left"
    return table


def _outside_failure(frames: pd.DataFrame) -> pd.DataFrame:
    """The frames before and after the time at which the pond's script makes the tracker fail."""
    seconds = (frames["stamp"] - FIRST_STAMP) / SECOND
    return frames[(seconds < FAILURE_SPAN[0]) | (seconds > FAILURE_SPAN[1])]


def _mean_j(frames: pd.DataFrame) -> str:
    scored = frames[frames["scored"].astype(bool)]
    return f"{100 * scored['j'].mean():.1f} %" if len(scored) else "-"

# SPDX-License-Identifier: Apache-2.0
"""`lazyxmem export` makes a dataset of what people have told trackers."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lazyxmem_ros.basics import path_argument
from lazyxmem_ros.data.records import Answers, ExportedSequence, export, read_answers, record_files
from lazyxmem_ros.entry import EXIT_FAULT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.description = (
        "Makes a dataset in DAVIS' layout (JPEGImages, Annotations, ImageSets) of the frames that "
        "people have answered for, from the records that the tracker keeps in its record_dir. Each "
        "object is a sequence, in which it is number 1: nothing is said of the others. Records of "
        "a tracker that runs, or was killed, are read as far as they go. Train on the dataset, or "
        "give it to `lazyxmem evaluate`."
    )
    parser.add_argument(
        "records",
        type=path_argument,
        metavar="RECORDS",
        help="the tracker's record_dir, or one of its bags",
    )
    parser.add_argument(
        "--out", type=path_argument, required=True, metavar="DIR", help="a new folder"
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run the command; returns the exit status."""
    files = record_files(arguments.records)
    answers = read_answers(files)
    sequences = export(files, answers, arguments.out) if any(answers.masks.values()) else []
    for fault in answers.faults:
        console.print(f"[yellow]{escape(fault)}[/]")
    made = [sequence for sequence in sequences if sequence.frames]
    if made:
        console.print(_table(made))
    for line in _left_out(answers, sequences):
        console.print(line)
    if not made:
        console.print(
            "nothing to export: "
            + (
                "the records have no answer that the tracker has taken"
                if answers.recorded
                else "these are no records of a tracker; give its record_dir"
            )
        )
        return EXIT_FAULT
    console.print(f"{len(made)} sequences in {escape(str(arguments.out))}")
    return 0


def _table(sequences: list[ExportedSequence]) -> Table:
    table = Table("sequence", "frames")
    for sequence in sequences:
        table.add_row(escape(sequence.name), str(sequence.frames))
    return table


def _left_out(answers: Answers, sequences: list[ExportedSequence]) -> list[str]:
    """What is not in the dataset, in words."""
    counts = {
        "answers that the tracker did not take": answers.not_applied,
        "answers that were taken back": answers.taken_back,
        "answers whose frame is not in the records": sum(s.without_frame for s in sequences),
        "frames without the object at the begin of a sequence": sum(
            s.begun_late for s in sequences
        ),
    }
    return [f"not in it: {count} {what}" for what, count in counts.items() if count]

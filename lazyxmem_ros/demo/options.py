# SPDX-License-Identifier: Apache-2.0
"""The demonstration's command line, and the sequence that it names."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lazyxmem_ros import weights
from lazyxmem_ros.basics import path_argument
from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.layouts.folders import sequences_in_tree
from lazyxmem_ros.data.layouts.options import DatasetOptions
from lazyxmem_ros.data.layouts.scene import SceneSequence
from lazyxmem_ros.data.location import VARIABLE
from lazyxmem_ros.data.pond import MAX_DURATION, SceneConfig
from lazyxmem_ros.data.samples import VideoSequence
from lazyxmem_ros.evaluation.simulated_operator import Gesture, OperatorConfig

DEFAULT_OUT = Path("out") / "demo"
REACTION_DELAY_S = 1.0
LIKENESS = 0.75
"""Of the koi that comes out from under the bridge while the target is there: the tracker takes one
for the other."""
POND_RATE = 1.0
POND_INTERNAL_SIZE = 192
"""Pixels of the short side inside the tracker: two processor cores, which all nodes share, keep up
with the pond's 10 frames a second but while past frames are gone through again."""
REAL_SEQUENCE_RATE = 0.4
"""Real sequences have 24 frames per second; so they are played at about 10."""
PERSONS_SHARE = 0.25
"""Of these, where a person answers: what is asked within a second of the recording takes four."""
CONSOLE_PORT = 8080


@dataclass(frozen=True)
class DemoOptions:
    """What the command line says.

    sequence: name of a real sequence below `data`, None = the pond. duration: of the pond, seconds.
    rate: speed of the replay against the recording. weights: a file. internal_size: short side
    inside the tracker, pixels. console_port: of the page in which a person answers instead of
    `operator`, None = none does.
    """

    sequence: str | None
    data: Path | None
    duration: float
    rate: float
    out: Path
    weights: Path
    device: str
    internal_size: int
    operator: OperatorConfig
    console_port: int | None

    @property
    def scripted(self) -> bool:
        """Whether the pond is played, in whose script the tracker fails at a known time."""
        return self.sequence is None


def parse_options(arguments: Sequence[str] | None) -> DemoOptions:
    """Read the command line; raises WeightsError, and SystemExit for what argparse refuses."""
    parser = argparse.ArgumentParser(
        prog="python -m lazyxmem_ros.demo",
        description="A bag through the real ROS graph, with a simulated operator who helps.",
    )
    parser.add_argument("--sequence", help="name of a real sequence to play instead of the pond")
    parser.add_argument(
        "--data",
        type=path_argument,
        default=os.environ.get(VARIABLE) or None,
        help=f"folder of the real sequences, DAVIS trees (default: ${VARIABLE})",
    )
    parser.add_argument(
        "--duration", type=float, default=MAX_DURATION, help="of the pond, seconds (at most 15)"
    )
    parser.add_argument(
        "--rate",
        type=float,
        help=f"speed of the replay, 1 = as recorded (default: {POND_RATE:g}, "
        f"of a real sequence {REAL_SEQUENCE_RATE:g}; {PERSONS_SHARE:g} of that where you answer)",
    )
    parser.add_argument("--out", type=path_argument, default=DEFAULT_OUT, help="output folder")
    parser.add_argument("--weights", default="", help="a known name or a path; empty = embedded")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--internal-size",
        type=int,
        help="short side in the tracker, pixels; 0: the images' own (default: "
        f"{POND_INTERNAL_SIZE}, of a real sequence {weights.EMBEDDED_INTERNAL_SIZE})",
    )
    parser.add_argument(
        "--reaction-delay", type=float, default=REACTION_DELAY_S, help="of the operator, seconds"
    )
    parser.add_argument(
        "--gesture",
        choices=[gesture.value for gesture in Gesture],
        default=Gesture.BOX.value,
        help="how the operator answers",
    )
    parser.add_argument(
        "--operator",
        choices=["simulated", "browser"],
        default="simulated",
        help="who answers: a simulated operator, or you, in the console's page",
    )
    parser.add_argument(
        "--port", type=int, default=CONSOLE_PORT, help="of that page (default: %(default)s)"
    )
    parsed = parser.parse_args(arguments)
    if parsed.rate is not None and parsed.rate <= 0:
        parser.error("--rate must be above 0")
    return DemoOptions(
        sequence=parsed.sequence,
        data=parsed.data,
        duration=parsed.duration,
        rate=parsed.rate or _usual_rate(parsed),
        out=parsed.out,
        weights=weights.locate(parsed.weights),
        device=parsed.device,
        internal_size=_internal_size(parsed),
        operator=OperatorConfig(Gesture(parsed.gesture), parsed.reaction_delay),
        console_port=parsed.port if parsed.operator == "browser" else None,
    )


def _usual_rate(parsed: argparse.Namespace) -> float:
    rate = REAL_SEQUENCE_RATE if parsed.sequence else POND_RATE
    return rate * PERSONS_SHARE if parsed.operator == "browser" else rate


def _internal_size(parsed: argparse.Namespace) -> int:
    if parsed.internal_size is not None:
        return int(parsed.internal_size)
    return weights.EMBEDDED_INTERNAL_SIZE if parsed.sequence else POND_INTERNAL_SIZE


def open_sequence(options: DemoOptions) -> VideoSequence:
    """The generated pond, or the named sequence of a DAVIS tree in the data folder or below it.

    Raises DatasetError that says where the sequence was looked for.
    """
    name, data = options.sequence, options.data
    if name is None:
        return SceneSequence(SceneConfig(duration=options.duration, likeness=LIKENESS))
    if data is None or not data.is_dir():
        where = "no folder is named" if data is None else f"there is no folder {data}"
        raise DatasetError(
            f"the sequence {name} needs the real sequences: {where}; name it by --data or "
            f"${VARIABLE}, or leave the sequence out: the demo then makes its own"
        )
    known: dict[str, Path] = {}
    for tree in (data, *sorted(data.iterdir())):
        # A tree that is no data set of ours may lie beside the one that is wanted.
        with contextlib.suppress(DatasetError):
            known |= dict.fromkeys(sequences_in_tree(tree), tree)
    if name not in known:
        there = f"there are {', '.join(known)}" if known else "it holds no DAVIS tree"
        raise DatasetError(f"there is no sequence {name} in {data}; {there}")
    return open_dataset(known[name], DatasetOptions(sequences=(name,)))[0]

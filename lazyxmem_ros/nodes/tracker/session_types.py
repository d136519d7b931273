# SPDX-License-Identifier: Apache-2.0
"""What goes into a session and comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.basics import BoolMask, Labels
from lazyxmem_ros.nodes.tracker.frames import ReceivedFrame

if TYPE_CHECKING:
    from lazyxmem_ros.lazy import Outcome, Request, Source, StepResult, Track


class InputRefusedError(ValueError):
    """Input that changes nothing. `kind` names the fault for the counters, the text explains it."""

    def __init__(self, kind: str, fault: str) -> None:
        super().__init__(fault)
        self.kind = kind


def fault_kind(error: BaseException) -> str:
    """The name of a fault for the counters."""
    return str(getattr(error, "kind", type(error).__name__))


class SessionOutputs(Protocol):
    """Where a session's results go. Called in the worker's thread."""

    def publish_frame(
        self,
        frame: ReceivedFrame,
        image: NDArray[np.uint8],
        labels: Labels,
        result: StepResult | None,
    ) -> None:
        """The label map and tracks of a frame; result is None while nothing is tracked."""
        ...

    def ask_corrector(self, frame: ReceivedFrame, requests: Sequence[Request]) -> None:
        """Have the correction service refine objects of this frame, all in one request."""
        ...

    def ask_operator(self, frame: ReceivedFrame, request: Request) -> None:
        """Ask a person for help with an object of this frame."""
        ...

    def publish_correction(
        self, frame: ReceivedFrame | None, correction: SessionCorrection, outcome: Outcome
    ) -> None:
        """What became of a correction."""
        ...

    def refuse(self, topic: str, kind: str, fault: str) -> None:
        """Count and report refused input."""
        ...


@dataclass(frozen=True, eq=False)
class SessionCorrection:
    """A corrected mask bool [H, W] of one object in the frame of this stamp (ns)."""

    stamp: int
    object_id: int
    mask: BoolMask
    source: Source


@dataclass(frozen=True, eq=False)
class GivenMasks:
    """Masks {id: bool [H, W]} shown on the frame of `stamp` (ns), with texts {id: label}.

    topic: where they came from, for messages.
    """

    stamp: int
    masks: Mapping[int, BoolMask]
    labels: Mapping[int, str] = field(default_factory=dict)
    topic: str = ""


@dataclass(frozen=True)
class Upkeep:
    """What is kept for late corrections: bytes; past frames still to go through for one; frames
    that the limit in bytes has pushed out before their time.
    """

    history_bytes: int = 0
    frames_behind: int = 0
    frames_evicted: int = 0


@dataclass(frozen=True)
class Published:
    """The tracks of the newest tracked frame, whose stamp this is (ns); 0: there was none yet."""

    stamp: int = 0
    tracks: tuple[Track, ...] = ()

# SPDX-License-Identifier: Apache-2.0
"""The methods that an evaluation compares: named settings of the lazy tracker, and who asks."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from lazyxmem_ros.evaluation.errors import MethodError
from lazyxmem_ros.lazy import LazyConfig

EVERY_N_DEFAULT = 50
"""Frames between two questions of EVERY_N: at most 2 % of the frames are corrected."""
ORACLE_IOU_DEFAULT = 0.5
"""IoU below which ORACLE asks."""

Schedule = Mapping[int, frozenset[int]]
"""Object id -> numbers of the frames on which the operator is asked (Trigger.RANDOM)."""


class Trigger(enum.Enum):
    """Who decides when the operator is asked."""

    NOBODY = "nobody"
    POLICY = "policy"
    """The tracker decides, by its own uncertainty."""
    RANDOM = "random"
    """Chance decides: as many corrections per object as the reference method took."""
    EVERY_N = "every_n"
    """The calendar decides: every n-th frame after the object's first."""
    ORACLE = "oracle"
    """The ground truth decides: whenever the IoU is below a threshold."""


@dataclass(frozen=True)
class Method:
    """A named way to track and to ask.

    lazy: thresholds and switches. trigger: who asks the operator. budget_of: name of the method
    whose number of corrections a RANDOM trigger spends. every: frames between two questions of
    EVERY_N. below: IoU below which ORACLE asks. to_newest: an answer is applied to the frame
    that is newest when it comes, the naive way, instead of to the one that it is about.
    """

    name: str
    description: str
    lazy: LazyConfig
    trigger: Trigger = Trigger.NOBODY
    budget_of: str | None = None
    every: int = EVERY_N_DEFAULT
    below: float = ORACLE_IOU_DEFAULT
    to_newest: bool = False

    @property
    def asks_operator(self) -> bool:
        """Whether the operator is ever asked."""
        return self.trigger is not Trigger.NOBODY

    @property
    def runs_in_graph(self) -> bool:
        """Whether it can run through the ROS graph, where the tracker alone asks.

        A question of somebody else's comes when the frame's mask is out already; offline its answer
        is part of that mask.
        """
        return self.trigger in (Trigger.NOBODY, Trigger.POLICY) and not self.to_newest


SWITCHES = frozenset(
    ("operator_corrections", "pseudo_corrections", "update_from_operator", "update_from_pseudo")
)
"""Settings of LazyConfig that each method sets itself, and nobody changes for all of them."""


@dataclass(frozen=True)
class MethodOptions:
    """What may be changed of all methods together.

    lazy: the policy's settings, of which each method sets the SWITCHES itself. every, below: see
    Method. Raises MethodError for what is out of range.
    """

    lazy: LazyConfig = field(default_factory=LazyConfig)
    every: int = EVERY_N_DEFAULT
    below: float = ORACLE_IOU_DEFAULT

    def __post_init__(self) -> None:
        if self.every < 1:
            raise MethodError(f"--every must be at least 1 frame, got {self.every}")
        if not 0 < self.below <= 1:
            raise MethodError(f"--oracle-iou must be in 0..1, got {self.below}")


REFERENCE = "lazy"
"""Name of the full method: uncertainty asks, and memory learns from the answer."""


def all_methods(options: MethodOptions = MethodOptions()) -> dict[str, Method]:
    """Every named method, in the order in which reports list them."""
    base = options.lazy
    plain = base.plain_xmem()
    cautious = replace(
        plain,
        gate_radius=base.gate_radius,
        hold_entropy=base.hold_entropy,
        hold_unseen=base.hold_unseen,
        hold_iou=base.hold_iou,
        show_iou=base.show_iou,
    )
    pseudo = replace(cautious, pseudo_corrections=True)
    asking = replace(pseudo, operator_corrections=True)
    learning = replace(asking, update_from_operator=True)
    answered = replace(pseudo, update_from_operator=True)
    methods = (
        Method("xmem", "plain XMem", plain),
        Method("udu", f"XMem with {_caution(cautious)}", cautious),
        Method("pseudo", "udu and pseudo-corrections", pseudo),
        Method("user", "udu, pseudo- and operator's corrections", asking, Trigger.POLICY),
        Method(
            REFERENCE,
            "the same, learning from the operator (IDU): Lazy-XMem",
            learning,
            Trigger.POLICY,
        ),
        Method(
            "random",
            "corrections at random times, budget of lazy",
            answered,
            Trigger.RANDOM,
            budget_of=REFERENCE,
        ),
        Method(
            "every",
            f"corrections every {options.every} frames",
            answered,
            Trigger.EVERY_N,
            every=options.every,
        ),
        Method(
            "oracle",
            f"corrections when the IoU falls below {options.below:g}",
            answered,
            Trigger.ORACLE,
            below=options.below,
        ),
    )
    return {method.name: method for method in methods}


def _caution(lazy: LazyConfig) -> str:
    """What `udu` has that plain XMem has not, in words."""
    parts = ["UDU (uncertain frames kept out of memory)"]
    if lazy.gate_radius:
        parts.append("gates")
    if lazy.show_iou:
        parts.append("doubtful masks left out")
    *others, last = parts
    return f"{', '.join(others)} and {last}" if others else last


def choose_methods(names: list[str], options: MethodOptions = MethodOptions()) -> list[Method]:
    """The named methods, in the report's order, and those whose budget they spend.

    Raises MethodError for an unknown name.
    """
    known = all_methods(options)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise MethodError(f"unknown method {', '.join(unknown)}; known are {', '.join(known)}")
    wanted = set(names)
    wanted |= {budget for name in names if (budget := known[name].budget_of) is not None}
    return [method for name, method in known.items() if name in wanted]

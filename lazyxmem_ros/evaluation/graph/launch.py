# SPDX-License-Identifier: Apache-2.0
"""Plays a bag through the real ROS graph: replay, tracker, correction server, operator, recorder.

Each node is a process of its own. This module starts them, waits for them and ends them; it does
not need rclpy. The recorder writes what is published into a bag, which `record` reads; a watching
node (`nodes/graph_watch.py`) says who is there and counts the masks.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lazyxmem_ros.evaluation.graph.names import (
    ANSWER_TOPIC,
    INIT_TOPIC,
    MASK_TOPIC,
    RECORDED_TOPICS,
    REQUEST_TOPIC,
    STATUS_PERIOD_S,
)
from lazyxmem_ros.evaluation.graph.processes import Child, ProcessError, ProcessSet
from lazyxmem_ros.evaluation.machine import usable_cores
from lazyxmem_ros.evaluation.plan import TrackerSettings
from lazyxmem_ros.evaluation.simulated_operator import OperatorConfig
from lazyxmem_ros.lazy import LazyConfig
from lazyxmem_ros.settings import shown

SUBSCRIBERS = 2
"""The tracker and the recorder: the replay begins when both listen to its images."""
START_TIMEOUT_S = 90.0
"""Time that a node has to begin."""
LOCKSTEP_WAIT_S = 120.0
"""Time that the replay waits in lockstep for the mask of an image."""
SLOWEST = 20.0
"""A replay takes at most so many times what it should."""
PERSON_TIMEOUT_S = 600.0
"""Time that a person has to open the console's page."""
PERSON_DRAIN_S = 15.0
"""Time after the last image for what a person is about to answer."""
DRAIN_S = 1.5
"""Time after the last image for its mask and for corrections under way."""
QUIET_S = 1.5
"""The tracker counts as done when no mask has come for so long."""
LARGEST_DOMAIN = 101
"""Domains above collide with the ports of ordinary programs on Linux."""


@dataclass(frozen=True)
class GraphSettings:
    """One run through the graph.

    bag: has compressed images on `image_topic`, the first label map on INIT_TOPIC, and ground
    truth, which may be empty, on `truth_topic`. duration: of the bag, seconds. rate: speed against
    the recording. tracker, corrector: the nodes' parameters. operator: None = nobody answers, or a
    person does, in the operator's console, whose page is on `console_port` of this machine; the
    replay begins when somebody looks at it.
    lockstep: the next image goes out only when the mask of the last one was seen, at the latest
    after LOCKSTEP_WAIT_S.
    """

    bag: Path
    image_topic: str
    truth_topic: str
    duration: float
    rate: float = 1.0
    tracker: Mapping[str, object] = field(default_factory=dict)
    corrector: Mapping[str, object] = field(default_factory=dict)
    operator: OperatorConfig | None = None
    console_port: int | None = None
    lockstep: bool = False


def run_graph(
    settings: GraphSettings,
    record: Path,
    logs: Path,
    progressed: Callable[[int], None] = lambda masks: None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Play a bag through the graph and record what is published into the new bag `record`.

    progressed: called with the number of masks recorded so far, at first with 0. environment: of
    the nodes, see `graph_environment`. Raises ProcessError where a node fails; however it ends, no
    process is left.
    """
    environment = environment or graph_environment()
    progressed(0)
    with ProcessSet(logs) as processes:

        def start(name: str, parameters: Mapping[str, object], *remaps: str) -> Child:
            command = _command(("lazyxmem_ros.nodes", name), parameters, remaps)
            return processes.start(name, command, environment)

        watched = _Watched(logs / "graph.json")
        recorder = start(
            "recorder", {"bag": record, "topics": (settings.image_topic, *RECORDED_TOPICS)}
        )
        start("correction", settings.corrector)
        if settings.operator is not None:
            start(
                "simulated_operator",
                {
                    "bag": settings.bag,
                    "truth_topic": settings.truth_topic,
                    "gesture": settings.operator.gesture.value,
                    "reaction_delay": float(settings.operator.reaction_delay),
                    "click_noise": float(settings.operator.click_noise),
                    "seed": settings.operator.seed,
                    "clicks": settings.operator.clicks,
                },
                f"correction_request:={REQUEST_TOPIC}",
                f"operator_correction:={ANSWER_TOPIC}",
            )
        if settings.console_port is not None:
            start("operator", {"port": settings.console_port})
        start(
            "tracker",
            {**settings.tracker, "image_transport": "compressed"},
            f"image/compressed:={settings.image_topic}",
        )
        watch = {
            "status": watched.file,
            "operator": settings.operator is not None,
            "console": settings.console_port is not None,
        }
        program = ["lazyxmem_ros.nodes.graph_watch"]
        processes.start("watch", _command(program, watch, ()), environment)
        # A request before they are there would be lost. Who listens to the images the replay itself
        # waits for.
        by_person = settings.console_port is not None
        _wait_until_there(processes, watched, PERSON_TIMEOUT_S if by_person else START_TIMEOUT_S)
        replay = start("replay", _replay_parameters(settings))
        for _ in processes.wait_for(replay, patience_for(settings)):
            progressed(watched.masks())
        answered_by = DRAIN_S + (settings.operator.reaction_delay if settings.operator else 0.0)
        answered_by += PERSON_DRAIN_S if by_person else 0.0
        _wait_until_quiet(processes, watched, answered_by)
        processes.stop(recorder)
        progressed(watched.masks())
    if not (record / "metadata.yaml").is_file():
        raise ProcessError(
            f"the recording is incomplete; {recorder.log} says:\n{recorder.log_tail()}"
        )


def patience_for(settings: GraphSettings) -> float:
    """Seconds that the replay has to end. In lockstep each of its images has a limit of its own."""
    if settings.lockstep:
        return math.inf
    return START_TIMEOUT_S + SLOWEST * settings.duration / settings.rate


def tracker_parameters(settings: TrackerSettings, lazy: LazyConfig) -> dict[str, object]:
    """The tracker node's parameters for the core's settings; times become seconds."""
    return {
        "weights": settings.weights.resolve(),
        "device": settings.device,
        "max_internal_size": settings.max_internal_size,
        "precision": settings.precision,
        "backend": settings.backend,
        **shown(settings.memory),
        **shown(lazy),
    }


def corrector_parameters(settings: TrackerSettings) -> dict[str, object]:
    """The correction server's parameters for the same settings."""
    parameters: dict[str, object] = {
        "corrector": settings.corrector,
        "device": settings.device,
        "model_type": settings.corrector_model,
    }
    if settings.corrector_checkpoint is not None:
        parameters["checkpoint"] = settings.corrector_checkpoint.resolve()
    return parameters


def _command(
    program: Sequence[str], parameters: Mapping[str, object], remaps: Sequence[str]
) -> list[str]:
    """The command line of a node with its parameters and remappings (`from:=to`).

    program: the module that is run, and its arguments.
    """
    arguments = [part for key, value in parameters.items() for part in ("-p", _pair(key, value))]
    arguments += [part for remap in remaps for part in ("-r", remap)]
    return [sys.executable, "-m", *program, "--ros-args", *arguments]


def graph_environment() -> dict[str, str]:
    """The environment of the nodes: they talk on this machine only, in a domain of their own.

    Other nodes on the machine then neither hear nor disturb the run. What is set already stays.
    """
    environment = dict(os.environ)
    environment.setdefault("ROS_DOMAIN_ID", str(random.randint(1, LARGEST_DOMAIN)))
    environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    environment["PYTHONUNBUFFERED"] = "1"
    # The nodes share the machine: more threads than cores make each of them slower.
    environment.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // 2)))
    return environment


def _replay_parameters(settings: GraphSettings) -> dict[str, object]:
    parameters: dict[str, object] = {
        "bag": settings.bag,
        "topics": (settings.image_topic, INIT_TOPIC),
        "rate": float(settings.rate),
        # The tracker and the recorder; and the console while somebody looks.
        "wait_for_subscribers": SUBSCRIBERS,
        "wait_timeout": START_TIMEOUT_S,
    }
    if settings.lockstep:
        parameters |= {
            "lockstep_topic": MASK_TOPIC,
            "lockstep_image_topic": settings.image_topic,
            "lockstep_wait_for_object": True,
            "lockstep_timeout": LOCKSTEP_WAIT_S,
        }
    return parameters


class _Watched:
    """What the watching node has written last."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._status: dict[str, Any] = {"missing": ["a look at the ROS graph"], "masks": 0}
        file.unlink(missing_ok=True)  # of an earlier run

    def missing(self) -> list[str]:
        """What of the graph is not there yet, in words."""
        return list(self._now()["missing"])

    def masks(self) -> int:
        """The number of masks that the tracker has published so far."""
        return int(self._now()["masks"])

    def _now(self) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError):
            self._status = json.loads(self.file.read_text(encoding="utf-8"))
        return self._status


def _wait_until_quiet(processes: ProcessSet, watched: _Watched, least: float) -> None:
    """Wait at least `least` seconds, and until no mask has come for QUIET_S."""
    started = changed = time.monotonic()
    masks = watched.masks()
    while time.monotonic() - started < least or time.monotonic() - changed < QUIET_S:
        processes.check()
        time.sleep(STATUS_PERIOD_S)
        now = watched.masks()
        if now != masks:
            masks, changed = now, time.monotonic()


def _wait_until_there(processes: ProcessSet, watched: _Watched, timeout: float) -> None:
    """Wait until all that has to listen or serve is there; raises ProcessError."""
    deadline = time.monotonic() + timeout
    while missing := watched.missing():
        if time.monotonic() > deadline:
            raise ProcessError(
                f"after {timeout:.0f} s these are still missing: {', '.join(missing)}"
            )
        processes.check()
        time.sleep(STATUS_PERIOD_S / 2)


def _pair(name: str, value: object) -> str:
    """`name:=value` as the ROS command line reads it."""
    return f"{name}:={_yaml(value)}"


def _yaml(value: object) -> str:
    """A parameter's value as YAML: a text stays one, whatever is in it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, Path)):
        text = str(value).replace("'", "''")
        return f"'{text}'"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    return ".inf" if value == math.inf else str(value)

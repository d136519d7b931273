# SPDX-License-Identifier: Apache-2.0
"""A bag through the real ROS graph: replay, tracker, correction server, operator, recorder.

Each node is a process of its own; this module starts them, waits, and ends them. What was
published is recorded into a bag, which `graph_record` reads. Needs no rclpy itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.evaluation.graph.processes import Child, ProcessError, ProcessSet
from lazyxmem_ros.evaluation.simulated_operator import OperatorConfig
from lazyxmem_ros.lazy import LazyConfig
from lazyxmem_ros.xmem import MemoryConfig

TRACKER = "/lazyxmem_tracker"
MASK_TOPIC = f"{TRACKER}/mask"
TRACKS_TOPIC = f"{TRACKER}/tracks"
REQUEST_TOPIC = f"{TRACKER}/correction_request"
ANSWER_TOPIC = f"{TRACKER}/operator_correction"
CORRECTED_TOPIC = f"{TRACKER}/corrected"
INIT_TOPIC = f"{TRACKER}/init_mask"
DIAGNOSTICS_TOPIC = "/diagnostics"
RECORDED_TOPICS = (
    MASK_TOPIC,
    TRACKS_TOPIC,
    REQUEST_TOPIC,
    ANSWER_TOPIC,
    CORRECTED_TOPIC,
    INIT_TOPIC,
    DIAGNOSTICS_TOPIC,
)
TRACKER_TOPICS = (MASK_TOPIC, TRACKS_TOPIC, REQUEST_TOPIC, CORRECTED_TOPIC)
"""What the tracker publishes from the start."""
SUBSCRIBERS = 2
"""Tracker and recorder: the replay begins when both listen."""
START_TIMEOUT_S = 90.0
LOCKSTEP_WAIT_S = 120.0
DRAIN_S = 1.5
"""After the last image: time for its mask and for corrections under way."""
REPORT_PERIOD_S = 0.25
STOPPED_AFTER_S = 3.0
NANOSECOND_SETTINGS = frozenset(
    ("request_timeout", "lost_after", "correction_horizon", "state_period", "history_time")
)
"""Settings of LazyConfig that are durations."""
LARGEST_DOMAIN = 101
"""Domains above collide with the ports of ordinary programs on Linux."""


@dataclass(frozen=True)
class GraphSettings:
    """One run through the graph.

    bag: with images on `image_topic`, the first label map on INIT_TOPIC, and ground truth, which
    may be empty, on `truth_topic`. rate: speed against the recording. tracker: parameters of the
    tracker node. corrector: parameters of the correction server. operator: None = nobody answers.
    lockstep: the next image goes out only when the mask of the last one was seen; LOCKSTEP_WAIT_S
    is how long it is waited for.
    """

    bag: Path
    image_topic: str
    compressed: bool
    truth_topic: str
    duration: float
    rate: float = 1.0
    tracker: Mapping[str, object] = field(default_factory=dict)
    corrector: Mapping[str, object] = field(default_factory=dict)
    operator: OperatorConfig | None = None
    lockstep: bool = False


def run_graph(
    settings: GraphSettings,
    record: Path,
    logs: Path,
    progressed: Callable[[int], None] = lambda masks: None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Play a bag through the graph and record what is published into the new bag `record`.

    progressed: called with the number of masks recorded so far. environment: of the nodes, see
    `graph_environment`. Raises ProcessError where a node fails; however it ends, no process is
    left.
    """
    environment = environment or graph_environment()
    with ProcessSet(logs) as processes:

        def start(name: str, parameters: Mapping[str, object], *remaps: str) -> Child:
            command = node_command(name, parameters, remaps)
            return processes.start(name, command, environment)

        recorder = start(
            "recorder",
            {
                "bag": record,
                "topics": _list((settings.image_topic, *RECORDED_TOPICS)),
                "report_period": REPORT_PERIOD_S,
            },
        )
        corrector = start("correction", settings.corrector)
        operator = None
        if settings.operator is not None:
            operator = start(
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
        input_topic = "image/compressed" if settings.compressed else "image"
        transport = {"image_transport": "compressed" if settings.compressed else "raw"}
        start(
            "tracker", {**settings.tracker, **transport}, f"{input_topic}:={settings.image_topic}"
        )
        # The replay itself waits for who listens to its images, not for who listens to the masks.
        _wait_for_log(processes, recorder, [f"recording {topic}" for topic in TRACKER_TOPICS])
        # A request before they are there would be lost.
        _wait_for_log(processes, corrector, ["correct_mask"])
        if operator is not None:
            _wait_for_log(processes, operator, ["ready"])
        replay = start("replay", _replay_parameters(settings))
        patience = START_TIMEOUT_S + 20 * settings.duration / max(settings.rate, 0.05)
        for _ in processes.wait_for(replay, patience):
            progressed(_recorded_masks(recorder))
        answered_by = DRAIN_S + (settings.operator.reaction_delay if settings.operator else 0.0)
        _wait_until_quiet(processes, recorder, answered_by)
        processes.stop(recorder)
        progressed(_recorded_masks(recorder))
    if not (record / "metadata.yaml").is_file():
        raise ProcessError(
            f"the recording is incomplete; {recorder.log} says:\n{recorder.log_tail()}"
        )


def tracker_parameters(
    weights: Path,
    device: str,
    max_internal_size: int,
    memory: MemoryConfig,
    lazy: LazyConfig,
    *,
    precision: str = "auto",
) -> dict[str, object]:
    """The tracker node's parameters for the core's settings; times become seconds."""
    parameters: dict[str, object] = {
        "weights": weights.resolve(),
        "device": device,
        "max_internal_size": max_internal_size,
        "precision": precision,
    }
    for config in (memory, lazy):
        for entry in dataclasses.fields(config):
            value = getattr(config, entry.name)
            if entry.name in NANOSECOND_SETTINGS:
                value = value / SECOND
            parameters[entry.name] = value.value if isinstance(value, enum.Enum) else value
    return parameters


def node_command(
    name: str, parameters: Mapping[str, object], remaps: tuple[str, ...] = ()
) -> list[str]:
    """The command line of a node with its parameters and remappings (`from:=to`)."""
    arguments = [part for key, value in parameters.items() for part in ("-p", _pair(key, value))]
    arguments += [part for remap in remaps for part in ("-r", remap)]
    return [sys.executable, "-m", "lazyxmem_ros.nodes", name, "--ros-args", *arguments]


def graph_environment() -> dict[str, str]:
    """The environment of the nodes: this machine only, and a domain of its own unless one is set.

    Other nodes on the machine then neither hear nor disturb the run.
    """
    environment = dict(os.environ)
    environment.setdefault("ROS_DOMAIN_ID", str(random.randint(1, LARGEST_DOMAIN)))
    environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    environment["PYTHONUNBUFFERED"] = "1"
    # The nodes share the machine: more threads than cores make each of them slower.
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))
    return environment


def _replay_parameters(settings: GraphSettings) -> dict[str, object]:
    parameters: dict[str, object] = {
        "bag": settings.bag,
        "topics": _list((settings.image_topic, INIT_TOPIC)),
        "rate": float(settings.rate),
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


def _wait_until_quiet(processes: ProcessSet, recorder: Child, least: float) -> None:
    """At least `least` seconds, and until no mask has come for a while."""
    started = changed = time.monotonic()
    masks = _recorded_masks(recorder)
    while time.monotonic() - started < least or time.monotonic() - changed < STOPPED_AFTER_S / 2:
        processes.check()
        time.sleep(REPORT_PERIOD_S)
        now = _recorded_masks(recorder)
        if now != masks:
            masks, changed = now, time.monotonic()


def _wait_for_log(processes: ProcessSet, child: Child, lines: list[str]) -> None:
    """Until a process has logged all of the given texts; raises ProcessError after a while."""
    deadline = time.monotonic() + START_TIMEOUT_S
    missing = lines
    while missing:
        if time.monotonic() > deadline:
            raise ProcessError(f"{child.name} did not begin within {START_TIMEOUT_S:.0f} s")
        processes.check()
        time.sleep(REPORT_PERIOD_S / 2)
        logged = child.log.read_text(encoding="utf-8", errors="replace").splitlines()
        missing = [text for text in lines if not any(line.endswith(text) for line in logged)]


def _recorded_masks(recorder: Child) -> int:
    """How many masks the recorder's last report counts."""
    with contextlib.suppress(OSError):
        for line in reversed(recorder.log.read_text(errors="replace").splitlines()[-4:]):
            for word in line.split():
                if word.startswith(f"{MASK_TOPIC}="):
                    return int(word.rpartition("=")[2])
    return 0


def _pair(name: str, value: object) -> str:
    """`name:=value` as the ROS command line reads it."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, float) and value == float("inf"):
        text = ".inf"
    return f"{name}:={text}"


def _list(values: tuple[str, ...]) -> str:
    return f"[{','.join(values)}]"

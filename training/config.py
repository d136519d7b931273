# SPDX-License-Identifier: Apache-2.0
"""The settings of a training run: one YAML file a model, read strictly."""

from __future__ import annotations

import dataclasses
import itertools
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import yaml

from lazyxmem_ros.xmem.network import EncoderConfig, NetworkConfig
from training.compose import ComposeConfig

T = TypeVar("T")

COUNTS = (
    "batch",
    "frames",
    "memory_frames",
    "size",
    "steps",
    "validation_clips",
    "validation_every",
)
"""Settings that are 1 at least; no setting is below 0."""
AT_MOST_ONE = ("decay", "ema", "encoder_rate", "final_rate")
"""As every share is."""


class ConfigError(ValueError):
    """A training configuration is malformed."""


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum: `steps` optimiser steps on clips of one shape."""

    steps: int
    size: int
    """Pixels of a clip's side, a multiple of 16."""
    frames: int
    batch: int
    memory_frames: int = 3
    """Most frames that memory holds while a frame is segmented, the first always among them."""
    still_share: float = 0.0
    """Clips in which memory holds one frame many times, as after a scene that stood still."""
    bootstrap_share: float | None = None
    """Share of the hardest pixels that cross-entropy counts; None: as the run's schedule says."""
    freeze_batch_norm: bool = False
    """Use the running statistics, as inference does, and leave them as they are; those of a
    pretrained encoder are never touched."""
    freeze_early: bool = False
    """Leave the key encoder as it is up to stride 4: a step takes three quarters of the time."""
    compose: dict[str, float] = field(default_factory=dict)
    """Overrides of ComposeConfig for this stage, but for size and frames."""


@dataclass(frozen=True)
class TrackerTraining:
    """Everything that decides a tracker's training run."""

    network: NetworkConfig
    stages: tuple[Stage, ...]
    seed: int = 0
    pretrained: Literal["efficientnet-lite0"] | None = None
    """ImageNet weights from which the key encoder starts; its statistics stay theirs."""
    encoder_rate: float = 1.0
    """Learning rate of the key encoder, as a share of the others'."""
    learning_rate: float = 6e-4
    warm_up: int = 200
    """Steps of linear warm-up."""
    decay: float = 0.3
    """Share of all steps, at the end, over which the rate falls along a cosine."""
    final_rate: float = 0.02
    """Rate at the end, as a share of learning_rate."""
    restarts: tuple[int, ...] = ()
    """Steps at which warm-up, plateau and cosine begin anew, each time at `restart_share` of the
    rate before."""
    restart_share: float = 0.5
    weight_decay: float = 0.02
    gradient_clip: float = 3.0
    ema: float = 0.998
    object_shares: tuple[float, ...] = (0.55, 0.4, 0.05)
    """Probability of one, two, ... targets in the clips of a step."""
    deep_update_share: float = 0.25
    bootstrap_share: float = 0.2
    """Share of the hardest pixels that cross-entropy keeps once the boot-strap is complete."""
    bootstrap_steps: int = 2500
    """Step at which that share is reached, linearly from 1."""
    validation_clips: int = 16
    validation_every: int = 400

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return sum(self.stage_steps)

    @property
    def stage_steps(self) -> tuple[int, ...]:
        """Optimiser steps of each stage."""
        return tuple(stage.steps for stage in self.stages)

    def rate_at(self, step: int) -> float:
        """Learning rate: warm-up, a plateau, a cosine down; again from each restart on."""
        return rate_at(
            step,
            end=self.steps,
            restarts=self.restarts,
            highest=self.learning_rate,
            restart_share=self.restart_share,
            warm_up=self.warm_up,
            decay=self.decay,
            final_rate=self.final_rate,
        )

    def stage_at(self, step: int) -> tuple[int, Stage]:
        """Number and settings of the stage that holds this step."""
        end = 0
        for number, stage in enumerate(self.stages):
            end += stage.steps
            if step < end:
                return number, stage
        return len(self.stages) - 1, self.stages[-1]


@dataclass(frozen=True)
class RefinerTraining:
    """Everything that decides a refiner's training run."""

    cycles: tuple[int, ...]
    """Optimiser steps of each learning-rate cycle: warm-up, then a cosine down."""
    restart_share: float = 0.6
    """A cycle's highest rate, as a share of the highest before."""
    batch: int = 16
    """Samples of a step."""
    answered: int = 8
    """How many of them, at most, are the last batch's with its answers and one more click."""
    seed: int = 0
    learning_rate: float = 1e-3
    encoder_rate: float = 1.0
    """Learning rate of the key encoder, as a share of the others'."""
    freeze_early: bool = False
    """Leave the key encoder as it is up to stride 4: a step takes three quarters of the time."""
    warm_up: int = 100
    weight_decay: float = 0.02
    gradient_clip: float = 3.0
    ema: float = 0.998
    tracked_share: float = 0.1
    """Of clips whose priors are masks as the tracker leaves them."""
    prior_share: float = 0.5
    """Of the other samples that start from a broken mask."""
    real_share: float = 0.5
    """Of clips whose background is a real sequence, its object being a target."""
    in_place_share: float = 0.35
    """Of clips whose first target is a part of a photograph, not pasted into it."""
    thing_share: float = 0.6
    """Of photographs from which a whole thing is taken instead of a few regions."""

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return sum(self.cycles)

    def rate_at(self, step: int) -> float:
        """Learning rate of a step: in each cycle warm-up, then a cosine to a fiftieth."""
        return rate_at(
            step,
            end=self.steps,
            restarts=tuple(itertools.accumulate(self.cycles[:-1])),
            highest=self.learning_rate,
            restart_share=self.restart_share,
            warm_up=self.warm_up,
            decay=1.0,
            final_rate=0.02,
        )

    def __post_init__(self) -> None:
        cycles = self.cycles if isinstance(self.cycles, tuple) else ()
        if not cycles or not all(isinstance(steps, int) and steps > 0 for steps in cycles):
            raise ConfigError(
                f"cycles must be a list of numbers of steps, such as [14000], not {self.cycles!r}"
            )
        if not 0 <= self.answered < self.batch:
            raise ConfigError(
                f"answered must be at least 0 and below batch ({self.batch}), not {self.answered}"
            )


def rate_at(
    step: int,
    *,
    end: int,
    restarts: tuple[int, ...],
    highest: float,
    restart_share: float,
    warm_up: int,
    decay: float,
    final_rate: float,
) -> float:
    """Learning rate: linear warm-up to `highest`, a plateau, a cosine down over the last `decay` of
    the steps to `final_rate` of it; from each restart on again, at `restart_share` of it.
    """
    past = [restart for restart in restarts if restart <= step]
    start = past[-1] if past else 0
    stop = min([r for r in restarts if r > step], default=end)
    warm = min(1.0, (step - start + 1) / max(1, warm_up))
    fall_steps = decay * (stop - start)
    progress = min(1.0, max(0.0, (step - (stop - fall_steps)) / max(1.0, fall_steps)))
    fall = 0.5 * (1 + math.cos(math.pi * progress))
    peak = highest * restart_share ** len(past)
    return peak * warm * (final_rate + (1 - final_rate) * fall)


def build(kind: type[T], values: Any, where: str) -> T:
    """A dataclass from a mapping. Raises ConfigError naming what is unknown, missing, of a wrong
    type or out of range.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected a mapping, got {type(values).__name__}")
    known = {f.name: f.type for f in dataclasses.fields(cast(Any, kind))}
    unknown = sorted(map(str, set(values) - set(known)))
    if unknown:
        raise ConfigError(f"{where}: unknown {unknown}; known are {sorted(known)}")
    fixed = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        made = kind(**fixed)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error
    types_of = typing.get_type_hints(kind)
    for name, value in fixed.items():
        if not _fits(value, types_of[name]):
            raise ConfigError(f"{where}: {name} must be {known[name]}, not {values[name]!r}")
        _check_range(name, value, where)
    return made


def _check_range(name: str, value: Any, where: str) -> None:
    """Raises ConfigError where a number, or one of several, cannot be what the setting is."""
    low = 1 if name in COUNTS else 0
    high = 1 if name.endswith(("_share", "_shares")) or name in AT_MOST_ONE else math.inf
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, (int, float)) and not low <= number <= high:
            limits = f"from {low} to {high}" if high == 1 else f"at least {low}"
            raise ConfigError(f"{where}: {name} must be {limits}, not {number}")


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value is what an annotation says; an int will do for a float."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        inner = inner[:1] * len(value) if inner[-1] is ... else inner
        return len(value) == len(inner) and all(map(_fits, value, inner))
    if origin is dict:
        return isinstance(value, dict) and all(_fits(one, inner[1]) for one in value.values())
    if annotation in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if annotation is float else annotation)


def read_network(values: Any) -> NetworkConfig:
    """NetworkConfig from its YAML mapping."""
    if not isinstance(values, dict):
        raise ConfigError("network: expected a mapping")
    values = dict(values)
    for name in ("key_encoder", "value_encoder"):
        if name in values:
            values[name] = build(EncoderConfig, values[name], f"network.{name}")
    return build(NetworkConfig, values, "network")


def load_tracker_training(path: Path) -> TrackerTraining:
    """Reads a run's YAML file. Raises ConfigError when it is malformed."""
    values = _read(path)
    stages = values.get("stages") if isinstance(values, dict) else None
    if not stages or not isinstance(stages, list) or "network" not in values:
        raise ConfigError(f"{path}: needs `network` and a list of `stages`, of at least one")
    values["network"] = read_network(values["network"])
    values["stages"] = [build(Stage, s, f"stages[{i}]") for i, s in enumerate(stages)]
    config = build(TrackerTraining, values, str(path))
    if not any(config.object_shares):
        raise ConfigError(f"{path}: object_shares must have one above 0")
    bounds = (0, *config.restarts, config.steps)
    if not all(before < after for before, after in itertools.pairwise(bounds)):
        raise ConfigError(
            f"{path}: restarts must rise, above 0 and below the run's {config.steps} steps, not "
            f"{list(config.restarts)}"
        )
    for i, stage in enumerate(config.stages):
        if stage.size % 16 or stage.frames < 2:
            raise ConfigError(f"stages[{i}]: size must be a multiple of 16, frames at least 2")
        if {"size", "frames"} & set(stage.compose):
            raise ConfigError(f"stages[{i}].compose: size and frames are the stage's own")
        build(ComposeConfig, stage.compose, f"stages[{i}].compose")
    return config


def load_refiner_training(path: Path) -> RefinerTraining:
    """Reads a run's YAML file. Raises ConfigError when it is malformed."""
    return build(RefinerTraining, _read(path), str(path))


class _StrictLoader(yaml.SafeLoader):
    """Refuses a setting that is given twice, of which YAML takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """See the class; what `<<` brings may be given anew."""
        given = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = {name for name in given if given.count(name) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"{sorted(twice)} given twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def _read(path: Path) -> Any:
    """What a YAML file holds. Raises ConfigError where it is none."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error

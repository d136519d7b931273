# SPDX-License-Identifier: Apache-2.0
"""What an evaluation is to run: its plan, and the jobs that the plan consists of.

Nothing here runs anything; `job` runs one job, `run` a whole plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lazyxmem_ros.correction import DEFAULT_CORRECTOR
from lazyxmem_ros.data.samples import VideoSequence
from lazyxmem_ros.evaluation.errors import EvaluationError, MethodError
from lazyxmem_ros.evaluation.methods import Method, Schedule, Trigger
from lazyxmem_ros.evaluation.simulated_operator import OperatorConfig
from lazyxmem_ros.xmem import MemoryConfig

KINDS = ("parquet", "csv")
"""Of files of tables."""
RANDOM_REPEATS_DEFAULT = 3


@dataclass(frozen=True)
class TrackerSettings:
    """Everything that decides what the tracker computes.

    weights: path of a checkpoint. device: "auto", "cpu", "cuda", "cuda:N". max_internal_size:
    short side in pixels, 0 = off. corrector: a name of `make_corrector`, with its checkpoint.
    threads: of the processor, for one job. backend: what computes the convolutions, a name of
    `with_backend`. computed_by: see `fingerprint.computed_by`; `evaluate` says it.
    """

    weights: Path
    device: str = "auto"
    max_internal_size: int = 0
    precision: str = "auto"
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    corrector: str = DEFAULT_CORRECTOR
    corrector_checkpoint: Path | None = None
    corrector_model: str = "vit_tiny"
    threads: int = 1
    backend: str = "auto"
    computed_by: str = ""


@dataclass(frozen=True)
class GraphMode:
    """How a sequence is played: at `rate` times its own speed, or in lockstep with the tracker.

    In lockstep a frame also waits for its corrections, where the operator has no reaction delay:
    everything then goes as in the offline run. Raises MethodError for a rate that is not above 0.
    """

    rate: float = 1.0
    lockstep: bool = False

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise MethodError(f"the replay's rate must be above 0, got {self.rate}")


@dataclass(frozen=True)
class Job:
    """A method on a sequence.

    repeat: numbers the runs of a method that draws lots. schedule: when such a method asks.
    strict: raise the first fault of the input. save_masks: as DAVIS's indexed PNGs. graph: through
    the ROS graph, None = offline.
    """

    sequence: VideoSequence
    method: Method
    tracker: TrackerSettings
    operator: OperatorConfig
    repeat: int = 0
    schedule: Schedule | None = None
    strict: bool = False
    save_masks: bool = False
    graph: GraphMode | None = None

    @property
    def name(self) -> str:
        """The job's folder, relative to the folder of all jobs."""
        repeat = f"-{self.repeat}" if self.repeat else ""
        return f"{self.sequence.name}/{self.method.name}{repeat}"


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """What to evaluate, and how.

    methods: in the report's order, references of random methods included. workers: processes.
    random_repeats: how often a method that draws lots is run, with other lots each time.
    strict, save_masks, graph: see Job. Raises EvaluationError for a plan that cannot be run.
    """

    sequences: tuple[VideoSequence, ...]
    methods: tuple[Method, ...]
    tracker: TrackerSettings
    operator: OperatorConfig = field(default_factory=OperatorConfig)
    workers: int = 1
    random_repeats: int = RANDOM_REPEATS_DEFAULT
    strict: bool = False
    save_masks: bool = False
    graph: GraphMode | None = None

    def __post_init__(self) -> None:
        names = [method.name for method in self.methods]
        for method in self.methods:
            if method.budget_of is not None and method.budget_of not in names:
                raise MethodError(f"{method.name} needs {method.budget_of}, which is not run")
        if self.workers < 1 or self.random_repeats < 1:
            raise EvaluationError("workers and repeats must be at least 1")
        if self.graph is not None:
            for method in self.methods:
                if not method.runs_in_graph:
                    raise MethodError(
                        f"{method.name} is offline only: through the graph nobody but the tracker "
                        "itself asks; leave it out with --methods, or leave out --graph"
                    )
            if self.workers > 1:
                raise EvaluationError("through the graph, in real time, it is one run at a time")

    def jobs_of(self, sequence: VideoSequence) -> list[Job]:
        """Every method's jobs on a sequence, schedules still open."""
        return [
            Job(
                sequence,
                method,
                self.tracker,
                self.operator,
                repeat,
                strict=self.strict,
                save_masks=self.save_masks,
                graph=self.graph,
            )
            for method in self.methods
            for repeat in range(self.random_repeats if method.trigger is Trigger.RANDOM else 1)
        ]

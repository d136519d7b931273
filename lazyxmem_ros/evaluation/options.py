# SPDX-License-Identifier: Apache-2.0
"""What the arguments of `lazyxmem evaluate` ask for: the plan."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from rich.console import Console

from lazyxmem_ros import weights
from lazyxmem_ros.correction import sam_hq_size, sam_hq_weights
from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.layouts.options import DatasetOptions, Layout
from lazyxmem_ros.data.samples import VideoSequence
from lazyxmem_ros.data.videos import check_rate
from lazyxmem_ros.evaluation.arguments import policy_settings
from lazyxmem_ros.evaluation.errors import EvaluationError, MethodError
from lazyxmem_ros.evaluation.executors import Executor
from lazyxmem_ros.evaluation.machine import on_gpu, usable_cores
from lazyxmem_ros.evaluation.methods import REFERENCE, MethodOptions, all_methods, choose_methods
from lazyxmem_ros.evaluation.plan import EvaluationPlan, GraphMode, TrackerSettings
from lazyxmem_ros.evaluation.simulated_operator import Gesture, OperatorConfig
from lazyxmem_ros.lazy import LazyConfig
from lazyxmem_ros.settings import held


def plan_of(arguments: argparse.Namespace, console: Console) -> EvaluationPlan:
    """What the arguments ask for. Raises EvaluationError, DataError and their kin for bad input.

    Sets `workers` where it is not given, so that a report can name it.
    """
    tell = partial(console.print, markup=False, highlight=False)
    sequences = open_dataset(arguments.dataset, _dataset_options(arguments), tell)
    options = _method_options(arguments)
    chosen = _names(arguments.methods) or _default_methods(sequences, graph=arguments.graph)
    methods = choose_methods(chosen, options)
    if arguments.clicks != 1 and arguments.gesture != Gesture.LARGEST_ERROR.value:
        raise MethodError("--clicks belongs to --gesture largest_error")
    if arguments.ray is not None and arguments.workers is not None:
        raise MethodError("--workers are processes of this machine: leave them or --ray out")
    if arguments.workers is None:
        arguments.workers = _default_workers(arguments)
    if arguments.workers < 1:
        raise EvaluationError(f"--workers must be at least 1, got {arguments.workers}")
    return EvaluationPlan(
        sequences=tuple(sequences),
        methods=tuple(methods),
        tracker=_tracker_settings(arguments),
        operator=OperatorConfig(
            gesture=Gesture(arguments.gesture),
            reaction_delay=arguments.reaction_delay,
            click_noise=arguments.click_noise,
            seed=arguments.seed,
            clicks=arguments.clicks,
        ),
        workers=arguments.workers,
        random_repeats=arguments.repeats,
        strict=arguments.strict,
        save_masks=arguments.save_masks,
        graph=_graph_mode(arguments),
    )


def executor_of(address: str | None) -> Executor | None:
    """The cluster, or None for processes of this machine."""
    if address is None:
        return None
    from lazyxmem_ros.evaluation.ray_executor import RayExecutor

    return RayExecutor(address)


def views_of(arguments: argparse.Namespace) -> str:
    """The options that show the dataset as it is not, "" without any."""
    views = {
        f"--every-nth-frame {arguments.every_nth_frame}": arguments.every_nth_frame != 1,
        "--twin": arguments.twin,
        f"--cut {arguments.cut}": arguments.cut is not None,
        f"--passes {arguments.passes}": arguments.passes != 1,
    }
    return ", ".join(option for option, given in views.items() if given)


def settings_given(arguments: argparse.Namespace) -> dict[str, str]:
    """The options by name, as they were given or by default, without those that say nothing."""
    unsaid = {"command", "dataset"}
    policy = {entry.name for entry in policy_settings()}
    return {
        name.replace("_", " "): str(value)
        for name, value in sorted(vars(arguments).items())
        # A switch that is off says nothing, but for those that are on by default.
        if name not in unsaid and value is not None and (value is not False or name in policy)
    }


def _dataset_options(arguments: argparse.Namespace) -> DatasetOptions:
    check_rate(arguments.rate)
    return DatasetOptions(
        layout=Layout(arguments.layout),
        masks=arguments.masks,
        first_mask=arguments.first_mask,
        image_topic=arguments.image_topic,
        truth_topic=arguments.truth_topic,
        rate=arguments.rate,
        sequences=tuple(_names(arguments.sequences)),
        passes=arguments.passes,
        binary=arguments.binary,
        every_nth_frame=arguments.every_nth_frame,
        twin=arguments.twin,
        cut=arguments.cut,
    )


def _method_options(arguments: argparse.Namespace) -> MethodOptions:
    base = LazyConfig.paper() if arguments.paper else LazyConfig()
    given = {entry.name: getattr(arguments, entry.name) for entry in policy_settings()}
    changes = held(LazyConfig, {name: x for name, x in given.items() if x is not None})
    return MethodOptions(replace(base, **changes), arguments.every, arguments.oracle_iou)


def _default_workers(arguments: argparse.Namespace) -> int:
    """One per core; one in all where they would share a GPU or disturb a graph in real time."""
    return 1 if arguments.graph or on_gpu(arguments.device) else usable_cores()


def _default_methods(sequences: Sequence[VideoSequence], *, graph: bool) -> list[str]:
    """All that say something: in the graph there is no schedule, without ground truth no answer."""
    truth = any(sequence.has_truth for sequence in sequences)
    return [
        name
        for name, method in all_methods().items()
        # `user` asks as the reference does; what it makes of the answers tells them apart.
        if (truth or not method.asks_operator or name == REFERENCE)
        and (not graph or method.runs_in_graph)
    ]


def _tracker_settings(arguments: argparse.Namespace) -> TrackerSettings:
    checkpoint = arguments.corrector_weights
    size = sam_hq_size(arguments.corrector, checkpoint, arguments.corrector_model)
    if arguments.corrector == "sam_hq" and checkpoint is None:
        checkpoint = weights.locate(sam_hq_weights(size))
    return TrackerSettings(
        weights.locate(arguments.weights),
        arguments.device,
        arguments.max_internal_size,
        precision=arguments.precision,
        corrector=arguments.corrector,
        corrector_checkpoint=checkpoint,
        corrector_model=size,
        threads=1 if arguments.ray else max(1, usable_cores() // arguments.workers),
        backend=arguments.backend,
    )


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()] if text else []


def _graph_mode(arguments: argparse.Namespace) -> GraphMode | None:
    if not arguments.graph:
        if arguments.lockstep or arguments.replay_rate != 1.0:
            raise MethodError("--lockstep and --replay-rate belong to --graph")
        return None
    if arguments.ray is not None:
        raise MethodError("--graph runs on this machine, not on a cluster: leave --ray out")
    return GraphMode(arguments.replay_rate, arguments.lockstep)

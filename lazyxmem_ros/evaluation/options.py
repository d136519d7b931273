# SPDX-License-Identifier: Apache-2.0
"""The options of `lazyxmem evaluate`, and the plan that they make."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from lazyxmem_ros import weights
from lazyxmem_ros.correction import (
    CORRECTOR_NAMES,
    DEFAULT_CORRECTOR,
    sam_hq_size,
    sam_hq_weights,
)
from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.layouts.options import DatasetOptions, Layout
from lazyxmem_ros.data.samples import VideoSequence
from lazyxmem_ros.data.videos import DEFAULT_RATE, check_rate
from lazyxmem_ros.evaluation.errors import EvaluationError, MethodError
from lazyxmem_ros.evaluation.methods import (
    EVERY_N_DEFAULT,
    ORACLE_IOU_DEFAULT,
    REFERENCE,
    SWITCHES,
    MethodOptions,
    all_methods,
    choose_methods,
)
from lazyxmem_ros.evaluation.plan import (
    RANDOM_REPEATS_DEFAULT,
    EvaluationPlan,
    GraphMode,
    TrackerSettings,
)
from lazyxmem_ros.evaluation.run import KINDS, Executor
from lazyxmem_ros.evaluation.simulated_operator import Gesture, OperatorConfig
from lazyxmem_ros.lazy import LazyConfig
from lazyxmem_ros.settings import Setting, held, settings_of
from lazyxmem_ros.xmem import BACKENDS

DEFAULT_OUT = Path("out") / "evaluation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "dataset",
        type=Path,
        help="DAVIS or LVOS tree, folder of frames, video, bag, or the word `scene`",
    )
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_OUT, help="results and report (default: %(default)s)"
    )
    _add_dataset_arguments(parser.add_argument_group("dataset"))
    _add_method_arguments(parser.add_argument_group("methods"))
    _add_policy_arguments(parser.add_argument_group("policy", "of all methods together"))
    _add_operator_arguments(parser.add_argument_group("simulated operator"))
    _add_tracker_arguments(parser.add_argument_group("tracker"))
    _add_run_arguments(parser.add_argument_group("running"))


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
        arguments.workers = 1 if arguments.graph else os.cpu_count() or 1
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
    policy = {entry.name for entry in _policy_settings()}
    return {
        name.replace("_", " "): str(value)
        for name, value in sorted(vars(arguments).items())
        # A switch that is off says nothing, but for those that are on by default.
        if name not in unsaid and value is not None and (value is not False or name in policy)
    }


# ---- the options


def _add_dataset_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--layout",
        choices=[layout.value for layout in Layout],
        default=Layout.AUTO.value,
        help="how the dataset lies; auto recognises it (default: %(default)s)",
    )
    group.add_argument("--sequences", help="only these, separated by commas")
    group.add_argument(
        "--masks",
        type=Path,
        help="folder of label maps (folder: by name, video: by number, bag: by stamp)",
    )
    group.add_argument(
        "--binary", action="store_true", help="whatever is not 0 in a mask is one object, id 1"
    )
    group.add_argument("--first-mask", type=Path, help="label map of the first frame")
    group.add_argument("--image-topic", help="of a bag; needed where it has several")
    group.add_argument("--truth-topic", help="of a bag: ground-truth label maps")
    group.add_argument(
        "--rate",
        type=float,
        help="frames per second of files, instead of a video's own times "
        f"(default of folders: {DEFAULT_RATE:g})",
    )
    group.add_argument(
        "--passes",
        type=int,
        default=1,
        help="play each sequence so many times, there and back: a long video, whose frames are "
        "held in memory (default: %(default)s)",
    )
    group.add_argument(
        "--every-nth-frame",
        type=int,
        default=1,
        metavar="N",
        help="stress view: every N-th frame only, so that everything moves N times as fast "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--twin",
        action="store_true",
        help="stress view: the mirror image of the first object crosses it",
    )
    group.add_argument(
        "--cut",
        metavar="OTHER",
        help="stress view: two seconds of this sequence of the dataset in the middle of each other",
    )


def _add_method_arguments(group: argparse._ArgumentGroup) -> None:
    known = ", ".join(all_methods())
    group.add_argument(
        "--methods",
        help=f"separated by commas; known are {known}; default: all that can "
        "be run, with --graph those in which the tracker asks, without ground truth those that "
        "need no answer",
    )
    group.add_argument(
        "--every",
        type=int,
        default=EVERY_N_DEFAULT,
        help="frames from one question of `every` to the next (default: %(default)s)",
    )
    group.add_argument(
        "--oracle-iou",
        type=float,
        default=ORACLE_IOU_DEFAULT,
        help="true IoU below which `oracle` asks (default: %(default)s)",
    )
    group.add_argument(
        "--repeats",
        type=int,
        default=RANDOM_REPEATS_DEFAULT,
        help="draws of `random` (default: %(default)s)",
    )
    group.add_argument(
        "--paper",
        action="store_true",
        help="the paper's settings: no cool-down, limits, late corrections or gates, and nothing "
        "by the predicted IoU",
    )


def _add_policy_arguments(group: argparse._ArgumentGroup) -> None:
    """One option for each setting of the policy that is the same for all methods."""
    for entry in _policy_settings():
        about: dict[str, Any] = {"help": entry.text.replace("%", "%%")}
        default = entry.shown(entry.default)
        if isinstance(default, bool):
            about["action"] = argparse.BooleanOptionalAction
        elif entry.choices:
            about["choices"] = entry.choices
        else:
            about["type"] = type(default)
            about["metavar"] = entry.unit.shown.upper() if entry.unit else "X"
        about["help"] += f" (default: {default})"
        group.add_argument(f"--{entry.name.replace('_', '-')}", **about)


def _policy_settings() -> list[Setting]:
    return [entry for entry in settings_of(LazyConfig) if entry.name not in SWITCHES]


def _add_operator_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--gesture",
        choices=[gesture.value for gesture in Gesture],
        default=Gesture.CLICK.value,
        help="what an answer is (default: %(default)s)",
    )
    group.add_argument(
        "--clicks",
        type=int,
        default=1,
        help="most clicks of an answer by largest_error (default: %(default)s)",
    )
    group.add_argument(
        "--reaction-delay", type=float, default=0.0, help="seconds until an answer (default: 0)"
    )
    group.add_argument(
        "--click-noise",
        type=float,
        default=0.0,
        help="standard deviation of clicks and box corners, pixels (default: 0)",
    )
    group.add_argument(
        "--seed", type=int, default=0, help="of noise and random times (default: %(default)s)"
    )


def _add_tracker_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--weights", default="", help="a known name or a path; default: embedded")
    group.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)"
    )
    group.add_argument(
        "--backend",
        choices=BACKENDS,
        default="auto",
        help="what computes the convolutions; auto: the quickest of those that are installed "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--max-internal-size",
        type=int,
        default=weights.EMBEDDED_INTERNAL_SIZE,
        help="short side in the tracker; 0 = off (default: %(default)s)",
    )
    group.add_argument(
        "--corrector",
        choices=CORRECTOR_NAMES,
        default=DEFAULT_CORRECTOR,
        help="what makes masks of clicks and boxes; auto: sam_hq where it and its weights are "
        "installed, else refiner (default: %(default)s)",
    )
    group.add_argument(
        "--corrector-weights", type=Path, help="its checkpoint, if not that in the user's cache"
    )
    group.add_argument("--corrector-model", help="SAM-HQ's size (default: vit_tiny)")


def _add_run_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--workers", type=int, help="processes; default: one per core, one with --graph"
    )
    group.add_argument(
        "--graph", action="store_true", help="through the ROS graph in real time, not offline"
    )
    group.add_argument("--ray", help="address of a Ray cluster to run on; `local` starts one")
    group.add_argument(
        "--replay-rate",
        type=float,
        default=1.0,
        help="of --graph: speed against the recording (default: 1)",
    )
    group.add_argument(
        "--lockstep", action="store_true", help="of --graph: drop no frame, wait for each mask"
    )
    group.add_argument("--strict", action="store_true", help="stop at the first fault in the input")
    group.add_argument("--save-masks", action="store_true", help="as DAVIS's indexed PNGs")
    group.add_argument(
        "--format", choices=KINDS, default=KINDS[0], help="of tables (default: %(default)s)"
    )


# ---- what they make


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
    given = {entry.name: getattr(arguments, entry.name) for entry in _policy_settings()}
    changes = held(LazyConfig, {name: x for name, x in given.items() if x is not None})
    return MethodOptions(replace(base, **changes), arguments.every, arguments.oracle_iou)


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
        corrector=arguments.corrector,
        corrector_checkpoint=checkpoint,
        corrector_model=size,
        threads=1 if arguments.ray else max(1, (os.cpu_count() or 1) // arguments.workers),
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

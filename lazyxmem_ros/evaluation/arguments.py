# SPDX-License-Identifier: Apache-2.0
"""The command line of `lazyxmem evaluate`: what is there before anything heavy is imported."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lazyxmem_ros import weights
from lazyxmem_ros.basics import PRECISIONS, path_argument
from lazyxmem_ros.correction import CORRECTOR_NAMES, DEFAULT_CORRECTOR
from lazyxmem_ros.data.layouts.options import Layout
from lazyxmem_ros.data.videos import DEFAULT_RATE
from lazyxmem_ros.evaluation.methods import (
    EVERY_N_DEFAULT,
    ORACLE_IOU_DEFAULT,
    SWITCHES,
    all_methods,
)
from lazyxmem_ros.evaluation.plan import KINDS, RANDOM_REPEATS_DEFAULT
from lazyxmem_ros.evaluation.simulated_operator import Gesture
from lazyxmem_ros.extras import BACKENDS
from lazyxmem_ros.lazy import LazyConfig
from lazyxmem_ros.settings import Setting, settings_of

DEFAULT_OUT = Path("out") / "evaluation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "dataset",
        type=path_argument,
        help="DAVIS or LVOS tree, folder of frames, video, bag, or the word `scene`",
    )
    parser.add_argument(
        "--out",
        type=path_argument,
        default=DEFAULT_OUT,
        help="results and report (default: %(default)s)",
    )
    _add_dataset_arguments(parser.add_argument_group("dataset"))
    _add_method_arguments(parser.add_argument_group("methods"))
    _add_policy_arguments(parser.add_argument_group("policy", "of all methods together"))
    _add_operator_arguments(parser.add_argument_group("simulated operator"))
    _add_tracker_arguments(parser.add_argument_group("tracker"))
    _add_run_arguments(parser.add_argument_group("running"))


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
        type=path_argument,
        help="folder of label maps (folder: by name, video: by number, bag: by stamp)",
    )
    group.add_argument(
        "--binary", action="store_true", help="whatever is not 0 in a mask is one object, id 1"
    )
    group.add_argument("--first-mask", type=path_argument, help="label map of the first frame")
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
    for entry in policy_settings():
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


def policy_settings() -> list[Setting]:
    """The settings of the policy that have an option: those that are the same for all methods."""
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
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="of the convolutions; auto: bfloat16 where the processor is quick with it "
        "(default: %(default)s)",
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
        "--corrector-weights",
        type=path_argument,
        help="its checkpoint, if not that in the user's cache",
    )
    group.add_argument("--corrector-model", help="SAM-HQ's size (default: vit_tiny)")


def _add_run_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--workers",
        type=int,
        help="processes; default: one per core that may be used, one with a GPU or --graph",
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

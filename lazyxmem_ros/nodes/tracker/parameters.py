# SPDX-License-Identifier: Apache-2.0
"""The tracker node's parameters, and the core's configurations made from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazyxmem_ros import weights
from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.nodes.parameters import Changes, ParameterSpec
from lazyxmem_ros.nodes.tracker.images import TRANSPORTS

if TYPE_CHECKING:
    from lazyxmem_ros.lazy import LazyConfig
    from lazyxmem_ros.xmem import MemoryConfig

INF = float("inf")

_POLICY = (
    ParameterSpec("operator_corrections", True, "Whether a person may be asked at all."),
    ParameterSpec(
        "operator_entropy",
        INF,
        "Masked entropy of an object above which a person is asked (tau_u); .inf = never.",
        bounds=(0.0, INF),
    ),
    ParameterSpec(
        "operator_rate",
        0.5,
        "Rise of the masked entropy from one frame to the next above which a person is asked "
        "(delta_u); .inf = never.",
        bounds=(0.0, INF),
    ),
    ParameterSpec(
        "operator_iou",
        0.5,
        "Predicted IoU of an object below which a person is asked; 0 = never. Weights without a "
        "calibration predict none.",
        bounds=(0.0, 1.0),
    ),
    ParameterSpec("pseudo_corrections", True, "Whether the tracker may correct itself at all."),
    ParameterSpec(
        "pseudo_entropy",
        INF,
        "Masked entropy above which the tracker corrects itself (tau_p); .inf = never.",
        bounds=(0.0, INF),
    ),
    ParameterSpec(
        "pseudo_rate",
        0.2,
        "Rise of the masked entropy above which the tracker corrects itself (delta_p); "
        ".inf = never.",
        bounds=(0.0, INF),
    ),
    ParameterSpec(
        "pseudo_iou",
        0.0,
        "Predicted IoU below which the tracker corrects itself; 0 = never.",
        bounds=(0.0, 1.0),
    ),
    ParameterSpec(
        "hold_entropy",
        1.2,
        "Masked entropy above which a frame is withheld from memory (tau_m); .inf = never. The "
        "paper's 0.8 suits the published weights.",
        bounds=(0.0, INF),
    ),
    ParameterSpec(
        "hold_unseen",
        True,
        "Whether a frame on which no object is in view is withheld from memory.",
    ),
    ParameterSpec(
        "hold_iou",
        0.5,
        "Predicted IoU below which a frame is withheld from memory if all its objects in view are; "
        "0 = never.",
        bounds=(0.0, 1.0),
    ),
    ParameterSpec(
        "hold_rule",
        "any",
        "Whether one object above hold_entropy withholds the frame, or all in view must be.",
        choices=("any", "all"),
    ),
    ParameterSpec(
        "update_from_operator",
        True,
        "Whether a person's correction enters memory (interaction-driven update).",
    ),
    ParameterSpec(
        "update_from_pseudo",
        False,
        "Whether the tracker's own corrections enter memory; in the paper this hurt.",
    ),
    ParameterSpec(
        "cooldown_frames",
        30,
        "Frames after a request to a person, or a person's correction, before the same object "
        "may ask a person again; 0 = none.",
        bounds=(0, 1_000_000),
    ),
    ParameterSpec(
        "pseudo_cooldown_frames",
        5,
        "The same for the tracker's own corrections.",
        bounds=(0, 1_000_000),
    ),
    ParameterSpec(
        "max_open_requests",
        3,
        "Requests to a person that may be unanswered at a time; 0 = no limit.",
        bounds=(0, 1000),
    ),
    ParameterSpec(
        "request_timeout",
        10.0,
        "Seconds by the images' stamps that a person has for an answer; 0 = until the frame is "
        "forgotten.",
        bounds=(0.0, 86_400.0),
    ),
    ParameterSpec(
        "lost_area",
        16,
        "Pixels: an object whose mask is not larger than this is out of view.",
        bounds=(0, 100_000_000),
    ),
    ParameterSpec(
        "lost_after",
        2.0,
        "Seconds out of view after which an object is LOST; 0 = never.",
        bounds=(0.0, 86_400.0),
    ),
    ParameterSpec(
        "found_frames",
        3,
        "Frames in a row, in view and certain, that make a lost object found.",
        bounds=(1, 1_000_000),
    ),
    ParameterSpec(
        "uncertain_entropy",
        0.8,
        "Masked entropy above which an object is shown as UNCERTAIN.",
        bounds=(0.0, INF),
    ),
    ParameterSpec(
        "correction_horizon",
        5.0,
        "Seconds for which frames are kept with their features, so that a late correction is "
        "applied to its own frame, exactly; 0 = never.",
        bounds=(0.0, 86_400.0),
    ),
    ParameterSpec(
        "correction_bytes",
        1 << 30,
        "Bytes of frames and memory copies kept for that at most; the oldest go first.",
        bounds=(0, 1 << 50),
    ),
    ParameterSpec(
        "state_period",
        1.0,
        "Seconds between the copies of memory that late corrections start from.",
        bounds=(0.0, 86_400.0),
    ),
    ParameterSpec(
        "catch_up_budget",
        0.05,
        "Seconds per new frame for going through past frames again after a late correction.",
        bounds=(0.0, 3600.0),
    ),
    ParameterSpec(
        "late_overlap",
        0.7,
        "A correction of a frame that is not kept is used on the newest one if the object's masks "
        "on both overlap by more than this (IoU).",
        bounds=(0.0, 1.0),
    ),
    ParameterSpec(
        "history_time",
        10.0,
        "Seconds until a frame is forgotten: until then a correction may name it. A frame that "
        "still has its features is not forgotten.",
        bounds=(0.0, 86_400.0),
    ),
    ParameterSpec(
        "history_frames",
        600,
        "Frames that are not forgotten at most, with or without features.",
        bounds=(1, 1_000_000),
    ),
)
_IN_NANOSECONDS = (
    "request_timeout",
    "lost_after",
    "correction_horizon",
    "state_period",
    "history_time",
)
"""Given in seconds as everything in ROS is; the core counts in nanoseconds."""

_MEMORY = (
    ParameterSpec(
        "memory_every",
        5,
        "Every which frame enters working memory (r).",
        bounds=(1, 10_000),
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "deep_update_every",
        -1,
        "Frames between deep updates of the hidden state; -1 = with every memory frame.",
        bounds=(-1, 10_000),
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "long_term",
        True,
        "Whether full working memory is consolidated into long-term memory.",
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "max_working_frames",
        10,
        "Frames in working memory before a consolidation (T_max).",
        bounds=(2, 1000),
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "min_working_frames",
        5,
        "Frames in working memory after a consolidation (T_min); fewer than max_working_frames.",
        bounds=(1, 1000),
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "keep_first_frames",
        4,
        "First frames of objects that stay in working memory.",
        bounds=(1, 1000),
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "prototypes",
        128,
        "Long-term tokens made by one consolidation (P).",
        bounds=(1, 10_000),
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "max_long_term_tokens",
        10_000,
        "Long-term tokens before the least used are forgotten (LT_max).",
        bounds=(1, 1_000_000),
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "object_quota",
        64,
        "Long-term tokens of each object that are never forgotten, however long it is out of view.",
        bounds=(0, 1_000_000),
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "top_k",
        30,
        "Memory tokens that each pixel reads from.",
        bounds=(1, 10_000),
        changes=Changes.UNCONFIGURED,
    ),
)

TABLE = (
    ParameterSpec(
        "autostart",
        True,
        "Configure and activate at the start; false leaves that to a lifecycle manager.",
        changes=Changes.NEVER,
    ),
    ParameterSpec(
        "device",
        "auto",
        "Where the network runs: auto (a GPU where there is one), cpu, cuda or cuda:N.",
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "weights",
        "",
        "XMem weights: a path (.pth or .safetensors) or a name that `lazyxmem weights list` shows; "
        "empty = the model that comes with the package.",
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "max_internal_size",
        weights.EMBEDDED_INTERNAL_SIZE,
        "Longest short side, in pixels, that the network sees; 0 = the image's own. 480 suits the "
        "published weights.",
        bounds=(0, 10_000),
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "precision",
        "auto",
        "What the convolutions compute in; auto = bfloat16 where the processor is quick with it.",
        choices=("auto", "float32", "bfloat16", "float16"),
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "image_transport",
        "raw",
        "What images come as: raw on `image`, or compressed on `image/compressed`; only that topic "
        "is subscribed to.",
        choices=tuple(TRANSPORTS),
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "image_reliability",
        "best_effort",
        "Quality of service of the image topic: best_effort as for any sensor; reliable where no "
        "image may be lost on the way, as in an evaluation.",
        choices=("best_effort", "reliable"),
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "history_megabytes",
        256,
        "MiB of recent images kept at most, so that masks and clicks may name a past frame.",
        bounds=(1, 1_000_000),
        changes=Changes.UNCONFIGURED,
    ),
    *_POLICY,
    *_MEMORY,
    ParameterSpec(
        "correction_timeout",
        2.0,
        "Seconds of steady time that the correct_mask service has for an answer.",
        bounds=(0.001, 3600.0),
    ),
    ParameterSpec(
        "correction_wait",
        0.0,
        "Seconds of steady time that a frame waits for its corrections before it is published; "
        "0 = it never waits.",
        bounds=(0.0, 3600.0),
    ),
    ParameterSpec(
        "snapshot_path",
        "",
        "File that keeps everything known of the objects, so that a restarted node goes on with "
        "them; empty = none.",
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "snapshot_period",
        10.0,
        "Seconds between snapshots; 0 = only on request and at the end.",
        bounds=(0.0, 86_400.0),
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "overlay_opacity",
        0.4,
        "Opacity of the tint on ~/overlay.",
        bounds=(0.0, 1.0),
    ),
    ParameterSpec(
        "diagnostics_period",
        1.0,
        "Seconds between messages on /diagnostics.",
        bounds=(0.05, 3600.0),
        changes=Changes.UNCONFIGURED,
    ),
)


def lazy_config(values: Mapping[str, Any]) -> LazyConfig:
    """The policy's settings as the core takes them; raises ValueError where they contradict."""
    from lazyxmem_ros.lazy import HoldRule, LazyConfig

    settings = {spec.name: values[spec.name] for spec in _POLICY}
    settings["hold_rule"] = HoldRule(values["hold_rule"])
    for name in _IN_NANOSECONDS:
        settings[name] = round(values[name] * SECOND)
    return LazyConfig(**settings)


def memory_config(values: Mapping[str, Any]) -> MemoryConfig:
    """The memory's settings as the core takes them; raises ValueError where they contradict."""
    from lazyxmem_ros.xmem import MemoryConfig

    return MemoryConfig(**{spec.name: values[spec.name] for spec in _MEMORY})


def weights_path(values: Mapping[str, Any]) -> Path:
    """The weights file that is asked for, its checksum verified where it is known.

    Raises WeightsError, which says how to get the file.
    """
    asked = values["weights"]
    path = weights.locate(asked)
    if asked in ("", *(known.name for known in weights.KNOWN)):
        weights.check(weights.find(asked or weights.DEFAULT_TRACKER))
    return path


def fault(values: Mapping[str, Any]) -> str | None:
    """Why these values do not go together, or None where they do."""
    try:
        memory_config(values)
        lazy_config(values)
    except ValueError as error:
        return str(error)
    return None

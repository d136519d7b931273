# SPDX-License-Identifier: Apache-2.0
"""The tracker node's parameters, and the core's configurations made from them.

A setting of the policy or of the memory is declared in LazyConfig or MemoryConfig; only what the
node alone has is declared here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazyxmem_ros import weights
from lazyxmem_ros.basics import MAX_OBJECT_ID, PRECISIONS
from lazyxmem_ros.data.label_maps import MAX_OBJECTS
from lazyxmem_ros.extras import BACKENDS
from lazyxmem_ros.nodes.image_limit import max_pixels_parameter
from lazyxmem_ros.nodes.parameters import Changes, ParameterSpec, parameters_of
from lazyxmem_ros.nodes.tracker.images import TRANSPORTS
from lazyxmem_ros.settings import ConfigError, held

if TYPE_CHECKING:
    from lazyxmem_ros.lazy import LazyConfig
    from lazyxmem_ros.xmem import MemoryConfig

_NETWORK_AND_IMAGES = (
    ParameterSpec(
        "autostart",
        True,
        "Configure and activate at the start; false leaves that to a lifecycle manager.",
        changes=Changes.NEVER,
        heading="The node and its network",
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
        "Pixels that the short side has at most in the network; 0 = as many as in the image. 480 "
        "suits the published weights.",
        bounds=(0, 10_000),
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "precision",
        "auto",
        "Number format of the convolutions; auto = bfloat16 where the processor is quick with it.",
        choices=PRECISIONS,
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "backend",
        "auto",
        "What computes the convolutions: torch, openvino or ncnn (both on a processor), or auto, "
        "the quickest for the device of those that are installed.",
        choices=BACKENDS,
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "image_transport",
        "raw",
        "Form of the images: raw on `image`, or compressed on `image/compressed`. Only that topic "
        "is subscribed to.",
        choices=tuple(TRANSPORTS),
        changes=Changes.UNCONFIGURED,
        heading="Images",
    ),
    ParameterSpec(
        "image_reliability",
        "best_effort",
        "Quality of service of the image topic: best_effort as for any sensor; reliable where no "
        "image may be lost on the way, as in an evaluation.",
        choices=("best_effort", "reliable"),
        changes=Changes.UNCONFIGURED,
    ),
    max_pixels_parameter(Changes.UNCONFIGURED),
    ParameterSpec(
        "max_objects",
        MAX_OBJECTS,
        "Objects that are followed at most; each costs time and memory with every frame.",
        bounds=(1, MAX_OBJECT_ID),
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "history_megabytes",
        1024,
        "MiB of recent images kept at most, so that masks and clicks may name a past frame; none "
        "is kept for longer than history_time.",
        bounds=(1, 1_000_000),
        changes=Changes.UNCONFIGURED,
    ),
)
_SERVICE_AND_OUTPUT = (
    ParameterSpec(
        "correction_timeout",
        2.0,
        "Seconds of steady time that the correct_mask service has for an answer, which is about "
        "all objects of a frame: the more there are, the longer it takes.",
        bounds=(0.001, 3600.0),
        heading="The correction service",
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
        "them; each tracker needs its own; empty = none.",
        changes=Changes.UNCONFIGURED,
        heading="What outlives the node",
    ),
    ParameterSpec(
        "snapshot_period",
        10.0,
        "Seconds between snapshots; 0 = only on request and at the end.",
        bounds=(0.0, 86_400.0),
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "record_dir",
        "",
        "Folder that keeps every request to a person, their answer and what became of it, as bags, "
        "which `lazyxmem export` turns into a dataset; empty = none.",
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "record_max_megabytes",
        1024,
        "MiB of records at most; the oldest bags are deleted for new ones.",
        bounds=(1, 10_000_000),
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "record_max_bags",
        8,
        "Bags that the records are kept in at most. Each has its share of the size; the next one "
        "begins when that is used up, and with each start of the node.",
        bounds=(2, 10_000),
        changes=Changes.UNCONFIGURED,
    ),
    ParameterSpec(
        "overlay_opacity",
        0.4,
        "Opacity of the tint on ~/overlay.",
        bounds=(0.0, 1.0),
        heading="What is shown",
    ),
    ParameterSpec(
        "diagnostics_period",
        1.0,
        "Seconds between messages on /diagnostics.",
        bounds=(0.05, 3600.0),
        changes=Changes.UNCONFIGURED,
    ),
)


@cache
def table() -> tuple[ParameterSpec, ...]:
    """All parameters, in the order of the parameter file.

    The first call imports PyTorch, which takes seconds: call it only once Ctrl-C ends in order.
    """
    from lazyxmem_ros.lazy import LazyConfig
    from lazyxmem_ros.xmem import MemoryConfig

    return (
        *_NETWORK_AND_IMAGES,
        *parameters_of(LazyConfig),
        *parameters_of(MemoryConfig),
        *_SERVICE_AND_OUTPUT,
    )


def lazy_config(values: Mapping[str, Any]) -> LazyConfig:
    """The policy's settings as the core takes them; raises ConfigError where it cannot."""
    from lazyxmem_ros.lazy import LazyConfig

    return LazyConfig(**held(LazyConfig, values))


def memory_config(values: Mapping[str, Any]) -> MemoryConfig:
    """The memory's settings as the core takes them; raises ConfigError where they contradict."""
    from lazyxmem_ros.xmem import MemoryConfig

    return MemoryConfig(**held(MemoryConfig, values))


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
    except ConfigError as error:
        return str(error)
    return None

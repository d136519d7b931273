# SPDX-License-Identifier: Apache-2.0
"""What a job's results depend on, as one short text: code, weights, data and settings."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import hashlib
import json
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import lazyxmem_ros
from lazyxmem_ros import weights
from lazyxmem_ros.correction import corrector_weights
from lazyxmem_ros.evaluation.plan import Job, TrackerSettings
from lazyxmem_ros.lazy import calibration_path
from lazyxmem_ros.xmem.device import resolve_device, resolve_precision

RUNTIMES = ("openvino", "ncnn")
"""Distributions of the backends beside PyTorch; `auto` may stand for any of them on a processor."""
LENGTH = 16
"""Hexadecimal digits of a fingerprint."""


def fingerprint(job: Job) -> str:
    """A text that changes with anything that could change the job's results."""
    settings = job.tracker
    facts = {
        "code": _code_digest(Path(lazyxmem_ros.__file__).parent),
        "weights": _digest(settings.weights),
        "calibration": _digest(calibration_path(settings.weights)),
        "corrector": _digest(corrector_weights(settings.corrector, settings.corrector_checkpoint)),
        "data": [_version(file) for file in job.sequence.files],
        # The number of threads decides how long it takes, not what comes out.
        "job": _plain(dataclasses.replace(job, tracker=dataclasses.replace(settings, threads=1))),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:LENGTH]


def computed_by(settings: TrackerSettings) -> str:
    """What the `auto` of device, precision and backend depends on here, and in which versions.

    To be asked once, where an evaluation is begun: on a cluster's machines it may be something
    else, and what one of them has computed shall be kept all the same.
    """
    place, precision = settings.device, settings.precision
    # What is not here may be on the cluster; what is nowhere the job will name.
    with contextlib.suppress(ValueError):
        device = resolve_device(settings.device)
        place, precision = device.type, str(resolve_precision(settings.precision, device))
    parts = [place, precision, f"torch {torch.__version__}"]
    if place == "cpu":
        parts.append(torch.backends.cpu.get_cpu_capability())
        able = RUNTIMES if settings.backend == "auto" else (settings.backend,)
        parts.extend(f"{name} {_installed(name)}" for name in able if name in RUNTIMES)
    return ", ".join(parts)


def _installed(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"


@lru_cache(maxsize=8)
def _digest(path: Path | None) -> str | None:
    return None if path is None or not path.is_file() else weights.sha256(path)


def _version(path: Path) -> tuple[int, int] | None:
    """Size and time of change (ns) of a file; None where it is gone.

    Data sets are too large to be read for every job.
    """
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns


@lru_cache(maxsize=1)
def _code_digest(package: Path) -> str:
    """The digest of every module of a package: any of them may change the results."""
    digest = hashlib.sha256()
    for module in sorted(package.rglob("*.py")):
        digest.update(module.relative_to(package).as_posix().encode() + b"\0" + module.read_bytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Dataclasses, enums, paths and sets as JSON can hold them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [entry.name for entry in dataclasses.fields(value)]
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (frozenset, set)):
        return sorted(_plain(entry) for entry in value)
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value

# SPDX-License-Identifier: Apache-2.0
"""What a job's results depend on, as one short text: code, weights, data and settings."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import lazyxmem_ros
from lazyxmem_ros import weights
from lazyxmem_ros.correction import corrector_weights
from lazyxmem_ros.evaluation.plan import Job
from lazyxmem_ros.lazy import calibration_path

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

# SPDX-License-Identifier: Apache-2.0
"""Trackers and correctors as an evaluation's settings say; networks are loaded once per process."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from lazyxmem_ros.correction import Corrector, make_corrector
from lazyxmem_ros.evaluation.plan import TrackerSettings
from lazyxmem_ros.lazy import LazyConfig, LazyTracker, open_tracker
from lazyxmem_ros.xmem import XMem, load_network, with_backend


def make_lazy_tracker(settings: TrackerSettings, lazy: LazyConfig) -> LazyTracker:
    """A new tracker without objects, with the calibration that lies beside its weights."""
    return open_tracker(
        settings.weights,
        lazy,
        network=_network(settings.weights, settings.backend, settings.device, settings.precision),
        memory=settings.memory,
        device=settings.device,
        max_internal_size=settings.max_internal_size,
        precision=settings.precision,
    )


@lru_cache(maxsize=1)
def shared_corrector(settings: TrackerSettings) -> Corrector:
    """The corrector of these settings, the same one for all that ask for it."""
    return make_corrector(
        settings.corrector,
        device=settings.device,
        checkpoint=settings.corrector_checkpoint,
        model_type=settings.corrector_model,
    )


@lru_cache(maxsize=1)
def _network(weights: Path, backend: str, device: str, precision: str) -> XMem:
    return with_backend(load_network(weights), backend, device=device, precision=precision)

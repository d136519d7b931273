# SPDX-License-Identifier: Apache-2.0
"""Correctors: (image, prompt) -> mask, behind one small protocol."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from lazyxmem_ros import weights
from lazyxmem_ros.correction.base import (
    Corrector,
    CorrectorError,
    Prompt,
    PromptError,
    Refinement,
    validate_prompt,
)

__all__ = [
    "CORRECTOR_NAMES",
    "DEFAULT_CORRECTOR",
    "Corrector",
    "CorrectorError",
    "Prompt",
    "PromptError",
    "Refinement",
    "corrector_weights",
    "make_corrector",
    "validate_prompt",
]


REFINER_WEIGHTS = "refiner"
SAM_HQ_WEIGHTS = {
    "sam-hq-tiny": "vit_tiny",
    "sam-hq-b": "vit_b",
    "sam-hq-l": "vit_l",
    "sam-hq-h": "vit_h",
}
"""Names of published weights -> SAM-HQ's size, the quickest first."""


def _make_grabcut(**_: object) -> Corrector:
    from lazyxmem_ros.correction.grabcut import GrabCutCorrector

    return GrabCutCorrector()


def _make_refiner(*, device: str, checkpoint: str | PathLike[str] | None, **_: object) -> Corrector:
    from lazyxmem_ros.correction.refiner import RefinerCorrector, load_refiner

    path = weights.find(REFINER_WEIGHTS).path if checkpoint is None else checkpoint
    return RefinerCorrector(load_refiner(path), device=device)


def _make_best(*, checkpoint: str | PathLike[str] | None, **arguments: Any) -> Corrector:
    """SAM-HQ where its weights are named or in the cache, else the embedded refiner."""
    if checkpoint is not None:
        return _make_sam_hq(checkpoint=checkpoint, **arguments)
    cached = _cached_sam_hq()
    if cached is None:
        return _make_refiner(checkpoint=None, **arguments)
    arguments["model_type"] = SAM_HQ_WEIGHTS[cached.name]
    return _make_sam_hq(checkpoint=cached.path, **arguments)


def _cached_sam_hq() -> weights.Weights | None:
    """The quickest of SAM-HQ's published weights that are on this machine."""
    return next((w for w in map(weights.find, SAM_HQ_WEIGHTS) if w.present), None)


def _make_sam_hq(
    *,
    device: str,
    checkpoint: str | PathLike[str] | None,
    model_type: str,
    untrained: bool,
) -> Corrector:
    from lazyxmem_ros.correction.sam_hq import SamHqCorrector

    return SamHqCorrector.from_checkpoint(
        checkpoint, model_type=model_type, device=device, untrained=untrained
    )


# Imported only when asked for: SAM-HQ takes seconds to import, GrabCut must work without it.
_FACTORIES: dict[str, Callable[..., Corrector]] = {
    "auto": _make_best,
    "refiner": _make_refiner,
    "grabcut": _make_grabcut,
    "sam_hq": _make_sam_hq,
}

CORRECTOR_NAMES = tuple(_FACTORIES)
DEFAULT_CORRECTOR = "auto"


def corrector_weights(name: str, checkpoint: str | PathLike[str] | None = None) -> Path | None:
    """The file whose weights `make_corrector` would load; None where it needs none."""
    if name == "grabcut":
        return None
    if checkpoint is not None:
        return Path(checkpoint)
    cached = _cached_sam_hq() if name == "auto" else None
    if cached is not None:
        return cached.path
    return None if name == "sam_hq" else weights.find(REFINER_WEIGHTS).path


def make_corrector(
    name: str,
    *,
    device: str = "auto",
    checkpoint: str | PathLike[str] | None = None,
    model_type: str = "vit_tiny",
    untrained: bool = False,
) -> Corrector:
    """Makes a corrector by name.

    Args:
        name: "sam_hq"; "refiner", the embedded network; "grabcut", which needs no weights; or
            "auto": SAM-HQ where its weights are on this machine, else the refiner.
        device: "auto", "cpu", "cuda" or "cuda:N".
        checkpoint: weights of a `sam_hq_vit_*.pth` file, or the refiner's own.
        model_type: SAM-HQ's size: "vit_tiny", "vit_b", "vit_l" or "vit_h".
        untrained: random weights instead of a checkpoint; of use to tests alone.

    Raises:
        CorrectorError: an unknown name, a package or checkpoint that is missing or does not fit.

    """
    factory = _FACTORIES.get(name)
    if factory is None:
        raise CorrectorError(
            f"there is no corrector {name!r}; choose one of {', '.join(CORRECTOR_NAMES)}"
        )
    return factory(device=device, checkpoint=checkpoint, model_type=model_type, untrained=untrained)

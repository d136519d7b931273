# SPDX-License-Identifier: Apache-2.0
"""Correctors make masks from an image and prompts, behind one small protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from lazyxmem_ros import weights
from lazyxmem_ros.basics import user_path
from lazyxmem_ros.correction.base import (
    Corrector,
    CorrectorError,
    Prompt,
    PromptError,
    Refinement,
    validate_prompt,
)

if TYPE_CHECKING:
    import torch

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
    "sam_hq_size",
    "sam_hq_weights",
    "validate_prompt",
]


REFINER_WEIGHTS = "refiner"
REFINER_SUFFIX = ".safetensors"
"""By which its weights are told from SAM-HQ's."""
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


def _make_refiner(*, device: str, checkpoint: Path, **_: object) -> Corrector:
    from lazyxmem_ros.correction.refiner import RefinerCorrector, load_refiner

    return RefinerCorrector(load_refiner(checkpoint), device=_device(device))


def _make_sam_hq(
    *,
    device: str,
    checkpoint: str | PathLike[str] | None,
    model_type: str,
    untrained: bool,
) -> Corrector:
    from lazyxmem_ros.correction.sam_hq import SamHqCorrector

    return SamHqCorrector.from_checkpoint(
        checkpoint, model_type=model_type, device=_device(device), untrained=untrained
    )


def _device(name: str) -> torch.device:
    """The device of a name; raises CorrectorError if it is unknown or not here."""
    from lazyxmem_ros.xmem.device import resolve_device

    try:
        return resolve_device(name)
    except ValueError as error:
        raise CorrectorError(str(error)) from error


# Imported only when asked for: SAM-HQ takes seconds to import, GrabCut must work without it.
_FACTORIES: dict[str, Callable[..., Corrector]] = {
    "refiner": _make_refiner,
    "grabcut": _make_grabcut,
    "sam_hq": _make_sam_hq,
}

DEFAULT_CORRECTOR = "auto"
DEFAULT_SIZE = "vit_tiny"
"""Of SAM-HQ."""
CORRECTOR_NAMES = (DEFAULT_CORRECTOR, *_FACTORIES)


@dataclass(frozen=True)
class _Choice:
    """A corrector of _FACTORIES, and what it is to be made with.

    weights: None where it needs none, or has to be told. model_type: SAM-HQ's size, None where the
    weights do not say it.
    """

    name: str
    weights: Path | None
    model_type: str | None = None


def _choose(name: str, checkpoint: str | PathLike[str] | None) -> _Choice:
    """The corrector that a name and a checkpoint stand for on this machine."""
    given = None if checkpoint is None else user_path(checkpoint)
    if name == "auto":
        if given is not None:
            return _Choice("refiner" if given.suffix == REFINER_SUFFIX else "sam_hq", given)
        cached = next((w for w in map(weights.find, SAM_HQ_WEIGHTS) if w.present), None)
        if cached is not None and find_spec("segment_anything_hq") is not None:
            return _Choice("sam_hq", cached.path, SAM_HQ_WEIGHTS[cached.name])
        name = "refiner"
    if name == "grabcut":
        return _Choice(name, None)
    if given is None and name == "refiner":
        return _Choice(name, weights.find(REFINER_WEIGHTS).path)
    return _Choice(name, given)


def sam_hq_weights(model_type: str) -> str:
    """The name of the published weights of a size of SAM-HQ, such as "vit_b"."""
    names = {size: name for name, size in SAM_HQ_WEIGHTS.items()}
    if model_type not in names:
        raise CorrectorError(f"SAM-HQ has no size {model_type!r}; choose one of {', '.join(names)}")
    return names[model_type]


def sam_hq_size(name: str, checkpoint: str | PathLike[str] | None, size: str | None) -> str:
    """The size of SAM-HQ for a corrector's name and checkpoint; size: as --corrector-model says.

    Raises CorrectorError where the option would change nothing.
    """
    if size is None:
        return DEFAULT_SIZE
    told = name != "auto" or checkpoint is not None
    if not told or _choose(name, checkpoint).name != "sam_hq":
        raise CorrectorError(
            "--corrector-model is the size of SAM-HQ's checkpoint: give it with --corrector sam_hq"
        )
    return size


def corrector_weights(name: str, checkpoint: str | PathLike[str] | None = None) -> Path | None:
    """The file whose weights `make_corrector` would load; None where it needs none."""
    return _choose(name, checkpoint).weights


def make_corrector(
    name: str,
    *,
    device: str = "auto",
    checkpoint: str | PathLike[str] | None = None,
    model_type: str = DEFAULT_SIZE,
    untrained: bool = False,
) -> Corrector:
    """Make a corrector by name.

    Args:
        name: "sam_hq"; "refiner", the embedded network; "grabcut", which needs no weights; or
            "auto": whose the checkpoint is, if one is given (the refiner's end in .safetensors);
            else SAM-HQ, where its package (the extra `sam-hq`) is installed and its weights are in
            the user's cache; else the refiner.
        device: "auto", "cpu", "cuda" or "cuda:N".
        checkpoint: weights of a `sam_hq_vit_*.pth` file, or the refiner's own.
        model_type: SAM-HQ's size: "vit_tiny", "vit_b", "vit_l" or "vit_h".
        untrained: random weights instead of a checkpoint; of use to tests alone.

    Raises:
        CorrectorError: an unknown name, a package or checkpoint that is missing or does not fit.

    """
    if name not in CORRECTOR_NAMES:
        raise CorrectorError(
            f"there is no corrector {name!r}; choose one of {', '.join(CORRECTOR_NAMES)}"
        )
    if name == "grabcut" and checkpoint is not None:
        raise CorrectorError("grabcut takes no checkpoint: leave that out, or take the refiner")
    chosen = _choose(name, checkpoint)
    return _FACTORIES[chosen.name](
        device=device,
        checkpoint=chosen.weights,
        model_type=chosen.model_type or model_type,
        untrained=untrained,
    )

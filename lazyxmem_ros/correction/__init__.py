# SPDX-License-Identifier: Apache-2.0
"""Correctors: (image, prompt) -> mask, behind one small protocol."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike

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
    "Corrector",
    "CorrectorError",
    "Prompt",
    "PromptError",
    "Refinement",
    "make_corrector",
    "validate_prompt",
]


def _make_grabcut(**_: object) -> Corrector:
    from lazyxmem_ros.correction.grabcut import GrabCutCorrector

    return GrabCutCorrector()


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
    "grabcut": _make_grabcut,
    "sam_hq": _make_sam_hq,
}

CORRECTOR_NAMES = tuple(_FACTORIES)


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
        name: "grabcut" (needs no weights; the other arguments do not matter to it) or "sam_hq".
        device: "auto", "cpu", "cuda" or "cuda:N".
        checkpoint: weights of a `sam_hq_vit_*.pth` file.
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

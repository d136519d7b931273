# SPDX-License-Identifier: Apache-2.0
"""Where, and how precisely, networks compute."""

from __future__ import annotations

import torch

from lazyxmem_ros.basics import PRECISIONS

BFLOAT16_CAPABILITY = (8, 0)
"""CUDA compute capability from which bfloat16 is computed in hardware (Ampere)."""


def resolve_device(name: str | torch.device) -> torch.device:
    """The device of a name: auto (the GPU where there is one), cpu, cuda or cuda:N.

    Raises ValueError where it is unknown or not here.
    """
    if isinstance(name, torch.device):
        return name
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f'device "{name}" is unknown: use auto, cpu, cuda or cuda:N') from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f'device "{name}" is not here ({torch.cuda.device_count()} CUDA devices): use auto'
        )
    return device


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """The type of a name: float32, bfloat16, float16, or auto, bfloat16 where that is quick.

    Raises ValueError where it is unknown.
    """
    if name == "auto":
        if device.type == "cuda":
            quick = torch.cuda.get_device_capability(device) >= BFLOAT16_CAPABILITY
        else:
            quick = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if quick else torch.float32
    if name not in PRECISIONS:
        raise ValueError(f'precision "{name}" is unknown: use {", ".join(PRECISIONS)}')
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """The context in which networks compute in a type of `resolve_precision`."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)

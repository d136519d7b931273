# SPDX-License-Identifier: Apache-2.0
"""What of this machine an evaluation may use."""

from __future__ import annotations

import os

import torch


def usable_cores() -> int:
    """The processor's cores that this process may use, in a container perhaps not all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def on_gpu(device: str, *, there: bool | None = None) -> bool:
    """Whether a device's name means a GPU. there: whether there is one; None: on this machine."""
    if device != "auto":
        return device.startswith("cuda")
    return torch.cuda.is_available() if there is None else there

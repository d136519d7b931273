# SPDX-License-Identifier: Apache-2.0
"""Where a corrector's network runs."""

from __future__ import annotations

import torch

from lazyxmem_ros.correction.base import CorrectorError


def resolve_device(device: str | torch.device) -> torch.device:
    """The device of a name: auto, cpu, cuda or cuda:N. Raises CorrectorError if it is not here."""
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise CorrectorError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:N") from error
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise CorrectorError(
            f"device {device!r} is not here ({torch.cuda.device_count()} CUDA devices); use auto"
        )
    return resolved

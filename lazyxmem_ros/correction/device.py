# SPDX-License-Identifier: Apache-2.0
"""Where a corrector's network runs."""

from __future__ import annotations

import torch

import lazyxmem_ros.xmem.device as compute
from lazyxmem_ros.correction.base import CorrectorError


def resolve_device(device: str | torch.device) -> torch.device:
    """The device of a name: auto, cpu, cuda or cuda:N. Raises CorrectorError if it is not here."""
    try:
        return compute.resolve_device(device)
    except ValueError as error:
        raise CorrectorError(str(error)) from error

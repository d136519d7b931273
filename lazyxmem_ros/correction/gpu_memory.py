# SPDX-License-Identifier: Apache-2.0
"""A GPU whose memory is full, as the error that correctors raise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lazyxmem_ros.correction.base import CorrectorError


@contextmanager
def full_memory_explained(name: str, instead: str) -> Iterator[None]:
    """Within, a GPU's full memory is a CorrectorError.

    name: what it is not enough for. instead: what to choose.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise CorrectorError(f"the GPU has no memory left for {name}; choose {instead}") from error

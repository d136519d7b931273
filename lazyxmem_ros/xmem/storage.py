# SPDX-License-Identifier: Apache-2.0
"""Memory for what outlives a frame, apart from what comes and goes within one.

A frame's computation allocates and frees hundreds of arrays on the heap. What is kept for seconds
or longer must not lie between them: when it goes it leaves holes that fit nothing, and the process
grows for hours though it holds no more than before. So each such array has pages of its own, which
return to the system with it. On a GPU PyTorch's own allocator sees to that.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

PAGES_FROM = 16 * mmap.PAGESIZE
"""Bytes from which on something gets pages of its own; less would waste much of them."""
ALIGNMENT = 64
"""Bytes; PyTorch aligns its own arrays as much."""
# Where the system can (Linux), all pages at once: cheaper than one by one, and what is to be held
# is resident from the beginning.
_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0)


def lasting_zeros(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros of a shape for what stays for long."""
    count = torch.Size(shape).numel()
    if device.type != "cpu" or count * dtype.itemsize < PAGES_FROM:
        return torch.zeros(shape, dtype=dtype, device=device)
    return _pages(count, dtype).view(shape)


def lasting_copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies for what stays for long, and goes together, of tensors on one device.

    Each is laid out in memory as the tensor is. All share their pages, which stay as long as one
    of them does.
    """
    if not tensors:
        return []
    sizes = [-(-t.nbytes // ALIGNMENT) * ALIGNMENT for t in tensors]
    if sum(sizes) < PAGES_FROM or tensors[0].device.type != "cpu":
        return [t.clone() for t in tensors]
    block = _pages(sum(sizes), torch.uint8)
    copies = []
    for tensor, part in zip(tensors, block.split(sizes), strict=True):
        like = torch.empty_like(tensor, device="meta")  # dense, whatever the tensor is a part of
        flat = part[: tensor.nbytes].view(tensor.dtype)
        copies.append(flat.as_strided(like.shape, like.stride()).copy_(tensor))
    return copies


def _pages(count: int, dtype: torch.dtype) -> Tensor:
    """Zeros [count] on pages of their own; they are freed with the last tensor that shows them."""
    return torch.frombuffer(mmap.mmap(-1, count * dtype.itemsize, flags=_FLAGS), dtype=dtype)

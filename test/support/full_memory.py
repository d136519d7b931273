# SPDX-License-Identifier: Apache-2.0
"""A device whose memory is full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T")


class FullMemory(TorchDispatchMode):
    """Within it so many tensors find room, the next one does not, and what comes after does."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self.failed = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not self.failed and _makes_a_tensor(func):
            self.failed = self._room == 0
            self._room -= 1
            if self.failed:
                raise torch.OutOfMemoryError("the device's memory is full")
        return func(*args, **kwargs or {})


def _makes_a_tensor(func: torch._ops.OpOverload) -> bool:
    """Views and what writes into a tensor that is there make none."""
    results = func._schema.returns
    return any(r.alias_info is None and "Tensor" in str(r.type) for r in results)


def failed_each_way(
    make: Callable[[], T], call: Callable[[T], object], *, every: int = 1
) -> Iterator[T]:
    """For each tensor that a call makes, or every so many of them: what the call is of, made anew,
    after the call found no room for that tensor.
    """
    room = 0
    while True:
        subject = make()
        with FullMemory(room) as full:
            try:
                call(subject)
            except torch.OutOfMemoryError:
                assert full.failed
        if not full.failed:
            assert room, "the call makes no tensor"
            return
        yield subject
        room += every

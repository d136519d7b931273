# SPDX-License-Identifier: Apache-2.0
"""What a tracker remembers, and a copy of it, from which it or another one goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from torch import Tensor

from lazyxmem_ros.xmem.copies import MemoryState
from lazyxmem_ros.xmem.frame import Frame
from lazyxmem_ros.xmem.gating import Place
from lazyxmem_ros.xmem.memory import Memory


@dataclass(frozen=True)
class TrackerState:
    """A copy of all that a tracker remembers, between two frames or while one is open."""

    size: tuple[int, int] | None
    """Height and width of the images, pixels; None before the first."""
    tokens: tuple[int, int] | None
    """Height and width of a frame in memory tokens."""
    memory: MemoryState | None
    births: dict[int, int]
    """Object id -> index of its first frame."""
    hidden: dict[int, Tensor]
    """Object id -> hidden state [C_h, h, w]."""
    places: dict[int, Place]
    """Object id -> where it was on the newest closed frame, where there is a gate around it."""
    frame: Frame | None
    """A copy of the frame that was open, if one was."""
    frames: int
    """Frames so far, the open one included."""
    clock: int
    """The memory clock's reading: closed frames that were not held, less one."""
    last_memory: int
    """The reading at which a frame entered memory last."""
    last_deep_update: int
    """The reading at which there was a deep update last."""

    @property
    def nbytes(self) -> int:
        """Bytes of what no image gives back: memory, hidden states, and the frame's prediction."""
        states = [*self.hidden.values()]
        if self.frame is not None:
            states += (self.frame.distribution, *self.frame.hidden.values())
        return sum(t.nbytes for t in states) + (self.memory.nbytes if self.memory else 0)

    @property
    def whole_nbytes(self) -> int:
        """Bytes that these would be if memory shared nothing with the copy before."""
        memory = self.memory
        return self.nbytes + (memory.whole_nbytes - memory.nbytes if memory else 0)

    def kept(self) -> Iterator[Tensor]:
        """The tensors of the copy and of the frame."""
        yield from self.hidden.values()
        yield from self.frame.kept() if self.frame else ()
        yield from self.memory.kept() if self.memory else ()


@dataclass
class Now:
    """What a tracker remembers. Its fields are those of `TrackerState`, which is a copy of it."""

    last_memory: int
    last_deep_update: int
    clock: int = -1
    frames: int = 0
    size: tuple[int, int] | None = None
    tokens: tuple[int, int] | None = None
    memory: Memory | None = None
    births: dict[int, int] = field(default_factory=dict)
    hidden: dict[int, Tensor] = field(default_factory=dict)  # replaced, never written into
    places: dict[int, Place] = field(default_factory=dict)
    frame: Frame | None = None
    """The newest one, open or not."""

    def copy(self) -> Now:
        """The same, with a life of its own; the memory and the frame are shared."""
        births, hidden, places = dict(self.births), dict(self.hidden), dict(self.places)
        return replace(self, births=births, hidden=hidden, places=places)

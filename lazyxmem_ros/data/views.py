# SPDX-License-Identifier: Apache-2.0
"""Other ways through the frames of a sequence: some of them, or all of them again.

`stress` has those that are harder than the sequence itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.samples import Sample, VideoSequence, View


@dataclass(frozen=True)
class SelectedFrames(View):
    """The frames of a sequence that have one of the given stamps (ns)."""

    whole: VideoSequence
    stamps: frozenset[int]

    def __len__(self) -> int:
        return len(self.stamps)

    def samples(self) -> Iterator[Sample]:
        """The selected samples, numbered as in the whole sequence."""
        return (sample for sample in self.whole.samples() if sample.stamp in self.stamps)


@dataclass(frozen=True)
class RepeatedSequence(View):
    """A sequence played there and back, `passes` times in all: a long video, in which everything
    is seen again. All of its frames are held in memory.
    """

    whole: VideoSequence
    passes: int

    def __post_init__(self) -> None:
        if self.passes < 1:
            raise DatasetError(f"a sequence is played at least once, not {self.passes} times")

    def __len__(self) -> int:
        # The frame at which it turns is shown once.
        return self.passes * (len(self.whole) - 1) + 1 if len(self.whole) else 0

    def samples(self) -> Iterator[Sample]:
        """The samples of the first pass, then the same with other keys and later stamps."""
        played: list[Sample] = []
        for sample in self.whole.samples():
            played.append(sample)
            yield sample
        stamp = played[-1].stamp if played else 0
        index = len(played)
        for number in range(1, self.passes):
            at = range(1, len(played)) if number % 2 == 0 else range(len(played) - 2, -1, -1)
            for position in at:
                before = played[position + 1] if number % 2 else played[position - 1]
                sample = played[position]
                stamp += abs(sample.stamp - before.stamp)
                key = f"{sample.key}_{number}"
                yield replace(sample, index=index, key=key, stamp=stamp, given={}, faults=[])
                index += 1

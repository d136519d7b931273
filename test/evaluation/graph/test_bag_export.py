# SPDX-License-Identifier: Apache-2.0
"""Sequences of every kind as bags for the graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lazyxmem_ros.data.bag_messages import StampedImage, StampedLabels
from lazyxmem_ros.data.bag_reader import BagReader
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.errors import BagError
from lazyxmem_ros.data.layouts.options import DatasetOptions
from lazyxmem_ros.data.samples import Sample, VideoSequence, View
from lazyxmem_ros.evaluation.graph.bag_export import FIRST_STAMP, TRUTH_TOPIC, export_bag

SIZE = (48, 64)
STAMPS = [1_700_000_100_000_000_000 + index * 10**8 for index in range(3)]
"""Since the epoch, as a robot records them."""
LABELS = np.zeros(SIZE, np.uint16)
LABELS[5:15, 5:15] = 4


@dataclass(frozen=True)
class Restamped(View):
    """A sequence with other stamps, in whatever order."""

    whole: VideoSequence
    stamps: list[int]

    def __len__(self) -> int:
        return len(self.stamps)

    def samples(self) -> Iterator[Sample]:
        for sample, stamp in zip(self.whole.samples(), self.stamps, strict=True):
            yield replace(sample, key=str(sample.index), stamp=stamp)


def record(path: Path, stamps: list[int]) -> Path:
    with BagWriter(path) as bag:
        for index, stamp in enumerate(stamps):
            image = np.full((*SIZE, 3), 10 + index, np.uint8)
            bag.write_image("/camera", StampedImage(stamp, image))
            bag.write_labels("/truth", StampedLabels(stamp, LABELS))
    return path


def test_a_real_bag_is_moved_to_the_first_stamp(tmp_path: Path) -> None:
    drive = record(tmp_path / "drive", STAMPS)
    (sequence,) = open_dataset(drive, DatasetOptions(truth_topic="/truth"))
    exported = export_bag(sequence, tmp_path / "bag", compression="png")
    samples = list(exported.samples())
    assert [sample.stamp - FIRST_STAMP for sample in samples] == [0, 10**8, 2 * 10**8]
    for sample, source in zip(samples, sequence.samples(), strict=True):
        np.testing.assert_array_equal(sample.image, source.image)
        np.testing.assert_array_equal(sample.truth, LABELS)
    assert [list(sample.given) for sample in samples] == [[4], [], []]
    assert [sample.key for sample in samples] == [str(stamp) for stamp in STAMPS]


def test_frames_whose_stamps_do_not_rise_are_left_out_as_offline(tmp_path: Path) -> None:
    """The node takes one frame of a stamp, whose mask would count for all of them."""
    stamps = [13 * 10**8, 10**8, 10**8, 2 * 10**8, 10**8, 3 * 10**8]
    (sequence,) = open_dataset(
        record(tmp_path / "drive", [FIRST_STAMP + index for index in range(len(stamps))]),
        DatasetOptions(truth_topic="/truth"),
    )
    faults: list[str] = []
    exported = export_bag(Restamped(sequence, stamps), tmp_path / "bag", faulty=faults.append)
    samples = list(exported.samples())
    assert [sample.stamp - FIRST_STAMP for sample in samples] == [0, 10**8, 2 * 10**8]
    assert [sample.key for sample in samples] == ["1", "3", "5"]
    assert [list(sample.given) for sample in samples] == [[4], [], []]
    assert faults == [
        "frame 0: its stamp is 1.200 s after the next frame's; it is left out",
        "frame 2: its stamp is not later than that of the frame before; it is left out",
        "frame 4: its stamp is not later than that of the frame before; it is left out",
    ]


@pytest.mark.parametrize("kind", ["bag", "folder"])
def test_what_has_no_ground_truth_has_none_as_a_bag(kind: str, tmp_path: Path) -> None:
    Image.fromarray(LABELS.astype(np.uint8)).save(tmp_path / "first.png")
    if kind == "bag":
        source = record(tmp_path / "drive", STAMPS)
    else:
        source = tmp_path / "video"
        source.mkdir()
        for index in range(3):
            Image.new("RGB", SIZE[::-1]).save(source / f"{index}.png")
    (sequence,) = open_dataset(source, DatasetOptions(first_mask=tmp_path / "first.png"))
    exported = export_bag(sequence, tmp_path / "bag")
    assert not exported.has_truth
    samples = list(exported.samples())
    assert [sample.key for sample in samples] == [sample.key for sample in sequence.samples()]
    assert [list(sample.given) for sample in samples] == [[4], [], []]
    np.testing.assert_array_equal(samples[0].given[4], LABELS == 4)
    assert all(sample.truth is None for sample in samples)
    with BagReader(tmp_path / "bag") as bag:
        assert bag.topics[TRUTH_TOPIC].messages == 0, "the operator can read that there is none"


def test_stamps_that_cannot_be_written_are_explained(tmp_path: Path) -> None:
    drive = record(tmp_path / "drive", [0, *STAMPS])
    (sequence,) = open_dataset(drive, DatasetOptions(truth_topic="/truth"))
    with pytest.raises(BagError, match="stamps not set"):
        export_bag(sequence, tmp_path / "bag")

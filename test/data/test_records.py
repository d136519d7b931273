# SPDX-License-Identifier: Apache-2.0
"""A dataset of what people have told trackers, from records that the test writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lazyxmem_ros.basics import MAX_LABEL_LENGTH, TAKEN_BACK
from lazyxmem_ros.data.bag_messages import StampedImage, message_types
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.label_maps import save_label_map
from lazyxmem_ros.data.records import UNFINISHED, export, read_answers, record_files

TRACKER = "/lazyxmem_tracker"
STAMP = 5 * 10**9


def track(types: Any, label: str) -> Any:
    """That object 1 is followed."""
    box = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    return types["lazyxmem_ros/msg/Track"](
        id=1,
        label=label,
        state=0,
        box=box,
        area=1,
        uncertainty=0.0,
        uncertainty_rate=0.0,
        predicted_iou=0.0,
    )


def record(path: Path, shade: int, label: str = "", said: Sequence[int | None] = (4,)) -> None:
    """What a tracker keeps of one session: an answered frame of that shade, stamped STAMP.

    said: what people said of the frame, in turn: a square from a column on, or None, that the last
    square is taken back.
    """
    with BagWriter(path) as bag:
        types = message_types().types
        header = bag._header(STAMP, "camera")
        tracks = types["lazyxmem_ros/msg/TrackArray"]
        for followed in ([], [track(types, label)]):  # as a record begins
            bag.write(f"{TRACKER}/tracks", tracks(header=header, tracks=followed), STAMP)
        image = np.full((16, 24, 3), shade, np.uint8)
        topic = f"{TRACKER}/correction_frame/compressed"
        bag.write_image(topic, StampedImage(STAMP, image), compression="png")
        for number, left in enumerate(said, start=1):
            mask = np.zeros((16, 24), np.uint8)
            if left is not None:
                mask[4:12, left : left + 8] = 255
            prompt = types["lazyxmem_ros/msg/Prompt"](
                positive=[],
                negative=[],
                has_box=False,
                box=types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
                mask=bag._image(header, mask, "mono8"),
            )
            answer = types["lazyxmem_ros/msg/Correction"](
                header=header,
                id=1,
                source="operator",
                prompt=prompt,
                applied=left is not None,
                message=TAKEN_BACK if left is None else "",
            )
            bag.write(f"{TRACKER}/corrected", answer, STAMP + number)


@pytest.mark.parametrize(
    "label", ["x" * 10_000, "\N{CJK UNIFIED IDEOGRAPH-732B}" * MAX_LABEL_LENGTH]
)
def test_a_long_name_is_cut_where_it_names_folders(tmp_path: Path, label: str) -> None:
    record(tmp_path / "records" / "lazyxmem_tracker-000001", 50, label)
    files = record_files(tmp_path / "records")
    export(files, read_answers(files), tmp_path / "out")
    [sequence] = open_dataset(tmp_path / "out")
    assert sequence.name.startswith("lazyxmem_tracker-")
    assert sequence.name.endswith("-1")
    assert len(sequence.name.encode()) < 150


@pytest.mark.parametrize(
    ("said", "holds"), [((4, 12), 12), ((4, 12, None), 4), ((4, 12, None, None), None)]
)
def test_an_answer_that_is_taken_back_leaves_the_one_before_it(
    said: tuple[int | None, ...], holds: int | None, tmp_path: Path
) -> None:
    record(tmp_path / "records" / "lazyxmem_tracker-000001", 50, said=said)
    files = record_files(tmp_path / "records")
    answers = read_answers(files)
    assert answers.taken_back == said.count(None)
    export(files, answers, tmp_path / "out")
    if holds is None:
        assert not any(answers.masks.values())
        return
    [sequence] = open_dataset(tmp_path / "out")
    (sample,) = sequence.samples()
    assert np.flatnonzero(sample.given[1].any(0))[0] == holds


def test_two_sessions_of_the_same_stamps_are_not_mixed_up(tmp_path: Path) -> None:
    """A simulation's clock begins at 0 each time."""
    for number, shade in enumerate((50, 200), start=1):
        record(tmp_path / "records" / f"lazyxmem_tracker-{number:06d}", shade)
    files = record_files(tmp_path / "records")
    export(files, read_answers(files), tmp_path / "out")
    shades = []
    for sequence in open_dataset(tmp_path / "out"):
        (sample,) = sequence.samples()
        assert sample.image is not None
        shades.append(round(float(sample.image.mean())))
    assert shades == [50, 200]


def test_an_interrupted_export_leaves_nothing_and_can_be_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a dataset would be taken for a whole one, and be in the way of the next."""
    for number in (1, 2):
        record(tmp_path / "records" / f"lazyxmem_tracker-{number:06d}", 50)
    files = record_files(tmp_path / "records")
    out = tmp_path / "out"
    saved = []

    def interrupting(path: Path, labels: np.ndarray) -> bool:
        if saved:
            raise KeyboardInterrupt
        saved.append(path)
        return save_label_map(path, labels)

    with monkeypatch.context() as patch:
        patch.setattr("lazyxmem_ros.data.records.save_label_map", interrupting)
        with pytest.raises(KeyboardInterrupt):
            export(files, read_answers(files), out)
    assert saved
    assert not list(out.iterdir())
    (out / UNFINISHED / "JPEGImages").mkdir(parents=True)  # as a kill leaves it
    assert [sequence.frames for sequence in export(files, read_answers(files), out)] == [1, 1]
    assert sorted(part.name for part in out.iterdir()) == ["Annotations", "ImageSets", "JPEGImages"]
    with pytest.raises(DatasetError, match="holds something already"):
        export(files, read_answers(files), out)

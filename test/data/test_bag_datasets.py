# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from trees import save_grey

from lazyxmem_ros.data.bag_messages import StampedImage, StampedLabels, message_types
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.errors import BagError, DatasetError
from lazyxmem_ros.data.layouts.bags import BagSequence
from lazyxmem_ros.data.layouts.options import DatasetOptions
from lazyxmem_ros.data.stress import CutSequence

MakeTree = Callable[..., Path]
EVERY_FRAME = {index: (1, 2) for index in range(5)}


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    path = tmp_path / "drive"
    with BagWriter(path) as writer:
        for index in range(4):
            stamp = 1_000_000_000 + index * 100_000_000
            image = np.full((48, 64, 3), 10 + index, np.uint8)
            writer.write_image("/camera", StampedImage(stamp, image))
            labels = np.zeros((48, 64), np.uint16)
            labels[5:15, 5:15] = 4
            if index != 1:
                writer.write_labels("/truth", StampedLabels(stamp, labels))
    return path


def test_ground_truth_of_a_bag_comes_from_one_place(bag: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    options = DatasetOptions(masks=tmp_path / "masks", truth_topic="/truth")
    with pytest.raises(DatasetError, match="--masks or --truth-topic, not both"):
        open_dataset(bag, options)


def test_masks_by_a_stamp_that_no_image_has_are_named(bag: Path, tmp_path: Path) -> None:
    for stamp in (10**9, 10**9 + 1):
        save_grey(tmp_path / "masks" / f"{stamp}.png", 3)
    (sequence,) = open_dataset(bag, DatasetOptions(masks=tmp_path / "masks"))
    faults = [fault for sample in sequence.samples() for fault in sample.faults]
    file = tmp_path / "masks" / "1000000001.png"
    assert f"{file}: no image has this stamp" in faults


def test_bag_with_a_truth_topic(bag: Path) -> None:
    (sequence,) = open_dataset(bag, DatasetOptions(truth_topic="/truth"))
    assert isinstance(sequence, BagSequence)
    assert (sequence.name, sequence.image_topic, len(sequence)) == ("drive", "/camera", 4)
    samples = list(pickle.loads(pickle.dumps(sequence)).samples())
    assert [sample.stamp for sample in samples] == [1_000_000_000 + i * 10**8 for i in range(4)]
    assert [sample.truth is not None for sample in samples] == [True, False, True, True]
    assert list(samples[0].given) == [4]
    with pytest.raises(BagError, match="no truth topic '/masks'"):
        open_dataset(bag, DatasetOptions(truth_topic="/masks"))


def test_a_truth_topic_holds_images(tmp_path: Path) -> None:
    word = message_types().types["std_msgs/msg/String"]
    with BagWriter(tmp_path / "drive") as writer:
        writer.write_image("/camera", StampedImage(10**9, np.zeros((4, 5, 3), np.uint8)))
        writer.write("/words", word(data="cat"), 10**9)
    (sequence,) = open_dataset(tmp_path / "drive", DatasetOptions(truth_topic="/words"))
    with pytest.raises(BagError, match=r"/words is of std_msgs/msg/String, no topic of label maps"):
        list(sequence.samples())


@pytest.mark.parametrize("soft", [True, False])
def test_binary_ground_truth_of_a_topic_is_one_object(soft: bool, tmp_path: Path) -> None:
    """Whatever is not 0, or of a soft mask 128 and above."""
    values = np.zeros((48, 64), np.uint8)
    values[10:30, 10:30], values[35:45, 40:60] = 3, 7
    if soft:
        values = cv2.GaussianBlur(np.where(values == 3, 255, 0).astype(np.uint8), (0, 0), 3)
    with BagWriter(tmp_path / "drive") as writer:
        writer.write_image("/camera", StampedImage(10**9, np.zeros((48, 64, 3), np.uint8)))
        message = writer._image(writer._header(10**9, "camera"), values, "mono8")
        writer.write("/truth", message, 10**9)
    options = DatasetOptions(image_topic="/camera", truth_topic="/truth", binary=True)
    (sequence,) = open_dataset(tmp_path / "drive", options)
    (sample,) = sequence.samples()
    assert list(sample.given) == [1]
    np.testing.assert_array_equal(sample.given[1], values >= 128 if soft else values > 0)


@pytest.mark.parametrize("from_files", [True, False])
def test_several_objects_after_a_black_and_white_map_are_not_made_one(
    from_files: bool, bag: Path, tmp_path: Path
) -> None:
    truth = np.zeros((48, 64), np.uint8)
    truth[:9, :9] = 255
    masks = tmp_path / "masks"
    masks.mkdir()
    with BagWriter(tmp_path / "other") as writer:
        for index in range(3):
            stamp = 1_000_000_000 + index * 100_000_000
            writer.write_image("/camera", StampedImage(stamp, np.zeros((48, 64, 3), np.uint8)))
            truth[20:30, 20:30] = 60 * index
            writer.write("/truth", writer._image(writer._header(stamp, ""), truth, "mono8"), stamp)
            Image.fromarray(truth).save(masks / f"{stamp}.png")
    known = {"masks": masks} if from_files else {"truth_topic": "/truth"}
    options = DatasetOptions(image_topic="/camera", **known)
    (sequence,) = open_dataset(tmp_path / "other", options)
    samples = list(sequence.samples())
    assert list(samples[0].given) == [1]
    assert [sample.truth is None for sample in samples] == [False, True, True]
    assert "it shows several objects, of values up to 255" in samples[2].faults[0]
    (sequence,) = open_dataset(tmp_path / "other", replace(options, binary=True))
    assert [int(sample.truth.sum()) for sample in sequence.samples()] == [81, 181, 181]


def test_grey_images_are_not_taken_for_label_maps(tmp_path: Path) -> None:
    for name, topics in (("one", ["/camera"]), ("two", ["/camera", "/truth"])):
        with BagWriter(tmp_path / name) as writer:
            for topic in topics:
                writer.write_labels(topic, StampedLabels(10**9, np.full((4, 5), 7, np.uint16)))
    for name, truth_topic in (("one", None), ("two", "/truth")):
        (sequence,) = open_dataset(tmp_path / name, DatasetOptions(truth_topic=truth_topic))
        (sample,) = sequence.samples()
        np.testing.assert_array_equal(sample.image, np.full((4, 5, 3), 7))
    with pytest.raises(BagError, match=r"--image-topic\); the bag has /camera, /truth"):
        open_dataset(tmp_path / "two")


def test_bag_with_a_folder_of_masks_by_stamp(bag: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    labels = np.zeros((48, 64), np.uint8)
    labels[:9, :9] = 3
    for stamp in (1_000_000_000, 1_200_000_000):
        Image.fromarray(labels).save(masks / f"{stamp}.png")
    (sequence,) = open_dataset(bag, DatasetOptions(masks=masks))
    samples = list(sequence.samples())
    assert [sample.truth is not None for sample in samples] == [True, False, True, False]
    assert list(samples[0].given) == [3]
    Image.fromarray(labels).save(masks / "first.png")
    with pytest.raises(DatasetError, match=r"named by stamp in nanoseconds, not first\.png"):
        list(sequence.samples())


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("source", ["topic", "folder"])
def test_a_single_label_map_is_no_ground_truth(tmp_path: Path, count: int, source: str) -> None:
    """It shows the object, and nothing is left to be scored."""
    labels = np.full((4, 5), 7, np.uint16)
    with BagWriter(tmp_path / "drive") as writer:
        for stamp in (10**9, 2 * 10**9):
            image = np.zeros((4, 5, 3), np.uint8)
            writer.write_image("/camera", StampedImage(stamp, image))
        for stamp in (10**9, 2 * 10**9)[:count]:
            writer.write_labels("/truth", StampedLabels(stamp, labels))
            save_grey(tmp_path / "masks" / f"{stamp}.png", 7)
    options = {"topic": DatasetOptions(truth_topic="/truth"), "folder": None}[source]
    options = options or DatasetOptions(masks=tmp_path / "masks", image_topic="/camera")
    (sequence,) = open_dataset(tmp_path / "drive", options)
    assert sequence.has_truth == (count > 1)


def test_an_undecodable_image_in_a_bag_costs_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "drive"
    with BagWriter(path) as writer:
        compressed = message_types().types["sensor_msgs/msg/CompressedImage"]
        for index in range(4):
            stamp = 10**9 + index
            image = np.full((48, 64, 3), 10 + index, np.uint8)
            writer.write_image("/camera", StampedImage(stamp, image), compression="png")
            if index == 1:
                header = writer._header(stamp + 10**8, "camera")
                broken = compressed(header=header, format="jpeg", data=np.zeros(9, np.uint8))
                writer.write("/camera", broken, stamp + 10**8)
    (sequence,) = open_dataset(path)
    samples = list(sequence.samples())
    assert [sample.image is None for sample in samples] == [False, False, False, False, True]
    assert "9 bytes of format 'jpeg' did not decode" in samples[4].faults[0]


def test_a_damaged_bag_does_not_hide_the_others(bag: Path) -> None:
    broken = bag.parent / "broken"
    broken.mkdir()
    (broken / "metadata.yaml").write_text("rosbag2_bagfile_information: {}")
    sequences = open_dataset(bag.parent, DatasetOptions(truth_topic="/truth"))
    assert [sequence.name for sequence in sequences] == ["broken", "drive"]
    with pytest.raises(DatasetError, match="broken: cannot be read"):
        list(sequences[0].samples())


@pytest.mark.parametrize("view", [{"twin": True}, {"cut": "drive"}, {"every_nth_frame": 2}])
def test_a_damaged_bag_does_not_hide_the_others_in_a_view_either(
    bag: Path, view: dict[str, Any]
) -> None:
    broken = bag.parent / "broken"
    broken.mkdir()
    (broken / "metadata.yaml").write_text("rosbag2_bagfile_information: {}")
    cut_short = bag.parent / "cut_short.bag"
    cut_short.write_bytes(b"#ROSBAG V2.0\n")
    options = DatasetOptions(truth_topic="/truth", **view)
    for sequence in open_dataset(bag.parent, options)[:2]:
        assert len(sequence) == 0
        with pytest.raises(DatasetError, match=f"{sequence.name}.*: cannot be read"):
            list(sequence.samples())


def test_a_view_of_a_bag_that_cannot_be_read_any_more_has_a_length(bag: Path) -> None:
    """Its frames are counted before any is read; reading them says what is wrong."""
    (one,) = open_dataset(bag)
    view = CutSequence(one, one)
    for file in bag.glob("*.mcap"):
        file.write_bytes(file.read_bytes()[:40])
    assert len(view) == 4
    with pytest.raises(BagError, match="cannot be read"):
        list(view.samples())


def test_two_bags_of_one_name_are_refused(bag: Path) -> None:
    """Their results would lie in one folder."""
    (bag.parent / "drive.bag").write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(DatasetError, match=r"drive and drive\.bag have one name"):
        open_dataset(bag.parent, DatasetOptions(truth_topic="/truth"))
    (bag.parent / "drive.bag").rename(bag.parent / "walk.bag")
    options = DatasetOptions(truth_topic="/truth", sequences=("drive", "drive"))
    assert [sequence.name for sequence in open_dataset(bag.parent, options)] == ["drive"]


def test_bag_with_nothing_but_a_first_mask(bag: Path, tmp_path: Path) -> None:
    labels = np.zeros((48, 64), np.uint8)
    labels[:9, :9] = 3
    Image.fromarray(labels).save(tmp_path / "first.png")
    (sequence,) = open_dataset(bag, DatasetOptions(first_mask=tmp_path / "first.png"))
    samples = list(sequence.samples())
    assert list(samples[0].given) == [3]
    assert all(sample.truth is None for sample in samples)
    options = DatasetOptions(first_mask=tmp_path / "first.png", truth_topic="/truth")
    first = next(open_dataset(bag, options)[0].samples())
    assert list(first.given) == [4]
    assert first.faults == [f"{tmp_path / 'first.png'}: its frame has a label map already"]


def test_binary_masks_of_a_bag_are_recognised(bag: Path, tmp_path: Path) -> None:
    binary = np.zeros((48, 64), np.uint8)
    binary[:9, :9] = 255
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.fromarray(np.zeros_like(binary)).save(masks / "1000000000.png")
    Image.fromarray(binary).save(masks / "1100000000.png")
    Image.fromarray(binary).save(tmp_path / "first.png")
    for begins, options in (
        (0, DatasetOptions(first_mask=tmp_path / "first.png")),
        (1, DatasetOptions(masks=masks)),
    ):
        (sequence,) = open_dataset(bag, options)
        given = list(sequence.samples())[begins].given
        assert {number: int(mask.sum()) for number, mask in given.items()} == {1: 81}


def test_what_can_be_scored_says_so_however_often_it_is_played(bag: Path) -> None:
    for passes in (1, 3):
        for topic, known in (("/truth", True), (None, False)):
            options = DatasetOptions(truth_topic=topic, passes=passes)
            (sequence,) = open_dataset(bag, options)
            assert sequence.has_truth is known

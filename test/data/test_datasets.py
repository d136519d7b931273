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

from lazyxmem_ros.data.bag_messages import StampedImage, StampedLabels, message_types
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.data.datasets import DatasetOptions, Layout, open_dataset
from lazyxmem_ros.data.errors import BagError, DatasetError
from lazyxmem_ros.data.label_maps import are_binary, read_label_map
from lazyxmem_ros.data.sequences import BagSequence, FolderSequence
from lazyxmem_ros.data.stress import CutSequence
from lazyxmem_ros.images.files import write_video

MakeTree = Callable[..., Path]
EVERY_FRAME = {index: (1, 2) for index in range(5)}


def only(path: Path, options: DatasetOptions | None = None) -> FolderSequence:
    (sequence,) = open_dataset(path, options or DatasetOptions())
    assert isinstance(sequence, FolderSequence)
    return sequence


def test_davis_2016_is_binary(make_tree: MakeTree) -> None:
    sequence = only(make_tree("cow", 5, EVERY_FRAME, binary=True))
    samples = list(sequence.samples())
    assert sequence.name == "cow"
    assert [sample.key for sample in samples] == [f"{index:05d}" for index in range(5)]
    assert set(np.unique(samples[0].truth)) == {0, 1}
    assert list(samples[0].given) == [1]
    assert samples[1].given == {}
    assert samples[1].stamp == round(1e9 / 24)


def test_davis_2017_is_indexed(make_tree: MakeTree) -> None:
    samples = list(only(make_tree("cows", 5, EVERY_FRAME)).samples())
    assert list(samples[0].given) == [1, 2]
    assert samples[0].image is not None
    assert samples[0].image.shape == (64, 96, 3)
    assert samples[0].image[samples[0].given[1]].mean(axis=0)[0] > 120  # red comes first


def test_lvos_objects_begin_later_and_masks_have_gaps(make_tree: MakeTree) -> None:
    root = make_tree("road", 6, {0: (1,), 2: (1, 2), 5: (1, 2)}, resolution=".", start=1)
    (root / "valid_meta.json").write_text("{}")
    sequence = only(root)
    assert sequence.has_truth
    samples = list(sequence.samples())
    assert [sorted(sample.given) for sample in samples] == [[1], [], [2], [], [], []]
    annotated = [sample.index for sample in samples if sample.truth is not None]
    assert annotated == [0, 2, 5]
    assert samples[1].stamp == round(1e9 / 6)


def test_lvos_masks_that_only_introduce_are_not_scored(make_tree: MakeTree) -> None:
    root = make_tree("road", 6, {0: (1,), 2: (2,)}, resolution=".")
    (root / "test_meta.json").write_text("{}")
    sequence = only(root)
    assert not sequence.has_truth
    samples = list(sequence.samples())
    assert [sorted(sample.given) for sample in samples] == [[1], [], [2], [], [], []]
    assert all(sample.truth is None for sample in samples)


@pytest.mark.parametrize("kind", ["tree", "folder", "video"])
def test_masks_of_one_new_object_each_are_not_scored(
    kind: str, make_tree: MakeTree, tmp_path: Path
) -> None:
    """Nobody has said that the others are gone."""
    for seen_again, known in (((1, 2), True), ((2,), False)):
        place = tmp_path / str(known)
        root = make_tree(f"road{known}", 6, {0: (1,), 3: seen_again})
        images, masks = (root / f / "480p" / f"road{known}" for f in ("JPEGImages", "Annotations"))
        options = DatasetOptions(sequences=(f"road{known}",) if kind == "tree" else ())
        if kind == "folder":
            root, options = images, DatasetOptions(masks=masks)
        elif kind == "video":
            frames = [np.array(Image.open(file)) for file in sorted(images.iterdir())]
            root, options = place / "road.mp4", DatasetOptions(masks=masks)
            write_video(root, frames, rate=10)
        (sequence,) = open_dataset(root, options)
        assert sequence.has_truth is known
        samples = list(sequence.samples())
        assert [sorted(sample.given) for sample in samples] == [[1], [], [], [2], [], []]
        assert [sample.truth is not None for sample in samples].count(True) == 2 * known


@pytest.mark.parametrize(
    ("layout", "option"),
    [
        (Layout.DAVIS2016, {"masks": "."}),
        (Layout.DAVIS2017, {"first_mask": "first.png"}),
        (Layout.LVOS, {"truth_topic": "/truth"}),
        (Layout.FOLDER, {"image_topic": "/camera"}),
        (Layout.BAG, {"rate": 10.0}),
        (Layout.SCENE, {"rate": 10.0}),
        (Layout.SCENE, {"first_mask": "first.png"}),
    ],
)
def test_what_says_nothing_about_a_layout_is_refused(
    layout: Layout, option: dict[str, Any], tmp_path: Path
) -> None:
    save_grey(tmp_path / "first.png", 7)
    given = {n: tmp_path / v if "mask" in n else v for n, v in option.items()}
    (name,) = option
    with pytest.raises(
        DatasetError, match=f"--{name.replace('_', '-')} .*{layout.value}.*leave it"
    ):
        open_dataset(tmp_path, DatasetOptions(layout, **given))


@pytest.mark.parametrize("kind", ["folder", "video"])
def test_a_first_mask_that_changes_nothing_is_refused(kind: str, tmp_path: Path) -> None:
    """The frame has a mask among the others."""
    walk = tmp_path / "walk"
    for number in range(3):
        save_grey(walk / "frames" / f"{number}.png")
        if number:
            save_grey(walk / "masks" / f"{number}.png", 7)
    save_grey(tmp_path / "first.png", 3)
    path, masks = walk, None
    if kind == "video":
        path, masks = tmp_path / "walk.mp4", walk / "masks"
        write_video(path, [np.zeros((16, 16, 3), np.uint8)] * 3, rate=10)
    options = DatasetOptions(masks=masks, first_mask=tmp_path / "first.png")
    open_dataset(path, options)
    save_grey(walk / "masks" / "0.png", 7)
    with pytest.raises(
        DatasetError, match=r"the first frame has .*0\.png .*leave out --first-mask"
    ):
        open_dataset(path, options)
    open_dataset(path, replace(options, first_mask=walk / "masks" / "0.png"))


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


def test_a_sequence_is_played_there_and_back(make_tree: MakeTree) -> None:
    root = make_tree("cow", 4, EVERY_FRAME)
    (whole,) = open_dataset(root)
    (long,) = open_dataset(root, DatasetOptions(passes=3))
    once, samples = list(whole.samples()), list(long.samples())
    assert long.name == whole.name
    assert len(samples) == len(long) == 10
    assert [int(sample.key[:5]) for sample in samples] == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert len({sample.key for sample in samples}) == 10
    assert [sample.index for sample in samples] == list(range(10))
    gaps = np.diff([sample.stamp for sample in samples])
    np.testing.assert_allclose(gaps, once[1].stamp, atol=1)
    assert [sorted(sample.given) for sample in samples] == [[1, 2], *[[]] * 9]
    np.testing.assert_array_equal(samples[4].image, once[2].image)
    np.testing.assert_array_equal(samples[4].truth, once[2].truth)
    with pytest.raises(DatasetError, match="at least once"):
        open_dataset(root, DatasetOptions(passes=0))


def test_plain_folder_in_natural_order(tmp_path: Path) -> None:
    folder = tmp_path / "video"
    (folder / "frames").mkdir(parents=True)
    for number in (1, 2, 10):
        Image.fromarray(np.full((8, 9, 3), number, np.uint8)).save(folder / f"frames/f{number}.png")
    mask = np.zeros((8, 9), np.uint8)
    mask[2:5, 2:5] = 7
    Image.fromarray(mask).save(tmp_path / "first.png")
    sequence = only(folder, DatasetOptions(first_mask=tmp_path / "first.png", rate=10))
    samples = list(sequence.samples())
    assert [sample.key for sample in samples] == ["f1", "f2", "f10"]
    assert list(samples[0].given) == [7]
    assert not sequence.has_truth
    assert samples[2].stamp == 200_000_000


def save_grey(path: Path, *shown: int) -> None:
    """A grey PNG with a square of each value, as an annotation tool writes it."""
    values = np.zeros((8, 16), np.uint8)
    for number, value in enumerate(shown):
        values[2:6, 1 + 5 * number : 5 + 5 * number] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.mark.parametrize(("shown", "begun"), [((1, 2), [1, 2]), ((255, 255), [1]), ((7, 255), [7])])
def test_an_empty_first_mask_does_not_say_what_the_others_mean(
    shown: tuple[int, ...], begun: list[int], tmp_path: Path
) -> None:
    """Neither in a folder nor in a tree, whose first sequence may be empty altogether."""
    folder, tree = tmp_path / "video", tmp_path / "tree"
    for index in range(3):
        name = f"{index:05d}.png"
        later = shown if index else ()
        save_grey(folder / "frames" / name)
        save_grey(folder / "masks" / name, *later)
        for sequence in ("early", "late"):
            save_grey(tree / "JPEGImages" / sequence / name)
        save_grey(tree / "Annotations" / "early" / name)
        save_grey(tree / "Annotations" / "late" / name, *later)
    for sequence in (only(folder), open_dataset(tree)[1]):
        assert [sorted(sample.given) for sample in sequence.samples()] == [[], begun, []]


def test_faults_are_named_and_cost_one_frame(make_tree: MakeTree) -> None:
    root = make_tree("cow", 6, {index: (1,) for index in range(6)})
    images, masks = root / "JPEGImages/480p/cow", root / "Annotations/480p/cow"
    (images / "00001.jpg").unlink()
    (images / "00002.jpg").write_bytes(b"no picture")
    Image.fromarray(np.ones((10, 10), np.uint8)).save(masks / "00003.png")
    (masks / "00004.png").write_bytes((masks / "00005.png").read_bytes()[:40])
    samples = list(only(root).samples())
    said = [" ".join(sample.faults) for sample in samples]
    assert "frame 00001: the image is missing" in said[1]
    assert "00002.jpg: the image cannot be read" in said[2]
    assert "frame 00003: the mask is 10x10, the image 96x64" in said[3]
    assert "00004.png: the mask cannot be read" in said[4]
    assert said[0] == said[5] == ""
    assert [sample.index for sample in samples if sample.image is not None] == [0, 3, 4, 5]
    assert [sample.truth is not None for sample in samples[3:]] == [False, False, True]


def test_a_gap_in_the_numbers_is_a_missing_frame(make_tree: MakeTree) -> None:
    root = make_tree("cow", 20, {0: (1,)}, start=8)
    for number in (11, 12, 15):
        (root / f"JPEGImages/480p/cow/{number:05d}.jpg").unlink()
    samples = list(only(root).samples())
    assert [sample.key for sample in samples] == [f"{8 + index:05d}" for index in range(20)]
    missing = {sample.key: sample.faults for sample in samples if sample.image is None}
    assert missing == {
        key: [f"frame {key}: the image is missing"] for key in ("00011", "00012", "00015")
    }


@pytest.mark.parametrize(
    "numbers", [(0, 5, 10, 15, 20), (0, 1, 3, 4, 9, 11), (7, 9), (1, 2, 3, 4, 5, 6, 10**15)]
)
def test_other_ways_of_numbering_have_no_gaps(numbers: tuple[int, ...], tmp_path: Path) -> None:
    for number in numbers:
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"frame{number}.png")
    keys = [sample.key for sample in only(tmp_path).samples()]
    assert keys == [f"frame{number}" for number in numbers]


def test_label_maps_of_every_kind(tmp_path: Path) -> None:
    wide = np.array([[0, 300], [65535, 2]], np.uint16)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "wide.png"), wide)
    Image.fromarray(np.array([[0, 255], [3, 0]], np.uint8)).save(tmp_path / "void.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "void.png"), [[0, 0], [3, 0]])
    np.testing.assert_array_equal(
        read_label_map(tmp_path / "void.png", binary=True), [[0, 1], [1, 0]]
    )
    grey = np.array([[0, 255], [255, 0]], np.uint8)
    for name, channels in (("grey", 1), ("rgb", 3)):
        alpha = np.full((2, 2, 1), 255, np.uint8)
        opaque = np.concatenate([np.repeat(grey[..., None], channels, axis=2), alpha], axis=2)
        Image.fromarray(opaque).save(tmp_path / f"{name}.png")
        assert are_binary([tmp_path / f"{name}.png"])
        shown = read_label_map(tmp_path / f"{name}.png", binary=True)
        np.testing.assert_array_equal(shown, grey > 0)
    Image.fromarray(np.eye(3, dtype=np.uint8)[None] * 255).save(tmp_path / "colour.png")
    assert not are_binary([tmp_path / "colour.png"])
    with pytest.raises(DatasetError, match="RGB picture is no label map"):
        read_label_map(tmp_path / "colour.png")


def test_of_several_resolutions_none_is_guessed(make_tree: MakeTree) -> None:
    """480p is the usual one; without it there is none."""
    for resolution in ("360p", "1080p"):
        root = make_tree("cow", 3, {0: (1,)}, resolution=resolution)
    with pytest.raises(DatasetError, match="JPEGImages: has 360p and 1080p, but not 480p"):
        open_dataset(root)
    make_tree("cow", 3, {0: (1,)}, resolution="480p")
    assert [sequence.name for sequence in open_dataset(root)] == ["cow"]


def test_names_and_paths_are_checked(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree("cow", 2, {0: (1,)})
    with pytest.raises(DatasetError, match="no sequence horse; it has cow"):
        open_dataset(root, DatasetOptions(sequences=("horse",)))
    with pytest.raises(DatasetError, match="no such file or folder"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "half" / "JPEGImages" / "cow").mkdir(parents=True)
    with pytest.raises(DatasetError, match="Annotations: this folder of the layout is missing"):
        open_dataset(tmp_path / "half", DatasetOptions(layout=Layout.DAVIS2017))
    with pytest.raises(DatasetError, match="nowhere: there is no such folder of label maps"):
        open_dataset(root, DatasetOptions(masks=tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match=r"none\.png: there is no such mask"):
        open_dataset(root, DatasetOptions(first_mask=tmp_path / "none.png"))


def test_scene_by_its_name() -> None:
    (sequence,) = open_dataset(Path("scene"))
    assert (sequence.name, len(sequence)) == ("pond", 150)


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

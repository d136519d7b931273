# SPDX-License-Identifier: Apache-2.0
"""Bags of other kinds, cut short, or with something in them that is not ROS 2's."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from mcap_files import MAGIC, Channel, record, sized, text, write_mcap
from numpy.typing import NDArray
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore

from lazyxmem_ros.data.bag_messages import StampedImage, StampedLabels, message_types
from lazyxmem_ros.data.bag_reader import BagReader
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.errors import BagError, DamagedBagError, DatasetError
from lazyxmem_ros.data.layouts.options import DatasetOptions
from lazyxmem_ros.nodes.bags.source import BagSource

FIRST = 1_700_000_000_000_000_000
STEP = 100_000_000
IMAGE_TYPE = "sensor_msgs/msg/Image"


def image(index: int) -> NDArray[np.uint8]:
    return np.random.default_rng(index).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def labels(index: int) -> NDArray[np.uint16]:
    shown = np.zeros((48, 64), np.uint16)
    shown[10:30, 5 + index % 20 : 25 + index % 20] = 3
    return shown


def write_bag(path: Path, frames: int, *, storage: str = "mcap") -> Path:
    with BagWriter(path, storage=storage) as bag:
        for index in range(frames):
            stamp = FIRST + index * STEP
            bag.write_image("/camera", StampedImage(stamp, image(index)))
            bag.write_labels("/truth", StampedLabels(stamp, labels(index)))
    (file,) = path.glob("*.db3" if storage == "sqlite3" else "*.mcap")
    return file


def image_channel(frames: int) -> Channel:
    """Images as a recorder writes them, in a file made by hand."""
    store = message_types()
    header, time = store.types["std_msgs/msg/Header"], store.types["builtin_interfaces/msg/Time"]
    messages = []
    for index in range(frames):
        stamp = FIRST + index * STEP
        message = store.types[IMAGE_TYPE](
            header=header(stamp=time(*divmod(stamp, 10**9)), frame_id="camera"),
            height=48,
            width=64,
            encoding="rgb8",
            is_bigendian=0,
            step=192,
            data=image(index).reshape(-1),
        )
        messages.append((stamp, bytes(store.serialize_cdr(message, IMAGE_TYPE))))
    definition = store.generate_msgdef(IMAGE_TYPE, ros_version=2)[0].encode()
    return Channel("/camera", IMAGE_TYPE, "ros2msg", definition, messages)


def images_of(path: Path) -> list[NDArray[np.uint8]]:
    with BagReader(path) as bag:
        return [frame.image for frame in bag.images(bag.image_topic())]


@pytest.mark.parametrize("name", ["run#3", "50%25", "what?"])
@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_bag_has_any_name(storage: str, name: str, tmp_path: Path) -> None:
    """SQLite takes a URI, in which these characters mean something else."""
    folder = tmp_path / "bags" / name
    file = write_bag(folder, 3, storage=storage)
    assert list(folder.parent.iterdir()) == [folder]
    assert len(images_of(folder)) == len(images_of(file)) == 3


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_what_the_metadata_say_of_quality_does_not_matter(storage: str, tmp_path: Path) -> None:
    """People change it by hand, to play a bag in an older ROS."""
    write_bag(tmp_path / "drive", 3, storage=storage)
    profile = {
        "history": 1, "depth": 5, "reliability": 2, "durability": 2, "liveliness": 1,
        "deadline": {"sec": 0, "nsec": 0}, "lifespan": {"sec": 0, "nsec": 0},
        "liveliness_lease_duration": {"sec": 0, "nsec": 0},
        "avoid_ros_namespace_conventions": False,
    }  # fmt: skip
    file = tmp_path / "drive" / "metadata.yaml"
    metadata = yaml.safe_load(file.read_text())
    for topic in metadata["rosbag2_bagfile_information"]["topics_with_message_count"]:
        topic["topic_metadata"]["offered_qos_profiles"] = yaml.safe_dump([profile])
    file.write_text(yaml.safe_dump(metadata))
    assert len(images_of(tmp_path / "drive")) == 3


def test_a_copy_beside_a_damaged_file_is_not_read_as_well(tmp_path: Path) -> None:
    """It may be what `mcap recover` has made of it."""
    file = write_bag(tmp_path / "drive", 3)
    whole = shutil.copy(file, file.with_name("recovered.mcap"))
    file.write_bytes(file.read_bytes()[:-40])  # its index
    assert len(images_of(file.parent)) == 3
    file.unlink()
    with BagReader(whole.parent) as bag:
        assert bag.topics["/camera"].messages == 3


FOREIGN = {
    "protobuf": Channel(
        "/scene", "foxglove.SceneUpdate", "protobuf", b"\n\xff\x80", [(FIRST, b"\x08\x01")],
        "protobuf",
    ),
    "JSON": Channel("/log", "Log", "jsonschema", b'{"type": "object"}', [(FIRST, b"{}")], "json"),
    "bad IDL": Channel("/odd", "odd/msg/Odd", "ros2idl", b"module odd { oh no", [(FIRST, b"")]),
    "bad msg": Channel("/odd", "odd/msg/Odd", "ros2msg", b"what is this", [(FIRST, b"")]),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("profile", ["ros2", ""])
def test_one_foreign_channel_spoils_no_other(kind: str, profile: str, tmp_path: Path) -> None:
    path = tmp_path / "mixed.mcap"
    write_mcap(path, [image_channel(4), FOREIGN[kind]], profile=profile)
    for read, index in zip(images_of(path), range(4), strict=True):
        np.testing.assert_array_equal(read, image(index))
    (sequence,) = open_dataset(path)
    assert len(list(sequence.samples())) == len(sequence) == 4


def spoil(bag: BagWriter, topic: str, index: int) -> None:
    """A message of images that is none."""
    bag.write_raw(topic, IMAGE_TYPE, FIRST + index * STEP, b"\0\1\0\0\1\0\0\0")


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_one_message_that_cannot_be_read_spoils_no_other(storage: str, tmp_path: Path) -> None:
    path = tmp_path / "bag"
    with BagWriter(path, storage=storage) as bag:
        for index in range(6):
            stamp = FIRST + index * STEP
            if index == 2:
                spoil(bag, "/camera", index)
            else:
                bag.write_image("/camera", StampedImage(stamp, image(index)))
            if index == 3:
                spoil(bag, "/truth", index)
            else:
                bag.write_labels("/truth", StampedLabels(stamp, labels(index)))
    (sequence,) = open_dataset(path, DatasetOptions(truth_topic="/truth"))
    samples = list(sequence.samples())
    assert [sample.image is not None for sample in samples] == [i != 2 for i in range(6)]
    assert "it is no sensor_msgs/msg/Image" in samples[2].faults[0]
    assert [sample.truth is not None for sample in samples] == [i != 3 for i in range(6)]
    read = []
    with BagReader(path) as bag:
        with pytest.raises(BagError, match=r"/camera, the message received at .*: it is no"):
            read.extend(bag.messages("/camera"))
        assert len(read) == 5
        with pytest.raises(BagError, match="/camera, message 2: it is no"):
            list(bag.images("/camera"))


def test_a_topic_whose_first_message_cannot_be_read_is_not_in_the_way(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        spoil(bag, "/broken", 0)
        bag.write_image("/camera", StampedImage(FIRST, image(0)))
    with BagReader(tmp_path / "bag") as bag:
        assert bag.image_topic("/camera") == "/camera"
        with pytest.raises(BagError, match="name the image topic"):
            bag.image_topic()


def test_a_definition_without_what_is_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mixed.mcap"
    channel = image_channel(2)
    write_mcap(path, [replace(channel, schema=channel.schema.replace(b" data", b" dat_"))])
    with pytest.raises(BagError, match=r"/camera: .* there is no sensor_msgs/msg/Image.data"):
        open_dataset(path)


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
@pytest.mark.parametrize("as_file", [True, False])
def test_what_may_not_be_read_is_not_called_damaged(
    storage: str, as_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_bag(tmp_path / "bag", 2, storage=storage)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != file)  # root may read all
    with pytest.raises(BagError, match="may not be read by this user") as caught:
        BagReader(file if as_file else file.parent).__enter__()
    assert "recover" not in str(caught.value)


def test_a_folder_that_may_not_be_looked_into_is_no_bag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bag(tmp_path / "bag", 2)
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "private").mkdir()
    listed = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name in ("lost+found", "private"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert [sequence.name for sequence in open_dataset(tmp_path)] == ["bag"]


def test_a_topic_whose_type_is_unreadable_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mixed.mcap"
    write_mcap(path, [image_channel(2), FOREIGN["bad IDL"]])
    with BagReader(path) as bag, pytest.raises(BagError, match=r"/odd: the bag's definition of"):
        list(bag.messages("/odd"))


def test_without_anything_of_ros_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "foreign.mcap"
    write_mcap(path, [FOREIGN["protobuf"]])
    with pytest.raises(BagError, match="holds no channel of ROS, but of protobuf") as caught:
        BagReader(path).__enter__()
    assert "recover" not in str(caught.value)


def write_unindexed(path: Path, frames: int, order: list[int], *, whole: bool) -> None:
    """As a recorder without chunks does: messages of several topics come a little out of order."""
    channel = image_channel(frames)
    schema = text(channel.type_name) + text(channel.schema_encoding) + sized(channel.schema)
    data = MAGIC + record(0x01, text("ros2") + text("test"))
    data += record(0x03, struct.pack("<H", 1) + schema)
    data += record(0x04, struct.pack("<HH", 1, 1) + text("/camera") + text("cdr") + sized(b""))
    for index in order:
        time, payload = channel.messages[index]
        data += record(0x05, struct.pack("<HIQQ", 1, 0, time, time) + payload)
    if whole:
        data += record(0x0F, bytes(4)) + record(0x02, struct.pack("<QQI", 0, 0, 0)) + MAGIC
    path.write_bytes(data)


@pytest.mark.parametrize("whole", [True, False])
def test_an_mcap_without_an_index_is_read_in_order(whole: bool, tmp_path: Path) -> None:
    path = tmp_path / "quick.mcap"
    write_unindexed(path, 15, [3, 0, 2, 1, *range(5, 15), 4], whole=whole)
    stamps = []
    with contextlib.ExitStack() as stack, BagReader(path) as bag:
        if not whole:
            stack.enter_context(pytest.raises(DamagedBagError, match="without its index"))
        stamps.extend(frame.stamp for frame in bag.images("/camera"))
    assert stamps == [FIRST + index * STEP for index in range(15)]
    write_unindexed(path, 15, [*range(1, 15), 0], whole=True)
    with BagReader(path) as bag, pytest.raises(BagError, match=r"quick\.mcap: .*`mcap sort`"):
        list(bag.images("/camera"))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("as_file", [True, False])
def test_a_cut_mcap_yields_what_is_intact(share: float, as_file: bool, tmp_path: Path) -> None:
    frames = 300  # several chunks
    file = write_bag(tmp_path / "drive", frames)
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    path = file if as_file else tmp_path / "drive"
    read = []
    with BagReader(path) as bag, pytest.raises(DamagedBagError, match="`mcap recover`"):
        read.extend(frame.image for frame in bag.images("/camera"))
    assert 0.5 * share * frames < len(read) < frames
    for index, shown in enumerate(read):
        np.testing.assert_array_equal(shown, image(index))


def test_ground_truth_of_a_cut_bag_counts_as_far_as_it_goes(tmp_path: Path) -> None:
    file = write_bag(tmp_path / "drive", 300)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (sequence,) = open_dataset(file, DatasetOptions(truth_topic="/truth"))
    seen = []
    with pytest.raises(DamagedBagError):
        seen.extend(sequence.samples())
    assert 50 < len(seen) < 300
    assert all(sample.truth is not None for sample in seen[:-1])


def test_what_is_advised_can_help(tmp_path: Path) -> None:
    mcap, sqlite = write_bag(tmp_path / "m", 8), write_bag(tmp_path / "s", 8, storage="sqlite3")
    for file in (mcap, sqlite):
        file.with_name("metadata.yaml").unlink()
        with pytest.raises(BagError, match=f"no metadata.yaml, .*; give the file itself, {file}"):
            BagReader(file.parent).__enter__()
        assert len(images_of(file)) == 8
    sqlite.write_bytes(sqlite.read_bytes()[:5000])
    with pytest.raises(BagError) as caught:
        images_of(sqlite)
    assert "reindex" not in str(caught.value)
    assert "sqlite3" in str(caught.value)


def write_ros1(path: Path, frames: int) -> None:
    """Images and label maps as ROS 1 has them, in a bag or, as `mcap convert` does it, in MCAP."""
    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types
    written: dict[str, list[tuple[int, bytes]]] = {"/camera": [], "/truth": []}
    for index in range(frames):
        stamp = FIRST + index * STEP
        time = types["builtin_interfaces/msg/Time"](*divmod(stamp, 10**9))
        header = types["std_msgs/msg/Header"](seq=index, stamp=time, frame_id="camera")
        shown = labels(index).astype(np.uint8)
        for name, encoding, values in (
            ("/camera", "rgb8", image(index)),
            ("/truth", "mono8", shown),
        ):
            message = types[IMAGE_TYPE](
                header=header,
                height=48,
                width=64,
                encoding=encoding,
                is_bigendian=0,
                step=values.nbytes // 48,
                data=values.reshape(-1),
            )
            written[name].append((stamp, bytes(store.serialize_ros1(message, IMAGE_TYPE))))
    if path.suffix == ".mcap":
        schema = store.generate_msgdef(IMAGE_TYPE, ros_version=1)[0].encode()
        about = ("sensor_msgs/Image", "ros1msg", schema)
        channels = [Channel(name, *about, rows, "ros1") for name, rows in written.items()]
        write_mcap(path, channels, profile="ros1")
        return
    with Ros1Writer(path) as writer:
        for name, rows in written.items():
            topic = writer.add_connection(name, IMAGE_TYPE, typestore=store)
            for stamp, data in rows:
                writer.write(topic, stamp, data)


@pytest.mark.parametrize("name", ["old.bag", "OLD.BAG", "old.mcap"])
def test_a_ros_1_bag_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    write_ros1(path, 3)
    (sequence,) = open_dataset(path, DatasetOptions(truth_topic="/truth"))
    samples = list(sequence.samples())
    assert [sample.stamp for sample in samples] == [FIRST + index * STEP for index in range(3)]
    for index, sample in enumerate(samples):
        np.testing.assert_array_equal(sample.image, image(index))
        np.testing.assert_array_equal(sample.truth, labels(index))
    with pytest.raises(BagError, match="is a recording of ROS 1: `rosbags-convert`"):
        BagSource(path)
    if path.suffix != ".mcap":  # one of those is a bag without its metadata
        folder = tmp_path / "bags"
        folder.mkdir()
        shutil.copy(path, folder)
        assert [entry.name for entry in open_dataset(folder)] == [path.stem]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("loose.tar.zstd", r"loose\.tar\.zstd: is a compressed file; unpack it with `zstd -d`"),
        ("loose.db3.gz", "unpack it with `gzip -d`"),
        ("notes.txt", "a file is read as a video .* or as a bag .*, of which this is neither"),
    ],
)
def test_other_files_say_what_to_do(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ValueError, match=said):
        open_dataset(tmp_path / name)


def test_a_truth_topic_that_holds_no_label_maps_is_named_frame_by_frame(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "drive") as bag:
        for index in range(3):
            frame = StampedImage(FIRST + index * STEP, image(index))
            bag.write_image("/camera", frame)
            bag.write_image("/truth", frame)
    options = DatasetOptions(image_topic="/camera", truth_topic="/truth")
    (sequence,) = open_dataset(tmp_path / "drive", options)
    for sample in sequence.samples():
        assert sample.image is not None
        (fault,) = sample.faults
        assert fault.startswith(f"frame {sample.stamp}: /truth: encoding 'rgb8' is not one of")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_split_bag_without_one_of_its_parts_says_so(storage: str, tmp_path: Path) -> None:
    """Of MCAP, what is there is read before."""
    bag = tmp_path / "split"
    write_bag(bag, 4, storage=storage)
    metadata = bag / "metadata.yaml"
    text = metadata.read_text()
    (line,) = (line for line in text.splitlines() if line.strip().startswith("- split."))
    metadata.write_text(text.replace(line, f"{line}\n{line.replace('split.', 'split_1.')}"))
    read = []

    def read_all() -> None:
        with BagReader(bag) as reader:
            read.extend(frame.stamp for frame in reader.images("/camera"))

    with pytest.raises(DamagedBagError, match=r"missing.*Put its missing files back"):
        read_all()
    assert len(read) == (4 if storage == "mcap" else 0)


def test_a_bag_without_images_spoils_no_other_of_its_folder(tmp_path: Path) -> None:
    write_bag(tmp_path / "good", 2)
    with BagWriter(tmp_path / "silent") as bag:
        bag.declare("/talk", "std_msgs/msg/String")
    good, silent = open_dataset(tmp_path, DatasetOptions(truth_topic=None))
    assert len(good) == 2
    with pytest.raises(DatasetError, match=r"silent: .*no images to track; its topics are /talk"):
        list(silent.samples())
    with pytest.raises(BagError, match="no images to track"):
        open_dataset(tmp_path / "silent")

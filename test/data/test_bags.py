# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lazyxmem_ros.data.bag_messages import StampedImage, StampedLabels, message_types
from lazyxmem_ros.data.bag_reader import BagReader
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.data.errors import BagError

FIRST_STAMP = 1_700_000_000_123_456_789
STEP = 100_000_000


def write_bag(path: Path, *, storage: str, compression: str, frames: int = 6) -> list[StampedImage]:
    random = np.random.default_rng(0)
    written = []
    with BagWriter(path, storage=storage) as bag:
        for index in range(frames):
            coarse = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            image = np.kron(coarse, np.ones((10, 10, 1), np.uint8))
            frame = StampedImage(FIRST_STAMP + index * STEP, image)
            bag.write_image("/camera", frame, compression=compression)
            labels = np.zeros((60, 80), np.uint16)
            labels[10:20, index : index + 9] = 300 if index == 3 else 2
            bag.write_labels("/truth", StampedLabels(frame.stamp, labels))
            written.append(frame)
    return written


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
@pytest.mark.parametrize("compression", ["none", "png", "jpeg"])
def test_round_trip(tmp_path: Path, storage: str, compression: str) -> None:
    written = write_bag(tmp_path / "bag", storage=storage, compression=compression)
    with BagReader(tmp_path / "bag") as bag:
        assert bag.topics["/camera"].messages == 6
        assert bag.image_topic() == "/camera"
        images = list(bag.images("/camera"))
        labels = list(bag.labels("/truth"))
    assert [frame.stamp for frame in images] == [frame.stamp for frame in written]
    for read, wrote in zip(images, written, strict=True):
        tolerance = 12 if compression == "jpeg" else 0
        difference = np.abs(read.image.astype(int) - wrote.image.astype(int))
        assert difference.mean() <= tolerance
    assert [int(frame.labels.max()) for frame in labels] == [2, 2, 2, 300, 2, 2]
    assert labels[3].labels.dtype == np.uint16
    assert labels[4].labels[10, 4] == 2
    assert labels[4].labels[10, 3] == 0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0, 255], [0, 0, 1]),  # a binary mask
        ([7, 0, 255], [7, 0, 0]),  # 255 is void
        ([300, 0, 255], [300, 0, 255]),  # 16 bits: every value is an id
    ],
)
def test_what_255_means_in_ground_truth(
    values: list[int], expected: list[int], tmp_path: Path
) -> None:
    kind = np.uint16 if max(values) > 255 else np.uint8
    with BagWriter(tmp_path / "bag") as bag:
        for index, shown in enumerate(([0, 0, 0], values)):
            header = bag._header(FIRST_STAMP + index, "camera")
            encoding = f"mono{8 * kind().itemsize}"
            message = bag._image(header, np.array([shown], kind), encoding)
            bag.write("/truth", message, FIRST_STAMP + index)
    with BagReader(tmp_path / "bag") as read:
        assert [frame.labels.tolist() for frame in read.labels("/truth")] == [[[0] * 3], [expected]]


def test_the_id_255_survives_a_bag(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 255]], np.uint16)
    with BagWriter(tmp_path / "bag") as bag:
        bag.write_labels("/truth", StampedLabels(FIRST_STAMP, labels))
    with BagReader(tmp_path / "bag") as read:
        (frame,) = read.labels("/truth")
    np.testing.assert_array_equal(frame.labels, labels)


def test_small_objects_survive_a_bag(tmp_path: Path) -> None:
    """Many values in thin lines would be taken for the fading edges of a mask."""
    labels = np.zeros((20, 30), np.uint16)
    for number in range(1, 7):
        labels[3 * number, 4:6] = number
    with BagWriter(tmp_path / "far") as bag:
        bag.write_labels("/truth", StampedLabels(FIRST_STAMP, labels))
    with BagReader(tmp_path / "far") as reader:
        (read,) = reader.labels("/truth")
    np.testing.assert_array_equal(read.labels, labels)


def test_own_messages_are_known() -> None:
    from lazyxmem_ros.data.bag_messages import message_types

    types = message_types().types
    track = types["lazyxmem_ros/msg/Track"]
    assert track.LOST == 2


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_truncated_bag_is_named(tmp_path: Path, storage: str) -> None:
    write_bag(tmp_path / "bag", storage=storage, compression="none", frames=12)
    suffix = {"sqlite3": "*.db3", "mcap": "*.mcap"}[storage]
    (data,) = (tmp_path / "bag").glob(suffix)
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])

    def read() -> None:
        with BagReader(tmp_path / "bag") as bag:
            list(bag.images("/camera"))

    with pytest.raises(BagError, match=r"bag: cannot be read .*(reindex|recover)"):
        read()


def test_missing_metadata_is_named(tmp_path: Path) -> None:
    write_bag(tmp_path / "bag", storage="mcap", compression="none")
    (tmp_path / "bag" / "metadata.yaml").unlink()
    with pytest.raises(BagError, match="bag: cannot be read"):
        BagReader(tmp_path / "bag").__enter__()


def test_absent_bag_and_topics(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="no such bag"):
        BagReader(tmp_path / "nowhere")
    write_bag(tmp_path / "bag", storage="mcap", compression="none")
    with BagReader(tmp_path / "bag") as bag:
        with pytest.raises(BagError, match="no topic /other"):
            list(bag.images("/other"))
        with pytest.raises(BagError, match="no image topic '/other'"):
            bag.image_topic("/other")
        with pytest.raises(BagError, match="encoding 'rgb8' is not one of a label map"):
            list(bag.labels("/camera"))
    with pytest.raises(BagError, match="exists already"):
        BagWriter(tmp_path / "bag")
    with pytest.raises(BagError, match="unknown storage"):
        BagWriter(tmp_path / "other", storage="zip")


def test_partial_write_stays_readable(tmp_path: Path) -> None:
    frame = StampedImage(FIRST_STAMP, np.zeros((4, 5, 3), np.uint8))

    def interrupted() -> None:
        with BagWriter(tmp_path / "bag") as bag:
            bag.write_image("/camera", frame)
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        interrupted()
    with BagReader(tmp_path / "bag") as bag_read:
        assert [image.stamp for image in bag_read.images("/camera")] == [FIRST_STAMP]


def test_a_stamp_that_is_no_time_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    types = message_types().types
    time = types["builtin_interfaces/msg/Time"](sec=5, nanosec=1_000_000_000)
    header = types["std_msgs/msg/Header"](stamp=time, frame_id="camera")
    image = types["sensor_msgs/msg/Image"](
        header=header,
        height=1,
        width=1,
        encoding="mono8",
        is_bigendian=0,
        step=1,
        data=np.ones(1, np.uint8),
    )
    with BagWriter(path) as bag:
        bag.write("/image", image, 1)
    with BagReader(path) as bag:
        with pytest.raises(BagError, match="message 0: the stamp has 1000000000 nanoseconds"):
            list(bag.images("/image"))
        [(_, fault)] = bag.labels_or_faults("/image")
    assert "the stamp has" in str(fault)

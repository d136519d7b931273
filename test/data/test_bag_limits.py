# SPDX-License-Identifier: Apache-2.0
"""Bags whose compressed data or metadata ask for more than there is."""

from __future__ import annotations

import bz2
import contextlib
import re
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import pytest
import yaml
from mcap_files import MAGIC, record, sized, text
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore

from lazyxmem_ros.data import slowness, unpacking
from lazyxmem_ros.data.bag_messages import StampedImage
from lazyxmem_ros.data.bag_reader import BagReader
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.errors import BagError, DamagedBagError, DatasetError
from lazyxmem_ros.data.unpacking import zstd
from lazyxmem_ros.data.videos import VideoFile

FIRST = 1_700_000_000_000_000_000
BOMB_BYTES = 700 << 20


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """Some kilobytes of zstd that unpack to 700 MiB."""
    compressor, block = zstd.ZstdCompressor(), bytes(1 << 20)
    packed = b"".join(compressor.compress(block) for _ in range(BOMB_BYTES >> 20))
    return packed + compressor.flush()


def image(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def write_bag(path: Path, storage: str = "mcap") -> Path:
    with BagWriter(path, storage=storage) as bag:
        for index in range(4):
            bag.write_image("/camera", StampedImage(FIRST + index * 10**8, image(index)))
    (file,) = path.glob("*.db3" if storage == "sqlite3" else "*.mcap")
    return file


def change_metadata(folder: Path, change: Callable[[dict[str, object]], None]) -> None:
    file = folder / "metadata.yaml"
    metadata = yaml.safe_load(file.read_text())
    change(metadata["rosbag2_bagfile_information"])
    file.write_text(yaml.safe_dump(metadata))


def leftovers() -> set[str]:
    return {entry.name for entry in Path(gettempdir()).glob("lazyxmem_bag_*")}


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("suffix", [".zstd", ".zst"])
def test_a_packed_file_is_read(storage: str, suffix: str, tmp_path: Path) -> None:
    file = write_bag(tmp_path / "drive", storage)
    packed = tmp_path / (file.name + suffix)
    packed.write_bytes(zstd.compress(file.read_bytes()))
    before = leftovers()
    (sequence,) = open_dataset(packed)
    assert sequence.name == file.stem
    for index, sample in enumerate(sequence.samples()):
        np.testing.assert_array_equal(sample.image, image(index))
    assert index == 3
    assert leftovers() == before
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(DamagedBagError, match=re.escape(packed.name)):
        BagReader(packed).__enter__()
    assert leftovers() == before


@pytest.mark.parametrize(
    ("storage", "name"),
    [
        ("mcap", "DRIVE.MCAP"),
        ("sqlite3", "DRIVE.DB3"),
        ("mcap", "DRIVE.MCAP.ZST"),
        ("sqlite3", "DRIVE.DB3.ZSTD"),
    ],
)
def test_a_suffix_in_capitals_is_the_same(storage: str, name: str, tmp_path: Path) -> None:
    file = write_bag(tmp_path / "drive", storage)
    data = file.read_bytes()
    shouted = tmp_path / name
    shouted.write_bytes(zstd.compress(data) if ".Z" in name else data)
    before = leftovers()
    (sequence,) = open_dataset(shouted)
    assert sequence.name == "DRIVE"
    assert len([sample.image for sample in sequence.samples() if sample.image is not None]) == 4
    assert leftovers() == before
    with pytest.raises(DatasetError, match="is a bag"):
        VideoFile.open(shouted)


@pytest.mark.parametrize("name", ["bomb.mcap.zstd", "bomb.db3.zst"])
def test_a_packed_file_that_unpacks_to_too_much(name: str, bomb: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(bomb)
    before = leftovers()
    with pytest.raises(BagError, match="unpack to more than 268 MB"):
        BagReader(tmp_path / name).__enter__()
    assert leftovers() == before


@pytest.mark.parametrize("alone", [True, False])
def test_a_packed_file_that_fills_the_disk(
    alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, or in the folder of a bag whose recorder compressed its files."""
    file = write_bag(tmp_path / "drive")
    packed = file.with_name("drive.mcap.zstd")
    packed.write_bytes(zstd.compress(file.read_bytes()))
    file.unlink()
    compressed = {"compression_format": "zstd", "compression_mode": "FILE"}
    change_metadata(
        file.parent,
        lambda metadata: metadata.update(relative_file_paths=[packed.name], **compressed),
    )
    monkeypatch.setattr(unpacking, "SPARED_BYTES", 1 << 60)
    monkeypatch.setattr(unpacking, "SPARED_SHARE", 1.0)
    said = (
        r"drive\.mcap\.zstd: what it unpacks to does not fit into .*; TMPDIR names another folder"
    )
    with pytest.raises(BagError, match=said):
        BagReader(packed if alone else file.parent).__enter__()


@pytest.mark.parametrize("mode", ["FILE", "MESSAGE"])
def test_a_bag_whose_recorder_compressed(mode: str, bomb: bytes, tmp_path: Path) -> None:
    """rosbag2's own two ways, sound and as a bomb."""
    file = write_bag(tmp_path / "drive", "sqlite3")
    script = """
import sqlite3, sys
from lazyxmem_ros.data.unpacking import zstd
from lazyxmem_ros.data.videos import VideoFile
connection = sqlite3.connect(sys.argv[1])
bomb = open(sys.argv[2], "rb").read() if len(sys.argv) > 2 else None
for number, data in connection.execute("select id, data from messages").fetchall():
    packed = bomb or zstd.compress(data)
    connection.execute("update messages set data = ? where id = ?", (packed, number))
connection.commit()
"""

    def pack(*bomb_file: str) -> None:
        if mode == "MESSAGE":
            subprocess.run([sys.executable, "-c", script, str(file), *bomb_file], check=True)
            return
        packed = file.with_name(file.name + ".zstd")
        packed.write_bytes(bomb if bomb_file else zstd.compress(file.read_bytes()))

    def compressed(metadata: dict[str, object]) -> None:
        metadata |= {"compression_format": "zstd", "compression_mode": mode}
        if mode == "FILE":
            metadata["relative_file_paths"] = [file.name + ".zstd"]

    pack()
    change_metadata(file.parent, compressed)
    with BagReader(file.parent) as bag:
        for index, frame in enumerate(bag.images("/camera")):
            np.testing.assert_array_equal(frame.image, image(index))
    (tmp_path / "bomb").write_bytes(bomb)
    pack(str(tmp_path / "bomb"))
    with pytest.raises(BagError, match="unpack to more than 268 MB"), BagReader(file.parent) as bag:
        list(bag.images("/camera"))


@pytest.mark.parametrize("claimed", [1000, BOMB_BYTES])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_chunk_that_unpacks_to_too_much(
    claimed: int, indexed: bool, bomb: bytes, tmp_path: Path
) -> None:
    write_bomb(tmp_path / "bomb.mcap", bomb, claimed, indexed=indexed)
    with pytest.raises(BagError, match=r"unpack to more than 268 MB"):
        read_all(tmp_path / "bomb.mcap")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20  # KiB


def write_bomb(path: Path, bomb: bytes, claimed: int, *, indexed: bool) -> None:
    """An MCAP file with one chunk of zstd and, if asked for, its index."""
    data = MAGIC + record(0x01, text("ros2") + text("test"))
    times = struct.pack("<QQ", FIRST, FIRST)
    begin = len(data)
    chunk = times + struct.pack("<QI", claimed, 0) + text("zstd") + struct.pack("<Q", len(bomb))
    chunk = record(0x06, chunk + bomb)
    data += chunk
    if indexed:
        channel = struct.pack("<HH", 1, 1) + text("/a") + text("cdr") + sized(b"")
        index = times + struct.pack("<QQ", begin, len(chunk)) + sized(struct.pack("<HQ", 1, 0))
        index += struct.pack("<Q", 0) + text("zstd") + struct.pack("<QQ", len(bomb), claimed)
        statistics = struct.pack("<QHIIIIQQ", 1, 1, 1, 0, 0, 1, FIRST, FIRST)
        statistics = record(0x0B, statistics + sized(struct.pack("<HQ", 1, 1)))
        data += record(0x0F, bytes(4))
        start = len(data)
        schema = text("std_msgs/msg/String") + text("") + sized(b"")
        schema = record(0x03, struct.pack("<H", 1) + schema)
        data += schema + record(0x04, channel) + statistics + record(0x08, index)
        data += record(0x02, struct.pack("<QQI", start, 0, 0)) + MAGIC
    path.write_bytes(data)


def read_all(path: Path) -> None:
    with BagReader(path) as bag:
        for _ in bag.messages():
            pass


def test_several_streams_and_a_cut_one() -> None:
    small = bytes(range(256)) * 1000
    for pack, unpack in (
        (bz2.compress, unpacking.unpack_bz2),
        (unpacking.zstd.compress, unpacking.unpack_zstd),
    ):
        assert unpack(pack(small) + pack(b"more")) == small + b"more"
        with pytest.raises(EOFError):
            unpack(pack(small)[:-20])


def test_ros_1_s_compression_is_bounded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    path = tmp_path / "old.bag"
    writer = Ros1Writer(path)
    writer.set_compression(Ros1Writer.CompressionFormat.BZ2)
    with writer:
        topic = writer.add_connection("/words", "std_msgs/msg/String", typestore=store)
        word = store.types["std_msgs/msg/String"](data="a" * (2 << 20))
        data = bytes(store.serialize_ros1(word, "std_msgs/msg/String"))
        writer.write(topic, FIRST, data)
    read_all(path)
    monkeypatch.setattr(unpacking, "LEAST_LIMIT", 1 << 20)
    monkeypatch.setattr(unpacking, "MOST_RATIO", 1)
    with pytest.raises(BagError, match="unpack to more than"):
        read_all(path)


def set_count(metadata: dict[str, object]) -> None:
    (topic,) = metadata["topics_with_message_count"]  # type: ignore[misc]
    topic["message_count"] = "many"


METADATA = {
    "a count that is a text": (set_count, "/camera has 'many' messages"),
    "a total that is a text": (lambda m: m.update(message_count="many"), "Invalid|cannot be read"),
    "a duration of 2^70": (
        lambda m: m["duration"].update(nanoseconds=2**70),
        "its times, .* are no times",
    ),
    "a duration of 2^70 from before 1970 on": (
        lambda m: (
            m["duration"].update(nanoseconds=2**70),
            m["starting_time"].update(nanoseconds_since_epoch=-(2**69)),
        ),
        "its times, -590295810358705651712 ns for one, are no times",
    ),
    "a duration that is a text": (lambda m: m["duration"].update(nanoseconds="a"), "cannot be"),
}


HARMLESS = {
    ("a total that is a text", "mcap"),
    ("a total that is a text", "sqlite3"),
    ("a duration that is a text", "mcap"),
}
"""An MCAP file has an index of its own, and nobody needs the total."""


@pytest.mark.parametrize("kind", METADATA)
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_metadata_that_mean_nothing(kind: str, storage: str, tmp_path: Path) -> None:
    change, said = METADATA[kind]
    file = write_bag(tmp_path / "drive", storage)
    change_metadata(file.parent, change)
    with contextlib.ExitStack() as stack:
        if (kind, storage) not in HARMLESS:
            stack.enter_context(pytest.raises(BagError, match=said))
        bag = stack.enter_context(BagReader(file.parent))
        assert len(list(bag.images("/camera"))) == 4


def test_a_long_look_at_a_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slowness, "FIRST_S", -1.0)
    file = write_bag(tmp_path / "drive")
    file.write_bytes(file.read_bytes()[:-200])
    said: list[str] = []
    with BagReader(file, said.append) as bag:
        assert len(list(bag.images("/camera"))) == 4
    assert said[0].startswith(f"looking for what is of ROS in {file.name}: ")

# SPDX-License-Identifier: Apache-2.0
"""Bags whose writing is cut off: by a kill, a full disk, a limit on the size of files."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from full_disk import files_of_at_most

from lazyxmem_ros.data.bag_messages import StampedImage
from lazyxmem_ros.data.bag_reader import BagReader
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.data.errors import BagError

FIRST_STAMP = 1_700_000_000_000_000_000
STEP = 10_000_000
STORAGES = ["sqlite3", "mcap"]

WRITES = """
import resource, sys, time
import numpy as np
from lazyxmem_ros.data.bag_messages import StampedImage
from lazyxmem_ros.data.bag_writer import BagWriter

path, storage, limit, frames = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
noise = np.random.default_rng(0)
with BagWriter(path, storage=storage) as bag:
    for index in range(frames):
        stamp = 1_700_000_000_000_000_000 + index * 10_000_000
        image = noise.integers(0, 255, (120, 160, 3), dtype=np.uint8)
        bag.write_image("/image", StampedImage(stamp, image))
    print("written", flush=True)
    if not limit:
        time.sleep(1.2)
        bag.write_image("/image", StampedImage(stamp + 10_000_000, image))
        bag.commit()
        print("committed", flush=True)
        bag.write_image("/image", StampedImage(stamp + 20_000_000, image))
        time.sleep(60)
"""


def writer(path: Path, storage: str, *, limit: int = 0, frames: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITES, str(path), storage, str(limit), str(frames)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_that_cannot_be_begun_leaves_nothing(storage: str, tmp_path: Path) -> None:
    """It would be in the way the next time."""
    for _ in range(2):
        with (
            files_of_at_most(100 << 10),
            pytest.raises(BagError, match="cannot be written"),
            BagWriter(tmp_path / "bag", storage=storage),
        ):
            pass
    assert not list(tmp_path.iterdir())


def stamps_of(path: Path) -> list[int]:
    """Of all that is intact."""
    stamps = []
    with BagReader(path) as bag:
        try:
            stamps.extend(frame.stamp for frame in bag.images("/image"))
        except BagError as error:
            assert "cannot be read" in str(error)  # noqa: PT017 - it may be noticed, or not
    return stamps


def expected(count: int) -> list[int]:
    return [FIRST_STAMP + index * STEP for index in range(count)]


def test_a_killed_process_leaves_what_was_committed(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    process = writer(bag, "sqlite3", frames=30)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    assert process.stdout.readline() == "committed\n", process.stderr
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert stamps_of(bag / "bag.db3") == expected(31)


def fill(bag: BagWriter, noise: np.random.Generator) -> int:
    """Write images until that fails; returns how many did not."""
    for index in range(1000):
        image = noise.integers(0, 255, (120, 160, 3), dtype=np.uint8)
        try:
            bag.write_image("/image", StampedImage(FIRST_STAMP + index * STEP, image))
            bag.commit()
        except BagError as error:
            assert "cannot be written" in str(error)  # noqa: PT017 - where it comes is the result
            return index
    raise AssertionError("the disk did not get full")


@pytest.mark.parametrize("storage", STORAGES)
def test_on_a_full_disk_the_bag_is_complete_up_to_there(storage: str, small_disk: Path) -> None:
    path = small_disk / "bag"
    with BagWriter(path, storage=storage) as bag:
        written = fill(bag, np.random.default_rng(0))
    assert written > 20
    assert sorted(file.suffix for file in path.iterdir()) == sorted(
        [".yaml", {"sqlite3": ".db3", "mcap": ".mcap"}[storage]]
    )
    with BagReader(path) as whole:
        assert whole.topics["/image"].messages == written
        assert [frame.stamp for frame in whole.images("/image")] == expected(written)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_that_cannot_be_begun_is_named(storage: str, tmp_path: Path) -> None:
    with files_of_at_most(1000), pytest.raises(BagError, match="bag: cannot be written"):
        BagWriter(tmp_path / "bag", storage=storage).__enter__()


@pytest.mark.parametrize("storage", STORAGES)
def test_where_files_must_not_grow_the_metadata_is_written(storage: str, tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    process = writer(bag, storage, limit=12 << 20, frames=400)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "BagError" in complaint
    assert "cannot be written" in complaint
    assert (bag / "metadata.yaml").is_file()
    with BagReader(bag) as whole:
        promised = whole.topics["/image"].messages
    assert 0 < promised < 400
    if storage == "sqlite3":
        assert stamps_of(bag) == expected(promised)


@pytest.mark.parametrize("when", ["committed", "closed"])
@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_that_is_deleted_while_it_is_written_is_named(
    storage: str, when: str, tmp_path: Path
) -> None:
    """What goes on into the file would be lost with it."""
    bag = BagWriter(tmp_path / "bag", storage=storage)
    bag.__enter__()
    bag.write_image("/image", StampedImage(FIRST_STAMP, np.zeros((8, 8, 3), np.uint8)))
    bag.commit()
    shutil.rmtree(tmp_path / "bag")
    end = {"committed": bag.commit, "closed": lambda: bag.__exit__(None, None, None)}[when]
    with pytest.raises(BagError, match="it was deleted or replaced while it was being written"):
        end()
    assert not bag.is_there()


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("storage", STORAGES)
def test_what_is_committed_outlives_what_is_not(
    storage: str, fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bag"
    image = np.zeros((8, 8, 3), np.uint8)
    with BagWriter(path, storage=storage) as bag:
        for index in range(4):
            bag.write_image("/image", StampedImage(FIRST_STAMP + index * STEP, image))
            if index == 1:
                bag.commit()
        if fails:
            refuse_one_commit(bag, monkeypatch)
    assert stamps_of(path) == expected(2 if fails else 4)


def refuse_one_commit(bag: BagWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = bag._writer._storage
    commit: Callable[[], None] = storage.commit

    def refuse() -> None:
        monkeypatch.setattr(storage, "commit", commit)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "commit", refuse)
    with pytest.raises(BagError, match="No space left"):
        bag.commit()

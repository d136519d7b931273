# SPDX-License-Identifier: Apache-2.0
"""Snapshots: the same objects after a restart, and nothing from a bad file."""

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from random_clip import TINY, image, mask

from lazyxmem_ros.lazy import (
    SECOND,
    LazyConfig,
    LazyTracker,
    SnapshotError,
    TrackState,
    read_snapshot,
    write_snapshot,
)
from lazyxmem_ros.xmem import MemoryConfig, XMem, XMemTracker, load_network, save_network

CONFIG = LazyConfig(operator_corrections=False, pseudo_corrections=False, hold_entropy=math.inf)


def tracker(network: XMem, memory: MemoryConfig = TINY) -> XMemTracker:
    return XMemTracker(network, memory)


def begun(network: XMem, frames: int = 30) -> LazyTracker:
    lazy = LazyTracker(tracker(network), CONFIG)
    for index in range(frames):
        masks = {0: {1: mask(0, 0), 2: mask(20, 30)}, 8: {7: mask(5, 40)}}.get(index)
        lazy.step(image(index), index * SECOND, masks=masks, labels={1: "cup"})
    lazy.remove_objects([2])
    lazy.close()
    return lazy


def test_a_restarted_process_goes_on_as_the_first_would(
    small_network: XMem, tmp_path: Path
) -> None:
    first = begun(small_network)
    size = write_snapshot(first.snapshot(), tmp_path / "state" / "s.snapshot")
    assert (tmp_path / "state" / "s.snapshot").stat().st_size == size
    second = LazyTracker(tracker(small_network), CONFIG)
    second.resume(read_snapshot(tmp_path / "state" / "s.snapshot", second.tracker))
    assert second.object_ids == first.object_ids == (1, 7)
    for index in range(30, 50):
        a, b = (lazy.step(image(index), index * SECOND) for lazy in (first, second))
        assert np.array_equal(a.labels, b.labels)
        assert [t.uncertainty for t in a.tracks] == [t.uncertainty for t in b.tracks]
        assert [(t.label, t.state) for t in a.tracks] == [(t.label, t.state) for t in b.tracks]
    assert b.tracks[0].label == "cup"
    assert b.tracks[0].state in TrackState


def test_another_clock_changes_nothing_but_the_stamps(small_network: XMem) -> None:
    first, second = begun(small_network), begun(small_network)
    second.change_clock()
    assert second.object_ids == first.object_ids == (1, 7)
    assert not second.keeps(29 * SECOND)
    for index in range(30, 50):
        a = first.step(image(index), index * SECOND)
        b = second.step(image(index), (index - 25) * SECOND)
        assert np.array_equal(a.labels, b.labels)
        assert [(t.object_id, t.label) for t in a.tracks] == [
            (t.object_id, t.label) for t in b.tracks
        ]
        assert TrackState.LOST not in {t.state for t in b.tracks if t.area > 16}


def test_a_paused_object_is_paused_after_a_restart(small_network: XMem, tmp_path: Path) -> None:
    first = begun(small_network, 12)
    first.pause_objects([7])
    write_snapshot(first.snapshot(), tmp_path / "s")
    second = LazyTracker(tracker(small_network), CONFIG)
    second.resume(read_snapshot(tmp_path / "s", second.tracker))
    assert second.paused_ids == {7}
    states = {t.object_id: t.state for t in second.step(image(12), 12 * SECOND).tracks}
    assert states[7] is TrackState.PAUSED
    assert states[1] is not TrackState.PAUSED
    second.resume_objects([7])
    assert second.step(image(13), 13 * SECOND).tracks[1].state is not TrackState.PAUSED


def test_a_snapshot_is_a_copy(small_network: XMem, tmp_path: Path) -> None:
    lazy = begun(small_network)
    snapshot = lazy.snapshot()
    write_snapshot(snapshot, tmp_path / "early")
    for index in range(30, 45):
        lazy.step(image(index), index * SECOND)
    lazy.remove_objects([1])
    write_snapshot(snapshot, tmp_path / "later")
    assert (tmp_path / "early").read_bytes() == (tmp_path / "later").read_bytes()


def test_an_empty_tracker_has_a_snapshot_too(small_network: XMem, tmp_path: Path) -> None:
    lazy = LazyTracker(tracker(small_network), CONFIG)
    write_snapshot(lazy.snapshot(), tmp_path / "s")
    lazy.resume(read_snapshot(tmp_path / "s", lazy.tracker))
    assert lazy.object_ids == ()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda b: b[:-1], "checksum"),
        (lambda b: b[:3000] + b"\x00\x01" + b[3002:], "checksum"),
        (lambda b: b[: len(b) // 2], "checksum"),
        (lambda _: b"", "no snapshot"),
        (lambda _: b"PK\x03\x04 something else", "no snapshot"),
        (lambda b: b[:11] + b"\x09" + b[12:], "version 9"),
    ],
)
def test_a_damaged_file_is_refused_and_named(
    change, text: str, small_network: XMem, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    write_snapshot(begun(small_network, 12).snapshot(), path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(SnapshotError, match=text) as error:
        read_snapshot(path, tracker(small_network))
    assert str(path) in str(error.value)


def test_a_foreign_file_is_refused(small_network: XMem, tmp_path: Path) -> None:
    path = tmp_path / "s"
    write_snapshot(begun(small_network, 12).snapshot(), path)
    with pytest.raises(SnapshotError, match="memory settings"):
        read_snapshot(path, tracker(small_network, replace(TINY, top_k=6)))
    torch.manual_seed(5)
    with pytest.raises(SnapshotError, match="other weights"):
        read_snapshot(path, tracker(XMem(small_network.config)))
    with pytest.raises(SnapshotError, match="other widths"):
        read_snapshot(path, tracker(XMem(replace(small_network.config, hidden_dim=0))))
    with pytest.raises(SnapshotError, match="cannot be read"):
        read_snapshot(tmp_path / "none", tracker(small_network))


WRITER = """
import sys
from pathlib import Path
import test_snapshot as t
from lazyxmem_ros.lazy import write_snapshot
from lazyxmem_ros.xmem import XMem, load_network
lazy = t.begun(load_network(sys.argv[1]), 12)
print("ready", flush=True)
while True:
    write_snapshot(lazy.snapshot(), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_killed_in_the_middle_of_writing_the_file_is_whole(
    small_network: XMem, tmp_path: Path
) -> None:
    weights, path = tmp_path / "w.safetensors", tmp_path / "s"
    save_network(small_network, weights)
    reader = tracker(load_network(weights))
    command = [sys.executable, "-c", WRITER, str(weights), str(path)]
    here = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    rng = np.random.default_rng(0)
    for _ in range(5):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": here}
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.1 + rng.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert read_snapshot(path, reader).objects.keys() == {1, 7}


@pytest.mark.parametrize("shown", ["first", "with the image", "added"])
def test_objects_shown_on_the_open_frame_are_in_it(
    shown: str, small_network: XMem, tmp_path: Path
) -> None:
    first = LazyTracker(tracker(small_network), CONFIG)
    first.step(image(0), 0, masks={1: mask(0, 0)})
    if shown != "first":
        first.step(image(1), SECOND)
        new = {2: mask(20, 30)}
        first.step(image(2), 2 * SECOND, masks=new if shown == "with the image" else None)
        if shown == "added":
            first.add_objects(new)
    write_snapshot(first.snapshot(), tmp_path / "s")
    second = LazyTracker(tracker(small_network), CONFIG)
    second.resume(read_snapshot(tmp_path / "s", second.tracker))
    assert second.object_ids == first.object_ids
    for index in range(3, 20):
        a, b = (lazy.step(image(index), index * SECOND) for lazy in (first, second))
        assert np.array_equal(a.labels, b.labels)

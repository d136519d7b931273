# SPDX-License-Identifier: Apache-2.0
"""Which thread does what for a snapshot."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest
from node_graph import wait_for

from lazyxmem_ros.lazy import LazyConfig, LazyTracker, Snapshot, read_snapshot, write_snapshot
from lazyxmem_ros.nodes.tracker import snapshots
from lazyxmem_ros.nodes.tracker.worker import Worker
from lazyxmem_ros.xmem import XMemTracker, load_network

Thread = tuple[int, int]


def this_thread() -> Thread:
    """Its number and niceness."""
    number = threading.get_native_id()
    return number, os.getpriority(os.PRIO_PROCESS, number)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere priorities are the process's")
def test_files_are_written_by_a_thread_that_leaves_the_processor_to_frames(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers: list[Thread] = []

    def write(snapshot: Snapshot, path: Path) -> int:
        writers.append(this_thread())
        return write_snapshot(snapshot, path)

    monkeypatch.setattr(snapshots, "write_snapshot", write)
    lazy = LazyTracker(XMemTracker(load_network(weights)), LazyConfig())
    worker: Worker[int] = Worker(on_failure=lambda error: None)
    worker.start(lambda _: None)
    tracking = worker.submit(this_thread).result()
    path = tmp_path / "s"
    keeper = snapshots.SnapshotKeeper(path, lazy, worker, on_fault=pytest.fail)
    for count in (1, 2):
        keeper.save_in_background()
        wait_for(lambda count=count: keeper.saved == count, "a snapshot")
        wait_for(lambda: not keeper._writing.locked(), "the end of writing")
    assert read_snapshot(path, lazy.tracker).objects == {}
    assert worker.submit(this_thread).result() == tracking
    for number, niceness in writers:
        assert number != tracking[0]
        assert niceness >= max(tracking[1], snapshots.WRITING_NICENESS)
    worker.stop()
    keeper.close()


def test_a_file_that_no_thread_can_be_had_for_keeps_no_later_one_from_being_written(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[str] = []
    lazy = LazyTracker(XMemTracker(load_network(weights)), LazyConfig())
    worker: Worker[int] = Worker(on_failure=lambda error: None)
    worker.start(lambda _: None)
    keeper = snapshots.SnapshotKeeper(tmp_path / "s", lazy, worker, on_fault=faults.append)
    with monkeypatch.context() as patch:
        no_thread = Mock(side_effect=RuntimeError("can't start new thread"))
        patch.setattr(snapshots.threading, "Thread", no_thread)
        keeper.save_in_background()
        wait_for(lambda: no_thread.called and not keeper._writing.locked(), "the end of it")
    assert "can't start new thread" in keeper.last_fault
    assert faults == [keeper.last_fault]
    keeper.save_in_background()
    wait_for(lambda: keeper.saved == 1, "a snapshot")
    wait_for(lambda: not keeper._writing.locked(), "the end of writing")
    worker.stop()
    keeper.close()

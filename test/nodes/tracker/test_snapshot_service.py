# SPDX-License-Identifier: Apache-2.0
"""The tracker node over DDS: a snapshot on request keeps nobody waiting but who asked for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from node_graph import WAIT_S, parameters, wait_for
from std_srvs.srv import Trigger
from tracker_harness import Tracker

from lazyxmem_ros.lazy import Snapshot, read_snapshot, write_snapshot
from lazyxmem_ros.nodes.running import NodeStartError
from lazyxmem_ros.nodes.tracker import snapshots
from lazyxmem_ros.nodes.tracker.node import make_node
from lazyxmem_ros.srv import ListObjects

OwnTracker = Callable[..., Tracker]


@pytest.fixture
def tracker(own_tracker: OwnTracker, tmp_path: Path) -> Tracker:
    """It saves on request only."""
    return own_tracker(snapshot_path=str(tmp_path / "snapshot"), snapshot_period=0.0)


def save(tracker: Tracker) -> Any:
    return tracker.probe.ask(Trigger, f"{tracker.name}/save_snapshot", Trigger.Request())


def test_a_slow_disk_keeps_nothing_else_waiting(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tracker.show_object(0)
    entered, gate = threading.Event(), threading.Event()

    def write_slowly(snapshot: Snapshot, path: Path) -> int:
        entered.set()
        assert gate.wait(WAIT_S)
        return write_snapshot(snapshot, path)

    monkeypatch.setattr(snapshots, "write_snapshot", write_slowly)
    saved = save(tracker)
    assert entered.wait(WAIT_S)
    tracker.send(1)
    tracker.probe.call(ListObjects, f"{tracker.name}/list_objects", ListObjects.Request())
    assert not saved.done()
    gate.set()
    wait_for(saved.done, "the answer")
    assert saved.result().success, saved.result().message
    lazy = tracker.node._parts.session._lazy
    assert set(read_snapshot(tmp_path / "snapshot", lazy.tracker).objects) == {1}


def test_a_snapshot_that_fails_is_answered(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.send(0)

    def fail() -> Snapshot:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as broken:
        broken.setattr(tracker.node._parts.session._lazy, "snapshot", fail)
        answer = save(tracker)
        wait_for(answer.done, "the answer")
    assert not answer.result().success
    assert "was not saved: out of memory" in answer.result().message
    answer = save(tracker)
    wait_for(answer.done, "the next answer")
    assert answer.result().success


@pytest.mark.parametrize("path", ["/dev/full", "/", "~nobody-of-that-name/x", "/tmp/" + "x" * 300])
def test_a_path_where_no_snapshot_can_be_is_refused_in_words(
    path: str, ros: None, weights: Path
) -> None:
    values = parameters(weights=str(weights), device="cpu", snapshot_path=path)
    with pytest.raises(NodeStartError, match="cannot be a snapshot"):
        make_node(cli_args=["--ros-args", "-r", "__ns:=/bad_path"], parameter_overrides=values)


def test_a_snapshot_that_cannot_be_used_is_kept_and_a_link_stays_one(
    own_tracker: OwnTracker, weights: Path, tmp_path: Path
) -> None:
    """As after a start with other weights, whose next snapshot would take its place."""
    (tmp_path / "disk").mkdir()
    path, link = tmp_path / "disk" / "snapshot", tmp_path / "link"
    link.symlink_to(path)
    path.write_bytes(b"of another tracker")
    tracker = own_tracker(snapshot_path=str(link), snapshot_period=0.0)
    tracker.show_object(0)
    answer = save(tracker)
    wait_for(answer.done, "the answer")
    assert answer.result().success, answer.result().message
    assert link.is_symlink()
    lazy = tracker.node._parts.session._lazy
    assert set(read_snapshot(path, lazy.tracker).objects) == {1}
    assert tracker.node._parts.weights == str(weights)
    assert (tmp_path / "disk" / "snapshot.refused1").read_bytes() == b"of another tracker"


def test_of_snapshots_that_cannot_be_used_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    for index in range(snapshots.MAX_ASIDE + 1):
        path.write_bytes(b"%d" % index)
        aside = snapshots.set_aside(path)
        os.utime(aside, (index + 1, index + 1))
    assert aside.name == "snapshot.refused1"
    kept = sorted(file.read_bytes() for file in tmp_path.iterdir())
    assert kept == [b"%d" % index for index in range(1, snapshots.MAX_ASIDE + 1)]


def test_two_trackers_do_not_share_a_snapshot(
    tracker: Tracker, weights: Path, tmp_path: Path
) -> None:
    values = parameters(
        weights=str(weights), device="cpu", snapshot_path=str(tmp_path / "snapshot")
    )
    with pytest.raises(NodeStartError, match="another tracker, which is running: give each its"):
        make_node(cli_args=["--ros-args", "-r", "__ns:=/second"], parameter_overrides=values)
    tracker.node.trigger_deactivate()
    tracker.node.trigger_cleanup()
    second = make_node(cli_args=["--ros-args", "-r", "__ns:=/second"], parameter_overrides=values)
    second.close()
    second.destroy_node()

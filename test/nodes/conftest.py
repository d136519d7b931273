# SPDX-License-Identifier: Apache-2.0
"""Real nodes over real DDS."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lazyxmem_ros.xmem import XMem

_numbers = itertools.count()

sys.path.insert(0, str(Path(__file__).parent))  # for what the tests here share

os.environ["OMP_NUM_THREADS"] = "1"  # inherited by every node's process


@pytest.fixture(scope="session")
def ros() -> Iterator[None]:
    """rclpy, for the nodes that live in the tests' own process."""
    import rclpy

    rclpy.init(args=[])
    yield
    rclpy.try_shutdown()


@pytest.fixture(scope="session")
def weights(small_network: XMem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained XMem, small enough to take milliseconds for a frame."""
    from lazyxmem_ros.xmem import save_network

    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_network(small_network, path)
    return path


@pytest.fixture(scope="module")
def probe(ros: None) -> Iterator[Any]:
    """The tests' own end of the graph."""
    from node_graph import Probe

    made = Probe()
    yield made
    made.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts nodes in processes of their own and ends those that are left."""
    from node_process import NodeProcess

    started: list[NodeProcess] = []

    def start_one(
        name: str, parameters: dict[str, Any], *arguments: str, fresh: bool = False
    ) -> NodeProcess:
        log = tmp_path / f"{len(started)}-{name}.log"
        started.append(NodeProcess(name, parameters, arguments, log, fresh=fresh))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        print(f"---- {process.name}\n{process.log}")  # shown where the test has failed


@pytest.fixture(scope="module")
def shared_tracker(ros: None, weights: Path, probe: Any) -> Iterator[Any]:
    """A tracker node and its correction service, for all tests of a module."""
    from tracker_harness import Tracker

    made = Tracker(probe, weights)
    yield made
    made.close()


@pytest.fixture
def own_tracker(ros: None, weights: Path, probe: Any) -> Iterator[Callable[..., Any]]:
    """Makes trackers of the test's own: with parameters of its choice, or to be maltreated; in a
    namespace of their own, if not in a named one.
    """
    from tracker_harness import Tracker

    made: list[Tracker] = []

    def make(ns: str = "", **values: Any) -> Tracker:
        made.append(Tracker(probe, weights, ns or f"/own_tracker{next(_numbers)}", **values))
        return made[-1]

    yield make
    for tracker in made:
        tracker.close()


@pytest.fixture
def tracker(shared_tracker: Any) -> Any:
    """The same, as if it had just started."""
    shared_tracker.reset()
    return shared_tracker

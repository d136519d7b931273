# SPDX-License-Identifier: Apache-2.0
"""Real nodes over real DDS, on a domain of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lazyxmem_ros.xmem import XMem

DOMAIN_COUNT = 100

sys.path.insert(0, str(Path(__file__).parent))  # for node_graph, which the tests here share

# Before any participant is made, and inherited by every node's process.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % DOMAIN_COUNT)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["OMP_NUM_THREADS"] = "1"


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
    import torch

    from lazyxmem_ros.xmem import save_network

    torch.set_num_threads(1)
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
    from node_graph import NodeProcess

    started: list[NodeProcess] = []

    def start_one(name: str, parameters: dict[str, Any], *arguments: str) -> NodeProcess:
        log = tmp_path / f"{len(started)}-{name}.log"
        started.append(NodeProcess(name, parameters, arguments, log))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()


@pytest.fixture(scope="module")
def shared_tracker(ros: None, weights: Path, probe: Any) -> Iterator[Any]:
    """A tracker node and its correction service, for all tests of a module."""
    from node_graph import Spinner, parameters
    from tracker_harness import NS, QUIET, Service, Tracker

    from lazyxmem_ros.nodes.tracker import make_node

    service = Service(probe)
    node = make_node(
        cli_args=["--ros-args", "-r", f"__ns:={NS}"],
        parameter_overrides=parameters(
            weights=str(weights), device="cpu", diagnostics_period=0.1, **QUIET
        ),
    )
    spinner = Spinner(node)
    yield Tracker(node, probe, service)
    spinner.close()
    service.stop()


@pytest.fixture
def tracker(shared_tracker: Any) -> Any:
    """The same, as if it had just started."""
    shared_tracker.reset()
    return shared_tracker

# SPDX-License-Identifier: Apache-2.0
"""Fixtures for every room's tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

    from lazyxmem_ros.xmem import XMem

sys.path.append(str(Path(__file__).parent / "support"))  # what several rooms' tests share

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Background jobs of a script are started with SIGINT ignored, and so would be the processes
    # whose Ctrl-C is tested here.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What follows is set before any participant is made or PyTorch is imported, and every process
# inherits it. Another run of the tests on this machine, and another worker of this run, has another
# domain. Workers share the cores, and sums of one thread come out the same everywhere.
DOMAIN_COUNT = 100
DOMAINS_APART = 37  # the workers of a run
worker = os.environ.get("PYTEST_XDIST_WORKER")
run = os.getpid() if worker is None else os.getppid()
number = 0 if worker is None else int(worker.removeprefix("gw"))
os.environ["ROS_DOMAIN_ID"] = str(1 + (run + DOMAINS_APART * number) % DOMAIN_COUNT)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
THREADS = 1
os.environ["OMP_NUM_THREADS"] = os.environ["OPENCV_FOR_THREADS_NUM"] = str(THREADS)

# Hundreds of programs are started here, and most import PyTorch. Where bytecode is not kept (many
# containers are set up so), each of them compiles all that it imports: half of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """An evaluation's job sets how many threads there are, for all of its process. What follows
    here would share the cores with more of them, and take up to thirty times as long.
    """
    yield
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(THREADS)
    if cv2 := sys.modules.get("cv2"):
        cv2.setNumThreads(THREADS)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def data() -> Path:
    """The small vectors that come with the project."""
    return ROOT / "test" / "data"


@pytest.fixture(scope="session")
def golden_state() -> dict[str, torch.Tensor]:
    """A state dict of the published names and shapes, filled in from the names alone."""
    import networks

    return networks.golden_state()


@pytest.fixture(scope="session")
def golden_network(golden_state: dict[str, torch.Tensor]) -> XMem:
    """The network of that state dict."""
    from lazyxmem_ros.xmem import load_network

    return load_network(golden_state)


@pytest.fixture(scope="session")
def small_network() -> XMem:
    """Untrained and small, with every part that the full one has."""
    import networks

    return networks.small_network()


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained network, small enough to track with in a test."""
    import trees

    return trees.save_tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def make_tree(tmp_path: Path) -> Callable[..., Path]:
    """A maker of DAVIS-like trees: frames, and which objects the masks of which frames show."""
    import trees

    return trees.tree_maker(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system (tmpfs) is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)

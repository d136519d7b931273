# SPDX-License-Identifier: Apache-2.0
"""An evaluation on a real local Ray cluster of two workers, one of which dies on the way."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.evaluation.job import JobReport
from lazyxmem_ros.evaluation.methods import choose_methods
from lazyxmem_ros.evaluation.plan import EvaluationPlan, TrackerSettings
from lazyxmem_ros.evaluation.ray_executor import ClusterError, RayExecutor
from lazyxmem_ros.evaluation.run import evaluate

pytestmark = pytest.mark.slow
FRAMES = 16
NAMES = ("one", "two", "three")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that runs nothing and two workers with a processor each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # on a busy machine it would take minutes
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.workers = [made.add_node(num_cpus=1) for _ in range(2)]
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    for node in made.list_all_nodes():
        kill(node)
    made.shutdown()


def kill(node: Any) -> None:
    """End a machine of the cluster as a power cut does: its processes, and with them its workers.

    Ray's own way waits a second for their end, which a busy machine does not keep.
    """
    processes = [entry.process for kind in node.all_processes.values() for entry in kind]
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()


class Killer:
    """An Observer that kills a worker when the first job is done, and counts reports."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.reports: Counter[str] = Counter()
        self.killed_with_work_left = False

    def planned(self, names: Sequence[str], frames: Sequence[int]) -> None:
        self._total = len(names)

    def progressed(self, name: str, frames: int) -> None: ...

    def finished(self, report: JobReport, *, kept: bool) -> None:
        self.reports[report.name] += 1
        if len(self.reports) == 1:
            kill(self._cluster.workers[0])
            self.killed_with_work_left = self._total > 1


def test_a_worker_dies_and_nothing_is_lost_or_counted_twice(
    cluster: Any, make_tree: Callable[..., Path], tiny_weights: Path, tmp_path: Path
) -> None:
    for name in NAMES:
        root = make_tree(name, FRAMES, {index: (1,) for index in range(FRAMES)})
    plan = EvaluationPlan(
        sequences=tuple(open_dataset(root)),
        methods=tuple(choose_methods(["xmem", "lazy"])),
        tracker=TrackerSettings(tiny_weights, device="cpu"),
    )
    killer = Killer(cluster)
    results = evaluate(plan, tmp_path / "out", killer, RayExecutor(cluster.address))
    assert killer.killed_with_work_left
    assert killer.reports == {
        f"{name}/{method}": 1 for name in NAMES for method in ("xmem", "lazy")
    }
    assert all(report.error is None for report in results.reports)
    assert len(results.frames) == FRAMES * 6
    assert not results.frames.duplicated(["sequence", "method", "index"]).any()
    here = evaluate(plan, tmp_path / "here", killer)
    columns = ["sequence", "method", "index", "j", "uncertainty"]
    assert results.frames[columns].equals(here.frames[columns])

    (root / "JPEGImages/480p/one/00003.jpg").write_bytes(b"")
    strict = EvaluationPlan(
        sequences=plan.sequences, methods=plan.methods, tracker=plan.tracker, strict=True
    )
    with pytest.raises(DatasetError, match=r"00003\.jpg: the image cannot be read"):
        evaluate(strict, tmp_path / "strict", killer, RayExecutor(cluster.address))
    assert not ray.is_initialized()
    ray.init(cluster.address, log_to_driver=False)
    deadline = time.monotonic() + 120
    while ray.available_resources().get("CPU") != 1.0:
        assert time.monotonic() < deadline, "a task of the stopped evaluation goes on"
        time.sleep(0.1)


def test_a_missing_token_is_told(tmp_path: Path) -> None:
    """In a process of its own: Ray reads the mode once."""
    program = """
import sys
from lazyxmem_ros.evaluation.plan import EvaluationPlan, TrackerSettings
from lazyxmem_ros.evaluation.ray_executor import ClusterError, RayExecutor
try:
    RayExecutor(sys.argv[1])
except ClusterError as error:
    print(error)
"""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        done = subprocess.run(
            [sys.executable, "-c", program, f"127.0.0.1:{listening.getsockname()[1]}"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**environment, "HOME": str(tmp_path), "RAY_AUTH_MODE": "token"},
        )
    assert "no authentication token was found" in done.stdout, done.stderr
    assert "needs RAY_AUTH_MODE=token here too" in done.stdout


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://localhost:1", "127.0.0.1:99999"])
def test_an_address_where_nothing_listens_is_named_at_once(address: str) -> None:
    with pytest.raises(ClusterError, match=f"no Ray cluster answers at {address}"):
        RayExecutor(address)

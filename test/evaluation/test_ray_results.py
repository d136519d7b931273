# SPDX-License-Identifier: Apache-2.0
"""What comes back from a cluster, without one: texts name files that are here, errors are said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lazyxmem_ros.correction import CorrectorError
from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.evaluation.methods import choose_methods
from lazyxmem_ros.evaluation.offline import SequenceRunner
from lazyxmem_ros.evaluation.plan import Job, TrackerSettings
from lazyxmem_ros.evaluation.ray_executor import _given_up, _RayPool, run_packed, unpack
from lazyxmem_ros.evaluation.simulated_operator import OperatorConfig


@pytest.fixture
def job(make_tree: Callable[..., Path], tiny_weights: Path) -> Job:
    (sequence,) = open_dataset(make_tree("walk", 3, {0: (1,)}))
    (method,) = choose_methods(["xmem"])
    return Job(sequence, method, TrackerSettings(tiny_weights, "cpu"), OperatorConfig())


def test_an_internal_error_names_its_traceback_where_it_lies_in_the_end(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: SequenceRunner, sample: object) -> object:
        raise RuntimeError("torch.cat(): expected a non-empty list of Tensors")

    monkeypatch.setattr(SequenceRunner, "_track", failing)
    report, archive = run_packed(job, tmp_path)
    unpack(archive, tmp_path / job.name)
    assert report.error is not None
    file = Path(report.error.partition("; see ")[2])
    assert file.is_relative_to(tmp_path)
    assert "test_ray_results.py" in file.read_text()


def test_a_job_that_was_given_up_was_asked_for(job: Job) -> None:
    report = _given_up(job, OSError("the worker died"))
    assert (report.asked, report.read) == (3, 0)
    assert report.error == "walk: given up after 4 attempts: the worker died"


@pytest.mark.parametrize(
    ("device", "there", "reserved"),
    [("auto", 2.0, 1), ("auto", 0.0, 0), ("cuda", 0.0, 1), ("cuda:1", 2.0, 1), ("cpu", 2.0, 0)],
)
def test_a_job_reserves_the_gpu_that_it_computes_on(
    device: str, there: float, reserved: int, job: Job, tmp_path: Path
) -> None:
    """Ray hides the others."""
    asked = {}

    def remote(**resources: int) -> Callable[..., SimpleNamespace]:
        asked.update(resources)
        return lambda function: SimpleNamespace(remote=lambda *arguments: None)

    ray = SimpleNamespace(remote=remote, cluster_resources=lambda: {"CPU": 8.0, "GPU": there})
    _RayPool(ray, tmp_path).submit(replace(job, tracker=replace(job.tracker, device=device)))
    assert asked["num_gpus"] == reserved


def test_what_a_strict_job_raises_is_raised_here(job: Job, tmp_path: Path) -> None:
    class TaskError(Exception):
        def __init__(self, cause: Exception) -> None:
            super().__init__("a traceback of another machine")
            self.cause = cause

    def get(task: Exception) -> None:
        raise TaskError(task)

    exceptions = SimpleNamespace(RayTaskError=TaskError, RayError=OSError)
    pool = _RayPool(SimpleNamespace(get=get, exceptions=exceptions), tmp_path)
    with pytest.raises(CorrectorError, match="no memory left"):
        pool._collect(CorrectorError("the GPU has no memory left"), job)
    with pytest.raises(TaskError):
        pool._collect(np.exceptions.AxisError("the program's own fault"), job)

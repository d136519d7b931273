# SPDX-License-Identifier: Apache-2.0
"""Runs jobs on a Ray cluster (`--ray ADDRESS`); needs the optional extra `ray`.

A job runs in a temporary folder of whatever machine is free; its results travel back as an archive
that only this process unpacks, under the job's name. A worker that dies takes one attempt with it:
Ray runs the job again elsewhere, and however many attempts there were, one result is kept. Data
and weights must lie at the same paths on every machine.
"""

from __future__ import annotations

import importlib
import io
import os
import shutil
import socket
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lazyxmem_ros.evaluation.errors import EvaluationError
from lazyxmem_ros.evaluation.executors import Finished, run_in_pool
from lazyxmem_ros.evaluation.job import EXPLAINED, JobReport, run_job
from lazyxmem_ros.evaluation.machine import on_gpu
from lazyxmem_ros.evaluation.plan import Job
from lazyxmem_ros.extras import install_command

ATTEMPTS = 4
"""Number of times that a job is begun before it is given up, where workers die under it."""
POLL_S = 0.5
"""Time between two looks at what the cluster has done."""
CONNECT_TIMEOUT_S = 5.0
"""Time that a cluster has to accept a connection."""
AUTHENTICATION_HINT = (
    "one that asks for a token needs RAY_AUTH_MODE=token here too, and its ~/.ray/auth_token"
)


class ClusterError(EvaluationError):
    """Ray is not installed, or the cluster cannot be reached."""


class RayExecutor:
    """Runs jobs on a Ray cluster; an Executor."""

    def __init__(self, address: str) -> None:
        """address: as Ray takes it, `host:6379`, `auto`, or `local` for one on this machine.

        Raises ClusterError.
        """
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise ClusterError(
                f"--ray needs Ray: {install_command('ray')} brings it, on every machine"
            ) from error
        self._ray = ray
        _check_reachable(address)
        if address == "local":
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what Ray would tell its makers
        try:
            ray.init(
                address=address,
                ignore_reinit_error=True,
                log_to_driver=False,
                configure_logging=False,
            )
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            raise ClusterError(
                f"no Ray cluster answers at {address}: {error}; {AUTHENTICATION_HINT}"
            ) from error

    def run(
        self,
        jobs: Iterable[Job],
        folder: Path,
        progressed: Callable[[str, int], None],
        finished: Finished,
    ) -> None:
        """See Executor. Progress comes job by job."""
        run_in_pool(_RayPool(self._ray, folder), jobs, finished)


class _RayPool:
    """A Pool of a Ray cluster's workers."""

    def __init__(self, ray: Any, folder: Path) -> None:
        self._ray = ray
        self._folder = folder

    def submit(self, job: Job) -> Any:
        """See Pool."""
        # Of a task that has reserved none Ray hides them.
        there = self._ray.cluster_resources().get("GPU", 0) >= 1
        gpus = int(on_gpu(job.tracker.device, there=there))
        remote = self._ray.remote(
            num_cpus=job.tracker.threads, num_gpus=gpus, max_retries=ATTEMPTS - 1
        )(run_packed)
        return remote.remote(job, self._folder)

    def completed(self, running: Mapping[Any, Job]) -> Iterable[tuple[Any, JobReport]]:
        """See Pool."""
        done, _ = self._ray.wait(list(running), num_returns=1, timeout=POLL_S)
        for task in done:
            yield task, self._collect(task, running[task])

    def abandon(self, running: Iterable[Any]) -> None:
        """See Pool. The cluster ends the tasks of whoever leaves it.

        Cancelling them one by one brings this process down where one completes meanwhile.
        """
        self._ray.shutdown()

    def _collect(self, task: Any, job: Job) -> JobReport:
        """Unpack a finished job's results; a job given up becomes a report with the reason."""
        exceptions = self._ray.exceptions
        try:
            report, archive = self._ray.get(task)
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, EXPLAINED):  # a strict job has met a fault
                raise error.cause from error
            raise
        except exceptions.RayError as error:
            return _given_up(job, error)
        unpack(archive, self._folder / job.name)
        assert isinstance(report, JobReport)
        return report


def run_packed(job: Job, folder: Path) -> tuple[JobReport, bytes]:
    """Run a job in a temporary folder; returns its report and its folder as a ZIP archive.

    folder: where the archive will be unpacked.
    """
    with tempfile.TemporaryDirectory(prefix="lazyxmem-") as place:
        report = run_job(job, Path(place), named=folder)
        root = Path(place) / job.name
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(root.rglob("*")):
                archive.write(file, file.relative_to(root))
        return report, buffer.getvalue()


def unpack(data: bytes, target: Path) -> None:
    """Put a job's folder in its place in one step, instead of what may be there."""
    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.extractall(draft)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(draft, target)


def _check_reachable(address: str) -> None:
    """Raise ClusterError where nothing listens at `[ray://]host:port`.

    Ray itself would try for minutes.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # `auto` and the like, which Ray looks up
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address}: {error}; `ray start --head` starts one"
        ) from error


def _given_up(job: Job, error: Exception) -> JobReport:
    reason = f"{job.sequence.name}: given up after {ATTEMPTS} attempts: {error}"
    return JobReport(
        name=job.name, frames=0, seconds=0.0, faults=(), error=reason, asked=len(job.sequence)
    )

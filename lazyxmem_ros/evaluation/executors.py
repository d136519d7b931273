# SPDX-License-Identifier: Apache-2.0
"""Runs an evaluation's jobs: one after the other, or several at a time in processes."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lazyxmem_ros.evaluation.errors import EvaluationError
from lazyxmem_ros.evaluation.job import JobReport, run_job
from lazyxmem_ros.evaluation.plan import Job
from lazyxmem_ros.signals import undisturbed

POLL_S = 0.1
"""Time between two looks at what the workers have done."""
MANAGER_END_S = 5.0
"""Time that the pool's own thread has to end when the jobs are abandoned."""
Handle = TypeVar("Handle")
Finished = Callable[[Job, JobReport], list[Job]]
"""Is called when a job is done; returns the jobs that can begin then."""


class WorkerError(EvaluationError):
    """A worker process died under its job."""


class Executor(Protocol):
    """Runs jobs somewhere: in processes of this machine, or on a cluster."""

    def run(
        self,
        jobs: Iterable[Job],
        folder: Path,
        progressed: Callable[[str, int], None],
        finished: Finished,
    ) -> None:
        """Run all jobs, and those that `finished` returns; results go into `folder`.

        progressed: called with a job's name and its number of frames done. Raises what a strict
        job raised.
        """


class Pool(Protocol[Handle]):
    """Runs several jobs at a time, each known by a handle."""

    def submit(self, job: Job) -> Handle:
        """Queue a job; it begins when there is room."""

    def completed(self, running: Mapping[Handle, Job]) -> Iterable[tuple[Handle, JobReport]]:
        """Wait a little, then yield the jobs that are done. Raises what a strict job raised."""

    def abandon(self, running: Iterable[Handle]) -> None:
        """End the jobs at once: an unfinished one is run again anyway."""


def run_in_pool(pool: Pool[Handle], jobs: Iterable[Job], finished: Finished) -> None:
    """Run jobs and those that follow from them until none is left; abandon all on an exception."""
    running: dict[Handle, Job] = {}
    try:
        for job in jobs:
            running[pool.submit(job)] = job
        while running:
            for handle, report in pool.completed(running):
                for follower in finished(running.pop(handle), report):
                    running[pool.submit(follower)] = follower
    except BaseException:
        pool.abandon(running)
        raise


class ProcessExecutor:
    """Runs jobs in processes of this machine; one worker is this very process."""

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def run(
        self,
        jobs: Iterable[Job],
        folder: Path,
        progressed: Callable[[str, int], None],
        finished: Finished,
    ) -> None:
        """See Executor. Ctrl-C ends the workers; complete jobs stay complete."""
        if self._workers > 1:
            pool = _ProcessPool(self._workers, folder, progressed)
            run_in_pool(pool, jobs, finished)
            pool.close()
            return
        waiting = list(jobs)
        while waiting:
            job = waiting.pop(0)
            report = run_job(job, folder, partial(progressed, job.name))
            waiting = finished(job, report) + waiting


class _ProcessPool:
    """A Pool of worker processes, which tell their progress through a queue."""

    def __init__(self, workers: int, folder: Path, progressed: Callable[[str, int], None]) -> None:
        # Workers forked from here would share the state of PyTorch's and OpenCV's threads; those
        # forked from a server that has only imported them start as quickly and share nothing.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["lazyxmem_ros.evaluation.job"])
        _start_server()
        self._messages = context.Queue()
        self._folder = folder
        self._progressed = progressed
        self._pool = ProcessPoolExecutor(
            workers, context, initializer=_begin_worker, initargs=(self._messages,)
        )

    def submit(self, job: Job) -> Future[JobReport]:
        """See Pool."""
        try:
            with undisturbed():  # it may begin a worker, which nobody would know of and end
                return self._pool.submit(_run_reporting, job, self._folder)
        except BrokenProcessPool as error:
            raise _died() from error

    def completed(
        self, running: Mapping[Future[JobReport], Job]
    ) -> Iterable[tuple[Future[JobReport], JobReport]]:
        """See Pool."""
        done, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
        while not self._messages.empty():
            self._progressed(*self._messages.get())
        for future in done:
            try:
                yield future, future.result()
            except BrokenProcessPool as error:
                raise _died() from error

    def abandon(self, running: Iterable[Future[JobReport]]) -> None:
        """See Pool."""
        processes = list((self._pool._processes or {}).values())
        manager: Any = self._pool._executor_manager_thread
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        if manager is not None:
            # It closes its pipe now; Python's exit, if it came first, would write into it.
            manager.join(MANAGER_END_S)

    def close(self) -> None:
        """Wait for the workers' end."""
        self._pool.shutdown()


def _start_server() -> None:
    """Start the server of which workers are forked, deaf to Ctrl-C from its first moment on.

    A terminal sends that to all processes, and the parent alone decides what it means.
    """
    resource_tracker.ensure_running()  # the server needs it; its begin would end the blocking
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()  # it inherits what is blocked, and so do the workers
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _died() -> WorkerError:
    return WorkerError(
        "a worker process was ended from outside, perhaps for want of memory; the same command "
        "goes on from what is finished, with fewer --workers if need be"
    )


_messages: Any = None
"""The queue on which a worker tells how far it is; None in the parent."""


def _begin_worker(messages: Any) -> None:
    """Prepare a worker: Ctrl-C reaches it, too, but the parent alone decides what it means."""
    global _messages
    _messages = messages
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Inherited from a parent that turns it into Ctrl-C.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run_reporting(job: Job, folder: Path) -> JobReport:
    def progress(frames: int) -> None:
        _messages.put((job.name, frames))

    return run_job(job, folder, progress)

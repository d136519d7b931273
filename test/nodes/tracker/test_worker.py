# SPDX-License-Identifier: Apache-2.0
"""The worker: order, dropping, failures, waiting, ending."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from node_graph import wait_for

from lazyxmem_ros.nodes.tracker.worker import Worker


class Recorder:
    """Handles frames, which are numbers, one at a time when told to."""

    def __init__(self) -> None:
        self.done: list[object] = []
        self.failures: list[BaseException] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def handle(self, frame: int) -> None:
        self.entered.release()
        self.gate.acquire()
        if frame < 0:
            raise RuntimeError(f"frame {frame}")
        self.done.append(frame)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def worker(recorder: Recorder) -> Iterator[Worker[int]]:
    made: Worker[int] = Worker(on_failure=recorder.failures.append)
    made.start(recorder.handle)
    yield made
    recorder.gate.release(100)
    assert made.stop()


def test_only_the_newest_frame_waits(worker: Worker[int], recorder: Recorder) -> None:
    assert not worker.offer(1)
    recorder.entered.acquire()
    dropped = [worker.offer(frame) for frame in (2, 3, 4)]
    recorder.gate.release(2)
    wait_for(worker.is_idle, "the worker's rest")
    assert dropped == [False, True, True]
    assert recorder.done == [1, 4]


def test_commands_keep_their_order_and_go_before_a_frame(
    worker: Worker[int], recorder: Recorder
) -> None:
    worker.offer(1)
    recorder.entered.acquire()
    worker.offer(2)
    futures = [worker.submit(lambda n=n: recorder.done.append(f"c{n}")) for n in range(3)]
    recorder.gate.release(2)
    wait_for(worker.is_idle, "the worker's rest")
    assert all(future.done() for future in futures)
    assert recorder.done == [1, "c0", "c1", "c2", 2]


def test_what_a_frame_or_command_raises_ends_nothing(
    worker: Worker[int], recorder: Recorder
) -> None:
    recorder.gate.release(10)
    worker.offer(-1)
    wait_for(lambda: recorder.failures, "the failure")
    assert str(recorder.failures[0]) == "frame -1"
    with pytest.raises(ZeroDivisionError):
        worker.submit(lambda: 1 // 0).result(timeout=5)
    assert worker.submit(lambda: 42).result(timeout=5) == 42


def test_commands_are_served_while_a_frame_waits_for_them() -> None:
    answers: list[str] = []
    waits: list[float] = []
    patience = {1: 30.0, 5: 0.3}
    begun = threading.Event()

    def handle(frame: int) -> None:
        started = time.monotonic()
        begun.set()
        worker.serve_commands_until(lambda: len(answers) >= frame, started + patience[frame])
        waits.append(time.monotonic() - started)

    worker: Worker[int] = Worker(on_failure=lambda error: waits.append(-1.0))
    worker.start(handle)
    worker.offer(1)
    assert begun.wait(10)
    time.sleep(0.05)
    worker.submit(lambda: answers.append("first"))
    wait_for(lambda: waits, "the frame with its answer")
    assert 0.04 < waits[0] < patience[1]  # it went on when the answer came
    worker.offer(5)
    wait_for(lambda: len(waits) == 2, "the frame without its answers")
    assert waits[1] >= patience[5]  # it went on at the deadline
    assert worker.stop()


def test_only_the_worker_itself_may_wait(worker: Worker[int]) -> None:
    with pytest.raises(RuntimeError, match="own thread"):
        worker.serve_commands_until(lambda: True, time.monotonic())


def test_stopping_cancels_what_waits(recorder: Recorder) -> None:
    worker: Worker[int] = Worker(on_failure=recorder.failures.append)
    worker.start(recorder.handle)
    worker.offer(1)
    recorder.entered.acquire()
    waiting = worker.submit(lambda: None)
    worker.offer(2)
    assert not worker.stop(timeout=0.05)  # frame 1 is still in hand
    recorder.gate.release(5)
    assert worker.stop()
    assert waiting.cancelled()
    assert recorder.done == [1]
    assert worker.submit(lambda: None).cancelled()
    assert not worker.offer(3)


def test_posted_commands_fail_aloud(worker: Worker[int], recorder: Recorder) -> None:
    worker.post(lambda: 1 // 0)
    wait_for(lambda: recorder.failures, "the failure")
    assert isinstance(recorder.failures[0], ZeroDivisionError)

# SPDX-License-Identifier: Apache-2.0
"""The worker: order, dropping, failures, waiting, ending."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from node_graph import WAIT_S, wait_for

from lazyxmem_ros.nodes.tracker import worker as worker_module
from lazyxmem_ros.nodes.tracker.worker import (
    GRACE_RATE,
    LOST_SHARE,
    MAX_GRACE,
    MAX_WORK,
    About,
    NotDoneError,
    Worker,
)


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


def test_it_keeps_up_unless_frames_are_dropped_without_work(
    worker: Worker[int], recorder: Recorder
) -> None:
    def drop_two(while_busy: Callable[[], object]) -> None:
        for frame in (1, 2, 3):
            worker.offer(frame)
        while_busy()
        recorder.gate.release(2)
        wait_for(worker.is_idle, "the worker's rest")

    assert worker.keeps_up()
    go_on = threading.Event()
    begun = threading.Event()
    worker.submit_work(lambda: (begun.set(), go_on.wait(WAIT_S)))
    assert begun.wait(WAIT_S)
    drop_two(go_on.set)
    assert recorder.done == [3]
    assert worker.keeps_up()
    worker.offer(0)
    recorder.entered.acquire()
    recorder.entered.acquire()
    drop_two(lambda: None)
    assert recorder.done == [3, 0, 3]
    assert not worker.keeps_up()


def test_idle_time_is_used_while_nothing_waits(recorder: Recorder) -> None:
    """A little at a time, and until there is nothing left; a failure does not end it."""
    left = [0]

    def use_idle_time() -> bool:
        if not left[0]:
            return False
        recorder.done.append("idle")
        left[0] -= 1
        if left[0] == 1:
            raise RuntimeError("idle time")
        return True

    worker: Worker[int] = Worker(on_failure=recorder.failures.append)
    worker.start(recorder.handle, use_idle_time=use_idle_time)
    worker.offer(1)
    recorder.entered.acquire()
    left[0] = 3
    worker.offer(2)
    worker.submit(lambda: recorder.done.append("command"))
    recorder.gate.release(2)
    wait_for(worker.is_idle, "the worker's rest")
    assert recorder.done == [1, "command", 2, "idle", "idle"]
    assert [str(error) for error in recorder.failures] == ["idle time"]
    worker.submit(lambda: None).result(WAIT_S)
    wait_for(lambda: not left[0], "the rest of it")
    assert worker.stop()


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
        worker.submit(lambda: 1 // 0).result(timeout=WAIT_S)
    assert worker.submit(lambda: 42).result(timeout=WAIT_S) == 42


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
    assert begun.wait(WAIT_S)
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


# ---- work


def test_work_goes_between_two_frames(worker: Worker[int], recorder: Recorder) -> None:
    worker.offer(1)
    recorder.entered.acquire()
    for number in range(3):
        worker.submit_work(lambda n=number: recorder.done.append(f"w{n}"))
    worker.submit(lambda: recorder.done.append("command"))
    for frame in (2, 3, 4):
        worker.offer(frame)
        recorder.gate.release()
        recorder.entered.acquire()
    recorder.gate.release()
    wait_for(worker.is_idle, "the worker's rest")
    assert recorder.done == [1, "command", "w0", 2, "w1", 3, "w2", 4]


def about(*object_ids: int, stamp: int = 0) -> About:
    return About("masks", frozenset(object_ids), stamp)


def test_newer_work_about_the_same_takes_the_place_of_what_waits(
    worker: Worker[int], recorder: Recorder
) -> None:
    worker.offer(1)
    recorder.entered.acquire()
    a, b = about(1), about(1, stamp=2)
    futures = [
        worker.submit_work(lambda n=number: recorder.done.append(n), what)
        for number, what in enumerate([a, b, a, None, None, a])
    ]
    recorder.gate.release()
    wait_for(worker.is_idle, "the worker's rest")
    assert recorder.done == [1, 1, 3, 4, 5]
    for number in (0, 2):
        with pytest.raises(NotDoneError, match="a newer one") as replaced:
            futures[number].result()
        assert replaced.value.kind == "replaced"


def test_once_frames_are_dropped_for_work_only_the_newest_of_the_same_objects_waits(
    worker: Worker[int], recorder: Recorder
) -> None:
    worker._grace_at = {"masks": math.inf, "": math.inf}
    entered, gate = threading.Event(), threading.Event()
    worker.submit_work(lambda: (entered.set(), gate.wait(WAIT_S)))
    assert entered.wait(WAIT_S)
    for frame in range(4):
        worker.offer(frame)  # three of which are dropped
    gate.set()
    recorder.entered.acquire()  # the frame after the work, which ends the round
    early = [worker.submit_work(lambda: 1, about(i, stamp=1)) for i in (1, 2)]
    recorder.gate.release()
    wait_for(lambda: worker._credit < 0, "the end of the round")
    late = worker.submit_work(lambda: 2, about(1, stamp=2))
    assert isinstance(early[0].exception(timeout=WAIT_S), NotDoneError)
    assert late.result(timeout=WAIT_S) == 2
    assert early[1].result(timeout=WAIT_S) == 1


def test_work_does_not_pile_up(worker: Worker[int], recorder: Recorder) -> None:
    worker.offer(1)
    recorder.entered.acquire()
    futures = [worker.submit_work(lambda: 1) for _ in range(MAX_WORK + 5)]
    left_out = [future for future in futures if future.done()]
    assert left_out == futures[:5]
    for future in left_out:
        assert isinstance(future.exception(), NotDoneError)
    recorder.gate.release()
    wait_for(worker.is_idle, "the worker's rest")
    assert all(future.result() == 1 for future in futures[5:])


def test_work_that_waits_can_be_dropped_and_is_cancelled_at_the_end(recorder: Recorder) -> None:
    worker: Worker[int] = Worker(on_failure=recorder.failures.append)
    worker.start(recorder.handle)
    worker.offer(1)
    recorder.entered.acquire()
    dropped = worker.submit_work(lambda: None)
    worker.drop_work("the tracker was reset")
    assert str(dropped.exception()) == "the tracker was reset"
    cancelled = worker.submit_work(lambda: None)
    left_out: list[str] = []
    worker.post_work(lambda: None, on_left_out=lambda why: left_out.append(why.kind))
    assert not worker.stop(timeout=0.05)
    recorder.gate.release()
    assert worker.stop()
    assert cancelled.cancelled()
    assert left_out == ["ended"]
    assert worker.submit_work(lambda: None).cancelled()


def test_work_about_objects_can_be_dropped_but_newer_work_stays(
    worker: Worker[int], recorder: Recorder
) -> None:
    worker.offer(1)
    recorder.entered.acquire()
    others = [worker.submit_work(lambda: 1, what) for what in (about(2), None)]
    meant = worker.submit_work(lambda: 1, about(1, 2))
    before = worker.work_count
    newer = worker.submit_work(lambda: 1, about(1))
    worker.drop_work("the object was removed", object_ids=[1], before=before)
    assert str(meant.exception()) == "the object was removed"
    recorder.gate.release()
    assert [future.result(timeout=WAIT_S) for future in (*others, newer)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("frame_s", "work_s", "later_s"),
    [
        (0.002, 0.03, 0.0),
        (0.008, 0.03, 0.0),
        (0.02, 0.005, 0.0),
        (0.016, 0.001, 0.01),
        (0.03, 0.09, 0.0),
    ],
)
def test_a_flood_of_work_costs_a_tenth_of_the_frames(
    frame_s: float, work_s: float, later_s: float
) -> None:
    """Frames at 100 Hz; the worker is quick, just quick enough, too slow, and far too slow.

    later_s: by which the frame after work takes longer.
    """
    period_s, count = 0.01, 200
    worked: list[float] = []

    def work() -> None:
        time.sleep(work_s)
        worked.append(work_s)

    def run(*, flooded: bool) -> int:
        """How many frames are tracked."""
        tracked: list[int] = []
        learnt = 0

        def handle(frame: int) -> None:
            nonlocal learnt
            done = len(worked) if flooded else 0
            time.sleep(frame_s + (later_s if done > learnt else 0))
            learnt = done
            tracked.append(frame)

        worker: Worker[int] = Worker(on_failure=lambda error: None)
        worker.start(handle)
        for frame in range(count):
            worker.offer(frame)
            if flooded:
                worker.submit_work(work)
                worker.submit_work(work)
            time.sleep(period_s)
        assert worker.stop()
        return len(tracked)

    with ThreadPoolExecutor() as side_by_side:  # so that a busy machine slows both
        alone, flooded = side_by_side.map(lambda each: run(flooded=each), (False, True))
    granted_s = MAX_GRACE * work_s
    assert flooded / alone >= 1 - 1.5 * LOST_SHARE - granted_s / (count * period_s)
    assert len(worked) >= 3


def test_work_does_not_starve_behind_what_dear_work_has_cost() -> None:
    """A person's answer to a tracker that is too slow for its camera, after one that cost much."""
    frame_s, period_s, dear_s = 0.06, 0.02, 0.5
    worker: Worker[int] = Worker(on_failure=lambda error: None)
    worker.start(lambda frame: time.sleep(frame_s))
    ended = threading.Event()

    def offer() -> None:
        frame = 0
        while not ended.wait(period_s):
            worker.offer(frame)
            frame += 1

    def wait_of(seconds: float) -> float:
        """How long work waits that takes so long."""
        asked = time.monotonic()
        worker.submit_work(lambda: time.sleep(seconds)).result(WAIT_S)
        return time.monotonic() - asked - seconds

    camera = threading.Thread(target=offer)
    camera.start()
    try:
        time.sleep(20 * period_s)
        wait_of(dear_s)
        at_once = [wait_of(0) for _ in range(round(MAX_GRACE))]
        later = wait_of(0)
    finally:
        ended.set()
        camera.join()
        assert worker.stop()
    assert max(at_once) < 0.5 / GRACE_RATE < later < 1.5 / GRACE_RATE


def test_a_flood_of_one_kind_is_granted_nothing_and_takes_nothing_from_others(
    recorder: Recorder,
) -> None:
    worker: Worker[int] = Worker(on_failure=recorder.failures.append)
    recorder.gate.release(100)
    worker._credit = -1.0
    worker.offer(0)
    flood = [worker.submit_work(lambda: 1, about(1, stamp=stamp)) for stamp in range(5)]
    answer = worker.submit_work(lambda: 2, About("answer", frozenset([1]), 0))
    worker.start(recorder.handle)
    assert answer.result(timeout=WAIT_S) == 2
    wait_for(lambda: recorder.done == [0], "the frame")
    assert [future.done() for future in flood] == [True] * 4 + [False]
    assert flood[-1].result(timeout=WAIT_S) == 1
    assert worker.stop()


def test_work_goes_on_where_no_frames_come(
    worker: Worker[int], recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it has cost more frames than it may."""
    monkeypatch.setattr(worker_module, "QUIET_S", 0.2)
    recorder.gate.release(100)
    entered, gate = threading.Event(), threading.Event()
    worker.submit_work(lambda: (entered.set(), gate.wait(WAIT_S)))
    assert entered.wait(WAIT_S)
    for frame in range(10):
        worker.offer(frame)
    late = worker.submit_work(lambda: "done")
    gate.set()
    assert late.result(timeout=WAIT_S) == "done"
    assert recorder.done == [9]


def test_whoever_posted_work_hears_that_it_was_left_out(
    worker: Worker[int], recorder: Recorder
) -> None:
    worker.offer(1)
    recorder.entered.acquire()
    for number in range(2):
        worker.post_work(
            lambda n=number: recorder.done.append(n),
            about(1),
            on_left_out=lambda why, n=number: recorder.done.append((n, why.kind)),
        )
    worker.post_work(lambda: 1 // 0, on_left_out=recorder.done.append)
    recorder.gate.release()
    wait_for(lambda: recorder.failures, "the failure")
    assert recorder.done == [1, (0, "replaced"), 1]
    assert isinstance(recorder.failures[0], ZeroDivisionError)

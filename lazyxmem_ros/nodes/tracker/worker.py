# SPDX-License-Identifier: Apache-2.0
"""One thread that owns the tracker: the newest frame, commands, and work that must not stop it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

FrameT = TypeVar("FrameT")
ResultT = TypeVar("ResultT")

MAX_WORK = 64
"""Pieces of work that wait; beyond it the oldest is left out."""
LOST_SHARE = 0.06
"""Of the frames, that may be dropped because of work."""
MAX_CREDIT = 1.0
"""Frames that may be dropped for work at a time, where none was for long."""
MAX_DEBT = 20.0
"""Frames dropped for work that keep later work waiting; more are forgiven, for who waits behind.

Where a frame takes three times the camera's period, work as dear as three frames costs ten.
"""
GRACE_RATE = 0.3
"""Pieces of work per second of steady time that go whatever they cost.

What a person says is about a frame that will be forgotten; it must not wait behind a debt. Each
kind of work has its own, and none as long as work of that kind is left out: then it is a flood.
"""
MAX_GRACE = 2.0
"""Of them at a time: an answer's clicks go to the correction service, and its mask to memory."""
USUAL_MEMORY = 0.1
"""Share that a frame without work has in what is usual."""
QUIET_S = 1.0
"""Of steady time: without a frame for so long there is none to lose."""


class NotDoneError(ValueError):
    """Work that was left out. `kind` names why for the counters, the text explains it."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class About:
    """What a piece of work is about: its kind, objects, and the stamp (ns) of a frame."""

    kind: str
    object_ids: frozenset[int]
    stamp: int


@dataclass(frozen=True)
class _Job:
    future: Future[Any]
    do: Callable[[], Any]
    about: About | None = None
    number: int = 0

    @property
    def kind(self) -> str:
        """Of work; "" where nothing is said of it."""
        return "" if self.about is None else self.about.kind


class Worker(Generic[FrameT]):
    """Runs frames, commands and work in one thread, so that what they touch needs no lock.

    A frame waits in a slot of one: a newer frame replaces it. Commands wait in a queue and go
    before frames: each of them is cheap and may change how a frame comes out. Work, such as a mask
    that memory learns, may cost as much as a frame. It goes between two frames, one piece at a
    time, and only as long as no more than LOST_SHARE of the frames are dropped for it, but for
    GRACE_RATE pieces of each kind a second, MAX_GRACE at a time.
    """

    def __init__(
        self,
        *,
        on_failure: Callable[[BaseException], None],
        name: str = "tracker-worker",
    ) -> None:
        """on_failure(error): gets what a frame raises, or a command that nobody waits for."""
        self._on_failure = on_failure
        self._changed = threading.Condition()
        self._commands: deque[_Job] = deque()
        self._work: deque[_Job] = deque()
        self.work_count = 0
        """Pieces of work that were ever queued."""
        self._slot: FrameT | None = None
        self._offered_at = -QUIET_S
        # A round is a frame with the work before it; dropped in this one, and in one without work.
        self._credit = MAX_CREDIT
        self._dropped = 0
        self._usually_dropped = 0.0
        self._worked = False
        # By kind, the steady time from which work goes whatever it costs.
        self._grace_at: dict[str, float] = {}
        self._frame_is_next = False
        self._stopping = False
        self._busy = False
        self._name = name
        self._thread: threading.Thread | None = None

    def start(
        self,
        handle_frame: Callable[[FrameT], object],
        *,
        is_behind: Callable[[], bool] = lambda: False,
        use_idle_time: Callable[[], bool] = lambda: False,
    ) -> None:
        """Start the thread, in which handle_frame(frame) runs; once only.

        is_behind: whether frames are still dearer for what earlier work has left to do.
        use_idle_time: does a little of that while nothing waits; returns whether there was any.
        """
        self._is_behind = is_behind
        self._use_idle_time = use_idle_time
        self._thread = threading.Thread(
            target=self._run, args=(handle_frame,), name=self._name, daemon=True
        )
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> bool:
        """End after the frame or command in hand; what waits is cancelled.

        Returns whether the thread ended within `timeout` seconds.
        """
        with self._changed:
            self._stopping = True
            self._slot = None
            abandoned = [*self._commands, *self._work]
            self._commands.clear()
            self._work.clear()
            self._changed.notify_all()
        thread = self._thread
        if thread is not None and threading.current_thread() is not thread:
            thread.join(timeout)
        for job in abandoned:
            job.future.cancel()
        return self.has_ended()

    # ---- frames

    def offer(self, frame: FrameT) -> bool:
        """Leave a frame for the thread; returns whether an older one was dropped for it."""
        with self._changed:
            if self._stopping:
                return False
            dropped = self._slot is not None
            self._slot = frame
            self._offered_at = time.monotonic()
            self._credit = min(self._credit + LOST_SHARE, MAX_CREDIT)
            self._dropped += dropped
            self._changed.notify_all()
            return dropped

    def clear_frame(self) -> bool:
        """Forget the frame that waits; returns whether there was one."""
        with self._changed:
            dropped = self._slot is not None
            self._slot = None
            return dropped

    # ---- commands

    def submit(self, command: Callable[[], ResultT]) -> Future[ResultT]:
        """Queue a command; the future gets its result or what it raised.

        After `stop` the future is cancelled.
        """
        job = _Job(Future(), command)
        with self._changed:
            if not self._stopping:
                self._commands.append(job)
                self._changed.notify_all()
                return job.future
        job.future.cancel()
        return job.future

    def post(self, command: Callable[[], object]) -> None:
        """Queue a command whose result nobody waits for; what it raises goes to on_failure."""
        self.submit(command).add_done_callback(self._after_post)

    def _after_post(self, future: Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            self._on_failure(error)

    # ---- work

    def submit_work(
        self, work: Callable[[], ResultT], about: About | None = None
    ) -> Future[ResultT]:
        """Queue work; the future gets its result or what it raised, or a NotDoneError.

        about: newer work about the same takes the place of what still waits; once frames are
        dropped for work, so does newer work of the same kind and objects on any frame. Where
        MAX_WORK pieces wait the oldest is left out. After `stop` the future is cancelled.
        """
        left_out: list[tuple[_Job, NotDoneError]] = []
        with self._changed:
            self.work_count += 1
            job = _Job(Future(), work, about, self.work_count)
            stopping = self._stopping
            if not stopping:
                left_out += [(same, _replaced()) for same in self._take_older(job)]
                if len(self._work) >= MAX_WORK:
                    left_out.append((self._work.popleft(), _too_busy()))
                for other, _ in left_out:
                    self._grant_none(other.kind)
                self._work.append(job)
                self._changed.notify_all()
        if stopping:
            job.future.cancel()
        for other, reason in left_out:
            _leave_out(other, reason)
        return job.future

    def post_work(
        self,
        work: Callable[[], object],
        about: About | None = None,
        *,
        on_left_out: Callable[[NotDoneError], object],
    ) -> None:
        """Queue work whose result nobody waits for; what it raises goes to on_failure.

        on_left_out(reason): runs in the thread, as a command, where the work was left out; in the
        stopping one after `stop`.
        """

        def finish(future: Future[Any]) -> None:
            if future.cancelled():
                on_left_out(_ended())
                return
            error = future.exception()
            if isinstance(error, NotDoneError):
                reason = error
                self.post(lambda: on_left_out(reason))
            elif error is not None:
                self._on_failure(error)

        self.submit_work(work, about).add_done_callback(finish)

    def claim(self) -> bool:
        """Whether the frame in hand may be made dearer, as by a mask that came before it."""
        with self._changed:
            may = self._credit >= 0
            self._worked = self._worked or may
            return may

    def drop_work(
        self,
        reason: str,
        *,
        object_ids: Collection[int] | None = None,
        before: int | None = None,
    ) -> None:
        """Leave out work that waits: all of it, or what is about one of the objects.

        before: a former `work_count`; newer work stays.
        """

        def is_meant(job: _Job) -> bool:
            if before is not None and job.number > before:
                return False
            if object_ids is None:
                return True
            return job.about is not None and not job.about.object_ids.isdisjoint(object_ids)

        with self._changed:
            dropped = [job for job in self._work if is_meant(job)]
            for job in dropped:
                self._work.remove(job)
        for job in dropped:
            _leave_out(job, NotDoneError("overtaken", reason))

    def _take_older(self, newer: _Job) -> list[_Job]:
        """Takes out the work whose place newer work takes."""
        about, busy = newer.about, self._credit < 0
        if about is None:
            return []
        older = [
            job
            for job in self._work
            if job.about is not None
            and (job.about.kind, job.about.object_ids) == (about.kind, about.object_ids)
            and (busy or job.about.stamp == about.stamp)
        ]
        for job in older:
            self._work.remove(job)
        return older

    # ---- how it is going

    def is_idle(self) -> bool:
        """Whether nothing is in hand or waiting."""
        with self._changed:
            waiting = self._commands or self._work or self._slot is not None
            return not (self._busy or waiting)

    def keeps_up(self) -> bool:
        """Whether next to no frame is dropped where there is no work."""
        with self._changed:
            return self._usually_dropped < LOST_SHARE

    def has_ended(self) -> bool:
        """Whether nothing runs in the thread any more, or it was never started."""
        return self._thread is None or not self._thread.is_alive()

    # ---- the thread

    def serve_commands_until(self, done: Callable[[], bool], deadline: float) -> None:
        """Run commands and work, but no frame, until done() or time.monotonic() is `deadline`.

        Only for use from inside handle_frame: this is how a frame waits for its corrections.
        """
        if threading.current_thread() is not self._thread:
            raise RuntimeError("serve_commands_until belongs to the worker's own thread")
        while not done():
            with self._changed:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or self._stopping:
                    return
                if not self._commands and not self._work:
                    self._changed.wait(remaining)
                    continue
                job = self._commands.popleft() if self._commands else self._work.popleft()
            _run_job(job)

    def _run(self, handle_frame: Callable[[FrameT], object]) -> None:
        self._work_until_stopped(handle_frame)
        # Whoever still knows the worker keeps nothing of what it did.
        self._is_behind = self._use_idle_time = lambda: False

    def _work_until_stopped(self, handle_frame: Callable[[FrameT], object]) -> None:
        is_idle_time_used = False
        while True:
            with self._changed:
                self._busy = False
                chosen = self._choose(handle_frame)
                while not self._stopping and chosen is None and is_idle_time_used:
                    # Work may wait for the camera to be quiet, of which nobody tells.
                    self._changed.wait(QUIET_S if self._work else None)
                    chosen = self._choose(handle_frame)
                if self._stopping:
                    return
                self._busy = True
            if chosen is not None:
                chosen()
            is_idle_time_used = chosen is None and not self._idle()

    def _idle(self) -> bool:
        """Does a little of what is left to do; returns whether there may be more."""
        try:
            return self._use_idle_time()
        except Exception as error:  # noqa: BLE001 - the thread outlives it, as a frame's failure
            self._on_failure(error)
            return False

    def _choose(self, handle_frame: Callable[[FrameT], object]) -> Callable[[], None] | None:
        """Takes out what is to be done next; None: nothing yet."""
        if self._commands:
            job = self._commands.popleft()
            return lambda: _run_job(job)
        work = self._next_work()
        if self._slot is not None and (self._frame_is_next or work is None):
            frame, self._slot = self._slot, None
            self._frame_is_next = False
            return lambda: self._run_frame(handle_frame, frame)
        if work is None:
            return None
        self._work.remove(work)
        self._worked = self._frame_is_next = True
        if self._credit < 0:
            self._use_grace(work.kind)
        return lambda: _run_job(work)

    def _next_work(self) -> _Job | None:
        """The first piece of work that costs no more frames than it may, or is granted."""
        now = time.monotonic()
        is_quiet = now - self._offered_at >= QUIET_S
        if self._credit >= 0 or is_quiet:
            return self._work[0] if self._work else None
        granted = (job for job in self._work if now >= self._grace_at.get(job.kind, 0.0))
        return next(granted, None)

    def _use_grace(self, kind: str) -> None:
        """One piece of work more has been done whatever it costs."""
        period = 1 / GRACE_RATE
        earliest = time.monotonic() - (MAX_GRACE - 1) * period
        self._grace_at[kind] = max(self._grace_at.get(kind, 0.0), earliest) + period

    def _grant_none(self, kind: str) -> None:
        """Work of this kind was left out: the next piece is granted 1 / GRACE_RATE later."""
        at = time.monotonic() + 1 / GRACE_RATE
        self._grace_at[kind] = max(self._grace_at.get(kind, 0.0), at)

    def _run_frame(self, handle_frame: Callable[[FrameT], object], frame: FrameT) -> None:
        try:
            handle_frame(frame)
        except Exception as error:  # noqa: BLE001 - the thread outlives whatever a frame does
            self._on_failure(error)
        behind = self._is_behind()
        with self._changed:
            self._end_round(behind)

    def _end_round(self, behind: bool) -> None:
        """What was dropped beyond the usual was dropped for work: the frame learns its mask."""
        if self._worked or behind:
            excess = max(0.0, self._dropped - self._usually_dropped)
            self._credit = max(self._credit - excess, -MAX_DEBT)
        else:
            self._usually_dropped += USUAL_MEMORY * (self._dropped - self._usually_dropped)
        self._dropped, self._worked = 0, False


def _run_job(job: _Job) -> None:
    if not job.future.set_running_or_notify_cancel():
        return
    try:
        job.future.set_result(job.do())
    except Exception as error:  # noqa: BLE001 - whoever holds the future gets it
        job.future.set_exception(error)


def _leave_out(job: _Job, reason: NotDoneError) -> None:
    if job.future.set_running_or_notify_cancel():
        job.future.set_exception(reason)


def _replaced() -> NotDoneError:
    return NotDoneError("replaced", "a newer one of the same objects took its place")


def _ended() -> NotDoneError:
    return NotDoneError("ended", "the tracker was ended before it came to that")


def _too_busy() -> NotDoneError:
    return NotDoneError(
        "too busy", f"the tracker is busy: {MAX_WORK} newer masks and corrections wait already"
    )

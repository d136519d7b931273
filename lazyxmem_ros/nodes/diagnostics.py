# SPDX-License-Identifier: Apache-2.0
"""What a node counts and times, as diagnostic_msgs; and warnings that do not flood the log."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.time import Time

WINDOW_SAMPLES = 1000
WARNING_PERIOD_S = 5.0
ALARM_WINDOW_S = 10.0
"""Of steady time: what happened before that alarms nobody."""

OK = DiagnosticStatus.OK
WARN = DiagnosticStatus.WARN
ERROR = DiagnosticStatus.ERROR


class Counts:
    """Named counters that several threads may raise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counter: Counter[str] = Counter()

    def add(self, name: str, amount: int = 1) -> None:
        """Raise one counter."""
        with self._lock:
            self._counter[name] += amount

    def __getitem__(self, name: str) -> int:
        with self._lock:
            return self._counter[name]

    def snapshot(self) -> dict[str, int]:
        """All counters, by name."""
        with self._lock:
            return dict(sorted(self._counter.items()))


class Recent:
    """How much counters have risen within the last `window_s` seconds of steady time."""

    def __init__(
        self,
        counts: Counts,
        *,
        window_s: float = ALARM_WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counts = counts
        self._window_s = window_s
        self._clock = clock
        self._seen: deque[tuple[float, dict[str, int]]] = deque([(clock(), counts.snapshot())])

    def look(self) -> dict[str, int]:
        """By name, since the first of the looks that lie within the window. Call it regularly."""
        now, current = self._clock(), self._counts.snapshot()
        while len(self._seen) > 1 and self._seen[0][0] < now - self._window_s:
            self._seen.popleft()
        before = self._seen[0][1]
        self._seen.append((now, current))
        return {name: count - before.get(name, 0) for name, count in current.items()}


class Latencies:
    """The last WINDOW_SAMPLES durations, in seconds."""

    def __init__(self, samples: int = WINDOW_SAMPLES) -> None:
        self._lock = threading.Lock()
        self._seconds: deque[float] = deque(maxlen=samples)

    def add(self, seconds: float) -> None:
        """Note one duration."""
        with self._lock:
            self._seconds.append(seconds)

    def milliseconds(self, percentile: float) -> float:
        """A percentile (0..100) in milliseconds; NaN before the first sample."""
        with self._lock:
            samples = list(self._seconds)
        return float(np.percentile(samples, percentile)) * 1e3 if samples else float("nan")


class Rate:
    """Events per second over the last `period_s` seconds of steady time."""

    def __init__(self, period_s: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._period_s = period_s
        self._clock = clock
        self._started = clock()
        self._times: deque[float] = deque()

    def add(self) -> None:
        """Note one event, now."""
        with self._lock:
            self._times.append(self._clock())
            self._forget(self._times[-1])

    def hertz(self) -> float:
        """Events per second; of the time since the start while that is shorter."""
        with self._lock:
            now = self._clock()
            self._forget(now)
            observed = min(self._period_s, now - self._started)
            return len(self._times) / observed if observed > 0 else 0.0

    def _forget(self, now: float) -> None:
        while self._times and self._times[0] < now - self._period_s:
            self._times.popleft()


class InputRefusedError(ValueError):
    """Input that changes nothing. `kind` names the fault for the counters, the text explains it."""

    def __init__(self, kind: str, fault: str) -> None:
        super().__init__(fault)
        self.kind = kind


def fault_kind(error: BaseException) -> str:
    """The name of a fault for the counters."""
    return str(getattr(error, "kind", type(error).__name__))


class Refusals:
    """Counts what was refused and says so, at most once per WARNING_PERIOD_S for each kind."""

    def __init__(
        self,
        warn: Callable[[str], object],
        *,
        period_s: float = WARNING_PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._warn = warn
        self._period_s = period_s
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._said: dict[str, tuple[float, int]] = {}

    def refuse(self, topic: str, kind: str, fault: str) -> None:
        """Count one refusal of `kind` on `topic`; `fault` says in words what was wrong."""
        key = f"{topic}: {kind}"
        with self._lock:
            self._counts[key] += 1
            count, now = self._counts[key], self._clock()
            last, said = self._said.get(key, (-np.inf, 0))
            if now - last < self._period_s:
                return
            self._said[key] = (now, count)
        more = f" ({count - said - 1} more like it since the last warning)" if said else ""
        if count - said == 1:
            more = ""
        self._warn(f"{topic}: refused: {fault}{more}")

    def total(self) -> int:
        """All refusals."""
        with self._lock:
            return sum(self._counts.values())

    def snapshot(self) -> dict[str, int]:
        """Refusals by 'topic: kind'."""
        with self._lock:
            return dict(sorted(self._counts.items()))


def status(
    name: str,
    values: Mapping[str, object],
    *,
    level: bytes = OK,
    message: str = "ok",
    hardware_id: str = "",
) -> DiagnosticStatus:
    """One DiagnosticStatus; numbers with a fraction are given to three places."""
    pairs = [KeyValue(key=key, value=_text(value)) for key, value in values.items()]
    return DiagnosticStatus(
        level=level, name=name, message=message, hardware_id=hardware_id, values=pairs
    )


def diagnostic_array(now: Time, statuses: Sequence[DiagnosticStatus]) -> DiagnosticArray:
    """The message for /diagnostics."""
    array = DiagnosticArray(status=list(statuses))
    array.header.stamp = now.to_msg()
    return array


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)

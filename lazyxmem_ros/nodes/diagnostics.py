# SPDX-License-Identifier: Apache-2.0
"""What a node counts and times, as diagnostic_msgs; and warnings that do not flood the log."""

from __future__ import annotations

import math
import socket
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.time import Time

WINDOW_SAMPLES = 1000
WARNING_PERIOD_S = 5.0
MAX_TEXT = 2000
"""Characters of one line of the log: a message may bring a text of any length."""
MAX_KINDS = 200
"""Of things that are said, each at its own pace; what comes beyond shares one."""
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
        self.span_s = window_s
        """Seconds of steady time that the last look was about: more than the window where looks are
        rarer."""
        self._seen: deque[tuple[float, dict[str, int]]] = deque([(clock(), counts.snapshot())])

    def look(self) -> dict[str, int]:
        """By name, since the first of the looks that lie within the window. Call it regularly."""
        now, current = self._clock(), self._counts.snapshot()
        while len(self._seen) > 1 and self._seen[0][0] < now - self._window_s:
            self._seen.popleft()
        begun, before = self._seen[0]
        self.span_s = max(self._window_s, now - begun)
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


class LogLimiter:
    """Says each kind of thing at most once in `period_s`, and nothing at length."""

    def __init__(
        self,
        log: Callable[[str], object],
        *,
        period_s: float = WARNING_PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """log: gets the lines, as a logger's `warning` or `error`."""
        self._log = log
        self._period_s = period_s
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[str, float] = {}
        self._held: Counter[str] = Counter()

    def say(self, kind: str, text: str) -> None:
        """Log `text`, cut to MAX_TEXT, unless its kind was said a moment ago."""
        with self._lock:
            if kind not in self._said and len(self._said) >= MAX_KINDS:
                kind = "others"
            now = self._clock()
            if now - self._said.get(kind, -math.inf) < self._period_s:
                self._held[kind] += 1
                return
            self._said[kind] = now
            held = self._held.pop(kind, 0)
        more = f" ({held} more like it since the last one)" if held else ""
        self._log(cut(text) + more)


def traced(error: BaseException) -> str:
    """The error's traceback, as Python prints it."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def cut(text: str) -> str:
    """The text's beginning and end where it is longer than MAX_TEXT."""
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]} ... {len(text) - 2 * half} characters ... {text[-half:]}"


class Refusals:
    """Counts what was refused, and says so at the pace of a LogLimiter."""

    def __init__(
        self,
        warn: Callable[[str], object],
        *,
        period_s: float = WARNING_PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limiter = LogLimiter(warn, period_s=period_s, clock=clock)
        self._counts = Counts()

    def refuse(self, topic: str, kind: str, fault: str) -> None:
        """Count one refusal of `kind` on `topic`; `fault` says in words what was wrong."""
        key = f"{topic}: {kind}"
        self._counts.add(key)
        self._limiter.say(key, f"{topic}: refused: {fault}")

    def total(self) -> int:
        """All refusals."""
        return sum(self._counts.snapshot().values())

    def snapshot(self) -> dict[str, int]:
        """Refusals by 'topic: kind'."""
        return self._counts.snapshot()


def status_name(node: str, part: str) -> str:
    """What a status is called: the node's full name, whose first slash viewers do without, and the
    part of it that the status is about.
    """
    return f"{node.lstrip('/')}: {part}"


def hardware(device: str = "") -> str:
    """What a status says of the hardware: this machine, and the device of it."""
    return ": ".join(filter(None, (socket.gethostname(), device)))


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
        level=level, name=name, message=cut(message), hardware_id=hardware_id, values=pairs
    )


def diagnostic_array(now: Time, statuses: Sequence[DiagnosticStatus]) -> DiagnosticArray:
    """The message for /diagnostics."""
    array = DiagnosticArray(status=list(statuses))
    array.header.stamp = now.to_msg()
    return array


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else cut(str(value))

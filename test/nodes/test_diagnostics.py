# SPDX-License-Identifier: Apache-2.0
"""Counters, rates, percentiles and warnings that do not flood."""

from __future__ import annotations

import math
import re
from pathlib import Path

from rclpy.node import Node

from lazyxmem_ros.nodes.diagnostics import (
    MAX_KINDS,
    MAX_TEXT,
    Counts,
    Latencies,
    LogLimiter,
    Rate,
    Recent,
    Refusals,
    status,
)
from lazyxmem_ros.nodes.logs import error_of, warning_of


class FakeClock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_counts() -> None:
    counts = Counts()
    counts.add("b")
    counts.add("a", 3)
    assert counts["a"] == 3
    assert counts["never"] == 0
    assert counts.snapshot() == {"a": 3, "b": 1}


def test_latency_percentiles_of_the_last_samples() -> None:
    latencies = Latencies(samples=100)
    assert math.isnan(latencies.milliseconds(50))
    for _ in range(50):
        latencies.add(99.0)  # these fall out again
    for n in range(1, 101):
        latencies.add(n / 1000)
    assert latencies.milliseconds(50) == 50.5
    assert 99 <= latencies.milliseconds(99) <= 100


def test_rate_counts_the_last_seconds() -> None:
    clock = FakeClock()
    rate = Rate(period_s=5.0, clock=clock)
    assert rate.hertz() == 0.0
    for _ in range(20):
        clock.now += 0.1
        rate.add()
    assert abs(rate.hertz() - 10.0) < 1e-6  # two seconds since the start
    for _ in range(100):
        clock.now += 0.1
        rate.add()
    assert abs(rate.hertz() - 10.0) < 0.3
    clock.now += 20
    assert rate.hertz() == 0.0


def test_recent_counts_forget_what_lies_before_the_window() -> None:
    clock, counts = FakeClock(), Counts()
    counts.add("failed", 7)
    recent = Recent(counts, window_s=10.0, clock=clock)
    assert recent.look() == {"failed": 0}
    counts.add("failed")
    for _ in range(9):
        clock.now += 1
        assert recent.look() == {"failed": 1}
    counts.add("dropped", 2)
    clock.now += 4
    assert recent.look() == {"failed": 0, "dropped": 2}
    assert recent.span_s == 10.0
    clock.now += 60
    recent.look()
    assert recent.span_s == 60.0  # looked at rarely, it says of what it speaks


def test_refusals_are_counted_all_and_said_at_times() -> None:
    clock, said = FakeClock(), []
    refusals = Refusals(said.append, period_s=5.0, clock=clock)
    for _ in range(10):
        refusals.refuse("/image", "size", "it is too small")
    refusals.refuse("/image", "stamp", "it runs backwards")
    assert said == [
        "/image: refused: it is too small",
        "/image: refused: it runs backwards",
    ]
    clock.now += 6
    refusals.refuse("/image", "size", "it is too large")
    assert said[2] == "/image: refused: it is too large (9 more like it since the last one)"
    assert refusals.snapshot() == {"/image: size": 11, "/image: stamp": 1}
    assert refusals.total() == 12


def test_a_flood_of_many_kinds_and_long_texts_stays_small() -> None:
    clock, said = FakeClock(), []
    limiter = LogLimiter(said.append, period_s=5.0, clock=clock)
    for number in range(10_000):
        limiter.say(f"kind {number}", "x" * 100_000)
    assert len(said) == MAX_KINDS + 1
    assert max(map(len, said)) < MAX_TEXT + 100
    assert said[0].startswith("xxx")
    assert "98000 characters" in said[0]
    clock.now += 6
    limiter.say("kind 10001", "short")
    assert said[-1] == f"short ({10_000 - MAX_KINDS - 1} more like it since the last one)"


def test_status_gives_numbers_to_three_places() -> None:
    made = status("node: part", {"rate": 1 / 3, "count": 7}, hardware_id="cpu")
    assert {pair.key: pair.value for pair in made.values} == {"rate": "0.333", "count": "7"}
    assert made.name == "node: part"
    assert made.hardware_id == "cpu"


def test_one_node_says_refusals_and_failures(ros: None) -> None:
    """At two severities, from the same line."""
    node = Node("says_both")
    refusals, failures = Refusals(warning_of(node)), LogLimiter(error_of(node))
    for _ in range(2):
        refusals.refuse("~/topic", "kind", "a fault")
        failures.say("error", "a traceback")
    node.destroy_node()


def test_no_logger_s_method_is_handed_on(root: Path) -> None:
    """It would log at the place of whoever calls it, where another severity may have been."""
    method = re.compile(r"logger(\(\))?\.(debug|info|warning|error|fatal)\b(?!\()")
    sources = (root / "lazyxmem_ros").rglob("*.py")
    assert [str(file) for file in sources if method.search(file.read_text())] == []

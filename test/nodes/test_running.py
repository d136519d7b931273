# SPDX-License-Identifier: Apache-2.0
"""How nodes begin and end: bad arguments in words, a signal in order, whatever comes after it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from node_graph import Spinner, wait_for
from rclpy.node import Node

from lazyxmem_ros.nodes import running
from lazyxmem_ros.nodes.namesakes import NamesakeWatch
from lazyxmem_ros.nodes.running import EndRequest
from lazyxmem_ros.signals import ENDING_SIGNALS

Start = Callable[..., Any]


@pytest.fixture
def handlers() -> Iterator[None]:
    """What the tests do to handlers of signals is undone."""
    numbers = (*ENDING_SIGNALS, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_a_signal_asks_for_the_end_and_later_ones_do_nothing(
    number: signal.Signals, handlers: None
) -> None:
    signal.signal(number, signal.SIG_DFL)  # below `nohup` SIGHUP is ignored, and stays so
    with EndRequest() as end:
        assert not end.requested
        signal.raise_signal(number)
        assert end.requested
        signal.raise_signal(number)
    signal.raise_signal(number)


def test_a_terminal_that_is_closed_ends_nothing_below_nohup(handlers: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with EndRequest() as end:
        signal.raise_signal(signal.SIGHUP)
        assert not end.requested


def test_what_takes_long_is_broken_off(handlers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "PATIENCE_S", 0.05)
    began = time.monotonic()

    def take_long() -> None:
        with EndRequest():
            signal.raise_signal(signal.SIGTERM)
            time.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        take_long()
    assert time.monotonic() - began < 30


NOBODY_WAKES = """
import sys, threading
from rclpy.node import Node
from lazyxmem_ros.nodes.running import run_node

class Idle(Node):
    def __init__(self):
        super().__init__("idle")
        threading.Timer(0.5, self.context.handle.shutdown).start()

sys.exit(run_node(Idle))
"""


def run_program(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], timeout=60, capture_output=True, text=True
    )


def test_a_context_that_ends_while_the_executor_waits_ends_the_node() -> None:
    ended = run_program(NOBODY_WAKES)
    assert (ended.returncode, ended.stderr) == (0, "")


INTERRUPTED = """
import os, signal, sys, time
from rclpy.node import Node
from lazyxmem_ros.nodes import running
from lazyxmem_ros.nodes.namesakes import NamesakeWatch

running.PATIENCE_S = 0.3

class Interrupted(Node):
    def __init__(self):
        super().__init__("interrupted")
        os.kill(os.getpid(), signal.SIGTERM)
        {then}

    def close(self):
        print("closed")

sys.exit(running.run_node(Interrupted))
"""


BROKEN_IMPORT = """
        try: time.sleep(60)
        except KeyboardInterrupt: raise RecursionError"""


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("self.create_publisher", "closed\n"),  # it is made first
        ("time.sleep(60)", ""),
        # An import that is broken off may raise anything.
        (BROKEN_IMPORT, ""),
    ],
)
def test_a_signal_while_a_node_is_made_ends_it_in_order(then: str, said: str) -> None:
    ended = run_program(INTERRUPTED.format(then=then))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, said, "")


def test_a_namesake_that_stays_is_named(ros: None, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = Node("twin", namespace="/here"), Node("twin", namespace="/here")
    other = Node("twin", namespace="/there")
    NamesakeWatch(first, after=0.2)
    NamesakeWatch(other, after=0.2)
    said = ""

    def is_said() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return "called" in said

    spinners = [Spinner(first), Spinner(other)]
    try:
        wait_for(is_said, "the warning")
        assert "another node is called /here/twin: both publish" in said
        time.sleep(0.5)  # in which it would be said again, and of the other one
        is_said()
        assert said.count("called") == 1
    finally:
        for spinner in spinners:
            spinner.close()
        second.destroy_node()


BAD_FILES = {
    "not YAML": ("a: [ros__parameters\n", "Couldn't parse params file"),
    "a list": ("- ros__parameters\n- 2\n", "Sequences cannot be key"),
    "a list without parameters": ("- 1\n- 2\n", "it has no `ros__parameters`"),
    "a text": ("just a text\n", "it has no `ros__parameters`"),
    "no node": ("ros__parameters:\n  bag: x\n", "Couldn't parse params file"),
    "mixed": ("/**:\n  ros__parameters:\n    topics: [1, a]\n", "should be of same type"),
    "absent": (None, "No such file"),
}
SEVERAL = """
import sys
from rclpy.node import Node
from lazyxmem_ros.nodes.running import run_node
for file in sys.argv[1:]:
    code = run_node(lambda: Node("never"), ["x", "--ros-args", "--params-file", file])
    print("code", code, file=sys.stderr)
"""


def test_a_bad_parameter_file_ends_a_node_with_the_cause(tmp_path: Path) -> None:
    files = []
    for name, (content, _) in BAD_FILES.items():
        files.append(tmp_path / f"{name}.yaml")
        if content is not None:
            files[-1].write_text(content)
    errors = run_program(SEVERAL, *map(str, files)).stderr
    for part, file, (_, cause) in zip(
        errors.split("code 1\n"), files, BAD_FILES.values(), strict=False
    ):
        line = part.splitlines()[-1]
        assert line.startswith("error: ")
        assert str(file) in line
        assert cause in line
    assert errors.count("code 1\n") == len(files)
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("recorder", ["-r", "a"], "Couldn't parse remap rule: '-r a'"),
        ("recorder", ["--nonsense"], "--nonsense"),
        ("recorder", ["--", "--help"], "takes no arguments --help: give parameters"),
        ("recorder", ["--", "-p", "bag:=x"], "takes no arguments -p: give parameters"),
        (
            "recorder",
            ["-p", "bag:=x", "-p", "topics:=['/a b']"],
            "topics: '/a b' cannot be a name",
        ),
        ("recorder", ["-p", f"bag:={'n' * 300}", "-p", "topics:=[/a]"], "File name too long"),
        ("replay", ["-p", "bag:=~nobody-of-that-name/x"], "there is no such home directory"),
        ("operator", ["-p", "port:=0", "-p", "trackers:=['a b']"], "trackers: 'a b' cannot be"),
        ("replay", ["-p", "bag:=/nowhere"], "there is no bag at /nowhere"),
        ("replay", ["-p", "wait_for_subscribers:=many"], "wait_for_subscribers"),
        ("recorder", ["-p", "report_period:=often"], "report_period"),
        ("simulated_operator", ["-r", "correction_request:=/2"], "remap"),
    ],
)
def test_bad_arguments_end_a_node_in_words(
    name: str, arguments: list[str], said: str, start: Start
) -> None:
    node = start(name, {}, *arguments)
    assert node.wait() == 1
    assert "Traceback" not in node.log
    assert said in node.log.splitlines()[-1], node.log


def test_logs_that_cannot_be_written_end_a_node_with_advice(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a service has no HOME."""
    monkeypatch.setenv("ROS_LOG_DIR", "/dev/null/logs")
    node = start("recorder", {})
    assert node.wait() == 1
    assert node.log.endswith("set ROS_LOG_DIR to a folder that can be written to\n"), node.log


def test_parameters_that_nobody_knows_are_named(tmp_path: Path, start: Start) -> None:
    file = tmp_path / "recorder.yaml"
    file.write_text(
        f"lazyxmem_recorder:\n  ros__parameters:\n    topic: [/a]\n    bag: {tmp_path / 'bag'}\n"
        "    qos_overrides./x.subscription.depth: 3\n"
    )
    values = {"topics": ["/a"], "zzz": 1}
    recorder = start("recorder", values, "--params-file", str(file), fresh=True)
    for said in (
        "there is no parameter topic, so it changes nothing; did you mean topics?",
        "there is no parameter zzz, so it changes nothing\n",
    ):
        wait_for(lambda words=said: words in recorder.log, said)
    assert recorder.stop() == 0
    assert "qos_overrides" not in recorder.log


def test_a_parameter_file_for_another_node_is_named(tmp_path: Path, start: Start) -> None:
    file = tmp_path / "other.yaml"
    file.write_text("lazyxmem_tracker:\n  ros__parameters:\n    device: cpu\n")
    node = start("correction", {}, "--params-file", str(file))
    said = "no part of the parameter file is for /lazyxmem_correction"
    wait_for(lambda: said in node.log, said)
    assert node.stop() == 0

# SPDX-License-Identifier: Apache-2.0
"""How every node of this package starts and ends."""

from __future__ import annotations

import functools
import itertools
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import rclpy
from rclpy.exceptions import NameValidationException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from lazyxmem_ros.nodes.namesakes import NamesakeWatch
from lazyxmem_ros.nodes.parameters import ParameterError, unknown_parameters
from lazyxmem_ros.nodes.shared_memory import remove_leftovers
from lazyxmem_ros.nodes.timers import create_steady_timer
from lazyxmem_ros.signals import ENDING_SIGNALS

LOOK_UP_PERIOD_S = 0.1
"""An executor that waits does not notice a signal: so often it looks up."""
PATIENCE_S = 3.0
"""What takes longer after a signal is broken off: reading a large bag, for example."""
PARAMETERS_FILE = "--params-file"
LOG_VARIABLE = "ROS_LOG_DIR"
_PARAMETERS_KEY = "ros__parameters"
_SOURCE_LINE = re.compile(r",\s+at \S+:\d+")
"""Where in rcl an error arose, which is of no use to who reads it."""


class NodeStartError(RuntimeError):
    """A node that cannot start; the text says why and what to do."""


def run_node(make_node: Callable[[], Node], arguments: Sequence[str] | None = None) -> int:
    """Spin one node until SIGINT, SIGTERM, SIGHUP or rclpy.shutdown(); returns the exit code.

    0 after an ordinary end, 1 where the node could not start (the reason is printed as one line).
    A node may have `close()`, run before it is destroyed, and `exit_code`.
    """
    arguments = list(sys.argv if arguments is None else arguments)
    node: Node | None = None
    end = EndRequest()
    try:
        with end:
            freed = remove_leftovers()
            _begin(arguments)
            executor = SingleThreadedExecutor()
            node = _made(make_node)
            for warning in unknown_parameters(node, PARAMETERS_FILE in arguments):
                node.get_logger().warning(warning)
            if freed:
                node.get_logger().debug(
                    f"removed {freed / 1e6:.0f} MB that killed processes had left in /dev/shm"
                )
            create_steady_timer(node, LOOK_UP_PERIOD_S, lambda: None)
            NamesakeWatch(node)
            executor.add_node(node)
            while rclpy.ok() and not end.requested:
                executor.spin_once()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception as error:
        # What fails after a signal fails by it: an import that is broken off may raise anything.
        # So does what rcl refuses, by a RuntimeError, once a node has ended the context by itself.
        ended = node is not None and not rclpy.ok() and isinstance(error, RuntimeError)
        if not (end.requested or ended):
            if not isinstance(error, (ParameterError, NodeStartError, NameValidationException)):
                raise
            print(f"error: {error}", file=sys.stderr)
            return 1
    finally:
        # The node's threads first: they use everything else.
        close = getattr(node, "close", None)
        if close is not None:
            close()
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return int(getattr(node, "exit_code", 0))


def _made(make_node: Callable[[], Node]) -> Node:
    """The node; what files and sockets refuse while it is made is its user's to put right."""
    try:
        return make_node()
    except OSError as error:
        raise NodeStartError(str(error)) from error


def resolved(node: Node, name: str, parameter: str) -> str:
    """The full name of a topic or node that a parameter names; raises NodeStartError for none."""
    try:
        return str(node.resolve_topic_name(name))
    except RuntimeError as error:  # rcl's own errors are no more than that
        raise NodeStartError(
            f"{parameter}: {name!r} cannot be a name; give one of letters, digits, _ and /"
        ) from error


def _begin(arguments: list[str]) -> None:
    """Begin rclpy, signals left to us. Raises NodeStartError for arguments that are none.

    A node has no others than ROS's: `-p NAME:=VALUE` without `--ros-args` would change nothing.
    """
    for before, file in itertools.pairwise(arguments):
        if before == PARAMETERS_FILE:
            _check_parameters_file(Path(file))
    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # RCLError and UnknownROSArgsError have no common, public name
        reason = _SOURCE_LINE.sub("", str(error)).replace("\n", " ").strip()
        advice = f"; set {LOG_VARIABLE} to a folder that can be written to"
        raise NodeStartError(
            f"ROS cannot begin with these arguments and this environment: {reason}"
            + (advice if "logging" in reason else "")
        ) from error
    others = remove_ros_args(arguments)[1:]
    if others:
        raise NodeStartError(
            f"a node takes no arguments {' '.join(others)}: give parameters and remappings as in "
            "--ros-args -p NAME:=VALUE -r FROM:=TO"
        )


def _check_parameters_file(file: Path) -> None:
    """Raise NodeStartError for a file that rcl would take for one without parameters."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise NodeStartError(f"the parameter file cannot be read: {error}") from error
    content = [line for line in lines if line.partition("#")[0].strip()]
    if content and not any(_PARAMETERS_KEY in line for line in content):
        raise NodeStartError(
            f"{file} is no parameter file: it has no `{_PARAMETERS_KEY}` below the name of a node"
        )


def surviving(
    callback: Callable[..., None], on_failure: Callable[[BaseException], None]
) -> Callable[..., None]:
    """A callback of the executor that ends nothing: what it raises goes to `on_failure`.

    Above all a MemoryError: what there is no room for costs its own message alone.
    """

    @functools.wraps(callback)
    def call(*arguments: object) -> None:
        try:
            callback(*arguments)
        except Exception as error:  # noqa: BLE001 - the executor would end with it
            on_failure(error)

    return call


class EndRequest:
    """A block that SIGINT, SIGTERM and SIGHUP ask to end; what then takes too long is broken off.

    SIGHUP comes where the terminal is closed; below `nohup` it stays ignored. Within, the first of
    them sets `requested`, and KeyboardInterrupt is raised PATIENCE_S later. Later ones, and all
    after the block, do nothing: a launcher and the terminal may both pass a Ctrl-C on, and the
    second must not break the orderly end.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> EndRequest:
        signal.signal(signal.SIGALRM, self._break_off)
        for number in ENDING_SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_request)
        return self

    def __exit__(self, *exception: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)

    def _on_request(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested = True
            signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)

    def _break_off(self, number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

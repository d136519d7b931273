# SPDX-License-Identifier: Apache-2.0
"""How every node of this package starts and ends."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

from lazyxmem_ros.nodes.parameters import ParameterError
from lazyxmem_ros.nodes.shared_memory import remove_leftovers
from lazyxmem_ros.nodes.timers import create_steady_timer

LOOK_UP_PERIOD_S = 1.0


class NodeStartError(RuntimeError):
    """A node that cannot start; the text says why and what to do."""


def run_node(make_node: Callable[[], Node], arguments: Sequence[str] | None = None) -> int:
    """Spin one node until Ctrl-C, SIGTERM or rclpy.shutdown(); returns the exit code.

    0 after an ordinary end, 1 where the node could not start (the reason is printed as one line).
    A node may have `close()`, run before it is destroyed, and `exit_code`.
    """
    node: Node | None = None
    try:
        with Interruptible():
            freed = remove_leftovers()
            with _signals_wait():
                rclpy.init(args=list(arguments) if arguments is not None else None)
                # A half-made executor complains when it goes.
                executor = SingleThreadedExecutor()
            node = make_node()
            if freed:
                node.get_logger().debug(
                    f"removed {freed / 1e6:.0f} MB that killed processes had left in /dev/shm"
                )
            # A signal wakes the executor and ends the context, in either order: one that went back
            # to waiting in between would wait for ever. The timer has it look up.
            create_steady_timer(node, LOOK_UP_PERIOD_S, lambda: None)
            executor.add_node(node)
            executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ParameterError, NodeStartError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except RuntimeError:
        # rcl's errors are RuntimeErrors: Ctrl-C ended the context while the node was being made.
        if rclpy.ok():
            raise
    finally:
        # The node's threads first: they use everything else. The executor's own conditions go last,
        # by themselves: until the signal handlers are gone, those may be triggering them.
        close = getattr(node, "close", None)
        if close is not None:
            close()
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return int(getattr(node, "exit_code", 0))


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


class Interruptible:
    """A block that the first Ctrl-C leaves by KeyboardInterrupt; afterwards Ctrl-C does nothing.

    A launcher and the terminal may both pass it on: the second must not break the orderly end.
    """

    def __enter__(self) -> None:
        self._armed = True
        signal.signal(signal.SIGINT, self._on_interrupt)

    def __exit__(self, *exception: object) -> None:
        self._armed = False

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            raise KeyboardInterrupt


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM wait. No other thread may be running that would take them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

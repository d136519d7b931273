# SPDX-License-Identifier: Apache-2.0
"""How every node of this package starts and ends."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

from lazyxmem_ros.nodes.parameters import ParameterError


class NodeStartError(RuntimeError):
    """A node that cannot start; the text says why and what to do."""


def run_node(make_node: Callable[[], Node], arguments: Sequence[str] | None = None) -> int:
    """Spin one node until Ctrl-C, SIGTERM or rclpy.shutdown(); returns the exit code.

    0 after an ordinary end, 1 where the node could not start (the reason is printed as one line).
    A node may have `close()`, run before it is destroyed, and `exit_code`.
    """
    node: Node | None = None
    try:
        rclpy.init(args=list(arguments) if arguments is not None else None)
        node = make_node()
        executor = SingleThreadedExecutor()
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
        # A launcher and the terminal may both pass on Ctrl-C; the second must not break the end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if node is not None:
            close = getattr(node, "close", None)
            if close is not None:
                close()
            node.destroy_node()
        rclpy.try_shutdown()
    return int(getattr(node, "exit_code", 0))

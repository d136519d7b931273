# SPDX-License-Identifier: Apache-2.0
"""How nodes end: by the first Ctrl-C, in order, whatever comes after it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from lazyxmem_ros.nodes.running import Interruptible


def test_the_first_ctrl_c_leaves_the_block_and_later_ones_do_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt), Interruptible():
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


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


def test_a_context_that_ends_while_the_executor_waits_ends_the_node() -> None:
    """As by SIGTERM, when its thread wakes the executor before it ends the context."""
    ended = subprocess.run(
        [sys.executable, "-c", NOBODY_WAKES], timeout=60, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")

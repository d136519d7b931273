# SPDX-License-Identifier: Apache-2.0
"""How nodes end: by the first Ctrl-C, in order, whatever comes after it."""

from __future__ import annotations

import signal

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

# SPDX-License-Identifier: Apache-2.0
"""How the package's programs begin: Ctrl-C ends them in silence while they are still importing.

PyTorch and rclpy take seconds to import. Until they are there nothing has begun that would have to
be ended in order, so the process may simply end, instead of with a traceback.
"""

from __future__ import annotations

import importlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


@contextmanager
def importing() -> Iterator[None]:
    """Within, Ctrl-C ends the process at once. Where it is ignored or handled, that stays so.

    Afterwards it is Python's KeyboardInterrupt again, also where a program had seen to the silence
    in its first line already.
    """
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(
        signal.SIGINT
    ) in (signal.default_int_handler, signal.SIG_DFL)
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def start(module: str) -> int:
    """Import a module and run its `main`; returns the exit code."""
    try:
        with importing():
            main = importlib.import_module(module).main
        return int(main())
    except KeyboardInterrupt:  # between the imports and where `main` sees to it itself
        return EXIT_INTERRUPTED


def lazyxmem() -> int:
    """The command `lazyxmem`."""
    return start("lazyxmem_ros.cli")

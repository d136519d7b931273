# SPDX-License-Identifier: Apache-2.0
"""How the package's programs begin."""

from __future__ import annotations

import importlib
import signal
from types import ModuleType

from lazyxmem_ros.extras import missing_extras_explained

EXIT_FAULT = 1
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


def load(module: str) -> ModuleType:
    """Import a module; Ctrl-C meanwhile ends the process in silence, where it is not handled.

    PyTorch and rclpy take seconds. A KeyboardInterrupt inside NumPy's import may come out as a
    RecursionError, so catching it would not do. Raises MissingExtraError where a library of an
    extra is not installed.
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with missing_extras_explained():
            return importlib.import_module(module)
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)

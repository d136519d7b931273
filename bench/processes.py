# SPDX-License-Identifier: Apache-2.0
"""The other processes of a benchmark, none of which outlives it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from lazyxmem_ros.signals import undisturbed


@contextmanager
def running(
    command: Sequence[str], *, patience: float = 0.0, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """A process that ends with the block at the latest; use it within `interruptible`.

    patience: seconds in which it may put things in order before it is killed. options: Popen's.
    """
    process: subprocess.Popen[Any] | None = None
    try:
        with undisturbed():  # else a signal could lose it between its start and its name
            process = subprocess.Popen(command, **options)
        yield process
    finally:
        if process is not None:
            with undisturbed(), process:
                if patience:
                    process.terminate()
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(patience)
                process.kill()

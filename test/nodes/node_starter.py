# SPDX-License-Identifier: Apache-2.0
"""A program that has imported what nodes import, and forks a node for each order on its input.

An order is a line of JSON: what the node is `told` on its command line, its `log`, `environment`
and `folder`, and the file for its exit code, its `end`. The answer is a line with its process id.
(`multiprocessing` has a server of forks, but one for all of a process, and what the tests of the
evaluation start in theirs is not what this would be.)
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from lazyxmem_ros.extras import MissingExtraError
from lazyxmem_ros.nodes import EXECUTABLES
from lazyxmem_ros.nodes.__main__ import main


def serve() -> None:
    """Start nodes until the input ends."""
    for name in EXECUTABLES.values():
        try:
            importlib.import_module(name)
        except (ImportError, MissingExtraError):
            continue  # that node will say so
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the tests that a Ctrl-C ends
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who watches a node is not waited for
    for line in sys.stdin:
        if not os.fork():
            watch(json.loads(line))


def watch(order: dict[str, Any]) -> None:
    """Start a node, name it, and keep its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    node = os.fork()
    if not node:
        sys.exit(run(order))
    print(node, flush=True)
    _, status = os.waitpid(node, 0)
    Path(order["end"]).write_text(str(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def run(order: dict[str, Any]) -> int:
    """What `python -m lazyxmem_ros.nodes` does in such an environment; returns the exit code."""
    with open(os.devnull) as nothing, open(order["log"], "w") as log:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    sys.argv = ["lazyxmem_ros.nodes", *order["told"]]
    return main()


if __name__ == "__main__":
    serve()

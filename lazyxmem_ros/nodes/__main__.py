# SPDX-License-Identifier: Apache-2.0
"""Runs a node without the `ros2` command: `python -m lazyxmem_ros.nodes NAME [--ros-args ...]`."""

import sys

from lazyxmem_ros.nodes import EXECUTABLES, run


def main() -> int:
    """Run the node named first on the command line; returns its exit code."""
    if len(sys.argv) < 2 or sys.argv[1] not in EXECUTABLES:
        names = "|".join(EXECUTABLES)
        print(f"usage: python -m lazyxmem_ros.nodes {names} [--ros-args ...]", file=sys.stderr)
        return 2
    return run(sys.argv.pop(1))


if __name__ == "__main__":
    sys.exit(main())

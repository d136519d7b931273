# SPDX-License-Identifier: Apache-2.0
"""Runs the demonstration: `python -m lazyxmem_ros.demo`."""

import sys

from lazyxmem_ros.demo.run import main

if __name__ == "__main__":
    sys.exit(main())

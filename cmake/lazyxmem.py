#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run the command `lazyxmem`."""

import sys

from lazyxmem_ros.cli import main

if __name__ == "__main__":
    sys.exit(main())

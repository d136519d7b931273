# SPDX-License-Identifier: Apache-2.0
"""Runs the demonstration: `python -m lazyxmem_ros.demo`."""

import sys

from lazyxmem_ros.entry import load
from lazyxmem_ros.extras import MissingExtraError

if __name__ == "__main__":
    try:
        main = load("lazyxmem_ros.demo.run").main
    except MissingExtraError as error:
        sys.exit(f"error: {error}")
    sys.exit(main())

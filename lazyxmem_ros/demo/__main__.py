# SPDX-License-Identifier: Apache-2.0
"""Runs the demonstration: `python -m lazyxmem_ros.demo`."""

import sys

from lazyxmem_ros.entry import ending_at_once, load
from lazyxmem_ros.extras import MissingExtraError

if __name__ == "__main__":
    with ending_at_once():
        try:
            main = load("lazyxmem_ros.demo.run").main
        except MissingExtraError as error:
            sys.exit(f"error: {error}")
        sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Runs the demonstration: `python -m lazyxmem_ros.demo`."""

import sys

from lazyxmem_ros.extras import MissingExtraError, needs

if __name__ == "__main__":
    try:
        with needs("evaluation", "the demonstration"):
            from lazyxmem_ros.demo.run import main
    except MissingExtraError as error:
        sys.exit(f"error: {error}")
    sys.exit(main())

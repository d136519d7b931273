# SPDX-License-Identifier: Apache-2.0
"""The command `lazyxmem` as pip installs it; for that script alone, since importing it has effects.

From its import on Ctrl-C just ends the process. The command's other imports take long enough to be
interrupted, by a traceback otherwise.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from lazyxmem_ros.cli import main

__all__ = ["main"]

#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Run the command `lazyxmem`.
""":"
# Read by the shell up to the three quotes below, by Python as a text. Ctrl-C waits until Python's
# first line here: before that, while Python itself begins, it would leave a traceback.
env --block-signal=INT true 2>/dev/null && exec env --block-signal=INT python3 "$0" "$@"
exec python3 "$0" "$@"
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # first of all: see lazyxmem_ros/entry.py
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

import sys  # noqa: E402

from lazyxmem_ros.entry import lazyxmem  # noqa: E402

if __name__ == "__main__":
    sys.exit(lazyxmem())

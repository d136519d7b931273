#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run the command `lazyxmem`."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # first of all: see lazyxmem_ros/entry.py

import sys

from lazyxmem_ros.entry import lazyxmem

if __name__ == "__main__":
    sys.exit(lazyxmem())

# SPDX-License-Identifier: Apache-2.0
"""Video object tracking that a robot can trust: XMem, made lazy, as a ROS 2 package."""

import signal
import sys

# From here on Ctrl-C just ends the command `lazyxmem` and what `python -m lazyxmem_ros...` has
# started: imports take long enough to be interrupted, by a traceback otherwise. Programs that
# import the package keep theirs.
if (
    signal.getsignal(signal.SIGINT) is signal.default_int_handler
    and (
        "".join(sys.argv[:1]).rpartition("/")[2] == "lazyxmem"
        # While Python looks for the module, its argument is not told yet.
        or (sys.argv[:1] == ["-m"] and "-m lazyxmem_ros." in " ".join(sys.orig_argv))
    )
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import os
from pkgutil import extend_path

# Between two parts of a frame idle threads of PyTorch and ncnn are to sleep. Left alone they spin,
# and keep a processor of few cores from the robot's other programs. In GNU's OpenMP, which both
# bring, they look for work a thousand times first: less than it takes to sleep and be woken.
# All is read when PyTorch loads.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# The generated `msg` and `srv` modules live in a colcon install space under this same package
# name; a source checkout ahead of it on the path must not hide them.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"

# SPDX-License-Identifier: Apache-2.0
"""Video object tracking that a robot can trust: XMem, made lazy, as a ROS 2 package."""

import os
from pkgutil import extend_path

# Between two parts of a frame idle threads of PyTorch and ncnn are to sleep. Left alone they spin,
# and keep a processor of few cores from the robot's other programs. It is read when PyTorch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The generated `msg` and `srv` modules live in a colcon install space under this same package
# name; a source checkout ahead of it on the path must not hide them.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"

# SPDX-License-Identifier: Apache-2.0
"""Video object tracking that a robot can trust: XMem, made lazy, as a ROS 2 package."""

from pkgutil import extend_path

# The generated `msg` and `srv` modules live in a colcon install space under this same package
# name; a source checkout ahead of it on the path must not hide them.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"

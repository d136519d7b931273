# SPDX-License-Identifier: Apache-2.0
"""Correct the paths in the CMake files that the ROS wheels export.

They name the include directories of the machine that built the wheels
(`/opt/python/cp311-cp311/include/python3.11` and NumPy's below its site-packages). Run once by the
environment's own Python after the wheels were installed; running it again changes nothing. A file
is replaced, not written into: uv links the same file into every environment.
"""

import os
import re
import sys
import sysconfig
from pathlib import Path

import numpy as np

BUILD_MACHINE_NUMPY = re.compile(r'/opt/python/[^;"]*?/site-packages/numpy/_core/include')
BUILD_MACHINE_PYTHON = re.compile(r'/opt/python/[^;"]*?/include/python3\.\d+')


def main() -> None:
    """Rewrite every exported CMake file below the environment's `share`."""
    for path in Path(sys.prefix).glob("share/*/cmake/*.cmake"):
        text = path.read_text()
        corrected = BUILD_MACHINE_NUMPY.sub(np.get_include(), text)
        corrected = BUILD_MACHINE_PYTHON.sub(sysconfig.get_path("include"), corrected)
        if corrected != text:
            new = path.with_suffix(".new")
            new.write_text(corrected)
            os.replace(new, path)


if __name__ == "__main__":
    main()

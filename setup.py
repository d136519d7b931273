# SPDX-License-Identifier: Apache-2.0
"""`pip install .`: the tracker, the correctors, the evaluation and the `lazyxmem` command.

The messages, and with them the ROS nodes, are built by colcon from package.xml and CMakeLists.txt.
The exact versions that the project is tested with are in requirements*.txt.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def version() -> str:
    """The version that the package itself states."""
    text = (HERE / "lazyxmem_ros" / "__init__.py").read_text()
    match = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if match is None:
        raise RuntimeError("lazyxmem_ros/__init__.py states no __version__")
    return match.group(1)


setup(
    name="lazyxmem_ros",
    version=version(),
    description="Video object tracking that a robot can trust: XMem, made lazy, for ROS 2",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["lazyxmem_ros", "lazyxmem_ros.*"]),
    package_data={
        "lazyxmem_ros": ["py.typed"],
        "lazyxmem_ros.evaluation": ["*.j2"],
        "lazyxmem_ros.weights": ["*"],
    },
    install_requires=[
        "imageio-ffmpeg>=0.5",
        "jinja2>=3.1",
        "matplotlib>=3.7",
        "numpy>=1.26",
        "opencv-python-headless>=4.8",
        "pandas>=2.0",
        "pillow>=10.0",
        "pooch>=1.7",
        "pyarrow>=14.0",
        "pyyaml>=6.0",
        "rich>=13.0",
        "rosbags>=0.11.7",
        "rosbags-image>=0.10.4",
        "safetensors>=0.4",
        "scikit-image>=0.22",
        "scipy>=1.11",
        "torch>=2.4",
        "torchvision>=0.19",
    ],
    extras_require={
        "ray": ["ray>=2.9"],
        "sam-hq": ["segment-anything-hq==0.3", "timm>=1.0"],
    },
    entry_points={"console_scripts": ["lazyxmem = lazyxmem_ros.entry:lazyxmem"]},
)

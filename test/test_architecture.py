# SPDX-License-Identifier: Apache-2.0
"""Imports run one way, so that each room can be read and used without the next."""

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lazyxmem_ros"

ROS = (
    "ament_index_python",
    "builtin_interfaces",
    "cv_bridge",
    "diagnostic_msgs",
    "geometry_msgs",
    "launch",
    "launch_ros",
    "lazyxmem_ros.msg",
    "lazyxmem_ros.srv",
    "lifecycle_msgs",
    "message_filters",
    "rcl_interfaces",
    "rclpy",
    "rosgraph_msgs",
    "rosidl_runtime_py",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
)

# What a room may import of the package, besides itself.
ROOMS = {
    "xmem": set(),
    "correction": {"xmem.device", "xmem.network"},
    "lazy": {"xmem", "correction.base"},
    "data": set(),
    "evaluation": {"xmem", "correction", "lazy", "data"},
    "demo": {"xmem", "correction", "lazy", "data", "evaluation"},
}
# Helpers without any state, open to every room.
OPEN_TO_ALL = ("basics", "weights", "images")


# How a distribution on the package index is imported, where the names differ.
DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}


def imports(path: Path) -> set[str]:
    """Full names of all that a file imports, wherever in it.

    `from a.b import c` gives both `a.b` and `a.b.c`, of which the latter need not be a module.
    """
    names = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def within(name: str, *packages: str) -> bool:
    """Whether a module is one of the packages or lies in one of them."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def python_files(folder: Path) -> Iterator[Path]:
    """All Python files below a folder, of which there is at least one."""
    files = sorted(folder.rglob("*.py"))
    assert files, f"no Python file in {folder}"
    yield from files


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    allowed = [f"lazyxmem_ros.{name}" for name in (room, *ROOMS[room], *OPEN_TO_ALL)]
    for path in python_files(PACKAGE / room):
        ours = {name for name in imports(path) if within(name, "lazyxmem_ros")}
        wrong = sorted(name for name in ours - {"lazyxmem_ros"} if not within(name, *allowed))
        assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(wrong)}"


def test_nothing_but_the_nodes_imports_ros() -> None:
    for path in python_files(PACKAGE):
        if path.is_relative_to(PACKAGE / "nodes"):
            continue
        ros = sorted(name for name in imports(path) if within(name, *ROS))
        assert not ros, f"{path.relative_to(ROOT)} imports {', '.join(ros)}"


def test_the_core_runs_where_ros_is_absent() -> None:
    """The same, of what is really loaded, libraries included."""
    program = (
        "import sys, lazyxmem_ros.xmem, lazyxmem_ros.lazy, lazyxmem_ros.correction, "
        "lazyxmem_ros.data, lazyxmem_ros.evaluation\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'rclpy', 'sensor_msgs'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_training_stands_on_the_core_alone() -> None:
    for path in python_files(ROOT / "training"):
        wrong = [n for n in imports(path) if within(n, "lazyxmem_ros.nodes", *ROS)]
        assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(wrong)}"


def third_party(folder: Path) -> set[str]:
    """Top-level names that are neither Python's, nor the project's, nor ROS'."""
    names = {name.split(".")[0] for path in python_files(folder) for name in imports(path)}
    ros = {name.split(".")[0] for name in ROS}
    return names - set(sys.stdlib_module_names) - ros - {"lazyxmem_ros", "training", "__future__"}


def test_every_library_is_pinned_exactly() -> None:
    files = ["requirements.txt", "requirements-ros.txt", "requirements-dev.txt"]
    text = "\n".join((ROOT / name).read_text() for name in files)
    lines = [line.split("#")[0].strip() for line in text.split("\n")]
    pins = [re.fullmatch(r"([\w.-]+)(\[\w+\])?==[\w.]+", line) for line in lines if line]
    assert all(pins), "a requirement that is not NAME==VERSION"
    pinned = {pin[1].lower().replace("_", "-") for pin in pins if pin}
    used = third_party(PACKAGE) | third_party(ROOT / "training")
    missing = {DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in used} - pinned
    assert not missing, f"imported, but not in requirements.txt: {', '.join(sorted(missing))}"


def test_every_ros_package_is_declared() -> None:
    manifest = ET.parse(ROOT / "package.xml").getroot()
    declared = {element.text for tag in ("depend", "exec_depend") for element in manifest.iter(tag)}
    files = [*python_files(PACKAGE / "nodes"), *python_files(ROOT / "launch")]
    names = {name.split(".")[0] for path in files for name in imports(path) if within(name, *ROS)}
    missing = names - {"lazyxmem_ros"} - declared
    assert not missing, f"imported, but not in package.xml: {', '.join(sorted(missing))}"

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

from lazyxmem_ros.extras import MODULES

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
    "visualization_msgs",
)

# What a room may import of the package, besides itself.
ROOMS = {
    "xmem": set(),
    "correction": {"xmem.checkpoint", "xmem.device", "xmem.network"},
    "lazy": {"xmem", "correction.base"},
    "data": set(),
    "images": set(),
    "track": {"xmem", "correction", "lazy", "data"},
    "evaluation": {"xmem", "correction", "lazy", "data"},
    "demo": {"xmem", "correction", "lazy", "data", "evaluation", "entry"},
    "nodes": {"xmem", "correction", "lazy", "data", "evaluation", "entry", "msg", "srv"},
}
# Helpers without any state, open to every room.
OPEN_TO_ALL = (
    "basics",
    "settings",
    "weights",
    "images",
    "extras",
    "progress",
    "signals",
    "spelling",
)


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
        for module, alias in imported(node):
            names |= {module, f"{module}.{alias}"} if alias else {module}
    return names


def imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name taken from it, or "") of an import statement; nothing of any other node."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, "") for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: a relative import"
        yield from ((node.module or "", alias.name) for alias in node.names)


def need_extras(module: str) -> None:
    """Skip where the console's libraries are not installed: a robot may do without it."""
    if "nodes.operator" in module:
        for library in MODULES["operator"]:
            pytest.importorskip(library, reason=f"needs {library} (requirements-operator.txt)")


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


def module_name(path: Path) -> str:
    """`lazyxmem_ros.lazy.tracker`; a package has the name of its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below one that are executed when their module is imported by a program."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from run_at_import(child)


def import_graph(*, whole: bool) -> dict[str, set[str]]:
    """Module -> those modules of the package that it imports; of a whole file, or at its import.

    `from a.b import c` counts as `a.b.c` where that is a module, else as `a.b`. That Python runs
    `a` and `a.b` before it is left out: a package's `__init__` may collect what its modules have.
    """
    files = {module_name(path): path for path in python_files(PACKAGE)}
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        tree = ast.parse(path.read_text(), str(path))
        pairs = [pair for n in (ast.walk if whole else run_at_import)(tree) for pair in imported(n)]
        found = {f"{m}.{a}" if f"{m}.{a}" in files else m for m, a in pairs} | collected(name, path)
        graph[name] = {target for target in found if target in files and target != name}
    return graph


def collected(package: str, path: Path) -> set[str]:
    """The modules of which a package has names that are imported when they are asked for."""
    stub = path.with_suffix(".pyi")
    body = ast.parse(stub.read_text()).body if stub.is_file() else []
    return {f"{package}.{node.module}" for node in body if isinstance(node, ast.ImportFrom)}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan's algorithm)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        path.append(module)
        for target in sorted(graph[module]):
            if target not in number:
                visit(target)
            if target in path:
                lowest[module] = min(lowest[module], lowest[target])
        if lowest[module] == number[module]:
            component = path[path.index(module) :]
            del path[-len(component) :]
            if len(component) > 1:
                found.append(sorted(component))

    for module in graph:
        if module not in number:
            visit(module)
    return found


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a", "d"}}
    assert circles(graph) == [["b", "c"]]
    assert circles({**graph, "d": {"a"}}) == [["a", "b", "c", "d"]]
    assert circles({**graph, "c": {"d"}}) == []


@pytest.mark.parametrize("whole", [False, True], ids=["at import", "anywhere"])
def test_no_module_imports_itself_by_way_of_others(whole: bool) -> None:
    graph = import_graph(whole=whole)
    assert graph["lazyxmem_ros.evaluation.job"] >= {"lazyxmem_ros.evaluation.plan"}
    assert graph["lazyxmem_ros.lazy"] >= {"lazyxmem_ros.lazy.tracker"}
    found = circles(graph)
    assert not found, "imports go round: " + "; ".join(" <-> ".join(entry) for entry in found)


def test_nothing_but_the_nodes_imports_ros() -> None:
    for path in python_files(PACKAGE):
        if path.is_relative_to(PACKAGE / "nodes"):
            continue
        ros = sorted(name for name in imports(path) if within(name, *ROS))
        assert not ros, f"{path.relative_to(ROOT)} imports {', '.join(ros)}"


def test_the_core_runs_where_ros_is_absent() -> None:
    """The same, of what is really loaded, libraries included."""
    program = (
        "import sys, lazyxmem_ros.xmem.tracker, lazyxmem_ros.lazy.opening, "
        "lazyxmem_ros.track.command, lazyxmem_ros.correction.refiner, lazyxmem_ros.data.datasets, "
        "lazyxmem_ros.evaluation.command\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'rclpy', 'sensor_msgs'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_what_runs_on_a_robot_loads_no_library_of_the_evaluation() -> None:
    modules = (
        "track.command",
        "nodes.tracker.node",
        "nodes.corrector",
        "nodes.operator.node",
        "nodes.bags.replay",
        "nodes.graph_watch",
    )
    for module in modules:
        need_extras(module)
    program = (
        "import sys, importlib\n"
        f"for module in {modules}:\n"
        "    importlib.import_module('lazyxmem_ros.' + module)\n"
        "    heavy = {'scipy', 'skimage', 'matplotlib', 'pandas', 'pyarrow', 'jinja2'}\n"
        "    loaded = {name.split('.')[0] for name in sys.modules} & heavy\n"
        "    assert not loaded, f'{module} loads {loaded}'"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_no_installed_module_names_a_path_outside_the_package() -> None:
    for path in python_files(PACKAGE):
        assert "shared/data" not in path.read_text().replace('" / "', "/"), path


def constants(path: Path) -> set[str]:
    """The names in capital letters that a module gives values to."""
    assigned = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)]
    names = {target.id for n in assigned for target in n.targets if isinstance(target, ast.Name)}
    return {name for name in names if name.isupper()}


def test_what_basics_defines_is_defined_nowhere_else() -> None:
    basics = PACKAGE / "basics.py"
    known = constants(basics)
    assert known >= {"SECOND", "MEBIBYTE"}
    for path in python_files(PACKAGE):
        again = sorted(known & constants(path)) if path != basics else []
        assert not again, f"{path.relative_to(ROOT)} defines {', '.join(again)} anew"


def test_training_stands_on_the_core_alone() -> None:
    for path in python_files(ROOT / "training"):
        wrong = [n for n in imports(path) if within(n, "lazyxmem_ros.nodes", *ROS)]
        assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(wrong)}"


def third_party(folder: Path) -> set[str]:
    """Top-level names that are neither Python's, nor the project's, nor ROS'."""
    names = {name.split(".")[0] for path in python_files(folder) for name in imports(path)}
    ros = {name.split(".")[0] for name in ROS}
    return names - set(sys.stdlib_module_names) - ros - {"lazyxmem_ros", "training", "__future__"}


def pins(file: str) -> set[str]:
    """The packages that a file of requirements pins."""
    lines = [line.split("#")[0].strip() for line in (ROOT / file).read_text().split("\n")]
    found = [re.fullmatch(r"([\w.-]+)(\[\w+\])?==[\w.]+", line) for line in lines if line]
    assert all(found), f"{file}: a requirement that is not NAME==VERSION"
    return {pin[1].lower().replace("_", "-") for pin in found if pin}


def test_every_library_is_pinned_exactly() -> None:
    files = {path.name for path in ROOT.glob("requirements*.txt")} - {"requirements-lock.txt"}
    pinned = {name for file in sorted(files) for name in pins(file)}
    used = third_party(PACKAGE) | third_party(ROOT / "training")
    missing = {DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in used} - pinned
    assert not missing, f"imported, but in no requirements*.txt: {', '.join(sorted(missing))}"


def test_pip_s_extras_and_the_pinned_sets_name_the_same_packages() -> None:
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {
        extra: {re.split(r"[=<>\[]", entry)[0] for entry in entries}
        for extra, entries in project["optional-dependencies"].items()
    }
    base = {re.split(r"[=<>]", entry)[0] for entry in project["dependencies"]}
    assert base == pins("requirements.txt") | {"numpy"}, "NumPy is pinned beside ROS"
    # Training is of a checkout alone; two are pinned because others' newer versions need NumPy 2.
    others = {"pyyaml", "contourpy", "tifffile"}
    assert declared["evaluation"] == pins("requirements-evaluation.txt") - others
    modules = {name: {DISTRIBUTIONS.get(m, m) for m in made} for name, made in MODULES.items()}
    assert modules["evaluation"] == declared["evaluation"]
    assert modules["operator"] == declared["operator"] == pins("requirements-operator.txt")
    assert modules["ncnn"] == declared["ncnn"]
    assert modules["openvino"] == declared["openvino"]
    assert declared["ncnn"] | declared["openvino"] == pins("requirements-backends.txt")
    assert modules["ray"] == declared["ray"] - {"lazyxmem_ros"}
    assert modules["sam-hq"] == {name.replace("-", "_") for name in declared["sam-hq"]}
    in_tests = declared["ray"] | declared["sam-hq"]
    assert in_tests <= pins("requirements-dev.txt") | {"lazyxmem_ros"}


TRACKING = (
    "lazyxmem_ros.track.command",
    "lazyxmem_ros.weights.command",
    "lazyxmem_ros.correction.refiner",
    "lazyxmem_ros.nodes.tracker.node",
    "lazyxmem_ros.nodes.corrector",
    "lazyxmem_ros.nodes.operator.node",
)


def test_tracking_does_without_the_evaluation_s_packages() -> None:
    for module in TRACKING:
        need_extras(module)
    modules = {distribution: name for name, distribution in DISTRIBUTIONS.items()}
    absent = pins("requirements-evaluation.txt") - {"pyyaml"}  # ROS has that
    names = [modules.get(name, name.replace("-", "_")) for name in sorted(absent)]
    program = f"import sys\nsys.modules.update(dict.fromkeys({names}))\n"
    program += "".join(f"import {module}\n" for module in TRACKING)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_every_ros_package_is_declared() -> None:
    manifest = ET.parse(ROOT / "package.xml").getroot()
    declared = {element.text for tag in ("depend", "exec_depend") for element in manifest.iter(tag)}
    files = [*python_files(PACKAGE / "nodes"), *python_files(ROOT / "launch")]
    names = {name.split(".")[0] for path in files for name in imports(path) if within(name, *ROS)}
    missing = names - {"lazyxmem_ros"} - declared
    assert not missing, f"imported, but not in package.xml: {', '.join(sorted(missing))}"


def test_what_robustness_names_is_tested() -> None:
    text = (ROOT / "docs" / "robustness.md").read_text()
    named = re.findall(r"`([\w/]+\.py)`: `(test_\w+)`", text)
    assert named
    missing = [
        name for file, name in named if f"def {name}(" not in (ROOT / "test" / file).read_text()
    ]
    assert not missing, f"docs/robustness.md names tests that are not there: {missing}"

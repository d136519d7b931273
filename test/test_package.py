# SPDX-License-Identifier: Apache-2.0
"""package.xml, CMakeLists.txt, the launch files and the parameter files say the same thing."""

import ast
import fnmatch
import importlib
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

import lazyxmem_ros
from lazyxmem_ros.extras import MODULES
from lazyxmem_ros.nodes import EXECUTABLES

ROOT = Path(__file__).parents[1]
CMAKE = (ROOT / "CMakeLists.txt").read_text()
MANIFEST = ET.parse(ROOT / "package.xml").getroot()
INTERFACES = sorted([*ROOT.glob("msg/*.msg"), *ROOT.glob("srv/*.srv")])
LAUNCH_FILES = sorted(ROOT.glob("launch/*.launch.py"))
LICENCE_LINE = "SPDX-License-Identifier: Apache-2.0"


def cmake_call(name: str) -> list[str]:
    """The arguments of the one call of a CMake function."""
    calls = re.findall(rf"{name}\(([^)]*)\)", CMAKE)
    assert len(calls) == 1, f"{len(calls)} calls of {name}"
    words: list[str] = calls[0].split()
    return words


def declared(*tags: str) -> set[str]:
    return {element.text or "" for tag in tags for element in MANIFEST.iter(tag)}


# ---- the build


def test_every_interface_is_generated() -> None:
    files = [word for word in cmake_call("rosidl_generate_interfaces") if "/" in word]
    assert files == [str(path.relative_to(ROOT)) for path in INTERFACES]


def test_packages_that_interfaces_use_are_declared_everywhere() -> None:
    text = "\n".join(path.read_text() for path in INTERFACES)
    used = set(re.findall(r"^(\w+)/\w+", text, re.MULTILINE))
    words = cmake_call("rosidl_generate_interfaces")
    assert set(words[words.index("DEPENDENCIES") + 1 :]) == used
    assert used <= declared("depend")
    assert used <= set(re.findall(r"find_package\((\w+) REQUIRED\)", CMAKE))


def test_packages_that_cmake_finds_are_declared() -> None:
    found = set(re.findall(r"find_package\((\w+) REQUIRED\)", CMAKE))
    assert found <= declared("depend", "build_depend", "buildtool_depend")


@pytest.mark.parametrize("path", INTERFACES, ids=lambda path: path.name)
def test_every_interface_can_be_imported(path: Path) -> None:
    module = importlib.import_module(f"lazyxmem_ros.{path.parent.name}")
    interface = getattr(module, path.stem)
    example = interface.Request() if path.suffix == ".srv" else interface()
    fields = re.findall(r"^[\w/]+(?:\[\])?\s+(\w+)\s*(?:#.*)?$", path.read_text(), re.MULTILINE)
    for field in fields:
        assert hasattr(example, field) or hasattr(getattr(interface, "Response", None)(), field)


def test_the_sources_go_before_their_installed_copy() -> None:
    assert lazyxmem_ros.__file__ == str(ROOT / "lazyxmem_ros" / "__init__.py")


def executables() -> list[str]:
    match = re.search(r"foreach\(NODE ([\w ]+)\)", CMAKE)
    assert match is not None
    return match[1].split()


def test_every_file_of_the_console_s_page_is_installed() -> None:
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["lazyxmem_ros.nodes.operator.page"]
    page = ROOT / "lazyxmem_ros" / "nodes" / "operator" / "page"
    files = [path.name for path in page.iterdir() if path.suffix not in (".py", ".pyc", "")]
    assert len(files) > 8
    assert [n for n in files if not any(fnmatch.fnmatch(n, each) for each in patterns)] == []


@pytest.mark.parametrize("name", executables())
def test_every_executable_has_a_main(name: str) -> None:
    if name == "operator":
        for library in MODULES["operator"]:
            pytest.importorskip(library, reason=f"needs {library} (requirements-operator.txt)")
    module = importlib.import_module(EXECUTABLES[name])
    assert callable(module.main)


@pytest.mark.parametrize("name", executables())
def test_every_executable_is_installed_and_may_run(name: str) -> None:
    get_package_prefix = pytest.importorskip("ament_index_python").get_package_prefix
    program = Path(get_package_prefix("lazyxmem_ros")) / "lib" / "lazyxmem_ros" / name
    assert os.access(program, os.X_OK)
    assert f'run("{name}")' in program.read_text()


def test_versions_agree() -> None:
    version = MANIFEST.findtext("version")
    assert lazyxmem_ros.__version__ == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.split()[-1] == version


def test_licences_are_stated() -> None:
    assert MANIFEST.findtext("license") == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    patterns = ("*.py", "*.py.in", "*.msg", "*.srv", "*.sh", "tools/*", ".ci/*")
    patterns += ("Makefile", "CMakeLists.txt", "Dockerfile", "requirements*.txt", "*.toml")
    patterns += ("*.js", "*.css", "*.html", "*.j2", "*.yaml", "*.cff")
    tracked = subprocess.run(
        # JSON has no comments.
        ["git", "ls-files", *patterns, "config/*", ":!*.json", ":!requirements-lock.txt"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if tracked.returncode:
        pytest.skip("needs a git checkout, to know which files are the project's")
    for name in tracked.stdout.split():
        head = (ROOT / name).read_text().split("\n", 3)[:3]
        assert any(LICENCE_LINE in line for line in head), f"{name} has no licence line"


# ---- launch files


def launch_arguments(path: Path) -> dict[str, ast.Call]:
    """The calls of DeclareLaunchArgument in a launch file, by the argument's name."""
    calls = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "DeclareLaunchArgument":
            calls[ast.literal_eval(node.args[0])] = node
    return calls


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_every_launch_argument_is_described(path: Path) -> None:
    arguments = launch_arguments(path)
    assert arguments
    for name, call in arguments.items():
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        assert "description" in keywords, f"{path.name}: {name} has no description"
        assert ast.literal_eval(keywords["description"]).endswith("."), f"{path.name}: {name}"


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_every_used_launch_argument_is_declared(path: Path) -> None:
    used = {
        ast.literal_eval(node.args[0])
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "LaunchConfiguration"
        and isinstance(node.args[0], ast.Constant)
    }
    assert used
    assert used <= set(launch_arguments(path))


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_launched_executables_exist(path: Path) -> None:
    started = set(re.findall(r'executable="(\w+)"', path.read_text()))
    assert started
    assert started <= set(executables())


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_files_load(path: Path) -> None:
    pytest.importorskip("launch_ros", reason="needs launch_ros, of which there are no wheels")
    sources = importlib.import_module("launch.launch_description_sources")
    launch = importlib.import_module("launch")
    source = sources.PythonLaunchDescriptionSource(str(path))
    description = source.get_launch_description(launch.LaunchContext())
    given = {argument.name for argument in description.get_launch_arguments()}
    assert set(launch_arguments(path)) <= given


# ---- parameter files


@pytest.mark.parametrize("name", ["tracker", "correction"])
def test_parameter_files_give_every_parameter_its_default(name: str) -> None:
    specs = importlib.import_module("tools.parameters").TABLES[name]
    content = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())
    assert list(content) == ["/**"]
    given = content["/**"]["ros__parameters"]
    expected = {
        spec.name: list(spec.default) if isinstance(spec.default, tuple) else spec.default
        for spec in specs
    }
    assert given == expected
    assert {key: type(value) for key, value in given.items()} == {
        key: type(value) for key, value in expected.items()
    }


def test_the_fast_dds_profile_has_room_for_images() -> None:
    profile = ET.parse(ROOT / "config" / "fastdds.xml").getroot()
    sizes = [int(element.text or 0) for element in profile.iterfind(".//{*}segment_size")]
    full_hd = 1080 * 1920 * 3
    assert len(sizes) == 1
    assert sizes[0] >= 8 * full_hd


# ---- what the documents say

README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "QUALITY_DECLARATION.md",
    *sorted(ROOT.glob("docs/*.md")),
    ROOT / "training" / "README.md",
    ROOT / "lazyxmem_ros" / "weights" / "MODEL_CARD.md",
]


def anchors(document: Path) -> set[str]:
    """The names that a page's headings have in links."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_launches_with_arguments_that_there_are() -> None:
    calls = re.findall(r"^ros2 launch lazyxmem_ros (\S+\.launch\.py)(.*)$", README, re.MULTILINE)
    assert {name for name, _ in calls} == {path.name for path in LAUNCH_FILES}
    for name, rest in calls:
        declared = launch_arguments(ROOT / "launch" / name)
        given = {word.split(":=")[0] for word in rest.split()}
        assert given <= set(declared)
        for argument, call in declared.items():
            required = all(keyword.arg != "default_value" for keyword in call.keywords)
            assert not required or argument in given, f"{name} without {argument}"


def test_the_documents_set_parameters_that_may_be_set() -> None:
    page = (ROOT / "docs" / "operator.md").read_text()
    parameters = importlib.import_module("lazyxmem_ros.nodes.parameters")
    table = importlib.import_module("lazyxmem_ros.nodes.tracker.parameters").table()
    kinds = {spec.name: (spec.changes, type(spec.default)) for spec in table}
    (several, value) = re.search(
        r"for name in (.*); do\n +ros2 param set /lazyxmem_tracker \$name (\S+)\n", page
    ).groups()
    settings = re.findall(r"^ros2 param set /lazyxmem_tracker (\w+) (\S+)$", page, re.MULTILINE)
    settings += [(name, value) for name in several.split()]
    assert len(settings) > 3
    for name, text in settings:
        assert kinds[name] == (parameters.Changes.ANY_TIME, type(yaml.safe_load(text))), name


def test_a_table_cell_of_the_readme_says_one_thing() -> None:
    rows = [line for line in README.splitlines() if line.startswith("|")]
    assert len(rows) > 30
    assert [row for row in rows if " / " in row] == []


@pytest.mark.parametrize(
    "program",
    ["lazyxmem_ros.demo", "training.calibrate", "training.smoke", "tools.parameters"],
)
def test_help_is_all_that_help_does(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = "lazyxmem_ros.demo.run" if program == "lazyxmem_ros.demo" else program
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module).main(["--help"])
    assert ended.value.code == 0
    assert f"usage: python -m {program} " in capsys.readouterr().out

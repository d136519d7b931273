# SPDX-License-Identifier: Apache-2.0
"""The set-up script says what a machine lacks before it begins, and does nothing twice."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What the script itself calls, besides what it checks for.
COMMANDS = [
    "bash",
    "env",
    "dirname",
    "cat",
    "ls",
    "mkdir",
    "flock",
    "sha256sum",
    "df",
    "awk",
    "uname",
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of all that set-up reads, and nothing that it made."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("tools", "cmake", "msg", "srv", "launch", "config"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*ROOT.glob("requirements*.txt"), ROOT / "package.xml", ROOT / "CMakeLists.txt"]:
        shutil.copy(path, copy)
    return copy


def set_up(checkout: Path, commands: list[str], python: str) -> subprocess.CompletedProcess[str]:
    """Run the script where nothing but these commands can be found."""
    path = checkout.parent / "bin"
    path.mkdir()
    for name in commands:
        found = shutil.which(name)
        assert found is not None, f"these tests need {name}"
        (path / name).symlink_to(found)
    return subprocess.run(
        [str(checkout / "tools" / "setup")],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(path), "PYTHON": python, "HOME": str(checkout)},
    )


def test_a_missing_compiler_and_make_are_named(checkout: Path) -> None:
    done = set_up(checkout, COMMANDS, sys.executable)
    assert done.returncode != 0
    assert "a C and a C++ compiler" in done.stderr
    assert "  - make" in done.stderr
    assert "sudo apt install build-essential make" in done.stderr
    assert not (checkout / ".venv").exists()


def test_an_unsupported_python_is_named(checkout: Path) -> None:
    old = checkout.parent / "python-old"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit\nexit 1\n')
    old.chmod(0o755)
    done = set_up(checkout, [*COMMANDS, "cc", "c++", "make"], str(old))
    assert done.returncode != 0
    assert "Python 3.10 to 3.13" in done.stderr
    assert "Python 3.9.2" in done.stderr
    assert "sudo apt install python3 python3-venv python3-dev" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_lock_that_cannot_be_resolved_leaves_the_old_one_alone(checkout: Path) -> None:
    uv = checkout.parent / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text("#!/bin/sh\necho half\nexit 3\n")
    uv.chmod(0o755)
    before = {path.name: path.read_bytes() for path in checkout.glob("requirements*")}
    path = f"{uv.parent}:{os.environ['PATH']}"
    done = subprocess.run([checkout / "tools" / "lock"], check=False, env={"PATH": path})
    assert done.returncode == 3
    assert {path.name: path.read_bytes() for path in checkout.glob("requirements*")} == before


def test_set_up_is_done_once() -> None:
    """Bytecode beside what is linked changes nothing."""
    if not (ROOT / "install" / ".lazyxmem-interfaces").exists():
        pytest.skip("needs a checkout that was set up by tools/setup")
    (ROOT / "launch" / "__pycache__").mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    done = subprocess.run(
        [str(ROOT / "tools" / "setup")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_sources_go_first_whatever_was_on_the_path(tmp_path: Path) -> None:
    """An editor may have put them there, behind their installed copy."""
    if not (ROOT / "install" / ".lazyxmem-interfaces").exists():
        pytest.skip("needs a checkout that was set up by tools/setup")
    program = "import os, sys, lazyxmem_ros; print(lazyxmem_ros.__file__, sys.executable)"
    paths = os.pathsep.join([str(tmp_path), str(ROOT), str(tmp_path / "more")])
    done = subprocess.run(
        [str(ROOT / "tools" / "run"), "python", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "PATH": f"{os.environ['PATH']}:{ROOT}/.venv/bin"},
    )
    module, python = done.stdout.split()
    assert module == str(ROOT / "lazyxmem_ros" / "__init__.py")
    assert python == str(ROOT / ".venv" / "bin" / "python")


def test_the_launcher_says_what_to_do_before_set_up(checkout: Path) -> None:
    done = subprocess.run(
        [str(checkout / "tools" / "run"), "true"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "make setup" in done.stderr


@pytest.mark.parametrize(
    ("variable", "given", "folder"),
    [("/sets", [], "/sets"), ("/sets", ["DATA=/mine"], "/mine"), ("", ["DATA=/mine"], "/mine")],
)
def test_make_reads_real_sequences_where_it_is_told(
    variable: str, given: list[str], folder: str
) -> None:
    environment = {"PATH": os.environ["PATH"], "LAZYXMEM_DATA": variable}

    def make(*arguments: str) -> str:
        command = ["make", "--no-print-directory", "-C", str(ROOT), *arguments, *given]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return done.stdout

    assert make("--eval", 'told: ; @echo "$$LAZYXMEM_DATA"', "told") == f"{folder}\n"
    assert "--data" not in make("-n", "demo", "SEQUENCE=camel")

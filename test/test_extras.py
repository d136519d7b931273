# SPDX-License-Identifier: Apache-2.0
"""Where an optional part is not installed, it is said how to install it."""

import importlib
import subprocess
import sys

import pytest

from lazyxmem_ros.cli import main
from lazyxmem_ros.extras import MissingExtraError, missing_extras_explained


def test_a_missing_library_names_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(MissingExtraError) as raised, missing_extras_explained():
        __import__("skimage.data")
    assert str(raised.value) == (
        "this needs the Python package skimage, which is not installed; "
        "pip install 'lazyxmem_ros[evaluation]' brings it"
    )


@pytest.mark.parametrize("module", ["lazyxmem_ros.no_such_module", "no_such_library"])
def test_what_no_extra_brings_is_a_fault_of_its_own(module):
    with pytest.raises(ModuleNotFoundError), missing_extras_explained():
        __import__(module)


def test_evaluate_without_its_libraries(monkeypatch, capsys):
    # The half-made room of this test must not stay the package's for the tests that follow.
    monkeypatch.setattr(
        "lazyxmem_ros.evaluation", importlib.import_module("lazyxmem_ros.evaluation")
    )
    for name in [name for name in sys.modules if name.startswith("lazyxmem_ros.evaluation")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert main(["evaluate", "scene"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("lazyxmem evaluate: ")
    assert "pip install 'lazyxmem_ros[evaluation]'" in message


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "lazyxmem_ros.nodes", "replay"],
        ["-m", "lazyxmem_ros.nodes", "recorder"],
        ["-m", "lazyxmem_ros.nodes", "simulated_operator"],
        ["-m", "lazyxmem_ros.demo"],
    ],
    ids=lambda command: command[-1],
)
def test_programs_without_their_libraries(command, tmp_path):
    (tmp_path / "rosbags.py").write_text("raise ModuleNotFoundError(name='rosbags')\n")
    program = f"import runpy, sys\nsys.path.insert(0, {str(tmp_path)!r})\n"
    program += f"sys.argv = {command[1:]}\nrunpy.run_module({command[1]!r}, run_name='__main__')\n"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "pip install 'lazyxmem_ros[evaluation]' brings it" in done.stderr

# SPDX-License-Identifier: Apache-2.0
"""Programs start quickly, and end without a word where they are interrupted while importing."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lazyxmem_ros.entry import load

ROOT = Path(__file__).parents[1]
NODES = re.search(r"foreach\(NODE ([\w ]+)\)", (ROOT / "CMakeLists.txt").read_text())
DEADLINE_S = 60


def executable(name: str) -> str:
    if name == "lazyxmem":
        found = shutil.which(name)
        if found is None:
            pytest.skip("needs the command lazyxmem, which set-up builds")
        return found
    get_package_prefix = pytest.importorskip("ament_index_python").get_package_prefix
    return str(Path(get_package_prefix("lazyxmem_ros")) / "lib" / "lazyxmem_ros" / name)


def wait_until_loaded(process: subprocess.Popen[str], library: str) -> None:
    """Wait until a process has loaded a library, and so is importing."""
    deadline = time.monotonic() + DEADLINE_S
    while library not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def started(command: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [executable(command[0]), *command[1:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        # Python leaves Ctrl-C alone where it is ignored, as below some test runners.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize(
    ("command", "library"),
    [
        (["lazyxmem", "evaluate", "scene"], "libtorch"),
        (["lazyxmem", "track", "none.mp4"], "libtorch"),
        *[([name], "_rclpy") for name in (NODES[1].split() if NODES else [])],
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("later", [0.0, 0.2])
def test_interrupted_while_importing(
    command: list[str], library: str, later: float, tmp_path: Path
) -> None:
    process = started(command, tmp_path)
    wait_until_loaded(process, library)
    time.sleep(later)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert "Traceback" not in errors
    assert "KeyboardInterrupt" not in errors
    if later == 0:
        assert (process.returncode, errors) == (-signal.SIGINT, "")


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_what_was_set_for_ctrl_c_stays(
    handler: signal.Handlers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "interrupted.py").write_text("import os\nos.kill(os.getpid(), 2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.signal(signal.SIGINT, handler)
    try:
        assert load("interrupted").__name__ == "interrupted"
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
        sys.modules.pop("interrupted")


def test_ctrl_c_is_python_s_own_again_when_all_is_imported() -> None:
    program = (
        "import os, signal\n"
        "from lazyxmem_ros.entry import load\n"
        "try:\n"
        "    load('json')\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt:\n"
        "    print('as ever')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.stdout == "as ever\n"


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from lazyxmem_ros.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit as ended:\n"
        "    assert ended.code == 0\n"
        "print(sorted({'torch', 'numpy', 'cv2', 'rich'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.endswith("[]\n"), done

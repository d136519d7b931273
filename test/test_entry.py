# SPDX-License-Identifier: Apache-2.0
"""Programs start quickly, and end without a word where they are interrupted while importing."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lazyxmem_ros.data.bags import BagWriter, StampedImage, StampedLabels
from lazyxmem_ros.entry import interruptible, load

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


def started(
    command: list[str], folder: Path, *, new_session: bool = False
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [executable(command[0]), *command[1:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        start_new_session=new_session,
        # Python leaves Ctrl-C alone where it is ignored, as below some test runners.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_the_script_that_pip_installs_ends_at_once_while_it_imports() -> None:
    """Where the signal comes with the import of the command itself."""
    found = re.search(r'^lazyxmem = "([\w.]+):main"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert found
    program = (
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'lazyxmem_ros.cli':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        f"from {found[1]} import main\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        timeout=DEADLINE_S,
        check=False,
    )
    assert process.returncode == -signal.SIGINT
    assert process.stderr == ""


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


SOON = (0.02, 0.05, 0.6)
"""Seconds after the start: while Python begins, imports, and makes the node."""
LATER = (0.1, 0.3, 1.0, 1.5, 2.0, 3.0, 4.0)
SEGMENT_LOCK = re.compile(r"/dev/shm/fast(dds|rtps)_[0-9a-f]{16}_el")
STARTED = {
    "lazyxmem": ("track", "video", "--mask", "mask.png", "--out", "out"),
    "tracker": ("--ros-args", "-p", "device:=cpu"),
    "correction": (),
    "replay": ("--ros-args", "-p", "bag:=bag", "-p", "loop:=true"),
    "recorder": ("--ros-args", "-p", "bag:=new", "-p", "topics:=[/image]"),
    "simulated_operator": ("--ros-args", "-p", "bag:=bag"),
}
WITH_NCNN = {
    "lazyxmem": ("--backend", "ncnn"),
    "tracker": ("-p", "backend:=ncnn"),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bag, a video of frames and a mask."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "video").mkdir()
    frame = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    for index in range(200):
        Image.fromarray(frame).save(folder / "video" / f"{index}.png")
    mask = np.zeros((120, 160), np.uint16)
    mask[40:80, 40:80] = 1
    Image.fromarray((mask * 255).astype(np.uint8)).save(folder / "mask.png")
    with BagWriter(folder / "bag") as bag:
        for index in range(20):
            stamp = 10**18 + index * 10**8
            bag.write_image("/image", StampedImage(stamp, frame))
            bag.write_labels("/ground_truth", StampedLabels(stamp, mask))
    return folder


def owned_segments(process: int) -> list[Path]:
    """A process's segments in shared memory, and their locks.

    Not its ports: Fast DDS shares those with who has left one behind in the same domain.
    """
    owned = []
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                file = entry.readlink()
                if SEGMENT_LOCK.fullmatch(str(file)):
                    owned += [file, file.with_name(file.name.removesuffix("_el"))]
    return owned


@pytest.mark.parametrize(
    ("name", "delay"),
    [
        *[(name, delay) for name in ("replay", "lazyxmem") for delay in SOON],
        *[
            pytest.param(name, delay, marks=pytest.mark.slow)
            for name in STARTED
            for delay in sorted((*SOON, *LATER))
            if name not in ("replay", "lazyxmem") or delay not in SOON
        ],
    ],
)
def test_a_signal_at_any_time_ends_everything(
    name: str, delay: float, inputs: Path, tmp_path: Path
) -> None:
    """By 0 or by the signal itself, without a traceback, with nothing left behind."""
    processes = {}
    for number in (signal.SIGINT, signal.SIGTERM):  # side by side, for they mostly wait
        folder = linked(inputs, tmp_path / number.name)
        processes[number] = started([name, *STARTED[name]], folder, new_session=True)
    time.sleep(delay)
    owned = {number: owned_segments(process.pid) for number, process in processes.items()}
    for number, process in processes.items():
        process.send_signal(number)
    for number, process in processes.items():
        assert_ended(process, number)
        assert not [file for file in owned[number] if file.exists()]


def linked(inputs: Path, folder: Path) -> Path:
    """A new folder with links to the inputs."""
    folder.mkdir()
    for entry in inputs.iterdir():
        (folder / entry.name).symlink_to(entry)
    return folder


def assert_ended(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """By 0 or by the signal, without a traceback, with nobody left in its process group."""
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode in (0, -number), errors
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number"), [("lazyxmem", signal.SIGINT), ("tracker", signal.SIGTERM)]
)
def test_a_signal_while_the_network_is_translated_ends_the_translator(
    name: str,
    number: signal.Signals,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is a process of its own; the cache keeps nothing of what it began."""
    pytest.importorskip("pnnx")
    monkeypatch.setenv("LAZYXMEM_WEIGHTS", str(tmp_path / "cache"))
    folder = linked(inputs, tmp_path / "run")
    process = started([name, *STARTED[name], *WITH_NCNN[name]], folder, new_session=True)
    deadline = time.monotonic() + DEADLINE_S
    while "pnnx" not in children(process.pid):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    assert_ended(process, number)
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def children(process: int) -> set[str]:
    """The names of a process's children."""
    names = set()
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                names.add(Path(f"/proc/{child}/comm").read_text().strip())
    return names


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


def test_interruptible_gives_handlers_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interruptible() as interruption:
        signal.raise_signal(signal.SIGTERM)
    assert interruption.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


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

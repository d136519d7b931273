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
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lazyxmem_ros.data.bag_messages import StampedImage, StampedLabels
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.entry import interruptible, load
from lazyxmem_ros.signals import undisturbed

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


def wait_until(reached: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until a process that goes on has come so far."""
    deadline = time.monotonic() + DEADLINE_S
    while not reached():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_loaded(process: int, library: str) -> bool:
    """Whether it has loaded a library, and so is importing."""
    return library in Path(f"/proc/{process}/maps").read_text()


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


AT_AN_IMPORT = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, *_):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
"""


def interrupted_at(
    module: str, folder: Path, *arguments: str, handler: signal.Handlers = signal.SIG_DFL
) -> subprocess.CompletedProcess[str]:
    """What Python does with the arguments, which gets a SIGINT when it imports the module."""
    (folder / "sitecustomize.py").write_text(AT_AN_IMPORT.format(module=module))
    path = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
        timeout=DEADLINE_S,
        check=False,
    )


@pytest.mark.parametrize("module", ["pkgutil", "lazyxmem_ros.cli"])
def test_the_script_that_pip_installs_ends_at_once_while_it_imports(
    module: str, tmp_path: Path
) -> None:
    """From the first line of the package on."""
    found = re.search(r'^lazyxmem = "([\w.]+):main"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert found
    script = tmp_path / "lazyxmem"
    script.write_text(f"from {found[1]} import main\n")
    ended = interrupted_at(module, tmp_path, str(script))
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")


@pytest.mark.parametrize("module", ["lazyxmem_ros.nodes", "lazyxmem_ros.cli", "lazyxmem_ros.demo"])
def test_modules_that_are_run_end_at_once_while_they_import(module: str, tmp_path: Path) -> None:
    """From the first line of the package on."""
    ended = interrupted_at("lazyxmem_ros.entry", tmp_path, "-m", module)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")


def test_programs_that_import_the_package_keep_their_ctrl_c(tmp_path: Path) -> None:
    program = "import lazyxmem_ros, signal; signal.raise_signal(signal.SIGINT)"
    (tmp_path / "program.py").write_text(program)
    for arguments in (["-c", program], ["-m", "program"]):
        assert "KeyboardInterrupt" in interrupted_at("", tmp_path, *arguments).stderr
    ignored = interrupted_at(
        "lazyxmem_ros.entry", tmp_path, "-m", "lazyxmem_ros.nodes", handler=signal.SIG_IGN
    )
    assert ignored.returncode == 2


TRACK = ["lazyxmem", "track", "none.mp4", "--mask", "none.png", "--out", "none"]


@pytest.mark.parametrize(
    ("command", "library", "later"),
    [
        (["lazyxmem", "evaluate", "scene"], "libtorch", 0.0),
        (TRACK, "libtorch", 0.0),
        (TRACK, "libtorch", 0.2),
        *[([name], "_rclpy", 0.0) for name in (NODES[1].split() if NODES else [])],
        (["tracker"], "_rclpy", 0.2),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value),
)
def test_interrupted_while_importing(
    command: list[str], library: str, later: float, tmp_path: Path
) -> None:
    process = started(command, tmp_path)
    wait_until(lambda: has_loaded(process.pid, library), process)
    time.sleep(later)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert "Traceback" not in errors
    assert "KeyboardInterrupt" not in errors
    if later == 0:
        assert (process.returncode, errors) == (-signal.SIGINT, "")


SOON = [(False, 0.02), (False, 0.1), (False, 0.3)]
"""Seconds after the start: while Python begins and imports, which is the same for every node."""
LATER = [(True, 0.0), (True, 0.8)]
"""Seconds after a node has joined the graph, or the command has made its first mask."""
SEGMENT_LOCK = re.compile(r"/dev/shm/fast(dds|rtps)_[0-9a-f]{16}_el")
STARTED = {
    "lazyxmem": ("track", "video", "--mask", "mask.png", "--out", "out"),
    "tracker": ("--ros-args", "-p", "device:=cpu"),
    "correction": (),
    "replay": ("--ros-args", "-p", "bag:=bag", "-p", "loop:=true"),
    "recorder": ("--ros-args", "-p", "bag:=new", "-p", "topics:=[/image]"),
    "operator": ("--ros-args", "-p", "port:=0"),
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


def opened(process: int) -> set[str]:
    """What a process has open: paths, and names of sockets and pipes."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(entry.readlink()))
    return found


def owned_segments(process: int) -> list[Path]:
    """A process's segments in shared memory, and their locks.

    Not its ports: Fast DDS shares those with who has left one behind in the same domain.
    """
    locks = [Path(name) for name in opened(process) if SEGMENT_LOCK.fullmatch(name)]
    return [*locks, *(lock.with_name(lock.name.removesuffix("_el")) for lock in locks)]


def has_begun(name: str, process: int, folder: Path) -> bool:
    """Whether a node has joined the graph, or the command has made its first mask."""
    if name == "lazyxmem":
        return any(folder.glob("out/**/*.png"))
    return any(entry.startswith("socket:") for entry in opened(process))


@pytest.mark.parametrize(
    ("name", "begun", "delay"),
    [
        pytest.param(
            *(name, *moment), marks=[] if name in ("replay", "lazyxmem") else pytest.mark.slow
        )
        for name in STARTED
        for moment in (*(SOON if name in ("lazyxmem", "tracker") else SOON[1:2]), *LATER)
    ],
)
def test_a_signal_at_any_time_ends_everything(
    name: str, begun: bool, delay: float, inputs: Path, tmp_path: Path
) -> None:
    """By 0 or by the signal itself, without a traceback, with nothing left behind."""
    if name == "operator":
        pytest.importorskip("aiohttp", reason="needs aiohttp (requirements-operator.txt)")
    processes = {}
    for number in (signal.SIGINT, signal.SIGTERM):  # side by side, for they mostly wait
        folder = linked(inputs, tmp_path / number.name)
        processes[number] = started([name, *STARTED[name]], folder, new_session=True)
    for number, process in processes.items() if begun else ():
        folder = tmp_path / number.name
        wait_until(lambda p=process, f=folder: has_begun(name, p.pid, f), process)
    time.sleep(delay)
    owned = {number: owned_segments(process.pid) for number, process in processes.items()}
    for number, process in processes.items():
        process.send_signal(number)
    for number, process in processes.items():
        assert_ended(process, number)
        assert not [file for file in owned[number] if file.exists()]


def test_no_program_is_left_out_of_that() -> None:
    assert NODES is not None
    assert STARTED.keys() == {"lazyxmem", *NODES[1].split()}


def linked(inputs: Path, folder: Path) -> Path:
    """A new folder with links to the inputs."""
    folder.mkdir()
    for entry in inputs.iterdir():
        (folder / entry.name).symlink_to(entry)
    return folder


def assert_ended(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """By 0 or by the signal, without a traceback, and its process group ends with it.

    What it had only just started may end a moment later.
    """
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode in (0, -number), errors
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    deadline = time.monotonic() + DEADLINE_S
    while is_there(process.pid):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.01)


def is_there(group: int) -> bool:
    """Whether a process group has a process."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


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
    wait_until(lambda: "pnnx" in children(process.pid), process)
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


PRINTING = """
import sys
from rich.console import Console
from lazyxmem_ros.entry import run_to_the_end
sys.exit(run_to_the_end(lambda: Console().print(sys.argv[1]) or 0, "program", "all is kept"))
"""


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii"])
def test_names_that_the_terminal_cannot_show_are_escaped(encoding: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", PRINTING, b"caf\xe9"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, b"caf\\udce9\n", b"")


def test_a_full_disk_under_the_output_is_named() -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", PRINTING, "x"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    said = "program: standard output cannot be written to: No space left on device\n"
    assert (ended.returncode, ended.stderr) == (1, said)


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


HEAVY = ("torch", "pandas", "pyarrow", "scipy", "skimage", "matplotlib", "rosbags", "rclpy")


@pytest.mark.parametrize(
    ("arguments", "status", "heavy"),
    [
        (["--help"], 0, (*HEAVY, "numpy", "cv2", "rich")),
        *[([command, "--help"], 0, HEAVY) for command in ("track", "evaluate")],
        (["track", "a video that is given no mask"], 2, HEAVY),
        (["evaluate", "scene", "--no-such-option"], 2, HEAVY),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, list) else "",
)
def test_help_and_mistakes_are_told_before_anything_heavy_is_imported(
    arguments: list[str], status: int, heavy: tuple[str, ...]
) -> None:
    program = (
        "import sys\n"
        "from lazyxmem_ros.cli import main\n"
        "try:\n"
        f"    main({arguments})\n"
        "except SystemExit as ended:\n"
        f"    assert ended.code == {status}, ended.code\n"
        f"print(sorted({set(heavy)} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.endswith("[]\n"), done


def test_what_fails_while_it_is_undisturbed_loses_no_signal() -> None:
    """Whoever catches the failure would go on as if nobody had asked for the end."""

    def fail() -> None:
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            raise RuntimeError

    with interruptible(), pytest.raises(KeyboardInterrupt), contextlib.suppress(RuntimeError):
        fail()

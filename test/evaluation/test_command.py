# SPDX-License-Identifier: Apache-2.0
"""`lazyxmem evaluate` from arguments to tables and report; stopped, killed, and gone on with."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluations import walking_bag
from PIL import Image

from lazyxmem_ros.cli import main
from lazyxmem_ros.evaluation import report

PATIENCE_S = 150
"""For two jobs to be finished, most of which time goes into starting the processes."""


class PageReader(HTMLParser):
    """Collects images, links and text."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[str] = []
        self.references: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "img":
            self.images.append(str(values["src"]))
        self.references += [str(values[name]) for name in ("href", "src") if name in values]

    def handle_data(self, data: str) -> None:
        self.text += data


def arguments(root: Path, weights: Path, out: Path, *more: str) -> list[str]:
    asked = ["evaluate", str(root), "--weights", str(weights), "--out", str(out)]
    thresholds = ["--operator-rate", "0", "--pseudo-rate", "inf", "--cooldown-frames", "3"]
    return [*asked, *thresholds, "--device", "cpu", *more]


def command(arguments: list[str]) -> list[str]:
    """The same as a process of its own."""
    installed = shutil.which("lazyxmem")
    program = "import sys; from lazyxmem_ros.cli import main; sys.exit(main(sys.argv[1:]))"
    start = [installed] if installed else [sys.executable, "-c", program]
    return [*start, *arguments]


def test_command_writes_tables_and_a_self_contained_report(
    two_walks: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    (two_walks / "JPEGImages/480p/walk/00004.jpg").write_bytes(b"")
    out = tmp_path / "out"
    options = ("--methods", "xmem,lazy", "--format", "csv", "--workers", "1")
    done = subprocess.run(
        command(arguments(two_walks, tiny_weights, out, *options)),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 fault(s) in the input were skipped" in done.stdout
    for level in ("frames", "events", "objects", "sequences", "dataset"):
        assert len(pd.read_csv(out / f"{level}.csv"))
    page = PageReader()
    page.feed((out / "report.html").read_text(encoding="utf-8"))
    assert len(page.images) >= 6  # three figures, a timeline per object, worst frames
    assert all(reference.startswith(("data:image/", "#")) for reference in page.references)
    for word in ("xmem", "lazy", "J&F", "walk", "run", "00004.jpg: the image cannot be read"):
        assert word in page.text


def test_without_ground_truth_what_can_be_known(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    walking_bag(tmp_path / "drive", 8)
    labels = np.zeros((64, 96), np.uint8)
    labels[10:30, 5:25] = 1
    Image.fromarray(labels).save(tmp_path / "first.png")
    out = tmp_path / "out"
    asked = arguments(tmp_path / "drive", tiny_weights, out, "--first-mask")
    assert main([*asked, str(tmp_path / "first.png"), "--workers", "1"]) == 0
    assert "no ground truth" in capsys.readouterr().out
    frames = pd.read_parquet(out / "frames.parquet")
    assert set(frames["method"]) == {"xmem", "udu", "pseudo", "lazy"}
    assert len(frames) == 4 * 8
    assert not frames["scored"].any()
    assert frames["uncertainty"].notna().all()
    events = pd.read_parquet(out / "events.parquet")
    assert set(events["method"]) == {"lazy"}
    assert not events["applied"].any()
    assert set(events["outcome"]) == {"the frame is not annotated"}
    dataset = pd.read_parquet(out / "dataset.parquet").set_index("method")
    assert dataset.loc["xmem", ["coverage", "stability"]].notna().all()
    page = PageReader()
    page.feed((out / "report.html").read_text(encoding="utf-8"))
    assert "there is no ground truth" in page.text
    assert "Not known: there is no ground truth." in page.text
    assert np.isnan(dataset.loc["lazy", "quiet_failures"])
    assert "what questions are worth" not in page.text, "nothing is known of that"


@pytest.mark.parametrize(
    ("methods", "said"),
    [("xmem,udu", "Not known: no method that may ask was run."), ("xmem,lazy", "None.")],
)
def test_that_there_were_no_quiet_failures_is_said_where_it_is_known(
    methods: str, said: str, two_walks: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    options = ("--methods", methods, "--sequences", "run", "--workers", "1")
    assert main(arguments(two_walks, tiny_weights, tmp_path, *options)) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.partition("<h2>Quiet failures</h2>")[2].lstrip().startswith(f"<p>{said}</p>")


def test_the_report_counts_events_that_it_does_not_list(
    two_walks: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "SHOWN_EVENTS", 2)
    out = tmp_path / "out"
    options = ("--methods", "every", "--every", "2", "--gesture", "mask")
    call = arguments(two_walks, tiny_weights, out, *options, "--sequences", "run", "--workers", "1")
    assert main(call) == 0
    count = len(pd.read_parquet(out / "events.parquet"))
    assert count > 2
    page = (out / "report.html").read_text(encoding="utf-8")
    assert f"{count} requests and corrections, of which the first 2 are listed" in page


def test_command_explains_bad_input(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(tmp_path / "nowhere"), "--weights", str(tiny_weights)]) == 1
    assert "nowhere: there is no such file or folder" in capsys.readouterr().err.replace("\n", "")
    assert main(["evaluate", "scene", "--weights", str(tiny_weights), "--workers", "0"]) == 1
    assert "--workers must be at least 1, got 0" in capsys.readouterr().err


def test_command_counts_what_could_not_be_evaluated(
    two_walks: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for mask in (two_walks / "Annotations/480p/run").glob("*.png"):
        mask.unlink()
    arguments = ["evaluate", str(two_walks), "--weights", str(tiny_weights), "--device", "cpu"]
    arguments += ["--out", str(tmp_path / "out"), "--methods", "xmem", "--workers", "1"]
    assert main(arguments) == 1
    printed = capsys.readouterr().out
    assert "1 sequence(s) could not be evaluated to the end" in printed
    assert "run: no frame with both an image and a mask" in printed
    assert "R@0.5" in printed, "the table is too wide for 80 columns"


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def group_ends(group: int, *, within: float) -> bool:
    """Whether a process group is empty before so many seconds have passed."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_interrupted_it_goes_on_from_what_is_finished(
    make_tree: Callable[..., Path],
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("one", "two", "three"):
        root = make_tree(name, 20, {index: (1,) for index in range(20)})
    out = tmp_path / "out"
    asked = arguments(root, tiny_weights, out, "--methods", "xmem,lazy,every", "--workers", "2")
    started = start(asked)
    deadline = time.monotonic() + PATIENCE_S
    while len(list(out.glob("jobs/*/*/job.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(started.pid, signal.SIGINT)  # as the terminal does
    assert started.wait(timeout=120) == -signal.SIGINT
    finished = len(list(out.glob("jobs/*/*/job.json")))
    assert 2 <= finished < 9
    assert "interrupted; what was finished is kept" in started.stderr.read()
    assert group_ends(started.pid, within=60), "a process was left behind"
    assert main(asked) == 0
    assert capsys.readouterr().out.count("kept from an earlier run") == finished
    assert len(pd.read_parquet(out / "frames.parquet")) == 3 * 3 * 20


def workers_of(parent: int) -> list[int]:
    """The worker processes of an evaluation: the children of its fork server."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            below.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    return [worker for child in below.get(parent, []) for worker in below.get(child, [])]


@pytest.mark.slow
def test_a_killed_worker_ends_the_evaluation_in_one_sentence(
    make_tree: Callable[..., Path], tiny_weights: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        root = make_tree(name, 28, {index: (1,) for index in range(28)})
    out = tmp_path / "out"
    asked = arguments(root, tiny_weights, out, "--methods", "xmem,lazy,every", "--workers", "2")
    started = start(asked)
    deadline = time.monotonic() + PATIENCE_S
    while not list(out.glob("jobs/*/*/job.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(workers_of(started.pid)[0], signal.SIGKILL)
    _, errors = started.communicate(timeout=120)
    assert started.returncode == 1, errors
    assert "a worker process was ended from outside" in errors
    assert "Traceback" not in errors
    assert group_ends(started.pid, within=60), "a process was left behind"

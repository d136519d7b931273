# SPDX-License-Identifier: Apache-2.0
"""Whatever could change a job's results changes its fingerprint, and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluations import Watcher, plan_of, walking_bag
from PIL import Image

from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.layouts.options import DatasetOptions
from lazyxmem_ros.evaluation.fingerprint import computed_by, fingerprint
from lazyxmem_ros.evaluation.plan import Job, TrackerSettings
from lazyxmem_ros.evaluation.run import evaluate


def test_other_weights_of_the_corrector_are_another_job(
    two_walks: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(two_walks, tiny_weights, ["lazy"])
    job = Job(plan.sequences[0], plan.methods[0], plan.tracker, plan.operator)
    seen = set()
    for content in ("one", "other"):
        file = tmp_path / content
        file.write_text(content)
        monkeypatch.setattr(
            "lazyxmem_ros.evaluation.fingerprint.corrector_weights", lambda *_, file=file: file
        )
        seen.add(fingerprint(job))
        seen.add(fingerprint(job))
    assert len(seen) == 2


def test_other_code_is_another_job(
    two_walks: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(two_walks, tiny_weights, ["lazy"])
    job = Job(plan.sequences[0], plan.methods[0], plan.tracker, plan.operator)
    seen = {fingerprint(job)}
    for version in ("one", "two"):
        package = tmp_path / version
        (package / "lazy").mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "lazy" / "policy.py").write_text("AREA = 1\n" if version == "one" else "")
        monkeypatch.setattr("lazyxmem_ros.__file__", str(package / "__init__.py"))
        seen.add(fingerprint(job))
        seen.add(fingerprint(job))
    assert len(seen) == 3


def test_another_number_of_threads_is_the_same_job(two_walks: Path, tiny_weights: Path) -> None:
    plan = plan_of(two_walks, tiny_weights, ["lazy"])
    settings = [replace(plan.tracker, threads=number) for number in (1, 8)]
    jobs = [Job(plan.sequences[0], plan.methods[0], entry, plan.operator) for entry in settings]
    assert fingerprint(jobs[0]) == fingerprint(jobs[1])


def test_what_auto_stands_for_makes_another_job(
    two_walks: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(two_walks, tiny_weights, ["xmem"], workers=1)
    plan = replace(plan, sequences=plan.sequences[:1])

    def kept() -> int:
        watcher = Watcher()
        evaluate(plan, tmp_path / "out", watcher)
        return len(watcher.kept)

    assert (kept(), kept()) == (0, 1)
    monkeypatch.setattr("torch.__version__", "99.0.0")
    assert (kept(), kept()) == (0, 1)
    monkeypatch.setattr("lazyxmem_ros.evaluation.fingerprint.version", lambda name: "new")
    assert (kept(), kept()) == (0, 1)


def test_what_is_not_here_may_be_on_a_cluster(tiny_weights: Path) -> None:
    """And what is nowhere is named by the job."""
    for device in ("cuda:99", "abacus"):
        assert computed_by(TrackerSettings(tiny_weights, device)).startswith(f"{device}, auto, ")
    said = computed_by(TrackerSettings(tiny_weights, "cpu", precision="float16", backend="torch"))
    assert said.startswith("cpu, torch.float16, torch ")
    assert "openvino" not in said


def test_other_data_is_another_job(two_walks: Path, tiny_weights: Path, tmp_path: Path) -> None:
    plan = plan_of(two_walks, tiny_weights, ["lazy"])
    drive, masks, first = tmp_path / "drive", tmp_path / "masks", tmp_path / "first.png"
    walking_bag(drive, 3)
    masks.mkdir()
    for mask in (first, masks / f"{10**9}.png"):
        Image.fromarray(np.ones((64, 96), np.uint8)).save(mask)
    options = DatasetOptions(masks=masks, first_mask=first, passes=2)
    (bag,) = open_dataset(drive, options)
    walk = next(sequence for sequence in plan.sequences if sequence.name == "walk")
    for sequence, file in (
        (walk, two_walks / "JPEGImages/480p/walk/00003.jpg"),
        (walk, two_walks / "Annotations/480p/walk/00003.png"),
        (bag, next(drive.glob("*.db3"))),
        (bag, masks / f"{10**9}.png"),
        (bag, first),
    ):
        job = Job(sequence, plan.methods[0], plan.tracker, plan.operator)
        before = fingerprint(job)
        list(sequence.samples())
        assert fingerprint(job) == before, "only looked at"
        content = file.read_bytes()
        file.write_bytes(content[:-1] + b"+")  # of equal length
        assert fingerprint(job) != before, file.name
        file.write_bytes(content)

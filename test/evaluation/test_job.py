# SPDX-License-Identifier: Apache-2.0
"""One job and its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluations import plan_of

from lazyxmem_ros.evaluation.job import MASKS_FOLDER, completed_report, run_job
from lazyxmem_ros.evaluation.plan import Job


def test_what_is_edited_during_a_run_did_not_make_its_results(
    two_walks: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(two_walks, tiny_weights, ["xmem"])
    job = Job(plan.sequences[0], plan.methods[0], plan.tracker, plan.operator)
    edited = tmp_path / "edited"
    edited.mkdir()

    def edit(frames: int) -> None:
        monkeypatch.setattr("lazyxmem_ros.__file__", str(edited / "__init__.py"))

    run_job(job, tmp_path / "out", edit)
    assert completed_report(job, tmp_path / "out") is None
    monkeypatch.undo()
    assert completed_report(job, tmp_path / "out") is not None


def test_a_job_whose_masks_are_gone_is_not_complete(
    two_walks: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    plan = plan_of(two_walks, tiny_weights, ["xmem"])
    job = Job(plan.sequences[0], plan.methods[0], plan.tracker, plan.operator, save_masks=True)
    run_job(job, tmp_path)
    assert completed_report(job, tmp_path) is not None
    masks = sorted((tmp_path / job.name / MASKS_FOLDER).iterdir())
    assert len(masks) == len(job.sequence)
    masks[-1].unlink()
    assert completed_report(job, tmp_path) is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("job.json", b"[]"),
        ("job.json", b"null"),
        ("job.json", b"\xff"),
        ("frames.parquet", b"PAR1 cut sho"),
        ("frames.parquet", None),
        ("events.parquet", None),
    ],
)
def test_a_job_with_a_damaged_file_is_not_complete(
    name: str, content: bytes | None, two_walks: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    plan = plan_of(two_walks, tiny_weights, ["xmem"])
    job = Job(plan.sequences[0], plan.methods[0], plan.tracker, plan.operator)
    run_job(job, tmp_path)
    assert completed_report(job, tmp_path) is not None
    file = tmp_path / job.name / name
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert completed_report(job, tmp_path) is None

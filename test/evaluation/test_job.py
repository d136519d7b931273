# SPDX-License-Identifier: Apache-2.0
"""One job and its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluations import plan_of

from lazyxmem_ros.evaluation.job import completed_report, run_job
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

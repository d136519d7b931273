# SPDX-License-Identifier: Apache-2.0
"""The options of `lazyxmem evaluate` that stand for the policy's settings."""

from __future__ import annotations

import argparse
import io
import math
import os
from pathlib import Path

import pytest
from rich.console import Console

from lazyxmem_ros.correction import CorrectorError
from lazyxmem_ros.data.layouts.scene import SceneSequence
from lazyxmem_ros.data.samples import VideoSequence
from lazyxmem_ros.data.slowness import Tell
from lazyxmem_ros.evaluation import arguments as command_line
from lazyxmem_ros.evaluation import command
from lazyxmem_ros.evaluation.errors import MethodError
from lazyxmem_ros.evaluation.graph.launch import graph_environment
from lazyxmem_ros.evaluation.methods import SWITCHES
from lazyxmem_ros.evaluation.plan import EvaluationPlan
from lazyxmem_ros.lazy import HoldRule, LazyConfig
from lazyxmem_ros.settings import ConfigError, settings_of
from lazyxmem_ros.weights import WeightsError


class PlannedError(Exception):
    """Ends the command where the evaluation would begin."""


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def stop(plan: EvaluationPlan, *rest: object) -> None:
        raise PlannedError(plan)

    monkeypatch.setattr(command, "evaluate", stop)
    return tmp_path


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    command_line.add_arguments(made)
    return made


def planned(out: Path, *options: str) -> EvaluationPlan:
    arguments = parser().parse_args(["scene", "--methods", "lazy", "--out", str(out), *options])
    with pytest.raises(PlannedError) as stopped:
        command.run(arguments, Console(quiet=True))
    plan = stopped.value.args[0]
    assert isinstance(plan, EvaluationPlan)
    return plan


def policy(out: Path, *options: str) -> LazyConfig:
    """What the method `lazy` is evaluated with."""
    (method,) = planned(out, "--workers", "1", *options).methods
    return method.lazy


def test_every_setting_that_methods_share_is_an_option() -> None:
    options = {option for action in parser()._actions for option in action.option_strings}
    for entry in settings_of(LazyConfig):
        assert (f"--{entry.name.replace('_', '-')}" in options) != (entry.name in SWITCHES)


def test_help_says_every_default() -> None:
    for action in parser()._actions:
        said = action.help or ""
        if action.default not in (None, False, "", argparse.SUPPRESS):
            assert "default: " in said, action.option_strings


def test_options_change_the_policy(out: Path) -> None:
    assert policy(out) == LazyConfig()
    given = policy(
        out,
        *("--request-timeout", "2.5", "--hold-rule", "all", "--no-hold-unseen"),
        *("--pseudo-rate", "inf", "--cooldown", "3", "--lost-area", "7"),
    )
    assert given == LazyConfig(
        request_timeout=2_500_000_000,
        hold_rule=HoldRule.ALL,
        hold_unseen=False,
        pseudo_rate=math.inf,
        cooldown_frames=3,
        lost_area=7,
    )
    assert policy(out, "--paper", "--hold-iou", "0.25") == LazyConfig.paper(hold_iou=0.25)


def test_the_precision_is_the_trackers(out: Path) -> None:
    assert planned(out).tracker.precision == "auto"
    assert planned(out, "--precision", "bfloat16").tracker.precision == "bfloat16"


def test_settings_that_are_0_or_off_are_in_the_report(out: Path) -> None:
    """Everything that one needs to repeat it."""
    given = ["--max-internal-size", "0", "--hold-iou", "0", "--no-hold-unseen", "--twin"]
    arguments = parser().parse_args(
        ["scene", "--methods", "lazy", "--workers", "1", "--out", str(out), *given]
    )
    with pytest.raises(PlannedError) as stopped:
        command.run(arguments, Console(quiet=True))
    told = command._described(arguments, stopped.value.args[0])
    shown = {name: told.get(name) for name in ("max internal size", "hold iou", "hold unseen")}
    assert shown == {"max internal size": "0", "hold iou": "0.0", "hold unseen": "False"}
    assert (told["seed"], told["twin"]) == ("0", "True")
    assert not {"strict", "masks", "operator rate"} & told.keys()


def test_there_is_a_worker_for_each_core_that_may_be_used(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be more in the machine, of a container or a cluster's job."""
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {3, 5, 7, 8})
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    plan = planned(out)
    assert (plan.workers, plan.tracker.threads) == (4, 1)
    assert planned(out, "--workers", "2").tracker.threads == 2
    assert planned(out, "--graph").workers == 1
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    monkeypatch.setattr("os.environ", environment)
    assert graph_environment()["OMP_NUM_THREADS"] == "2"


def test_on_a_gpu_there_is_one_worker(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several would share it, each with a copy of everything."""
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2, 3})
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    plan = planned(out)
    assert (plan.workers, plan.tracker.threads) == (1, 4)
    assert planned(out, "--device", "cuda:1").workers == 1
    assert planned(out, "--device", "cpu").workers == 4


@pytest.mark.parametrize(
    ("option", "value", "fault"),
    [
        ("--request-timeout", "-5", r"request_timeout must be in 0 \.\. 86400 seconds, not -5"),
        ("--request-timeout", "inf", "request_timeout must be in"),
        ("--hold-iou", "2", r"hold_iou must be in 0 \.\. 1, not 2"),
    ],
)
def test_values_out_of_range_are_named(out: Path, option: str, value: str, fault: str) -> None:
    arguments = parser().parse_args(["scene", "--out", str(out), option, value])
    with pytest.raises(ConfigError, match=fault):
        command.run(arguments, Console(quiet=True))


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--clicks", "3"), "--clicks belongs to --gesture largest_error"),
        (("--ray", "local", "--workers", "2"), "--workers are processes of this machine"),
        (("--corrector-model", "vit_b"), "--corrector-model is the size of SAM-HQ's checkpoint"),
        (("--corrector", "sam_hq"), "sam_hq_vit_tiny.pth is not on this machine"),
        (("--corrector", "sam_hq", "--corrector-model", "vit_b"), "sam_hq_vit_b.pth is not on"),
    ],
)
def test_what_would_change_nothing_or_is_not_here_is_named(
    options: tuple[str, ...], fault: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAZYXMEM_WEIGHTS", str(out / "no weights"))
    arguments = parser().parse_args(["scene", "--out", str(out), *options])
    with pytest.raises((MethodError, WeightsError, CorrectorError), match=fault):
        command.run(arguments, Console(quiet=True))


def test_weights_of_sam_hq_are_found_in_the_users_cache(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAZYXMEM_WEIGHTS", str(out))
    (out / "sam_hq_vit_b.pth").write_bytes(b"weights")
    options = ["--workers", "1", "--corrector", "sam_hq", "--corrector-model", "vit_b"]
    arguments = parser().parse_args(["scene", "--out", str(out), *options])
    with pytest.raises(PlannedError) as stopped:
        command.run(arguments, Console(quiet=True))
    assert stopped.value.args[0].tracker.corrector_checkpoint == out / "sam_hq_vit_b.pth"


def test_names_with_brackets_are_told_as_they_are(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as Rich's markup, which they may break."""

    def opening(path: Path, options: object, tell: Tell) -> list[VideoSequence]:
        tell("unpacking a[/b].mcap.zst: 10%")
        return [SceneSequence()]

    monkeypatch.setattr("lazyxmem_ros.evaluation.options.open_dataset", opening)
    console = Console(record=True, file=io.StringIO())
    with pytest.raises(PlannedError):
        command.run(parser().parse_args(["scene", "--out", str(out)]), console)
    assert "unpacking a[/b].mcap.zst: 10%" in console.export_text()

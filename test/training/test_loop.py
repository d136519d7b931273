# SPDX-License-Identifier: Apache-2.0
"""What every run does around its steps: random streams, signals, an orderly end."""

from __future__ import annotations

import csv
import io
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from threading import Event
from types import ModuleType

import numpy as np
import pytest
import torch

from lazyxmem_ros.correction.refiner import load_refiner
from lazyxmem_ros.signals import ENDING_SIGNALS
from training import (
    calibrate,
    measure,
    measure_refiner,
    pack,
    smoke,
    train_refiner,
    train_tracker,
)
from training.compose import own_stream
from training.config import ConfigError, RefinerTraining
from training.loop import Stages, run, stop_on_signals
from training.material import Material, MaterialError

CPU = torch.device("cpu")
CONFIGS = Path(__file__).parents[2] / "training" / "configs"
TRACKER_YAML, REFINER_YAML = (str(CONFIGS / f"{name}.yaml") for name in ("tracker", "refiner"))
REFINER = RefinerTraining(cycles=(2,), batch=8, answered=2, warm_up=1)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where each random stream stood when it was made."""
    seen: list[int] = []
    make = np.random.default_rng

    def default_rng(seed: object) -> np.random.Generator:
        made = make(seed)
        seen.append(made.bit_generator.state["state"]["state"])
        return made

    monkeypatch.setattr(np.random, "default_rng", default_rng)
    return seen


def test_stopping_at_0_trains_nothing(material: Material, tmp_path: Path) -> None:
    trainer = train_refiner.Trainer(REFINER, material, CPU)
    run(trainer, tmp_path, workers=0, stop_at=0)
    assert trainer.step == 0
    assert (tmp_path / "last.pt").is_file()


def test_a_stage_may_count_the_hardest_pixel_alone() -> None:
    (stage,) = smoke.CONFIG.stages
    for share, kept in ((0.0, 0.0), (0.3, 0.3), (None, 1.0)):
        config = replace(smoke.CONFIG, stages=(replace(stage, bootstrap_share=share),))
        assert train_tracker.keep_at(config, 0) == kept


@pytest.mark.parametrize("kind", ["tracker", "refiner"])
def test_no_two_random_streams_of_a_step_are_the_same(
    kind: str, material: Material, streams: list[int]
) -> None:
    trainer = (
        train_tracker.Trainer(smoke.CONFIG, material, CPU)
        if kind == "tracker"
        else train_refiner.Trainer(REFINER, material, CPU)
    )
    trainer.train_step(trainer.maker()(0))
    assert len(streams) >= 5
    assert len(set(streams)) == len(streams)


def test_what_is_decided_beside_a_clip_shares_no_stream_with_any_attempt_at_it() -> None:
    beside = {float(own_stream((3, 7, 2), number).random()) for number in range(3)}
    attempts = {float(np.random.default_rng((3, 7, 2, i)).random()) for i in range(3)}
    assert len(beside | attempts) == 6


class InterruptedTrainer(train_refiner.Trainer):
    """Is told to end during its first step."""

    interruption = Event()

    def train_step(self, fresh: train_refiner.Batch) -> tuple[float, float]:
        self.interruption.set()
        return super().train_step(fresh)


def test_an_interrupted_run_is_saved_and_goes_on(material: Material, tmp_path: Path) -> None:
    interrupted = InterruptedTrainer(REFINER, material, CPU)
    run(interrupted, tmp_path, workers=0, interruption=interrupted.interruption)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 1
    done = run(train_refiner.Trainer(REFINER, material, CPU), tmp_path, workers=0)
    assert done.step == 2
    with (tmp_path / "curve.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2"]
    written = load_refiner(tmp_path / "refiner.safetensors").state_dict()
    for name, value in done.average.network.state_dict().items():
        torch.testing.assert_close(written[name], value, rtol=1e-3, atol=1e-3, msg=name)


@pytest.fixture
def handlers() -> Iterator[None]:
    """The signals do nothing, but are not ignored; afterwards what they did before."""
    before = {number: signal.signal(number, lambda *_: None) for number in ENDING_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_a_signal_sets_the_interruption_and_ends_nothing(number: signal.Signals) -> None:
    interruption = stop_on_signals()
    assert not interruption.is_set()
    signal.raise_signal(number)
    assert interruption.wait(10)


@pytest.mark.usefixtures("handlers")
def test_a_run_below_nohup_outlives_its_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interruption = stop_on_signals()
    signal.raise_signal(signal.SIGHUP)
    assert not interruption.is_set()


def saved(state: object) -> bytes:
    """What PyTorch writes of something."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no checkpoint",
        saved([1]),
        saved(torch.zeros(1)),
        saved({"step": 1}),
        saved({"step": 1, "network": [1]}),
        None,
    ],
)
def test_another_run_is_not_gone_on_with(
    material: Material, tmp_path: Path, content: bytes | None
) -> None:
    """None: a run of the refiner, where the tracker's is to go on."""
    run(train_refiner.Trainer(REFINER, material, CPU), tmp_path, workers=0, stop_at=0)
    if content is not None:
        (tmp_path / "last.pt").write_bytes(content)
    trainer = train_tracker.Trainer(smoke.CONFIG, material, CPU)
    with pytest.raises(ConfigError, match=r"last\.pt is damaged, or of a run with another conf"):
        run(trainer, tmp_path, workers=0, stop_at=0)


@pytest.mark.parametrize("torn", ["1", "1,,1.2"])
def test_a_curve_that_was_broken_off_goes_on(material: Material, tmp_path: Path, torn: str) -> None:
    """As a full disk leaves it; the run goes on from its first step."""
    trainer = refiner_of(material, 1, 1)
    run(trainer, tmp_path, workers=0, stop_at=1)
    with (tmp_path / "curve.csv").open("a") as file:
        file.write(torn)
    run(refiner_of(material, 1, 1), tmp_path, workers=0)
    with (tmp_path / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2"]
    assert all(row["loss"] and row["waited"] for row in rows)


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "step,loss,mine\n1,2,3\n", "my notes"])
def test_a_table_of_something_else_is_left_alone(
    material: Material, tmp_path: Path, content: str
) -> None:
    table = tmp_path / "curve.csv"
    table.write_text(content)
    with pytest.raises(ConfigError, match=r"curve\.csv is no run's curve.*by --out$"):
        run(refiner_of(material, 1), tmp_path, workers=0, stop_at=0)
    assert [path.name for path in tmp_path.iterdir()] == ["curve.csv"]
    assert table.read_text() == content


def test_weights_without_their_run_are_left_alone(material: Material, tmp_path: Path) -> None:
    """As where only they were kept, or came from somewhere else."""
    for name, trainer in (
        ("tracker.safetensors", tracker_of(material, 1)),
        ("refiner.safetensors", refiner_of(material, 1)),
    ):
        (tmp_path / name).write_bytes(b"dear")
        with pytest.raises(ConfigError, match=rf"{name} is there, but no last\.pt .*by --out$"):
            run(trainer, tmp_path, workers=0, stop_at=0)
        assert [path.name for path in tmp_path.iterdir()] == [name]
        assert (tmp_path / name).read_bytes() == b"dear"
        (tmp_path / name).unlink()


def tracker_of(material: Material, *steps: int) -> train_tracker.Trainer:
    """With stages of so many steps."""
    (stage,) = smoke.CONFIG.stages
    stages = tuple(replace(stage, steps=each) for each in steps)
    return train_tracker.Trainer(replace(smoke.CONFIG, stages=stages), material, CPU)


def refiner_of(material: Material, *steps: int) -> train_refiner.Trainer:
    """With cycles of so many steps."""
    return train_refiner.Trainer(replace(REFINER, cycles=steps), material, CPU)


@pytest.mark.parametrize(("trainer_of", "name"), [(tracker_of, "stages"), (refiner_of, "cycles")])
def test_stages_that_have_begun_keep_their_numbers_of_steps(
    material: Material,
    tmp_path: Path,
    trainer_of: Callable[..., train_tracker.Trainer | train_refiner.Trainer],
    name: str,
) -> None:
    """The run stands in the middle of the second of three."""
    begun = trainer_of(material, 20, 30, 40)
    begun.step = 21
    begun.save(tmp_path)
    says = rf"last\.pt: the {name} that have begun there have \[20, 30\] steps .*by --out$"
    with pytest.raises(ConfigError, match=says):
        run(trainer_of(material, 20, 29, 40), tmp_path, workers=0, stop_at=0)
    assert run(trainer_of(material, 20, 30, 1, 2), tmp_path, workers=0, stop_at=0).step == 21


@pytest.mark.parametrize("trainer_of", [tracker_of, refiner_of])
def test_a_step_with_a_gradient_that_is_no_number_is_not_taken(
    material: Material,
    tmp_path: Path,
    trainer_of: Callable[..., train_tracker.Trainer | train_refiner.Trainer],
) -> None:
    trainer = trainer_of(material, 1)
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    next(iter(trainer.network.parameters())).register_hook(lambda slope: slope * math.inf)
    with pytest.raises(RuntimeError, match=r"the gradients' norm is \w+; lower learning_rate$"):
        run(trainer, tmp_path, workers=0)
    for name, value in trainer.network.named_parameters():
        assert torch.equal(value, before[name]), name
    assert not (tmp_path / "last.pt").exists()


@pytest.mark.parametrize("kind", [train_tracker, train_refiner])
def test_the_configuration_decides_how_fast_a_resumed_run_learns(
    kind: ModuleType, material: Material, tmp_path: Path
) -> None:
    config = smoke.CONFIG if kind is train_tracker else REFINER
    kind.Trainer(config, material, CPU).save(tmp_path)
    changed = replace(config, encoder_rate=0.5, weight_decay=0.25)
    resumed = kind.Trainer(changed, material, CPU)
    resumed.load(tmp_path / "last.pt")
    groups = resumed.optimiser.param_groups
    assert {(group["share"], group["weight_decay"]) for group in groups} == {
        *((0.5, 0.25), (0.5, 0.0), (1.0, 0.25), (1.0, 0.0))
    }


@pytest.mark.parametrize("workers", [0, 1])
def test_where_no_clip_can_be_made_the_run_says_why_and_is_saved(
    material: Material, tmp_path: Path, workers: int
) -> None:
    trainer = tracker_of(material, 1)
    (stage,) = trainer.config.stages
    hopeless = replace(stage, batch=1, compose={"min_target_share": 1.0})
    trainer.config = replace(trainer.config, stages=(hopeless,))
    says = r"^30 tries made no clip .* give other material$"
    with pytest.raises(MaterialError, match=says) as raised:
        run(trainer, tmp_path, workers=workers)
    assert (tmp_path / "last.pt").is_file()
    assert raised.traceback  # it holds what the run held
    assert not active_children(), "at its exit this process would wait for them for ever"


def test_which_stages_have_begun() -> None:
    stages = Stages("stages", (2, 3))
    assert [stages.begun(step) for step in (0, 1, 2, 3, 9)] == [[], [2], [2], [2, 3], [2, 3]]
    stages.check([])
    stages.check([2])
    for begun in ([3], [2, 2], [2, 3, 4]):
        with pytest.raises(ConfigError):
            stages.check(begun)


def test_a_run_that_did_not_say_what_had_begun_goes_on(material: Material, tmp_path: Path) -> None:
    begun = refiner_of(material, 20, 30)
    begun.step = 21
    begun.save(tmp_path)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    del state["begun"]
    torch.save(state, tmp_path / "last.pt")
    assert run(refiner_of(material, 25), tmp_path, workers=0, stop_at=0).step == 21


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(
    ("program", "arguments", "fault"),
    [
        (train_tracker, ["none.yaml"], "train_tracker: cannot read none.yaml"),
        (train_refiner, ["none.yaml"], "train_refiner: cannot read none.yaml"),
        (
            train_tracker,
            [TRACKER_YAML, "--device", "gpu"],
            'train_tracker: device "gpu" is unknown',
        ),
        (
            train_refiner,
            [REFINER_YAML, "--device", "gpu"],
            'train_refiner: device "gpu" is unknown',
        ),
        (measure, ["none.safetensors"], "measure: there is no weights file none.safetensors"),
        (measure_refiner, ["--weights", "none.safetensors"], "measure_refiner: "),
        (pack, ["packed", "--data", "none"], "pack: none holds none of davis2016-train"),
        (calibrate, ["[none].pth"], "calibrate: there is no weights file [none].pth"),
    ],
)
def test_what_is_wrong_ends_as_one_sentence(
    program: ModuleType,
    arguments: list[str],
    fault: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert program.main(arguments) == 1
    assert capsys.readouterr().err.startswith(fault)


@pytest.mark.parametrize("option", ["--every", "--trials"])
def test_what_is_counted_is_a_number_from_1_on(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        measure.main(["none.safetensors", option, "0"])
    assert ended.value.code == 2
    assert f"{option} must be at least 1, not 0" in capsys.readouterr().err


def runs_in_group(group: int, text: bytes) -> bool:
    """Whether a process of the group has the text in its command line."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            mine = os.getpgid(int(process.name)) == group
            if mine and text in (process / "cmdline").read_bytes():
                return True
    return False


@pytest.mark.slow
def test_signals_to_all_while_the_worker_starts_end_the_run_in_order(tmp_path: Path) -> None:
    """The terminal sends Ctrl-C to the whole process group, and a service manager SIGTERM."""
    config, out = tmp_path / "refiner.yaml", tmp_path / "out"
    config.write_text("cycles: [1000]\nbatch: 4\nanswered: 1\n")
    command = [sys.executable, "-m", "training.train_refiner", str(config), "--device", "cpu"]
    started = subprocess.Popen(
        [*command, "--data", str(tmp_path / "nowhere"), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        while not runs_in_group(started.pid, b"spawn_main"):
            assert started.poll() is None, started.communicate()
            time.sleep(0.01)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.killpg(started.pid, number)
        said, _ = started.communicate(timeout=100)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
    assert started.returncode == 0, said
    assert "the same command goes on from there" in said
    assert (out / "last.pt").is_file()

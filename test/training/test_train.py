# SPDX-License-Identifier: Apache-2.0
"""The training loop: it learns, it resumes exactly, it writes weights that load."""

from __future__ import annotations

import csv
import dataclasses
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lazyxmem_ros.xmem import load_network
from training import smoke
from training.config import ConfigError, Stage, load_tracker_training
from training.loop import Batches, run
from training.material import Material
from training.rollout import (
    STILL_TIMES,
    random_plan,
    read_memory,
    regular_plan,
    tracking_loss,
)
from training.train_tracker import Trainer, compose_batch

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
SMALL = dataclasses.replace(
    smoke.CONFIG,
    stages=(
        Stage(steps=3, size=64, frames=2, batch=2, compose={"smallest": 0.4}),
        Stage(steps=3, size=64, frames=3, batch=2, freeze_batch_norm=True),
    ),
    warm_up=1,
    validation_clips=1,
    validation_every=100,
)
CPU = torch.device("cpu")


def test_steps_on_one_batch_lower_its_loss(material: Material) -> None:
    trainer = Trainer(smoke.CONFIG, material, CPU)
    batch = compose_batch(smoke.CONFIG, material, 0)
    losses = [trainer.train_step(batch)[0] for _ in range(12)]
    assert losses[-1] < 0.9 * losses[0]


def test_a_resumed_run_equals_an_unbroken_one(material: Material, tmp_path: Path) -> None:
    whole = run(Trainer(SMALL, material, CPU), tmp_path / "whole", workers=0)
    run(Trainer(SMALL, material, CPU), tmp_path / "broken", workers=0, stop_at=2)
    resumed = run(Trainer(SMALL, material, CPU), tmp_path / "broken", workers=0)
    assert resumed.step == whole.step == SMALL.steps
    for name, value in whole.average.network.state_dict().items():
        torch.testing.assert_close(
            resumed.average.network.state_dict()[name], value, rtol=0, atol=0, msg=name
        )
    with (tmp_path / "broken" / "curve.csv").open(newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [2, SMALL.steps]
    assert (tmp_path / "broken" / "curve.png").stat().st_size > 0


@pytest.mark.parametrize("workers", [0, 2])
def test_every_step_has_its_batch_once_however_many_processes_make_them(workers: int) -> None:
    context = "spawn" if workers else None
    loader = DataLoader(
        Batches(float, 3, 8), batch_size=None, num_workers=workers, multiprocessing_context=context
    )
    assert [float(batch) for batch in loader] == [3, 4, 5, 6, 7]


def test_the_weights_it_writes_load(material: Material, tmp_path: Path) -> None:
    trainer = run(Trainer(SMALL, material, CPU), tmp_path, workers=0, stop_at=1)
    network = load_network(tmp_path / "tracker.safetensors")
    assert network.config == SMALL.network
    expected = trainer.average.network.state_dict()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value.float(), expected[name].float(), rtol=1e-3, atol=1e-3)


def test_two_parts_make_the_gradient_of_the_whole(material: Material) -> None:
    # Frozen statistics: batch norm would otherwise see another batch in each part.
    frozen = dataclasses.replace(
        SMALL,
        stages=(dataclasses.replace(SMALL.stages[1], steps=4, batch=4),),
        bootstrap_steps=1,
        deep_update_share=0.0,  # else the hidden state's own step has no gradient
    )
    batch = compose_batch(frozen, material, 0)
    one, two = Trainer(frozen, material, CPU), Trainer(frozen, material, CPU, parts=2)
    loss_one, _ = one.train_step(batch)
    loss_two, _ = two.train_step(batch)
    assert loss_two == pytest.approx(loss_one, rel=0.02)
    gradient_one = torch.cat([p.grad.flatten() for p in one.network.parameters()])
    gradient_two = torch.cat([p.grad.flatten() for p in two.network.parameters()])
    assert torch.cosine_similarity(gradient_one, gradient_two, dim=0) > 0.98


def test_frozen_batch_norm_keeps_its_statistics(material: Material) -> None:
    config = dataclasses.replace(SMALL, stages=SMALL.stages[1:])
    trainer = Trainer(config, material, CPU)
    before = {n: b.clone() for n, b in trainer.network.named_buffers()}
    trainer.train_step(compose_batch(config, material, 0))
    for name, buffer in trainer.network.named_buffers():
        torch.testing.assert_close(buffer, before[name], msg=name)


def test_memory_reads_the_value_of_the_nearest_key() -> None:
    key = torch.tensor([[[10.0, -10.0, 0.0], [0.0, 0.0, 10.0]]])
    value = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    selection = torch.ones(1, 2, 3)
    out = read_memory(key, selection, key, torch.ones(1, 1, 3), value)
    torch.testing.assert_close(out, value)


def test_loss_is_small_only_for_the_right_answer() -> None:
    labels = torch.zeros(1, 1, 8, 8, dtype=torch.int64)
    labels[..., 2:6, 2:6] = 1
    right = torch.stack([(labels == k).float() * 20 for k in (0, 1)], dim=2)
    assert tracking_loss(right, labels, 0.2) < 0.01
    assert tracking_loss(right.flip(2), labels, 0.2) > 1


def test_plans_keep_the_first_frame_in_memory() -> None:
    plan = random_plan(np.random.default_rng(0), 8, 3, 0.5)
    for t in range(1, 8):
        assert plan.memory[t][0] == 0
        assert len(plan.memory[t]) <= 3
        assert all(i < t for i in plan.memory[t])
    assert regular_plan(7, 3).memory[6] == (0, 3)


def test_a_scene_that_stands_still_is_in_memory_many_times() -> None:
    for seed in range(20):
        plan = random_plan(np.random.default_rng(seed), 8, 3, 0.5, still_share=1.0)
        (still,) = {i for i in plan.memory[7] if plan.memory[7].count(i) > 1}
        assert 2 <= plan.memory[7].count(still) <= STILL_TIMES
        for t in range(1, 8):
            assert plan.memory[t][0] == 0
            assert (still in plan.memory[t]) == (still < t)


def test_the_rate_warms_up_and_falls() -> None:
    config = replace(load_tracker_training(CONFIGS / "tracker.yaml"), restarts=())
    assert config.rate_at(0) < 0.02 * config.learning_rate
    assert config.rate_at(config.warm_up) == pytest.approx(config.learning_rate)
    last = config.rate_at(config.steps)
    assert last == pytest.approx(config.final_rate * config.learning_rate)


def test_the_rate_begins_anew_at_a_restart_and_lower() -> None:
    config = load_tracker_training(CONFIGS / "tracker.yaml")
    restart, *later = config.restarts
    lowest = config.rate_at(restart - 1)
    assert lowest < 1.1 * config.final_rate * config.learning_rate
    assert config.rate_at(restart) < 0.02 * config.learning_rate
    peak = config.rate_at(restart + config.warm_up)
    assert peak == pytest.approx(config.restart_share * config.learning_rate)
    for other in later:
        again = config.restart_share * peak
        assert config.rate_at(other + config.warm_up) == pytest.approx(again)
        peak = again
    assert config.rate_at(config.steps) == pytest.approx(config.final_rate * peak)


STAGE = "steps: 1, size: 64, frames: 2, batch: 1"


@pytest.mark.parametrize(
    ("network", "stage", "fault"),
    [
        ("{key_dims: 3}", STAGE, "key_dims"),
        ("{key_dim: '3'}", STAGE, "network: key_dim must be int, not '3'"),
        ("{decoder_dims: [8, 8]}", STAGE, r"decoder_dims must be tuple\[int, int, int\]"),
        ("{}", "steps: 1, size: 60, frames: 2, batch: 1", "multiple of 16"),
        ("{}", f"{STAGE}, bootstrap_share: no", r"must be float \| None, not False"),
        ("{}", f"{STAGE}, compose: {{smalest: 0.2}}", r"stages\[0\].compose: unknown .'smalest'"),
        ("{}", f"{STAGE}, compose: {{smallest: small}}", r"stages\[0\]: compose must be"),
        ("{}", f"{STAGE}, compose: {{frames: 4}}", "are the stage's own"),
    ],
)
def test_a_wrong_configuration_is_named(
    tmp_path: Path, network: str, stage: str, fault: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"network: {network}\nstages: [{{{stage}}}]\n")
    with pytest.raises(ConfigError, match=fault):
        load_tracker_training(path)

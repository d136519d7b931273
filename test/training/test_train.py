# SPDX-License-Identifier: Apache-2.0
"""The training loop: it learns, it resumes exactly, it writes weights that load."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lazyxmem_ros.xmem import EncoderConfig, load_network
from lazyxmem_ros.xmem.network import KeyEncoder
from training import smoke, train_tracker
from training.config import (
    ConfigError,
    Stage,
    TrackerTraining,
    load_refiner_training,
    load_tracker_training,
)
from training.loop import Batches, run
from training.material import DAVIS_TRAIN, TUNING_SEQUENCES, Material
from training.rollout import (
    STILL_TIMES,
    random_plan,
    read_memory,
    regular_plan,
    tracking_loss,
)
from training.train_tracker import (
    TUNING_GAP,
    TUNING_SIZE,
    Batch,
    Trainer,
    compose_batch,
    tuning_clips,
)

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


def test_a_run_may_start_from_the_weights_of_another(material: Material, tmp_path: Path) -> None:
    other = run(Trainer(SMALL, material, CPU), tmp_path, workers=0, stop_at=2)
    config = dataclasses.replace(SMALL, seed=9)
    trainer = Trainer(config, material, CPU, parts=2)
    trainer.start_from_weights(tmp_path / "tracker.safetensors")
    expected = other.average.network.state_dict()
    for network in (trainer.network, trainer.average.network, *trainer.replicas):
        for name, value in network.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-3, msg=name)
    assert trainer.step == 0
    wide = dataclasses.replace(SMALL.network, key_dim=24)
    with pytest.raises(ConfigError, match="another network than the run's"):
        Trainer(dataclasses.replace(SMALL, network=wide), material, CPU).start_from_weights(
            tmp_path / "tracker.safetensors"
        )


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


def test_a_part_without_a_clip_changes_no_statistics(material: Material) -> None:
    """One clip, and two parts to share it."""
    config = dataclasses.replace(
        SMALL, stages=(dataclasses.replace(SMALL.stages[0], batch=1),), deep_update_share=0.0
    )
    batch = compose_batch(config, material, 0)
    one, two = Trainer(config, material, CPU), Trainer(config, material, CPU, parts=2)
    for trainer in (one, two):
        trainer.train_step(batch)
    for network in (two.network, *two.replicas):
        for name, buffer in network.named_buffers():
            expected = one.network.get_buffer(name)
            torch.testing.assert_close(buffer, expected, rtol=1e-4, atol=1e-4, msg=name)


def test_it_is_validated_on_the_first_row_from_every_so_many_steps_on(
    material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "validate", lambda _: 0.5)
    trainer = Trainer(dataclasses.replace(SMALL, validation_every=50), material, CPU)
    validated = []
    for step in range(Trainer.log_every, 220, Trainer.log_every):
        trainer.step = step
        if trainer.columns(last=False)["validation_j"]:
            validated.append(step)
    assert Trainer.log_every == 20
    assert validated == [60, 100, 160, 200]


def test_frozen_batch_norm_keeps_its_statistics(material: Material) -> None:
    config = dataclasses.replace(SMALL, stages=SMALL.stages[1:])
    trainer = Trainer(config, material, CPU)
    before = {n: b.clone() for n, b in trainer.network.named_buffers()}
    trainer.train_step(compose_batch(config, material, 0))
    for name, buffer in trainer.network.named_buffers():
        torch.testing.assert_close(buffer, before[name], msg=name)


@pytest.fixture
def pretrained(monkeypatch: pytest.MonkeyPatch) -> TrackerTraining:
    """A run whose encoder starts from weights of somebody's, here of noise."""
    encoder = EncoderConfig("inverted", 8, (1, 1, 1, 1, 1), (8, 8, 8, 8, 16))
    network = dataclasses.replace(SMALL.network, key_encoder=encoder)
    monkeypatch.setattr(train_tracker, "lite0_state", dict)

    def start(encoder: KeyEncoder, _: dict[str, torch.Tensor]) -> None:
        for parameter in encoder.parameters():
            torch.nn.init.normal_(parameter, 0.1, 0.2)

    monkeypatch.setattr(train_tracker, "start_from_lite0", start)
    return dataclasses.replace(
        SMALL, network=network, pretrained="efficientnet-lite0", encoder_rate=0.1
    )


def moved(trainer: Trainer, batch: Batch) -> dict[str, float]:
    """How far a step moves each entry of the network, the largest of its numbers."""
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.train_step(batch)
    after = trainer.network.state_dict()
    return {name: float((after[name] - value).abs().max()) for name, value in before.items()}


def test_a_pretrained_encoder_learns_slower_and_keeps_its_statistics(
    material: Material, pretrained: TrackerTraining
) -> None:
    trainer = Trainer(pretrained, material, CPU)
    far = moved(trainer, compose_batch(pretrained, material, 0))
    rate = pretrained.rate_at(0)
    # AdamW's first step is the rate itself wherever there is a gradient.
    assert far["decoder.pred.weight"] == pytest.approx(rate, rel=0.02)
    assert far["key_encoder.layer3.1.conv3.weight"] == pytest.approx(0.1 * rate, rel=0.02)
    assert far["key_encoder.conv1.weight"] == pytest.approx(0.1 * rate, rel=0.02)
    statistics = [name for name in far if "running" in name]
    assert not any(far[name] for name in statistics if name.startswith("key_encoder."))
    assert all(far[name] for name in statistics if name.startswith("value_encoder."))


def test_a_stage_may_leave_the_early_layers_alone(
    material: Material, pretrained: TrackerTraining
) -> None:
    stages = tuple(
        dataclasses.replace(stage, freeze_early=early)
        for stage, early in zip(pretrained.stages, (True, False), strict=True)
    )
    config = dataclasses.replace(pretrained, stages=stages, weight_decay=0.0)
    trainer = Trainer(config, material, CPU, parts=2)
    early = ("key_encoder.conv1", "key_encoder.bn1", "key_encoder.res2")
    far = moved(trainer, compose_batch(config, material, 0))
    assert not any(far[name] for name in far if name.startswith(early))
    assert far["key_encoder.layer2.0.conv3.weight"]
    trainer.step = stages[0].steps
    far = moved(trainer, compose_batch(config, material, trainer.step))
    assert far["key_encoder.conv1.weight"]
    assert far["key_encoder.res2.0.conv3.weight"]


def test_tuning_clips_are_scored_and_written_down(material: Material, tmp_path: Path) -> None:
    assert tuning_clips(tmp_path) == []
    davis = tmp_path / "data" / DAVIS_TRAIN
    for name in TUNING_SEQUENCES:
        for kind in ("JPEGImages", "Annotations"):
            (davis / kind / "360p" / name).mkdir(parents=True)
        for index in range(TUNING_GAP + 1):
            mask = np.zeros((36, 64), np.uint8)
            mask[8:20, index : index + 12] = 255
            cv2.imwrite(str(davis / f"JPEGImages/360p/{name}/{index:05d}.jpg"), mask)
            cv2.imwrite(str(davis / f"Annotations/360p/{name}/{index:05d}.png"), mask)
    clips = tuning_clips(tmp_path / "data")
    assert len(clips) == len(TUNING_SEQUENCES)
    assert clips[0].frames.shape == (2, *TUNING_SIZE, 3)
    assert set(np.unique(clips[0].labels)) == {0, 1}
    config = dataclasses.replace(SMALL, validation_every=1)
    trainer = run(Trainer(config, material, CPU, tuning=clips[:1]), tmp_path, workers=0, stop_at=1)
    assert 0 <= trainer.tune() <= 1
    with (tmp_path / "curve.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["tuning_j"]) == pytest.approx(trainer.tune(), abs=1e-4)


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
        (
            "{key_encoder: {block: inverted, stem: 8, blocks: [1, 1, 1], widths: [8, 8, 8]}}",
            STAGE,
            r"network.key_encoder: an encoder of inverted blocks needs 5 numbers of blocks",
        ),
        ("{}", "steps: 1, size: 60, frames: 2, batch: 1", "multiple of 16"),
        ("{}", f"{STAGE}, bootstrap_share: no", r"must be float \| None, not False"),
        ("{}", f"{STAGE}, compose: {{smalest: 0.2}}", r"stages\[0\].compose: unknown .'smalest'"),
        ("{}", f"{STAGE}, compose: {{smallest: small}}", r"stages\[0\]: compose must be"),
        ("{}", f"{STAGE}, compose: {{frames: 4}}", "are the stage's own"),
        ("{}", "steps: 1, size: 64, frames: 2, batch: 0", "batch must be at least 1, not 0"),
        ("{}", f"{STAGE}, bootstrap_share: 2.0", "bootstrap_share must be from 0 to 1, not 2"),
        ("{}", f"{STAGE}, compose: {{cut_share: .nan}}", "cut_share must be from 0 to 1, not nan"),
        (
            "{}",
            f"{STAGE}, compose: {{smallest: 0}}",
            r"stages\[0\].compose: smallest must be above 0",
        ),
        ("{}", f"{STAGE}, compose: {{largest: 0.05}}", r"not above largest \(0.05\), not 0.1"),
        ("{}", f"{STAGE}, compose: {{nearest: 3}}", "nearest must be above 0 and at most 1, not 3"),
        ("{}", f"{STAGE}, compose: {{longest: 0.1}}", "longest must be at least 0.25, not 0.1"),
        ("{}", f"{STAGE}, steps: 9", r"'steps'\] given twice"),
        ("{blocks: 3}", f"{STAGE}, 7: 3", "unknown .'blocks'"),
        ("{}", f"{STAGE}, 7: 3, no: 4", "unknown .'7', 'False'"),
    ],
)
def test_a_wrong_configuration_is_named(
    tmp_path: Path, network: str, stage: str, fault: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"network: {network}\nstages: [{{{stage}}}]\n")
    with pytest.raises(ConfigError, match=fault):
        load_tracker_training(path)


@pytest.mark.parametrize("load", [load_tracker_training, load_refiner_training])
@pytest.mark.parametrize("content", [b"\xff\xfe", b"stages: {", b"", b"network: {}\nstages: 5\n"])
def test_a_file_that_is_no_configuration_is_named(
    tmp_path: Path, load: Callable[[Path], object], content: bytes
) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load(path)


@pytest.mark.parametrize("restarts", ["[3, 2]", "[2, 2]", "[0]", "[4]"])
def test_restarts_that_would_not_come_are_refused(tmp_path: Path, restarts: str) -> None:
    path = tmp_path / "c.yaml"
    stages = f"[{{{STAGE.replace('steps: 1', 'steps: 4')}}}]"
    path.write_text(f"network: {{}}\nstages: {stages}\nrestarts: {restarts}\n")
    with pytest.raises(ConfigError, match="restarts must rise, above 0 and below the run's 4 "):
        load_tracker_training(path)


def test_clips_need_a_number_of_targets(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"network: {{}}\nstages: [{{{STAGE}}}]\nobject_shares: [0, 0]\n")
    with pytest.raises(ConfigError, match="object_shares must have one above 0"):
        load_tracker_training(path)

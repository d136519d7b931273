# SPDX-License-Identifier: Apache-2.0
"""The refiner's training: broken masks, clicks, batches, one step that learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lazyxmem_ros.correction.refiner import load_refiner
from lazyxmem_ros.correction.refiner_network import (
    NEGATIVE,
    POSITIVE,
    PRIOR,
    PRIOR_IOU,
    RefinerConfig,
    RefinerNetwork,
)
from lazyxmem_ros.weights import locate
from lazyxmem_ros.xmem import EncoderConfig, NetworkConfig, XMem, load_network
from training.compose import ComposeConfig, Composer
from training.config import ConfigError, RefinerTraining, load_refiner_training
from training.degrade import break_mask
from training.export import save_refiner
from training.material import Material
from training.practice import recoloured, tracked, turned
from training.refiner_samples import Batch, answered, make_batch
from training.train_refiner import Trainer, iou, start_from

CONFIG = RefinerTraining(cycles=(20,), batch=3, answered=1, warm_up=1)


def disc(x: int, y: int, radius: int) -> np.ndarray:
    ys, xs = np.mgrid[0:80, 0:100]
    return (xs - x) ** 2 + (ys - y) ** 2 <= radius**2


def test_a_broken_mask_still_touches_the_object_nearly_always() -> None:
    rng = np.random.default_rng(0)
    truth = disc(50, 40, 18)
    empty = np.zeros_like(truth)
    broken = [break_mask(rng, truth, empty) for _ in range(60)]
    ious = np.array([(b & truth).sum() / (b | truth).sum() for b in broken])
    assert (ious > 0.1).mean() > 0.95
    assert ious.min() < 0.6
    assert ious.max() == 1.0


def test_a_mask_leaks_into_the_neighbour_or_is_stolen_by_it() -> None:
    rng = np.random.default_rng(0)
    truth, neighbour = disc(30, 40, 12), disc(75, 40, 12)
    broken = [break_mask(rng, truth, neighbour) for _ in range(80)]
    assert any((b == (truth | neighbour)).all() for b in broken)
    assert any((b == neighbour).all() for b in broken)


def test_a_batch_is_a_function_of_its_step(material: Material) -> None:
    inputs, truths, areas = make_batch(CONFIG, material, 3)
    again, *_ = make_batch(CONFIG, material, 3)
    assert inputs.shape == (2, 8, 160, 160)
    assert truths.shape == (2, 160, 160)
    assert areas.shape == (2,)
    assert set(truths.unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(inputs, again, rtol=0, atol=0)


def test_a_batch_of_the_trackers_masks_can_be_made_again(material: Material) -> None:
    practising = replace(CONFIG, tracked_share=1.0)
    inputs, truths, _ = make_batch(practising, material, 3)
    again, *_ = make_batch(practising, material, 3)
    assert inputs.shape == (2, 8, 160, 160)
    assert truths.shape == (2, 160, 160)
    assert (inputs[:, PRIOR] >= 0).all()
    torch.testing.assert_close(inputs, again, rtol=0, atol=0)


def test_an_answer_becomes_the_prior_and_its_largest_error_is_clicked_on() -> None:
    truth = torch.from_numpy(disc(50, 40, 20)).float()
    truth = torch.nn.functional.pad(truth, (0, 60, 0, 80))
    right, half = truth > 0, (truth > 0) & (torch.arange(160) < 50)
    inputs = torch.zeros(2, 8, 160, 160)
    inputs[:, PRIOR] = inputs[:, PRIOR_IOU] = -1
    batch = Batch(inputs, torch.stack([truth, truth]), truth.sum().expand(2))
    logits = torch.where(torch.stack([right, half]), 5.0, -5.0)
    rng, doubt = np.random.default_rng(0), torch.zeros(2)
    again = answered(rng, batch, logits, doubt, count=2)
    assert again is not None
    (sample,) = again.inputs  # of the answer that is right nothing can be clicked on
    torch.testing.assert_close(sample[PRIOR], half.float())
    assert sample[PRIOR_IOU].unique().item() in (-1.0, 0.5)
    assert sample[POSITIVE][40, 60] > 0.9
    assert not sample[NEGATIVE].any()
    assert (inputs[1, PRIOR] == -1).all()
    assert answered(rng, batch, logits, doubt, count=0) is None


def inverted_tracker() -> XMem:
    """Untrained, with the kind of encoder that knows ImageNet."""
    torch.manual_seed(0)
    encoder = EncoderConfig("inverted", 8, (1, 1, 1, 1, 1), (8, 8, 8, 8, 16))
    config = NetworkConfig(key_encoder=encoder, value_dim=16, decoder_dims=(16, 8, 8))
    return XMem(config).eval()


@pytest.mark.parametrize("make", [lambda: load_network(locate("")), inverted_tracker])
def test_the_network_starts_from_the_tracker(make: Callable[[], XMem], tmp_path: Path) -> None:
    tracker = make()
    network = RefinerNetwork(RefinerConfig.of_tracker(tracker.config))
    start_from(network, tracker)
    save_refiner(network, tmp_path / "r.safetensors", steps=0)
    assert load_refiner(tmp_path / "r.safetensors").config == network.config
    image = torch.rand(1, 3, 160, 160)
    network.eval()
    with torch.inference_mode():
        for mine, theirs in zip(
            network.key_encoder(image), tracker.key_encoder(image), strict=True
        ):
            torch.testing.assert_close(mine, theirs)


def test_the_tracker_begins_with_the_true_masks(material: Material) -> None:
    clip = Composer(material, ComposeConfig(size=128, frames=3)).compose((1, 2), objects=2)
    labels = tracked(clip, 2)
    assert [seen.shape for seen in labels] == [(128, 128)] * 3
    np.testing.assert_array_equal(labels[0], clip.labels[0])
    assert all(seen.max() <= 2 for seen in labels)


def test_pictures_and_masks_are_turned_alike_and_only_pictures_recoloured() -> None:
    rng = np.random.default_rng(0)
    mask = disc(30, 60, 12)[:80, :80]
    image = np.where(mask[..., None], 255, 40).astype(np.uint8).repeat(3, -1)
    seen = set()
    for _ in range(20):
        picture, same = turned(rng, image, mask)
        np.testing.assert_array_equal(picture[..., 0] > 100, same)
        seen.add(same.tobytes())
        other = recoloured(rng, image)
        assert (other.shape, other.dtype) == (image.shape, np.uint8)
    assert len(seen) >= 4


def test_the_rate_rises_and_then_falls() -> None:
    config = RefinerTraining(cycles=(40,), warm_up=4)
    rates = [config.rate_at(step) for step in range(40)]
    assert rates[:4] == sorted(rates[:4])
    assert max(rates) == pytest.approx(1e-3, rel=0.05)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] < 0.05 * max(rates)


def test_each_cycle_begins_anew_at_a_lower_rate() -> None:
    config = RefinerTraining(cycles=(40, 20), restart_share=0.5, warm_up=4)
    rates = [config.rate_at(step) for step in range(config.steps)]
    assert len(rates) == 60
    assert rates[:40] == [RefinerTraining(cycles=(40,), warm_up=4).rate_at(i) for i in range(40)]
    assert max(rates[40:]) == pytest.approx(0.5e-3, rel=0.1)
    assert rates[44:] == sorted(rates[44:], reverse=True)


@pytest.mark.parametrize("cycles", ["14000", "[]", "[100, 0]", "[1.5]"])
def test_cycles_that_are_none_are_refused(tmp_path: Path, cycles: str) -> None:
    path = tmp_path / "refiner.yaml"
    path.write_text(f"cycles: {cycles}\n")
    with pytest.raises(ConfigError, match=r"list of numbers of steps, such as \[14000\]"):
        load_refiner_training(path)


def test_steps_on_one_batch_lower_its_loss(material: Material) -> None:
    trainer = Trainer(CONFIG, material, torch.device("cpu"))
    batch = make_batch(CONFIG, material, 0)
    losses = [trainer.train_step(batch)[0] for _ in range(5)]
    assert trainer.carried is not None
    assert len(trainer.carried.inputs) == CONFIG.answered
    assert losses[-1] < 0.9 * losses[0]


def test_the_key_encoder_keeps_its_statistics_and_its_early_layers(material: Material) -> None:
    config = replace(CONFIG, encoder_rate=0.1, freeze_early=True)
    trainer = Trainer(config, material, torch.device("cpu"))
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.train_step(make_batch(config, material, 0))
    now = trainer.network.state_dict()
    changed = {name for name in now if not torch.equal(now[name], before[name])}
    of_encoder = {name for name in changed if name.startswith("key_encoder.")}
    assert of_encoder
    assert not any("running" in name for name in of_encoder)
    early = ("key_encoder.conv1.", "key_encoder.bn1.", "key_encoder.res2.")
    assert not any(name.startswith(early) for name in of_encoder)
    assert any("running" in name for name in changed)
    rates = [group["lr"] for group in trainer.optimiser.param_groups]
    assert min(rates) == pytest.approx(0.1 * max(rates))


def test_a_run_goes_on_exactly_where_it_stopped(material: Material, tmp_path: Path) -> None:
    batches = [make_batch(CONFIG, material, step) for step in range(3)]
    trainer = Trainer(CONFIG, material, torch.device("cpu"))
    for batch in batches[:2]:
        trainer.train_step(batch)
    trainer.save(tmp_path)
    again = Trainer(CONFIG, material, torch.device("cpu"))
    again.load(tmp_path / "last.pt")
    assert again.train_step(batches[2]) == trainer.train_step(batches[2])
    for mine, theirs in (
        (again.network, trainer.network),
        (again.average.network, trainer.average.network),
    ):
        expected = theirs.state_dict()
        for name, value in mine.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)


def test_a_run_goes_on_from_weights_alone(material: Material, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    config = replace(CONFIG, cycles=(1, 3))
    trainer = Trainer(config, material, cpu)
    trainer.train_step(make_batch(config, material, 0))
    trainer.save(tmp_path)
    again = Trainer(config, material, cpu)
    again.start_from_weights(tmp_path / "refiner.safetensors")
    assert again.step == 1
    start = load_refiner(tmp_path / "refiner.safetensors").state_dict()
    for network in (again.network, again.average.network):
        for name, value in network.state_dict().items():
            assert torch.equal(value, start[name]), name
    done = Trainer(replace(CONFIG, cycles=(1,)), material, cpu)
    with pytest.raises(ConfigError, match="has all 1 steps of the run already"):
        done.start_from_weights(tmp_path / "refiner.safetensors")


def test_weights_of_another_width_are_refused(material: Material, tmp_path: Path) -> None:
    trainer = Trainer(CONFIG, material, torch.device("cpu"))
    narrow = RefinerNetwork(replace(trainer.network.config, fused_dim=96))
    save_refiner(narrow, tmp_path / "narrow.safetensors", steps=1)
    with pytest.raises(ConfigError, match=r"narrow\.safetensors holds another network than the"):
        trainer.start_from_weights(tmp_path / "narrow.safetensors")


def test_a_batch_has_room_for_new_samples() -> None:
    with pytest.raises(ConfigError, match="below batch"):
        RefinerTraining(cycles=(1,), batch=8, answered=8)


def test_iou_counts_rightly_empty_as_one() -> None:
    empty = torch.zeros(1, 4, 4, dtype=torch.bool)
    full = torch.ones(1, 4, 4, dtype=torch.bool)
    assert iou(empty, empty).item() == 1
    assert iou(empty, full).item() == 0


def test_what_lies_outside_the_crop_counts_as_missed() -> None:
    half = torch.zeros(1, 4, 4, dtype=torch.bool)
    half[:, :2] = True
    assert iou(half, half).item() == 1
    assert iou(half, half, torch.tensor([16.0])).item() == 0.5
    assert iou(half, half, torch.tensor([7.9])).item() == 1

# SPDX-License-Identifier: Apache-2.0
"""Proves that training learns: `make train-smoke`, less than three minutes on two cores.

A small tracker and the refiner learn a handful of clips composed of scikit-image's sample
photographs, which need no data beside the project. The same code as a real run; only the sizes are
small.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch

from lazyxmem_ros.xmem import EncoderConfig, NetworkConfig
from training.config import RefinerTraining, Stage, TrackerTraining
from training.material import Material, load_material
from training.refiner_samples import make_batch
from training.rollout import mean_j, normalise, regular_plan, roll_out
from training.train_refiner import Trainer as RefinerTrainer
from training.train_refiner import iou
from training.train_tracker import Trainer, compose_batch, first_masks

STEPS = 160
BATCHES = 4  # different batches, seen again and again
WINDOW = 10  # steps over which the loss is averaged
LOSS_MARGIN = 0.3  # the loss falls by at least this share
J_MARGIN = 0.2  # mean J rises by at least this much

NETWORK = NetworkConfig(
    key_encoder=EncoderConfig("basic", 16, (1, 1, 1), (24, 32, 64)),
    value_encoder=EncoderConfig("basic", 16, (1, 1, 1), (16, 24, 48)),
    key_dim=16,
    value_dim=48,
    hidden_dim=8,
    decoder_dims=(48, 32, 24),
    hidden_update_dim=16,
)
CONFIG = TrackerTraining(
    network=NETWORK,
    stages=(
        Stage(
            steps=STEPS,
            size=96,
            frames=3,
            batch=4,
            compose={"smallest": 0.3, "hiding_share": 0.0, "longest": 1.0},
        ),
    ),
    learning_rate=2e-3,
    warm_up=20,
    ema=0.95,
    object_shares=(1.0,),
    bootstrap_steps=STEPS,
)


REFINER_STEPS = 90
REFINER_BATCHES = 3
REFINER = RefinerTraining(cycles=(REFINER_STEPS,), batch=8, answered=2, warm_up=10, ema=0.9)


def verdict(
    name: str, losses: Sequence[float], before: float, after: float, seconds: float
) -> bool:
    """Prints what was reached; whether that is what the margins ask."""
    first, last = float(np.mean(losses[:WINDOW])), float(np.mean(losses[-WINDOW:]))
    print(
        f"{name}: loss {first:.3f} -> {last:.3f} (at most {(1 - LOSS_MARGIN) * first:.3f} asked), "
        f"mean J {before:.3f} -> {after:.3f} (at least {before + J_MARGIN:.3f} asked), "
        f"{seconds:.0f} s",
        flush=True,
    )
    return last <= (1 - LOSS_MARGIN) * first and after >= before + J_MARGIN


def tracker_learns(material: Material, device: torch.device) -> bool:
    """Trains a small tracker."""
    began = time.monotonic()
    trainer = Trainer(CONFIG, material, device)
    batches = [compose_batch(CONFIG, material, step) for step in range(BATCHES)]

    @torch.no_grad()
    def measure() -> float:
        network = trainer.average.network.eval()
        plan = regular_plan(CONFIG.stages[0].frames, 1)
        scores = []
        for frames, labels, objects in batches:
            frames, labels = frames.to(device), labels.to(device)
            logits = roll_out(network, normalise(frames), first_masks(labels, objects), plan)
            scores.append(mean_j(logits, labels[:, 1:].long()))
        return float(np.mean(scores))

    before = measure()
    losses = []
    for step in range(STEPS):
        loss, _ = trainer.train_step(batches[step % BATCHES])
        losses.append(loss)
        if (step + 1) % 40 == 0:
            print(f"step {step + 1}/{STEPS}: loss {np.mean(losses[-WINDOW:]):.3f}", flush=True)
    return verdict("tracker", losses, before, measure(), time.monotonic() - began)


def refiner_learns(material: Material, device: torch.device) -> bool:
    """Trains the refiner as it is."""
    began = time.monotonic()
    trainer = RefinerTrainer(REFINER, material, device)
    batches = [make_batch(REFINER, material, step) for step in range(REFINER_BATCHES)]

    @torch.no_grad()
    def measure() -> float:
        network = trainer.average.network.eval()
        scores = [
            float(iou(network(inputs.to(device))[0] > 0, truths.to(device) > 0.5).mean())
            for inputs, truths, _ in batches
        ]
        return float(np.mean(scores))

    before = measure()
    losses = []
    for step in range(REFINER_STEPS):
        loss, _ = trainer.train_step(batches[step % REFINER_BATCHES])
        losses.append(loss)
        if (step + 1) % 30 == 0:
            recent = np.mean(losses[-WINDOW:])
            print(f"step {step + 1}/{REFINER_STEPS}: loss {recent:.3f}", flush=True)
    return verdict("refiner", losses, before, measure(), time.monotonic() - began)


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains both; returns 1 if one learnt less than the margins ask."""
    parser = argparse.ArgumentParser(
        prog="python -m training.smoke", description=__doc__.splitlines()[0]
    )
    parser.parse_args(arguments)
    material = load_material(None)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    learnt = [tracker_learns(material, device), refiner_learns(material, device)]
    print("training learns" if all(learnt) else "FAILED: training did not learn as it should")
    return 0 if all(learnt) else 1


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Trains the embedded corrector: `python -m training.train_refiner training/configs/refiner.yaml`.

Material and resuming as for the tracker, from whose weights the network starts, unless `--weights`
names a refiner's: then the run goes on where those stand, the shipped ones for example. Half of
each batch are new samples (`refiner_samples.py`), half are those of the batch before, answered.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

import lazyxmem_ros.xmem.device as compute
from lazyxmem_ros.correction.refiner import load_refiner
from lazyxmem_ros.correction.refiner_network import PRIOR, RefinerConfig, RefinerNetwork
from lazyxmem_ros.entry import run_to_the_end
from lazyxmem_ros.xmem import XMem
from training import loop
from training.average import Average
from training.compose import own_stream
from training.config import ConfigError, RefinerTraining, load_refiner_training
from training.export import save_refiner
from training.material import Material
from training.optimiser import (
    clip_gradients,
    freeze_batch_norm,
    go_on,
    let_early_layers_learn,
    parameter_groups,
)
from training.practice import embedded_tracker
from training.refiner_samples import Batch, answered, make_batch


def iou(predicted: Tensor, truth: Tensor, areas: Tensor | None = None) -> Tensor:
    """IoU of masks [B, H, W], 1 where both are empty; [B].

    areas: of the whole true masks, [B], where `truth` is what a crop shows of them.
    """
    both = (predicted & truth).sum((1, 2)).float()
    shown = truth.sum((1, 2)).float()
    whole = shown if areas is None else torch.maximum(areas, shown)
    either = predicted.sum((1, 2)).float() + whole - both
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(either))


def refiner_loss(logits: Tensor, quality: Tensor, truth: Tensor, areas: Tensor) -> Tensor:
    """Cross-entropy and Dice of the mask, and cross-entropy of the predicted IoU.

    That IoU is the whole object's: a crop that shows a part of it shall expect little, or the
    smallest of several crops always promises most.
    """
    probability = torch.sigmoid(logits)
    overlap = (probability * truth).sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (probability.sum((1, 2)) + truth.sum((1, 2)) + 1)
    reached = iou(logits.detach() > 0, truth > 0.5, areas)
    mask = F.binary_cross_entropy_with_logits(logits, truth)
    return mask + dice.mean() + 0.2 * F.binary_cross_entropy_with_logits(quality, reached)


@torch.no_grad()
def start_from(network: RefinerNetwork, tracker: XMem) -> None:
    """Copies the tracker's encoders, fuser and the way back up; raises RuntimeError where widths
    differ. The prompt encoder's first convolution knows the image and a mask.
    """
    theirs = tracker.value_encoder
    mine = network.prompt_encoder
    for part, source in (
        (network.key_encoder, tracker.key_encoder),
        (mine.bn1, theirs.bn1),
        (mine.layer1, theirs.layer1),
        (mine.layer2, theirs.layer2),
        (mine.layer3, theirs.layer3),
        (network.fuser, theirs.fuser),
        (network.up_16_8, tracker.decoder.up_16_8),
        (network.up_8_4, tracker.decoder.up_8_4),
        (network.pred, tracker.decoder.pred),
    ):
        part.load_state_dict(source.state_dict())
    mine.conv1.weight[:, : PRIOR + 1] = theirs.conv1.weight[:, : PRIOR + 1]


class Trainer:
    """One run: network, averaged weights, optimiser, and the step they stand at."""

    weights_name = "refiner.safetensors"
    log_every = 50

    def __init__(self, config: RefinerTraining, material: Material, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config, self.material, self.device = config, material, device
        self.precision = compute.resolve_precision("auto", device)
        self.step, self.steps = 0, config.steps
        self.stages = loop.Stages("cycles", config.cycles)
        tracker = embedded_tracker()
        self.network = RefinerNetwork(RefinerConfig.of_tracker(tracker.config))
        start_from(self.network, tracker)
        self.network.to(device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.carried: Batch | None = None
        self.average = Average(self.network, config.ema)
        let_early_layers_learn(self.network.key_encoder, not config.freeze_early)
        self.optimiser = torch.optim.AdamW(
            parameter_groups(
                self.network,
                self.network.key_encoder,
                encoder_rate=config.encoder_rate,
                weight_decay=config.weight_decay,
            ),
            config.learning_rate,
        )

    def start_from_weights(self, path: Path) -> None:
        """Goes on where a refiner.safetensors stands; what the optimiser knew is not in there.

        Raises ConfigError where the run has no steps beyond that or that refiner has other widths,
        CorrectorError where the file is none.
        """
        start = load_refiner(path)
        if start.config != self.network.config:
            raise ConfigError(f"{path} holds another network than the run's: {start.config}")
        weights = start.state_dict()
        with safe_open(path, "pt") as file:
            step = int((file.metadata() or {}).get("steps", 0))
        if step >= self.steps:
            raise ConfigError(
                f"{path} has all {step} steps of the run already; add a cycle to `cycles`"
            )
        self.network.load_state_dict(weights)
        self.average.network.load_state_dict(weights)
        self.step = step

    def maker(self) -> Callable[[int], Batch]:
        """See `loop.Trainer`."""
        return functools.partial(make_batch, self.config, self.material)

    def train_step(self, fresh: Batch) -> tuple[float, float]:
        """One optimiser step on new samples and on the last ones answered; its loss and mean J on
        the crops.
        """
        config, rng = self.config, own_stream((self.config.seed, self.step), 2)
        batch = Batch(*(part.to(self.device) for part in fresh))
        if self.carried is not None:
            batch = Batch(*(torch.cat(parts) for parts in zip(batch, self.carried, strict=True)))
        inputs = batch.inputs.contiguous(memory_format=torch.channels_last)
        for group in self.optimiser.param_groups:
            group["lr"] = group["share"] * config.rate_at(self.step)
        self.network.train()
        freeze_batch_norm(self.network.key_encoder)
        with compute.autocast(self.device, self.precision):
            logits, quality = self.network(inputs)
        loss = refiner_loss(logits.float(), quality.float(), batch.truths, batch.areas)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        clip_gradients(self.network, config.gradient_clip)
        self.optimiser.step()
        self.average.update(self.network, self.step)
        self.step += 1
        self.carried = answered(rng, batch, logits, quality, count=config.answered)
        with torch.no_grad():
            return float(loss), float(iou(logits > 0, batch.truths > 0.5).mean())

    def columns(self, *, last: bool) -> dict[str, str]:
        """The rate."""
        return {"rate": f"{self.config.rate_at(self.step):.3e}"}

    def save(self, folder: Path) -> None:
        """Writes last.pt and refiner.safetensors; an interruption leaves the old ones whole."""
        state = {
            "step": self.step,
            "begun": self.stages.begun(self.step),
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "carried": None if self.carried is None else tuple(self.carried),
        }
        loop.save_checkpoint(state, folder / "last.pt")
        save_refiner(self.average.network, folder / self.weights_name, steps=self.step)

    def load(self, path: Path) -> None:
        """Goes on from a last.pt."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.stages.check(state.get("begun", ()))
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        go_on(self.optimiser, state["optimiser"])
        self.step = int(state["step"])
        carried = state["carried"]
        self.carried = None if carried is None else Batch(*carried)


def main(given: Sequence[str] | None = None) -> int:
    """The command line; what is wrong with the input ends as one sentence and status 1."""
    parser = loop.command_line(__doc__, out=Path("out/training/refiner"))
    parser.add_argument(
        "--weights", type=Path, help="a refiner's, to go on from where --out holds no run yet"
    )
    arguments = parser.parse_args(given)

    def program() -> None:
        config = load_refiner_training(arguments.config)
        device = compute.resolve_device(arguments.device)
        interruption = loop.stop_on_signals()
        trainer = Trainer(config, loop.material_of(arguments), device)
        if arguments.weights:
            trainer.start_from_weights(arguments.weights)
        loop.run_as_told(trainer, arguments, interruption)

    return run_to_the_end(program, "train_refiner", "nothing was begun")


if __name__ == "__main__":
    sys.exit(main())

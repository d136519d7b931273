# SPDX-License-Identifier: Apache-2.0
"""Trains the embedded tracker: `python -m training.train_tracker training/configs/tracker.yaml`.

Stopped at any time, the same command goes on where the last checkpoint stood. A step's clips
and random choices are functions of (seed, step) alone, so that a resumed run equals an unbroken
one. Under the run's folder: last.pt (everything to resume), tracker.safetensors (averaged
weights, float16), curve.csv and curve.png.
"""

from __future__ import annotations

import copy
import functools
import math
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

import lazyxmem_ros.xmem.device as compute
from lazyxmem_ros.entry import run_to_the_end
from lazyxmem_ros.xmem import XMem, load_network
from training import loop
from training.average import Average
from training.camera import Clip
from training.compose import ComposeConfig, Composer, own_stream
from training.config import ConfigError, TrackerTraining, load_tracker_training
from training.export import save_tracker
from training.layers import MASK_THRESHOLD
from training.material import DAVIS_TRAIN, TUNING_SEQUENCES, Material, load_sequence
from training.material import Sequence as RealSequence
from training.optimiser import (
    clip_gradients,
    freeze_batch_norm,
    go_on,
    let_early_layers_learn,
    parameter_groups,
)
from training.pretrained import lite0_state, start_from_lite0
from training.rollout import (
    mean_j,
    normalise,
    random_plan,
    regular_plan,
    roll_out,
    tracking_loss,
)

VALIDATION_SEED = 10**6  # far from every step number: validation clips are never trained on
VALIDATION_MEMORY_EVERY = 3  # frames
TUNING_SIZE = 240, 432  # pixels, multiples of 16, of the tuning clips' frames
TUNING_FRAMES, TUNING_GAP = 10, 5
J_EVERY = 5  # steps between measurements of J on training batches

Batch = tuple[Tensor, Tensor, int]
"""Frames uint8 [B, T, H, W, 3], labels uint8 [B, T, H, W], targets K."""


def compose_batch(config: TrackerTraining, material: Material, step: int) -> Batch:
    """The batch of one step, a function of (seed, step)."""
    _, stage = config.stage_at(step)
    shares = np.array(config.object_shares)
    rng = own_stream((config.seed, step), 0)
    objects = 1 + int(rng.choice(len(shares), p=shares / shares.sum()))
    settings: dict[str, Any] = dict(stage.compose)
    composer = Composer(material, ComposeConfig(stage.size, stage.frames, **settings))
    clips = [composer.compose((config.seed, step, i), objects=objects) for i in range(stage.batch)]
    frames = torch.from_numpy(np.stack([clip.frames for clip in clips]))
    labels = torch.from_numpy(np.stack([clip.labels for clip in clips]))
    return frames, labels, objects


def tuning_clips(data: Path) -> list[Clip]:
    """Every TUNING_GAP-th frame from the start of each tuning sequence; none without the data."""
    folder = data / DAVIS_TRAIN
    return [_tuning_clip(load_sequence(folder, n)) for n in TUNING_SEQUENCES if folder.is_dir()]


def _tuning_clip(sequence: RealSequence) -> Clip:
    size = TUNING_SIZE[::-1]
    frames, labels = [], []
    for index in range(0, len(sequence), TUNING_GAP)[:TUNING_FRAMES]:
        picture = cv2.resize(sequence.picture(index), size, interpolation=cv2.INTER_AREA)
        frames.append(picture[..., :3])
        labels.append((picture[..., 3] > MASK_THRESHOLD).astype(np.uint8))
    return Clip(np.stack(frames), np.stack(labels))


def first_masks(labels: Tensor, objects: int) -> Tensor:
    """Labels uint8 [B, T, H, W] -> masks of the first frame, float [B, K, H, W]."""
    return torch.stack([labels[:, 0] == k for k in range(1, objects + 1)], dim=1).float()


def keep_at(config: TrackerTraining, step: int) -> float:
    """Share of the hardest pixels that cross-entropy counts: the stage's, or from all to the run's
    bootstrap_share.
    """
    _, stage = config.stage_at(step)
    if stage.bootstrap_share is not None:
        return stage.bootstrap_share
    ripe = min(1.0, step / max(1, config.bootstrap_steps))
    return 1 - ripe * (1 - config.bootstrap_share)


class Trainer:
    """One run: network, averaged weights, optimiser, and the step they stand at."""

    weights_name = "tracker.safetensors"
    log_every = 20

    def __init__(
        self,
        config: TrackerTraining,
        material: Material,
        device: torch.device,
        *,
        parts: int = 1,
        tuning: Sequence[Clip] = (),
    ) -> None:
        torch.manual_seed(config.seed)
        self.tuning = tuning
        self.config, self.material, self.device = config, material, device
        self.precision = compute.resolve_precision("auto", device)
        self.network = XMem(config.network)
        if config.pretrained:
            start_from_lite0(self.network.key_encoder, lite0_state())
        self.network.to(device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = Average(self.network, config.ema)
        self.optimiser = torch.optim.AdamW(
            parameter_groups(
                self.network,
                self.network.key_encoder,
                encoder_rate=config.encoder_rate,
                weight_decay=config.weight_decay,
            ),
            lr=config.learning_rate,
            fused=True,
        )
        self.step, self.steps = 0, config.steps
        self.stages = loop.Stages("stages", config.stage_steps)
        # Threads that each take a part of the batch with one core: they meet once a step, not in
        # every operator, which on a busy machine is several times as fast.
        self.replicas = [_replica(self.network) for _ in range(parts)]
        self._pool = ThreadPoolExecutor(parts, initializer=torch.set_num_threads, initargs=(1,))

    def start_from_weights(self, path: Path) -> None:
        """Starts from a tracker's weights. Raises CheckpointError where the file holds none,
        ConfigError where that tracker has other widths.
        """
        start = load_network(path)
        if start.config != self.config.network:
            raise ConfigError(f"{path} holds another network than the run's: {start.config}")
        self.network.load_state_dict(start.state_dict())
        self.average.network.load_state_dict(start.state_dict())
        self._spread_statistics()

    def maker(self) -> Callable[[int], Batch]:
        """See `loop.Trainer`."""
        return functools.partial(compose_batch, self.config, self.material)

    def train_step(self, batch: Batch) -> tuple[float, float | None]:
        """One optimiser step on a batch. Returns its loss and, every J_EVERY steps, its mean J."""
        frames, labels, objects = batch
        step = self.step
        measure = (step + 1) % J_EVERY == 0
        for group in self.optimiser.param_groups:
            group["lr"] = group["share"] * self.config.rate_at(step)
        self.optimiser.zero_grad(set_to_none=True)
        share = -(-len(frames) // len(self.replicas))
        jobs = [
            self._pool.submit(self._backward, replica, part, truth, objects, len(frames), measure)
            for replica, part, truth in zip(
                self.replicas, frames.split(share), labels.split(share), strict=False
            )
        ]
        results = [job.result() for job in jobs]
        clip_gradients(self.network, self.config.gradient_clip)
        self.optimiser.step()
        self._share_statistics(self.replicas[: len(jobs)])
        self.average.update(self.network, step)
        self.step += 1
        loss = sum(part for part, _ in results)
        return loss, sum(score for _, score in results) if measure else None

    def _backward(
        self,
        replica: XMem,
        frames: Tensor,
        labels: Tensor,
        objects: int,
        whole: int,
        measure: bool,
    ) -> tuple[float, float]:
        """Adds the gradients of a part of a batch of `whole` clips; its share of loss and J."""
        config, step = self.config, self.step
        _, stage = config.stage_at(step)
        replica.train()
        let_early_layers_learn(replica.key_encoder, not stage.freeze_early)
        if stage.freeze_batch_norm:
            freeze_batch_norm(replica)
        elif config.pretrained:
            freeze_batch_norm(replica.key_encoder)
        rng = own_stream((config.seed, step), 1)
        plan = random_plan(
            rng,
            stage.frames,
            stage.memory_frames,
            config.deep_update_share,
            still_share=stage.still_share,
        )
        frames, labels = frames.to(self.device), labels.to(self.device)
        with compute.autocast(self.device, self.precision):
            logits = roll_out(replica, normalise(frames), first_masks(labels, objects), plan)
        truth = labels[:, 1:].long()
        weight = len(frames) / whole
        loss = weight * tracking_loss(logits, truth, keep_at(config, step))
        loss.backward()
        with torch.no_grad():
            return float(loss), weight * mean_j(logits, truth) if measure else 0.0

    @torch.no_grad()
    def _share_statistics(self, worked: Sequence[XMem]) -> None:
        """Batch norm's running statistics: the mean of those replicas that had a part of the batch,
        in all of them.
        """
        everyone = [list(replica.buffers()) for replica in worked]
        for mine, *theirs in zip(self.network.buffers(), *everyone, strict=True):
            if mine.is_floating_point():
                mine.copy_(torch.stack(theirs).mean(0))
            else:
                mine.copy_(theirs[0])
        self._spread_statistics()

    @torch.no_grad()
    def validate(self) -> float:
        """Mean J of the averaged weights on generated clips that are never trained on."""
        composer = Composer(self.material, ComposeConfig(size=192, frames=8))
        scores = []
        for i in range(self.config.validation_clips):
            objects = 1 + i % 2
            clip = composer.compose((VALIDATION_SEED, i), objects=objects)
            scores.append(self._score(clip, objects))
        return float(np.mean(scores))

    @torch.no_grad()
    def tune(self) -> float:
        """Mean J of the averaged weights on the tuning clips, or NaN where there are none."""
        scores = [self._score(clip, 1) for clip in self.tuning]
        return float(np.mean(scores)) if scores else math.nan

    def _score(self, clip: Clip, objects: int) -> float:
        """Mean J of the averaged weights on a clip."""
        network = self.average.network.eval()
        frames = torch.from_numpy(clip.frames)[None].to(self.device)
        labels = torch.from_numpy(clip.labels)[None].to(self.device)
        plan = regular_plan(len(clip.frames), VALIDATION_MEMORY_EVERY)
        with compute.autocast(self.device, self.precision):
            logits = roll_out(network, normalise(frames), first_masks(labels, objects), plan)
        return mean_j(logits, labels[:, 1:].long())

    def columns(self, *, last: bool) -> dict[str, str]:
        """Stage and rate; every `validation_every` steps, on the next row, and at the end J of both
        validations.
        """
        due = last or self.step % self.config.validation_every < self.log_every
        return {
            "stage": str(self.config.stage_at(self.step - 1)[0]),
            "rate": f"{self.config.rate_at(self.step):.3e}",
            "validation_j": f"{self.validate():.4f}" if due else "",
            "tuning_j": f"{self.tune():.4f}" if due and self.tuning else "",
        }

    def save(self, folder: Path) -> None:
        """Writes last.pt and tracker.safetensors; an interruption leaves the old ones whole."""
        state = {
            "step": self.step,
            "begun": self.stages.begun(self.step),
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        loop.save_checkpoint(state, folder / "last.pt")
        save_tracker(self.average.network, folder / self.weights_name, steps=self.step)

    def load(self, path: Path) -> None:
        """Goes on from a last.pt."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.stages.check(state.get("begun", ()))
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        go_on(self.optimiser, state["optimiser"])
        self._spread_statistics()
        self.step = int(state["step"])

    @torch.no_grad()
    def _spread_statistics(self) -> None:
        """Gives the replicas the network's batch-norm statistics; its parameters they share."""
        for replica in self.replicas:
            for mine, theirs in zip(replica.buffers(), self.network.buffers(), strict=True):
                mine.copy_(theirs)


def _replica(network: XMem) -> XMem:
    """A network of the same parameters with batch-norm statistics of its own."""
    replica = copy.deepcopy(network)
    for mine, theirs in zip(replica.modules(), network.modules(), strict=True):
        mine._parameters = theirs._parameters
    return replica


def main(given: Sequence[str] | None = None) -> int:
    """The command line; what is wrong with the input ends as one sentence and status 1."""
    parser = loop.command_line(__doc__, out=Path("out/training/tracker"))
    parser.add_argument("--parts", type=int, default=2, help="threads that share a batch")
    parser.add_argument(
        "--weights", type=Path, help="a tracker's, to start from where --out holds no run yet"
    )
    arguments = parser.parse_args(given)
    if arguments.parts > 1:
        torch.set_num_threads(1)  # the parts are the parallelism

    def program() -> None:
        config = load_tracker_training(arguments.config)
        device = compute.resolve_device(arguments.device)
        interruption = loop.stop_on_signals()
        trainer = Trainer(
            config,
            loop.material_of(arguments),
            device,
            parts=arguments.parts,
            tuning=tuning_clips(arguments.data),
        )
        if arguments.weights:
            trainer.start_from_weights(arguments.weights)
        loop.run_as_told(trainer, arguments, interruption)

    return run_to_the_end(program, "train_tracker", "nothing was begun")


if __name__ == "__main__":
    sys.exit(main())

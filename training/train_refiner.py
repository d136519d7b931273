# SPDX-License-Identifier: Apache-2.0
"""Trains the embedded corrector: `python -m training.train_refiner training/configs/refiner.yaml`.

Material and resuming as for the tracker, from whose weights the network starts. A sample is a frame
of a composed clip, one of its targets, a broken mask or none, and the clicks of a simulated user.
Half of each batch are samples of the batch before once more: the network's answer is now their
prior, and the user has clicked on its largest error.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lazyxmem_ros.correction.base import Prompt
from lazyxmem_ros.correction.refiner import (
    Window,
    choose_window,
    draw_clicks,
    network_input,
)
from lazyxmem_ros.correction.refiner_network import (
    CROP,
    NEGATIVE,
    POSITIVE,
    PRIOR,
    PRIOR_IOU,
    RefinerNetwork,
)
from lazyxmem_ros.evaluation.operator import Gesture, OperatorConfig, SimulatedOperator
from lazyxmem_ros.weights import locate
from lazyxmem_ros.xmem import XMem
from training.average import Average
from training.compose import ComposeConfig, Composer
from training.config import ConfigError, build
from training.curve import plot_curve
from training.degrade import break_mask, largest_error
from training.export import LICENCE, TRAINING_DATA
from training.material import Material, load_material
from training.practice import recoloured, tracked, turned

PICTURE = 256  # pixels of the composed frames' side
FRAMES = 2  # frames used of each clip
MIN_TARGET_PIXELS = 80
BOX_SHARE = 0.3  # of the others that have a box instead of clicks
TOLD_SHARE = 0.5  # of priors of which the network is told how good they are
IOU_NOISE = 0.12  # of what it is told
SEARCH_RANGE = (0.3, 1.0)  # of the picture's side: windows where only clicks are known
CLOSER_SHARE = 0.35  # of samples whose window is the right one already
CLICK_SHARES = (0.7, 0.2, 0.1)  # of samples with one, two and three clicks
CLICK_NOISE = 4.0  # pixels, the most
TRACKED_FRAMES = 4
REGION_BORDER_SHARE = 0.12
"""Of a photograph's border: a region along more of it is rather ground or sky than a thing."""
WELL_TRACKED = 0.92  # IoU of priors that are mostly passed over
KEPT_SHARE = 0.2  # of these
LOG_EVERY = 50
SAVE_EVERY = 120.0  # seconds
FIELDS = ("step", "loss", "j", "rate", "validation_j", "seconds")


@dataclass(frozen=True)
class RefinerTraining:
    """Everything that decides a refiner's training run."""

    steps: int
    batch: int = 16
    """Samples of a step."""
    answered: int = 8
    """How many of them, at most, are the last batch's with its answers and one more click."""
    seed: int = 0
    learning_rate: float = 1e-3
    warm_up: int = 100
    weight_decay: float = 0.02
    gradient_clip: float = 3.0
    ema: float = 0.998
    tracked_share: float = 0.1
    """Of clips whose priors are masks as the tracker leaves them."""
    prior_share: float = 0.5
    """Of the other samples that start from a broken mask."""
    real_share: float = 0.5
    """Of clips whose background is a real sequence, its object being a target."""
    in_place_share: float = 0.35
    """Of clips whose first target is a region of a photograph, not pasted into it."""

    def __post_init__(self) -> None:
        if not 0 <= self.answered < self.batch:
            raise ConfigError(
                f"answered must be at least 0 and below batch ({self.batch}), not {self.answered}"
            )


class Batch(NamedTuple):
    """inputs: float [B, 8, 160, 160]; truths: true masks 0 or 1, float [B, 160, 160]; areas: of
    the whole object, also where it lies outside its crop, in pixels of the crop, float [B].
    """

    inputs: Tensor
    truths: Tensor
    areas: Tensor


Sample = tuple[NDArray[np.float32], NDArray[np.bool_], float]
"""One element of each part of a Batch."""


def load_refiner_training(path: Path) -> RefinerTraining:
    """Reads a run's YAML file. Raises ConfigError when it is malformed."""
    try:
        return build(RefinerTraining, yaml.safe_load(path.read_text("utf-8")), str(path))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error


def make_sample(
    rng: np.random.Generator,
    image: NDArray[np.uint8],
    truth: NDArray[np.bool_],
    neighbour: NDArray[np.bool_],
    *,
    tracked: NDArray[np.bool_] | None = None,
    prior_share: float = 0.0,
) -> Sample:
    """An input, its true mask and the object's area, from a frame and a target in it.

    neighbour: another object's mask, which a broken prior may have leaked into; may be empty.
    tracked: the prior, as the tracker left it. prior_share: without it, how often there is a broken
    one.
    """
    size = truth.shape[0], truth.shape[1]
    prior = tracked
    if tracked is None and rng.random() < prior_share:
        prior = break_mask(rng, truth, neighbour)
        if not prior.any():
            prior = None
    believed = np.zeros_like(truth) if prior is None else prior
    positive: list[tuple[float, float]] = []
    negative: list[tuple[float, float]] = []
    box = None
    if prior is None and rng.random() < BOX_SHARE:
        box = _loose_box(rng, truth)
    elif tracked is not None:
        operator = OperatorConfig(
            Gesture.LARGEST_ERROR,
            click_noise=float(rng.uniform(0, CLICK_NOISE)),
            seed=int(rng.integers(2**31)),
            clicks=1 + int(rng.choice(3, p=CLICK_SHARES)),
        )
        clicks = SimulatedOperator(operator).click(truth, tracked)
        for points, on in ((clicks.positive, True), (clicks.negative, False)) if clicks else ():
            true = [p for p in points if truth[round(float(p[1])), round(float(p[0]))] == on]
            (positive if on else negative).extend((float(x), float(y)) for x, y in true)
    else:
        for number in range(1 + int(rng.choice(3, p=CLICK_SHARES))):
            x, y, on = _click(rng, truth, believed, first=number == 0)
            (positive if on else negative).append((x, y))
    prior_iou = None
    if prior is not None and rng.random() < TOLD_SHARE:
        overlap = np.count_nonzero(prior & truth) / np.count_nonzero(prior | truth)
        prior_iou = float(np.clip(overlap + rng.normal(0, IOU_NOISE), 0, 1))
    known = Prompt(positive=np.array(positive), box=box, mask=prior)
    share = float(np.exp(rng.uniform(*np.log(SEARCH_RANGE))))
    if not positive and box is None and prior is None:
        known = Prompt(mask=truth)
    window = choose_window(known, size, search_share=share)
    if box is None and rng.random() < CLOSER_SHARE:
        window = choose_window(Prompt(mask=truth), size)  # the second, closer look
    window = _jittered(rng, window)
    scale, corner = CROP / window.side, np.array([window.x, window.y])

    def in_crop(points: list[tuple[float, float]]) -> NDArray[np.float32]:
        return ((np.array(points).reshape(-1, 2) - corner) * scale).astype(np.float32)

    crop_box = None
    if box is not None:
        a, b = (np.array(box[:2]) - corner) * scale, (np.array(box[2:]) - corner) * scale
        crop_box = (float(a[0]), float(a[1]), float(b[0]), float(b[1]))
    channels = network_input(
        window.take(image),
        None if prior is None else window.take(np.where(prior, 255, 0).astype(np.uint8)) > 127,
        in_crop(positive),
        in_crop(negative),
        crop_box,
        prior_iou=prior_iou,
    )
    true_crop = window.take(np.where(truth, 255, 0).astype(np.uint8)) > 127
    return channels, true_crop, np.count_nonzero(truth) * scale**2


def _loose_box(
    rng: np.random.Generator, truth: NDArray[np.bool_]
) -> tuple[float, float, float, float]:
    """The box of a mask as a person draws it."""
    rows, columns = np.nonzero(truth)
    jitter = rng.normal(0, 0.05, 4) * max(4, int(np.ptp(columns)))
    tight = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) + jitter
    x0, y0, x1, y1 = (float(v) for v in np.clip(tight, 0, truth.shape[0]))
    return x0, y0, max(x1, x0 + 2), max(y1, y0 + 2)


def _click(
    rng: np.random.Generator, truth: NDArray[np.bool_], believed: NDArray[np.bool_], *, first: bool
) -> tuple[float, float, bool]:
    """A click (x, y, positive): on the largest error, near it, or anywhere that it is true."""
    click = largest_error(truth, believed) if first else None
    if click is not None and rng.random() < 0.85:
        reach = 0.03 * np.sqrt(np.count_nonzero(truth))
        x, y = np.clip(np.array(click[:2]) + rng.normal(0, reach, 2), 0, truth.shape[0] - 1)
        if truth[round(float(y)), round(float(x))] == click[2]:
            return float(x), float(y), click[2]
        return click
    on = first or rng.random() < 0.6 or bool(truth.all())
    ys, xs = np.nonzero(truth if on else ~truth)
    spot = int(rng.integers(len(ys)))
    return float(xs[spot]), float(ys[spot]), on


def _jittered(rng: np.random.Generator, window: Window) -> Window:
    side = round(window.side * rng.uniform(0.85, 1.3))
    dx, dy = rng.normal(0, 0.06, 2) * side
    middle_x, middle_y = window.x + window.side / 2 + dx, window.y + window.side / 2 + dy
    return Window(round(middle_x - side / 2), round(middle_y - side / 2), side)


def make_batch(config: RefinerTraining, material: Material, step: int) -> Batch:
    """The new samples of one step, a function of (seed, step) and the tracker's weights."""
    count = config.batch - config.answered
    settings = ComposeConfig(
        size=PICTURE,
        frames=FRAMES,
        real_share=config.real_share,
        in_place_share=config.in_place_share,
        region_border_share=REGION_BORDER_SHARE,
        real_cut_out_share=0.2,
        smallest=0.12,
        largest=0.9,
        min_target_share=0.005,
        hiding_share=0.0,
        shadow_share=0.2,
    )
    composer = Composer(material, settings)
    samples: list[Sample] = []
    clip_number = 0
    while len(samples) < count:
        seed = (config.seed, step, clip_number)
        rng = np.random.default_rng((*seed, 1))
        objects = int(rng.integers(1, 3))
        clip_number += 1
        if rng.random() < config.tracked_share:
            samples += _tracked_samples(rng, material, settings, seed, objects)
            continue
        clip = composer.compose(seed, objects=objects)
        for t in range(FRAMES):
            chosen = int(rng.integers(1, objects + 1))
            target, neighbour = clip.labels[t] == chosen, clip.labels[t] == 3 - chosen
            if np.count_nonzero(target) >= MIN_TARGET_PIXELS:
                image, target, neighbour = _varied(rng, clip.frames[t], target, neighbour)
                share = config.prior_share
                samples.append(make_sample(rng, image, target, neighbour, prior_share=share))
    inputs, truths, areas = zip(*samples[:count], strict=True)
    return Batch(
        torch.from_numpy(np.stack(inputs)),
        torch.from_numpy(np.stack(truths)).float(),
        torch.tensor(areas, dtype=torch.float32),
    )


def _tracked_samples(
    rng: np.random.Generator,
    material: Material,
    settings: ComposeConfig,
    seed: tuple[int, ...],
    objects: int,
) -> Iterator[Sample]:
    """Samples of a clip on which the tracker has been: wherever it is not good already."""
    clip = Composer(material, replace(settings, frames=TRACKED_FRAMES)).compose(
        seed, objects=objects
    )
    for image, labels, seen in zip(clip.frames, clip.labels, tracked(clip, objects), strict=True):
        for chosen in range(1, objects + 1):
            target, prior = labels == chosen, seen == chosen
            if np.count_nonzero(target) < MIN_TARGET_PIXELS or not prior.any():
                continue
            overlap = np.count_nonzero(target & prior) / np.count_nonzero(target | prior)
            if overlap > WELL_TRACKED and rng.random() > KEPT_SHARE:
                continue
            picture, truth, mask = _varied(rng, image, target, prior)
            yield make_sample(rng, picture, truth, np.zeros_like(truth), tracked=mask)


def _varied(
    rng: np.random.Generator,
    image: NDArray[np.uint8],
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
    """A picture and two masks of it, recoloured and turned."""
    a, b, c = turned(rng, recoloured(rng, image), first, second)
    return a.astype(np.uint8), b.astype(np.bool_), c.astype(np.bool_)


class Batches(IterableDataset[Batch]):
    """The batches of steps `start` ... end."""

    def __init__(self, config: RefinerTraining, material: Material, start: int) -> None:
        self.config, self.material, self.start = config, material, start

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.start, self.config.steps):
            yield make_batch(self.config, self.material, step)


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
def answered(
    rng: np.random.Generator, batch: Batch, logits: Tensor, quality: Tensor, *, count: int
) -> Batch | None:
    """Up to `count` of the samples, with the network's answer as prior and one more click.

    logits: [B, 160, 160]; quality: IoU logits [B]. None where no answer can be clicked on.
    """
    masks, scores = (logits > 0).cpu().numpy(), torch.sigmoid(quality.float())
    chosen: list[int] = []
    inputs: list[Tensor] = []
    for i in rng.permutation(len(masks)):
        click = largest_error(batch.truths[i].cpu().numpy() > 0.5, masks[i])
        if click is None or not masks[i].any() or len(chosen) == count:
            continue
        sample = batch.inputs[i].clone()
        drawn = torch.from_numpy(draw_clicks(np.array([click[:2]], np.float32))).to(sample)
        channel = POSITIVE if click[2] else NEGATIVE
        sample[PRIOR] = torch.from_numpy(masks[i]).to(sample)
        sample[PRIOR_IOU] = scores[i] if rng.random() < TOLD_SHARE else -1
        sample[channel] = torch.maximum(sample[channel], drawn)
        chosen.append(int(i))
        inputs.append(sample)
    if not chosen:
        return None
    return Batch(torch.stack(inputs), batch.truths[chosen], batch.areas[chosen])


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

    def __init__(self, config: RefinerTraining, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device, self.step = config, device, 0
        self.network = RefinerNetwork()
        start_from(self.network, XMem.from_checkpoint(locate("")))
        self.network.to(device)
        self.carried: Batch | None = None
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = Average(self.network, config.ema)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )

    @property
    def rate(self) -> float:
        """Learning rate of this step: linear warm-up, then a cosine to a fiftieth."""
        config = self.config
        warm = min(1.0, (self.step + 1) / max(1, config.warm_up))
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / config.steps)))
        return config.learning_rate * warm * (0.02 + 0.98 * fall)

    def train_step(self, fresh: Batch) -> tuple[float, float]:
        """One optimiser step on new samples and on the last ones answered; its loss and mean J on
        the crops.
        """
        config, rng = self.config, np.random.default_rng((self.config.seed, self.step, 2))
        batch = Batch(*(part.to(self.device) for part in fresh))
        if self.carried is not None:
            batch = Batch(*(torch.cat(parts) for parts in zip(batch, self.carried, strict=True)))
        inputs = batch.inputs.contiguous(memory_format=torch.channels_last)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate
        self.network.train()
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            logits, quality = self.network(inputs)
        loss = refiner_loss(logits.float(), quality.float(), batch.truths, batch.areas)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.gradient_clip)
        self.optimiser.step()
        self.average.update(self.network, self.step)
        self.step += 1
        self.carried = answered(rng, batch, logits, quality, count=config.answered)
        with torch.no_grad():
            return float(loss), float(iou(logits > 0, batch.truths > 0.5).mean())

    def save(self, folder: Path) -> None:
        """Writes last.pt and refiner.safetensors; an interruption leaves the old ones whole."""
        state = {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "carried": None if self.carried is None else tuple(self.carried),
        }
        torch.save(state, folder / "last.pt.partial")
        os.replace(folder / "last.pt.partial", folder / "last.pt")
        weights = {
            name: (v.half() if v.is_floating_point() else v).contiguous().cpu().clone()
            for name, v in self.average.network.state_dict().items()
        }
        metadata = {"steps": str(self.step), "licence": LICENCE, "training_data": TRAINING_DATA}
        save_file(weights, folder / "refiner.partial", metadata)
        os.replace(folder / "refiner.partial", folder / "refiner.safetensors")

    def load(self, path: Path) -> None:
        """Goes on from a last.pt."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = int(state["step"])
        carried = state["carried"]
        self.carried = None if carried is None else Batch(*carried)


def run(
    config: RefinerTraining,
    material: Material,
    folder: Path,
    *,
    device: torch.device,
    workers: int = 1,
    interruption: Event | None = None,
) -> Trainer:
    """Trains to the end, resuming from `folder` where it holds a run."""
    folder.mkdir(parents=True, exist_ok=True)
    interruption = interruption or Event()
    trainer = Trainer(config, device)
    if (folder / "last.pt").is_file():
        trainer.load(folder / "last.pt")
        print(f"resuming at step {trainer.step}", flush=True)
    loader = DataLoader(
        Batches(config, material, trainer.step),
        batch_size=None,
        num_workers=workers,
        # As in train_tracker: a forked worker would inherit thread pools without their threads.
        multiprocessing_context="spawn" if workers else None,
    )
    losses: list[float] = []
    scores: list[float] = []
    began = saved = time.monotonic()
    for batch in loader:
        loss, score = trainer.train_step(batch)
        losses.append(loss)
        scores.append(score)
        done = trainer.step == config.steps or interruption.is_set()
        if trainer.step % LOG_EVERY == 0 or done:
            now = time.monotonic()
            row = {
                "step": trainer.step,
                "loss": f"{np.mean(losses):.4f}",
                "j": f"{np.mean(scores):.4f}",
                "rate": f"{trainer.rate:.3e}",
                "validation_j": "",
                "seconds": f"{now - began:.1f}",
            }
            _append(folder / "curve.csv", row)
            print(" ".join(f"{k}={v}" for k, v in row.items() if v), flush=True)
            losses, scores, began = [], [], now
        if time.monotonic() - saved > SAVE_EVERY or done:
            trainer.save(folder)
            plot_curve(folder / "curve.csv", folder / "curve.png")
            saved = time.monotonic()
        if done:
            break
    return trainer


def _append(path: Path, row: dict[str, Any]) -> None:
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="the run's YAML file")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("out/training/refiner"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    interruption = Event()
    signal.signal(signal.SIGTERM, lambda *_: interruption.set())
    run(
        load_refiner_training(arguments.config),
        load_material(arguments.data),
        arguments.out,
        device=torch.device(arguments.device),
        interruption=interruption,
    )


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""What the refiner learns from: crops, prompts and true masks.

A sample is a frame of a composed clip, one of its targets, a broken mask or none, and the clicks of
a simulated user. `answered` makes another one of it: the network's answer is the prior, and the
user has clicked on its largest error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lazyxmem_ros.correction.base import Prompt, box_of_mask, mask_iou
from lazyxmem_ros.correction.refiner_input import (
    Window,
    choose_window,
    draw_clicks,
    window_input,
)
from lazyxmem_ros.correction.refiner_network import CROP, NEGATIVE, POSITIVE, PRIOR, PRIOR_IOU
from lazyxmem_ros.evaluation.simulated_operator import (
    Gesture,
    OperatorConfig,
    SimulatedOperator,
    largest_error,
)
from training.compose import ComposeConfig, Composer, own_stream
from training.config import RefinerTraining
from training.degrade import break_mask
from training.material import Material
from training.practice import recoloured, tracked, turned

PICTURE = 256  # pixels of the composed frames' side
FRAMES = 2  # frames used of each clip
MIN_TARGET_PIXELS = 80
BOX_SHARE = 0.3  # of the others that have a box instead of clicks
TOLD_SHARE = 0.7  # of priors of which the network is told how good they are
IOU_NOISE = 0.12  # of what it is told
SEARCH_RANGE = (0.3, 1.0)  # of the picture's side: windows where only clicks are known
CLOSER_SHARE = 0.35  # of samples whose window is the right one already
CLICK_SHARES = (0.7, 0.2, 0.1)  # of samples with one, two and three clicks
CLICK_NOISE = 4.0  # pixels, the most
TRACKED_FRAMES = 4
REGION_BORDER_SHARE = 0.12
"""Of a photograph's border: a region along more of it is rather ground or sky than a thing."""
NEAREST = 0.7
"""Of a picture's shorter side: a corrector mostly sees whole things and what is around them."""
WELL_TRACKED = 0.92  # IoU of priors that are mostly passed over
KEPT_SHARE = 0.2  # of these


class Batch(NamedTuple):
    """inputs: float [B, 8, 160, 160]; truths: true masks 0 or 1, float [B, 160, 160]; areas: of
    the whole object, also where it lies outside its crop, in pixels of the crop, float [B].
    """

    inputs: Tensor
    truths: Tensor
    areas: Tensor


Sample = tuple[NDArray[np.float32], NDArray[np.bool_], float]
"""One element of each part of a Batch."""
Click = tuple[float, float, bool]
"""x, y, and whether it is on the object."""


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
    prior = tracked
    if tracked is None and rng.random() < prior_share:
        broken = break_mask(rng, truth, neighbour)
        prior = broken if broken.any() else None
    prompt = _prompt(rng, truth, prior, by_operator=tracked is not None)
    window = _window(rng, truth, prompt)
    true_crop = window.take(np.where(truth, 255, 0).astype(np.uint8)) > 127
    area = np.count_nonzero(truth) * (CROP / window.side) ** 2
    return window_input(image, prompt, window), true_crop, area


def _prompt(
    rng: np.random.Generator,
    truth: NDArray[np.bool_],
    prior: NDArray[np.bool_] | None,
    *,
    by_operator: bool,
) -> Prompt:
    """What is said of a target: a box, or clicks as the simulated operator or anybody gives them,
    and the prior, mostly with about its IoU.
    """
    box = None
    clicks: list[Click] = []
    if prior is None and rng.random() < BOX_SHARE:
        box = _loose_box(rng, truth)
    elif prior is not None and by_operator:
        clicks = _operators_clicks(rng, truth, prior)
    else:
        believed = np.zeros_like(truth) if prior is None else prior
        count = 1 + int(rng.choice(3, p=CLICK_SHARES))
        clicks = [_click(rng, truth, believed, first=number == 0) for number in range(count)]
    prior_iou = None
    if prior is not None and rng.random() < TOLD_SHARE:
        noisy = mask_iou(prior, truth) + rng.normal(0, IOU_NOISE)
        prior_iou = float(np.clip(noisy, 0, 1))
    return Prompt(
        positive=np.array([(x, y) for x, y, on in clicks if on]),
        negative=np.array([(x, y) for x, y, on in clicks if not on]),
        box=box,
        mask=prior,
        prior_iou=prior_iou,
    )


def _operators_clicks(
    rng: np.random.Generator, truth: NDArray[np.bool_], prior: NDArray[np.bool_]
) -> list[Click]:
    """All clicks at once on a mask's errors, near their middles, but for those that miss them."""
    config = OperatorConfig(
        Gesture.LARGEST_ERROR,
        click_noise=float(rng.uniform(0, CLICK_NOISE)),
        seed=int(rng.integers(2**31)),
        clicks=1 + int(rng.choice(3, p=CLICK_SHARES)),
    )
    given = SimulatedOperator(config).click(truth, prior)
    if given is None:
        return []
    clicks = [(float(x), float(y), True) for x, y in given.positive]
    clicks += [(float(x), float(y), False) for x, y in given.negative]
    return [(x, y, on) for x, y, on in clicks if truth[round(y), round(x)] == on]


def _window(rng: np.random.Generator, truth: NDArray[np.bool_], prompt: Prompt) -> Window:
    """What the crop shows: what the prompt knows of, or, as in the closer look, what is there."""
    share = float(np.exp(rng.uniform(*np.log(SEARCH_RANGE))))
    known = len(prompt.positive) > 0 or prompt.box is not None or prompt.mask is not None
    closer = prompt.box is None and rng.random() < CLOSER_SHARE
    if closer or not known:
        prompt = Prompt(mask=truth)
    size = truth.shape[0], truth.shape[1]
    return _jittered(rng, choose_window(prompt, size, search_share=share))


def _loose_box(
    rng: np.random.Generator, truth: NDArray[np.bool_]
) -> tuple[float, float, float, float]:
    """The box of a mask as a person draws it."""
    tight = np.array(box_of_mask(truth), np.float64)
    jitter = rng.normal(0, 0.05, 4) * max(4, tight[2] - tight[0] - 1)
    x0, y0, x1, y1 = (float(v) for v in np.clip(tight + jitter, 0, truth.shape[0]))
    return x0, y0, max(x1, x0 + 2), max(y1, y0 + 2)


def _click(
    rng: np.random.Generator, truth: NDArray[np.bool_], believed: NDArray[np.bool_], *, first: bool
) -> Click:
    """A click: on the largest error, near it, or anywhere that it is true."""
    error = largest_error(truth & ~believed, believed & ~truth) if first else None
    if error is not None and rng.random() < 0.85:
        reach = 0.03 * np.sqrt(np.count_nonzero(truth))
        x, y = np.clip(np.array(error[:2]) + rng.normal(0, reach, 2), 0, truth.shape[0] - 1)
        if truth[round(float(y)), round(float(x))] == error.missing:
            return float(x), float(y), error.missing
        return float(error.x), float(error.y), error.missing
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
        thing_share=config.thing_share,
        nearest=NEAREST,
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
        rng = own_stream(seed, 1)
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
            if mask_iou(target, prior) > WELL_TRACKED and rng.random() > KEPT_SHARE:
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
        if len(chosen) == count:
            break
        truth = batch.truths[i].cpu().numpy() > 0.5
        spot = largest_error(truth & ~masks[i], masks[i] & ~truth)
        if spot is None or not masks[i].any():
            continue
        sample = batch.inputs[i].clone()
        drawn = torch.from_numpy(draw_clicks(np.array([spot[:2]], np.float32))).to(sample)
        channel = POSITIVE if spot.missing else NEGATIVE
        sample[PRIOR] = torch.from_numpy(masks[i]).to(sample)
        sample[PRIOR_IOU] = scores[i] if rng.random() < TOLD_SHARE else -1
        sample[channel] = torch.maximum(sample[channel], drawn)
        chosen.append(int(i))
        inputs.append(sample)
    if not chosen:
        return None
    return Batch(torch.stack(inputs), batch.truths[chosen], batch.areas[chosen])

# SPDX-License-Identifier: Apache-2.0
"""Follows objects through frames, with the tracker's own corrections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lazyxmem_ros.basics import SECOND, Labels, by_width
from lazyxmem_ros.correction import Corrector, CorrectorError, PromptError
from lazyxmem_ros.correction.base import BoolMask, objection
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.videos import DEFAULT_RATE, check_rate
from lazyxmem_ros.lazy import Correction, LazyTracker, Request, Source, StepResult
from lazyxmem_ros.track.video import Faulty, Image, StampedFrame, Video, stop
from lazyxmem_ros.xmem import TrackerError


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """A frame that was tracked: its name, its image (RGB uint8 [H, W, 3]) and what came out.

    result: as it was found, before any correction. labels: uint16 [H, W], with the corrections,
    and without what is probably of something else (`LazyConfig.show_iou`).
    """

    name: str
    image: Image
    result: StepResult
    labels: Labels


def track_frames(
    frames: Iterable[tuple[str, Image | None]],
    tracker: LazyTracker,
    masks: Mapping[int, BoolMask],
    *,
    rate: float | None = None,
    corrector: Corrector | None = None,
    faulty: Faulty | None = None,
) -> Iterator[TrackedFrame]:
    """Follow objects through frames, with the tracker's own corrections; yield each frame.

    Args:
        frames: name and image, RGB uint8 [H, W, 3], of each frame; a `Video` is such, and knows
            their times. One after the first without an image takes its time and is left out.
        tracker: follows no object yet. Without a corrector its `pseudo_corrections` should be off,
            or memory waits in vain for what nobody answers.
        masks: the objects on the first frame, id (1..65535) -> bool [H, W].
        rate: frames per second, instead of the times of a `Video`; DEFAULT_RATE without either.
        corrector: answers the tracker's own requests; an operator's are left open.
        faulty: is told of a frame after the first that cannot be read, or that the tracker refuses,
            which is left out.

    Raises:
        DatasetError: where the first frame has no image; without `faulty`, where a frame of a
            `Video` cannot be read; for a rate that cannot be meant.
        FrameError, MaskError: as `LazyTracker.step` does, for the first frame and without `faulty`.

    """
    check_rate(rate)
    if not isinstance(frames, Video):
        stamped = _by_rate(frames, DEFAULT_RATE if rate is None else rate)
    else:
        stamped = frames.read(faulty or stop)
        if rate is not None:
            stamped = _by_rate(((name, image) for name, _, image in stamped), rate)
    return follow(stamped, tracker, masks, corrector, faulty)


def _by_rate(frames: Iterable[tuple[str, Image | None]], rate: float) -> Iterator[StampedFrame]:
    for index, (name, image) in enumerate(frames):
        yield StampedFrame(name, round(index / rate * SECOND), image)


def follow(
    frames: Iterable[StampedFrame],
    tracker: LazyTracker,
    masks: Mapping[int, BoolMask],
    corrector: Corrector | None,
    faulty: Faulty | None,
) -> Iterator[TrackedFrame]:
    """See track_frames, of which this is the part that begins with the frames' own times."""
    size: tuple[int, ...] = ()
    for index, (name, stamp, image) in enumerate(frames):
        if image is None:
            if index == 0:
                raise DatasetError(f"frame {name}: the first frame has no image; its are the masks")
            continue
        try:
            result = tracker.step(image, stamp, masks=masks if index == 0 else None)
        except TrackerError as error:
            if faulty is None or index == 0:
                raise
            fault = str(error)
            found = getattr(image, "shape", ())[:2]  # it may be no array at all
            if len(found) == 2 and found != size:
                fault = (
                    f"is of {by_width(found)} pixels, the first of {by_width(size)}; "
                    "scale all frames alike"
                )
            faulty(f"frame {name}: {fault}")
            continue
        size = size or image.shape[:2]
        labels = _correct_itself(tracker, corrector, result) if corrector else result.labels
        yield TrackedFrame(name, image, result, tracker.shown(labels))


def _correct_itself(tracker: LazyTracker, corrector: Corrector, result: StepResult) -> Labels:
    """Answer the tracker's own requests; returns the frame's labels afterwards."""
    masks: dict[int, BoolMask] = {}
    for request in result.requests:
        if request.source is not Source.PSEUDO:
            continue
        mask = _corrected(corrector, request)
        if mask is None:  # the prediction stands
            tracker.dismiss(request.object_id, request.source)
        else:
            masks[request.object_id] = mask
    if not masks:
        return result.labels
    outcome = tracker.apply(Correction(result.stamp, masks, Source.PSEUDO))
    return result.labels if outcome.labels is None else outcome.labels


def _corrected(corrector: Corrector, request: Request) -> BoolMask | None:
    """The corrector's mask; None where it has none that promises more than the tracker's."""
    try:
        (answer,) = corrector.refine(request.image, [request.prompt], image_key=request.stamp)
    except (CorrectorError, PromptError):
        return None
    found = answer.score > 0 and answer.mask.any()  # 0: the corrector failed
    return None if not found or objection(answer.score, request.prompt.prior_iou) else answer.mask

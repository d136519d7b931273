# SPDX-License-Identifier: Apache-2.0
"""`lazyxmem track` follows objects through a video or a folder of frames, without ROS."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from lazyxmem_ros.basics import by_width
from lazyxmem_ros.correction import (
    Corrector,
    CorrectorError,
    make_corrector,
    sam_hq_size,
    sam_hq_weights,
)
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.label_maps import read_label_map, save_label_map
from lazyxmem_ros.data.outputs import alone_in
from lazyxmem_ros.data.videos import check_rate
from lazyxmem_ros.images.drawing import object_ids_in, overlay
from lazyxmem_ros.images.files import VideoError, write_video
from lazyxmem_ros.lazy import LazyConfig, open_tracker
from lazyxmem_ros.progress import Progress
from lazyxmem_ros.track.frames import follow
from lazyxmem_ros.track.output import MASK_SUFFIX, MASKS_FOLDER, OVERLAY_FILE, TrackRows, clear
from lazyxmem_ros.track.video import Image, StampedFrame, Video, stop
from lazyxmem_ros.weights import locate

SHOWN_FAULTS = 5
EXIT_FAULTS = 1


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run the command; what was tracked before a fault or Ctrl-C stays in the folder.

    Returns 1 where frames had to be left out, or the overlay.
    """
    check_rate(arguments.rate)
    video = Video.open(arguments.video, arguments.rate, besides=(arguments.mask,))
    labels = read_label_map(arguments.mask, binary=arguments.binary or None)
    masks = {object_id: labels == object_id for object_id in object_ids_in(labels)}
    if not masks:
        raise DatasetError(
            f"{arguments.mask}: the mask is empty; colour the object's pixels, in an indexed PNG "
            "with anything but 255"
        )
    corrector = _make_corrector(arguments)
    tracker = open_tracker(
        locate(arguments.weights),
        LazyConfig(
            operator_corrections=False,
            pseudo_corrections=corrector is not None,
            show_iou=arguments.show_iou,
        ),
        device=arguments.device,
        max_internal_size=arguments.max_internal_size,
        precision=arguments.precision,
        backend=arguments.backend,
    )
    faults: list[str] = []
    not_drawn: str | None = None
    faulty = stop if arguments.strict else faults.append
    frames = _beginning_with(labels.shape, arguments.mask, video.read(faulty))
    with ExitStack() as stack:
        stack.enter_context(alone_in(arguments.out))
        clear(arguments.out, arguments.video, arguments.mask)
        rows = stack.enter_context(TrackRows(arguments.out))
        progress = stack.enter_context(Progress(console))
        task = progress.add_task("tracking", total=video.frames or None)

        def pictures() -> Iterator[Image]:
            for frame in follow(frames, tracker, masks, corrector, faulty):
                rows.add(frame)
                name = f"{frame.name}{MASK_SUFFIX}"
                save_label_map(arguments.out / MASKS_FOLDER / name, frame.labels)
                progress.update(task, completed=rows.frames + len(faults))
                yield overlay(frame.image, frame.labels)

        drawn = pictures()
        if not arguments.no_overlay:
            not_drawn = _overlay_unless(arguments.out / OVERLAY_FILE, drawn, video.rate)
        for _ in drawn:
            pass  # what the overlay has not taken is tracked all the same
    console.print(rows.summary())
    if not_drawn:
        console.print(f"[yellow]no overlay:[/] {escape(not_drawn)}", soft_wrap=True)
    if faults:
        console.print(f"[yellow]{len(faults)} fault(s) in the input:[/]")
        for fault in faults[:SHOWN_FAULTS]:
            console.print(f"  {escape(fault)}", soft_wrap=True, highlight=False)
        if len(faults) > SHOWN_FAULTS:
            console.print(f"  … and {len(faults) - SHOWN_FAULTS} more")
        console.print(f"{rows.frames} of {video.frames} frames were tracked")
    console.print(f"written to [bold]{escape(str(arguments.out))}[/]", soft_wrap=True)
    return EXIT_FAULTS if faults or not_drawn else 0


def _overlay_unless(path: Path, pictures: Iterator[Image], rate: float) -> str | None:
    """Write the overlay; returns why it could not be encoded, which ends no tracking."""
    try:
        write_video(path, pictures, rate=rate)
    except VideoError as error:
        return str(error)
    return None


def _beginning_with(
    size: tuple[int, ...], mask: Path, frames: Iterator[StampedFrame]
) -> Iterator[StampedFrame]:
    """The frames, of which the first is read now.

    Raises DatasetError where that cannot be, or is not of the mask's size [H, W].
    """
    begin = list(itertools.islice(frames, 1))
    for name, _, image in begin:
        if image is not None and image.shape[:2] != size:
            raise DatasetError(
                f"{mask}: the mask is of {by_width(size)} pixels, the first frame, {name}, "
                f"of {by_width(image.shape[:2])}; draw it on that frame, and scale neither"
            )
    return itertools.chain(begin, frames)


def _make_corrector(arguments: argparse.Namespace) -> Corrector | None:
    if arguments.corrector == "none":
        if arguments.corrector_weights is not None:
            raise CorrectorError("--corrector-weights needs a --corrector, which is none")
        if arguments.corrector_model is not None:
            raise CorrectorError("--corrector-model needs a --corrector, which is none")
        return None
    checkpoint = arguments.corrector_weights
    size = sam_hq_size(arguments.corrector, checkpoint, arguments.corrector_model)
    if arguments.corrector == "sam_hq" and checkpoint is None:
        checkpoint = locate(sam_hq_weights(size))
    return make_corrector(
        arguments.corrector, device=arguments.device, checkpoint=checkpoint, model_type=size
    )

# SPDX-License-Identifier: Apache-2.0
"""`lazyxmem track` follows objects through a video or a folder of frames, without ROS.

`track_frames` does the same for a program; `examples/` shows how.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PngImage
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lazyxmem_ros.basics import SECOND, Labels
from lazyxmem_ros.correction import (
    CORRECTOR_NAMES,
    Corrector,
    CorrectorError,
    PromptError,
    make_corrector,
)
from lazyxmem_ros.correction.base import BoolMask, objection
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.image_files import read_image_file
from lazyxmem_ros.data.label_maps import VOID, are_binary, read_label_map
from lazyxmem_ros.evaluation.pictures import overlay, save_indexed_png, write_video
from lazyxmem_ros.lazy import (
    Correction,
    LazyConfig,
    LazyTracker,
    Request,
    Source,
    StepResult,
    open_tracker,
)
from lazyxmem_ros.progress import Progress
from lazyxmem_ros.weights import EMBEDDED_INTERNAL_SIZE, locate

Image = NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
DEFAULT_RATE = 24.0
"""Frames per second of a folder, or of a video that does not say."""


@dataclass(frozen=True)
class Video:
    """Frames to track: a video file, or a folder of images in the order of their names.

    frames: their number, 0 where the file does not say. rate: frames per second.
    """

    path: Path
    frames: int
    rate: float

    @classmethod
    def open(cls, path: str | Path, rate: float | None = None) -> Video:
        """Look what there is. rate: instead of the file's own. Raises DatasetError for nothing."""
        path = Path(path)
        if path.is_dir():
            count = len(_image_files(path))
            if not count:
                raise DatasetError(f"{path}: no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
            return cls(path, count, rate or DEFAULT_RATE)
        if not path.is_file():
            raise DatasetError(f"{path}: no such video or folder")
        capture = cv2.VideoCapture(str(path))
        try:
            if not capture.isOpened():
                raise DatasetError(f"{path}: not a video that OpenCV can read")
            own = capture.get(cv2.CAP_PROP_FPS)
            count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        finally:
            capture.release()
        return cls(path, max(count, 0), rate or own or DEFAULT_RATE)

    def __iter__(self) -> Iterator[tuple[str, Image]]:
        """(name, RGB uint8 [H, W, 3]) of each frame."""
        if self.path.is_dir():
            for file in _image_files(self.path):
                yield file.stem, read_image_file(file)
            return
        capture = cv2.VideoCapture(str(self.path))
        try:
            index = 0
            while True:
                read, frame = capture.read()
                if not read:
                    return
                yield f"{index:05d}", np.ascontiguousarray(frame[..., ::-1], dtype=np.uint8)
                index += 1
        finally:
            capture.release()


def _image_files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """A frame that was tracked: its name, its image (RGB uint8 [H, W, 3]) and what came out.

    result: as it was before any correction. labels: uint16 [H, W], with the corrections.
    """

    name: str
    image: Image
    result: StepResult
    labels: Labels


def track_frames(
    frames: Iterable[tuple[str, Image]],
    tracker: LazyTracker,
    masks: Mapping[int, BoolMask],
    *,
    rate: float = DEFAULT_RATE,
    corrector: Corrector | None = None,
) -> Iterator[TrackedFrame]:
    """Follow objects through frames, with the tracker's own corrections; yield each frame.

    Args:
        frames: name and image, RGB uint8 [H, W, 3], of each frame; a `Video` is such.
        tracker: follows no object yet. Without a corrector its `pseudo_corrections` should be off,
            or memory waits in vain for what nobody answers.
        masks: the objects on the first frame, id (1..65535) -> bool [H, W].
        rate: frames per second.
        corrector: answers the tracker's own requests; an operator's are left open.

    Raises:
        FrameError, MaskError: as `LazyTracker.step` does.

    """
    for index, (name, image) in enumerate(frames):
        stamp = round(index / rate * SECOND)
        result = tracker.step(image, stamp, masks=masks if index == 0 else None)
        labels = _correct_itself(tracker, corrector, result) if corrector else result.labels
        yield TrackedFrame(name, image, result, labels)


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("video", type=Path, help="a video file, or a folder of frames")
    parser.add_argument(
        "--mask",
        type=Path,
        required=True,
        help="PNG that shows the objects on the first frame: black and white for one object; or a "
        "label map, indexed, grey or of 16 bits, in which 0 is background and any other value an "
        "object's id, 1 to 254 (16 bits: to 65535). 255 beside ids of 8 bits is ignored",
    )
    parser.add_argument(
        "--binary", action="store_true", help="whatever is not 0 in the mask is one object, id 1"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for masks and overlay")
    parser.add_argument("--rate", type=float, help="frames per second (default: the video's)")
    parser.add_argument(
        "--weights", default="", help="a known name or a file (default: the embedded tracker)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--precision",
        choices=["auto", "float32", "bfloat16", "float16"],
        default="auto",
        help="of the convolutions; auto: bfloat16 where the processor is quick with it",
    )
    parser.add_argument(
        "--max-internal-size",
        type=int,
        default=EMBEDDED_INTERNAL_SIZE,
        help="short side inside the tracker, pixels; 0: the image's own (default: %(default)s)",
    )
    parser.add_argument(
        "--corrector",
        choices=["none", *CORRECTOR_NAMES],
        default="none",
        help="who carries out the tracker's own corrections (default: %(default)s)",
    )
    parser.add_argument("--corrector-weights", help="checkpoint of the corrector, if it has one")
    parser.add_argument("--no-overlay", action="store_true", help="write no overlay video")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run the command; what was tracked before a fault or Ctrl-C stays in the folder."""
    video = Video.open(arguments.video, arguments.rate)
    binary = arguments.binary or are_binary([arguments.mask])
    labels = read_label_map(arguments.mask, binary=binary)
    masks = {int(v): labels == v for v in np.unique(labels) if v}
    if not masks:
        raise DatasetError(
            f"{arguments.mask}: the mask is empty; colour the object's pixels, in an indexed PNG "
            "with anything but 255"
        )
    corrector = _make_corrector(arguments)
    tracker = open_tracker(
        locate(arguments.weights),
        LazyConfig(operator_corrections=False, pseudo_corrections=corrector is not None),
        device=arguments.device,
        max_internal_size=arguments.max_internal_size,
        precision=arguments.precision,
    )
    rows = _Rows(arguments.out)
    save = save_indexed_png if max(masks) < VOID else _save_wide_png
    with rows, Progress(console) as progress:
        task = progress.add_task("tracking", total=video.frames or None)

        def pictures() -> Iterator[Image]:
            for frame in track_frames(video, tracker, masks, rate=video.rate, corrector=corrector):
                save(arguments.out / "masks" / f"{frame.name}.png", frame.labels)
                rows.add(frame.name, frame.result)
                progress.advance(task)
                yield overlay(frame.image, frame.labels)

        if arguments.no_overlay:
            for _ in pictures():
                pass
        else:
            write_video(arguments.out / "overlay.mp4", pictures(), rate=video.rate)
    console.print(rows.summary())
    console.print(f"written to [bold]{escape(str(arguments.out))}[/]", soft_wrap=True)
    return 0


def _make_corrector(arguments: argparse.Namespace) -> Corrector | None:
    if arguments.corrector == "none":
        return None
    return make_corrector(
        arguments.corrector, device=arguments.device, checkpoint=arguments.corrector_weights
    )


def _save_wide_png(path: Path, labels: Labels) -> None:
    """Write a label map of 16 bits, for ids that one of 8 bits cannot hold."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PngImage.fromarray(labels).save(path)


class _Rows:
    """Writes tracks.csv, a row per frame and object, as they come."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "tracks.csv"
        self._stack = ExitStack()
        self._seen: dict[int, list[float]] = {}

    def __enter__(self) -> _Rows:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = csv.writer(self._stack.enter_context(self._path.open("w", newline="")))
        self._writer.writerow(
            ["frame", "id", "state", "area", "x0", "y0", "x1", "y1", "entropy", "predicted_iou"]
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, name: str, result: StepResult) -> None:
        for track in result.tracks:
            box = track.box or ("", "", "", "")
            iou = "" if track.predicted_iou is None else f"{track.predicted_iou:.4f}"
            row = [name, track.object_id, track.state.name.lower(), track.area, *box]
            self._writer.writerow([*row, f"{track.uncertainty:.4f}", iou])
            self._seen.setdefault(track.object_id, []).append(track.uncertainty)

    def summary(self) -> Table:
        table = Table("object", "frames", "mean uncertainty", "worst", title="Tracked")
        for object_id, values in self._seen.items():
            table.add_row(
                str(object_id), str(len(values)), f"{np.mean(values):.3f}", f"{max(values):.3f}"
            )
        return table

# SPDX-License-Identifier: Apache-2.0
"""`lazyxmem track` follows objects through a video or a folder of frames, without ROS.

`track_frames` does the same for a program; `examples/` shows how.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lazyxmem_ros.basics import SECOND, Labels, by_width
from lazyxmem_ros.correction import (
    CORRECTOR_NAMES,
    Corrector,
    CorrectorError,
    PromptError,
    make_corrector,
    sam_hq_size,
    sam_hq_weights,
)
from lazyxmem_ros.correction.base import BoolMask, box_of_mask, objection
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.files import IMAGE_SUFFIXES, image_files
from lazyxmem_ros.data.label_maps import read_label_map, save_label_map
from lazyxmem_ros.data.videos import DEFAULT_RATE, VideoFile, check_rate
from lazyxmem_ros.images import ImageError
from lazyxmem_ros.images.drawing import object_ids_in, overlay
from lazyxmem_ros.images.files import read_image_file, write_video
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
from lazyxmem_ros.xmem import BACKENDS, TrackerError

Image = NDArray[np.uint8]

SHOWN_FAULTS = 5
EXIT_FAULTS = 1
MASKS_FOLDER, TRACKS_FILE, OVERLAY_FILE = "masks", "tracks.csv", "overlay.mp4"
Faulty = Callable[[str], None]
"""Is told what is wrong with a frame, which is then left out, or raises."""


def stop(fault: str) -> None:
    """The `Faulty` that leaves out nothing; raises DatasetError."""
    raise DatasetError(fault)


class StampedFrame(NamedTuple):
    """A frame: its name, its stamp (ns from the first one) and its image, RGB uint8 [H, W, 3]."""

    name: str
    stamp: int
    image: Image | None


@dataclass(frozen=True)
class Video:
    """Frames to track: a video file, or a folder of images in natural order of their names.

    frames: their number, as the file says it. rate: frames per second. besides: files in the
    folder that are no frames. own_times: see VideoFile.
    """

    path: Path
    frames: int
    rate: float
    besides: tuple[Path, ...] = ()
    own_times: bool = True

    @classmethod
    def open(
        cls, path: str | Path, rate: float | None = None, *, besides: tuple[Path, ...] = ()
    ) -> Video:
        """Look what there is. rate: instead of the file's own times. Raises DatasetError."""
        path = Path(path)
        if path.is_dir():
            count = len(image_files(path, besides=besides))
            if not count:
                raise DatasetError(f"{path}: no images ({', '.join(IMAGE_SUFFIXES)})")
            return cls(path, count, rate or DEFAULT_RATE, besides)
        video = VideoFile.open(path, rate)
        return cls(path, video.frames, video.rate, own_times=video.own_times)

    def __iter__(self) -> Iterator[tuple[str, Image]]:
        """Name and image, RGB uint8 [H, W, 3], of each frame; raises DatasetError."""
        return ((name, image) for name, _, image in self.read(stop) if image is not None)

    def read(self, faulty: Faulty) -> Iterator[StampedFrame]:
        """The frames; the image is None where it cannot be read.

        Raises DatasetError where that is the first: the masks to track are of that one.
        """
        if not self.path.is_dir():
            video = VideoFile(self.path, self.frames, self.rate, self.own_times)
            try:
                for index, (stamp, image) in enumerate(video.stamped()):
                    yield StampedFrame(f"{index:05d}", stamp, image)
            except DatasetError as error:
                faulty(str(error))
            return
        files = image_files(self.path, besides=self.besides)
        for index, (name, file) in enumerate(files.items()):
            picture: Image | None = None
            try:
                picture = read_image_file(file)
            except ImageError as error:
                if index == 0:
                    raise DatasetError(f"{error}; the mask is of this first frame") from error
                faulty(str(error))
            yield StampedFrame(name, round(index / self.rate * SECOND), picture)


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
        faulty: is told of a frame after the first that the tracker refuses, which is left out.

    Raises:
        DatasetError: where the first frame has no image.
        FrameError, MaskError: as `LazyTracker.step` does, for the first frame and without `faulty`.

    """
    check_rate(rate)
    if isinstance(frames, Video) and rate is None:
        stamped = frames.read(stop)
    else:
        stamped = _by_rate(frames, DEFAULT_RATE if rate is None else rate)
    return _tracked(stamped, tracker, masks, corrector, faulty)


def _by_rate(frames: Iterable[tuple[str, Image | None]], rate: float) -> Iterator[StampedFrame]:
    for index, (name, image) in enumerate(frames):
        yield StampedFrame(name, round(index / rate * SECOND), image)


def _tracked(
    frames: Iterable[StampedFrame],
    tracker: LazyTracker,
    masks: Mapping[int, BoolMask],
    corrector: Corrector | None,
    faulty: Faulty | None,
) -> Iterator[TrackedFrame]:
    """See track_frames."""
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
            faulty(f"frame {name}: {error}")
            continue
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("video", type=Path, help="a video file, or a folder of frames")
    parser.add_argument(
        "--mask",
        type=Path,
        required=True,
        help="PNG that shows the objects on the first frame: black and white, or a cut-out with "
        "transparent surroundings, for one object; or a label map, indexed, grey or of 16 bits, in "
        "which 0 is background and any other value an object's id, 1 to 254 (16 bits: to 65535). "
        "255 beside ids of 8 bits is ignored",
    )
    parser.add_argument(
        "--binary", action="store_true", help="whatever is not 0 in the mask is one object, id 1"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for masks and overlay")
    parser.add_argument(
        "--rate", type=float, help="frames per second (default: the video's own times)"
    )
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
        "--backend",
        choices=BACKENDS,
        default="auto",
        help="what computes the convolutions; auto: the quickest of those that are installed",
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
    parser.add_argument(
        "--corrector-weights", help="checkpoint of the corrector, if not that in the user's cache"
    )
    parser.add_argument("--corrector-model", help="SAM-HQ's size (default: vit_tiny)")
    parser.add_argument(
        "--strict", action="store_true", help="stop at the first frame that cannot be read"
    )
    parser.add_argument("--no-overlay", action="store_true", help="write no overlay video")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run the command; what was tracked before a fault or Ctrl-C stays in the folder.

    Returns 1 where frames had to be left out.
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
        LazyConfig(operator_corrections=False, pseudo_corrections=corrector is not None),
        device=arguments.device,
        max_internal_size=arguments.max_internal_size,
        precision=arguments.precision,
        backend=arguments.backend,
    )
    faults: list[str] = []
    faulty = stop if arguments.strict else faults.append
    frames = _beginning_with(labels.shape, arguments.mask, video.read(faulty))
    _clear(arguments.out, arguments.video, arguments.mask)
    rows = _Rows(arguments.out)
    with rows, Progress(console) as progress:
        task = progress.add_task("tracking", total=video.frames or None)

        def pictures() -> Iterator[Image]:
            for frame in _tracked(frames, tracker, masks, corrector, faulty):
                save_label_map(arguments.out / MASKS_FOLDER / f"{frame.name}.png", frame.labels)
                rows.add(frame)
                progress.update(task, completed=rows.frames + len(faults))
                yield overlay(frame.image, frame.labels)

        if arguments.no_overlay:
            for _ in pictures():
                pass
        else:
            write_video(arguments.out / OVERLAY_FILE, pictures(), rate=video.rate)
    console.print(rows.summary())
    if faults:
        console.print(f"[yellow]{len(faults)} fault(s) in the input:[/]")
        for fault in faults[:SHOWN_FAULTS]:
            console.print(f"  {escape(fault)}", soft_wrap=True, highlight=False)
        if len(faults) > SHOWN_FAULTS:
            console.print(f"  … and {len(faults) - SHOWN_FAULTS} more")
        console.print(f"{rows.frames} of {video.frames} frames were tracked")
    console.print(f"written to [bold]{escape(str(arguments.out))}[/]", soft_wrap=True)
    return EXIT_FAULTS if faults else 0


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


def _clear(out: Path, video: Path, mask: Path) -> None:
    """Remove the results of an earlier run, whose video may have been longer.

    Raises DatasetError for masks that no earlier run has written, and where the video or the mask
    is among what would be removed.
    """
    masks = out / MASKS_FOLDER
    left = sorted(masks.iterdir()) if masks.is_dir() else []
    if video.resolve() == masks.resolve():
        raise DatasetError(f"{video}: the masks would be written among the frames; choose --out")
    if video.resolve() == (out / OVERLAY_FILE).resolve():
        raise DatasetError(f"{video}: the overlay would be written over it; choose another --out")
    if mask.resolve() in [file.resolve() for file in left]:
        raise DatasetError(
            f"{mask}: is among the results of an earlier run, which would be removed; copy it, or "
            "choose another folder as --out"
        )
    if left and not (out / TRACKS_FILE).is_file():
        raise DatasetError(
            f"{masks}: holds files that are not of an earlier run; choose another folder as --out"
        )
    with _writing_to(out):
        for file in left:
            if file.suffix == ".png" and file.is_file():
                file.unlink()
        (out / OVERLAY_FILE).unlink(missing_ok=True)


@contextmanager
def _writing_to(path: Path) -> Iterator[None]:
    """Within, an OSError becomes a DatasetError that names the path."""
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be written to: {error.strerror or error}; make room, or choose another "
            "folder as --out"
        ) from error


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


class _Rows:
    """Writes tracks.csv, a row per frame and object, as they come."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / TRACKS_FILE
        self._stack = ExitStack()
        self._found: dict[int, list[float]] = {}
        self.frames = 0

    def __enter__(self) -> _Rows:
        with _writing_to(self._path):
            (self._path.parent / MASKS_FOLDER).mkdir(parents=True, exist_ok=True)
            file = self._path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._stack.enter_context(file))
        self._writer.writerow(
            ["frame", "id", "state", "area", "x0", "y0", "x1", "y1", "entropy", "predicted_iou"]
        )
        return self

    def __exit__(self, *_: object) -> None:
        with _writing_to(self._path):
            self._stack.close()

    def add(self, frame: TrackedFrame) -> None:
        """Write the tracks of a frame: what the tracker said, and the mask that came out."""
        self.frames += 1
        for track in frame.result.tracks:
            mask = frame.labels == track.object_id
            area, box = int(np.count_nonzero(mask)), box_of_mask(mask) or ("", "", "", "")
            iou = "" if track.predicted_iou is None else f"{track.predicted_iou:.4f}"
            row = [frame.name, track.object_id, track.state.name.lower(), area, *box]
            with _writing_to(self._path):
                self._writer.writerow([*row, f"{track.uncertainty:.4f}", iou])
            found = self._found.setdefault(track.object_id, [])
            if area and self.frames > 1:
                found.append(track.uncertainty)

    def summary(self) -> Table:
        """On how many frames after the first each object was found, and how sure it was there."""
        table = Table("object", "found on", "mean uncertainty", "worst", title="Tracked")
        later = max(self.frames - 1, 0)
        for object_id, values in self._found.items():
            mean = worst = "never found"
            if values:
                mean, worst = f"{np.mean(values):.3f}", f"{max(values):.3f}"
            table.add_row(str(object_id), f"{len(values)} of {later} later frames", mean, worst)
        return table

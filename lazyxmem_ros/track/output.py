# SPDX-License-Identifier: Apache-2.0
"""The folder that `lazyxmem track` writes: masks, the tracks as a table, an overlay."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from rich.table import Table

from lazyxmem_ros.correction.base import box_of_mask
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.track.frames import TrackedFrame

MASKS_FOLDER, TRACKS_FILE, OVERLAY_FILE = "masks", "tracks.csv", "overlay.mp4"


def clear(out: Path, video: Path, mask: Path) -> None:
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


class TrackRows:
    """Writes tracks.csv, a row per frame and object, as they come."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / TRACKS_FILE
        self._stack = ExitStack()
        self._found: dict[int, list[float]] = {}
        self.frames = 0

    def __enter__(self) -> TrackRows:
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

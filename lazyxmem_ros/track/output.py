# SPDX-License-Identifier: Apache-2.0
"""The folder that `lazyxmem track` writes: masks, the tracks as a table, an overlay."""

from __future__ import annotations

import csv
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from rich.table import Table

from lazyxmem_ros.correction.base import box_of_mask
from lazyxmem_ros.data.errors import DatasetError, OutputError
from lazyxmem_ros.data.outputs import claim, writing_to
from lazyxmem_ros.track.frames import TrackedFrame

PROGRAM = "lazyxmem track"
MASKS_FOLDER, TRACKS_FILE, OVERLAY_FILE = "masks", "tracks.csv", "overlay.mp4"
MASK_SUFFIX = ".png"


def clear(out: Path, video: Path, mask: Path) -> None:
    """Remove the results of an earlier run, whose video may have been longer.

    Raises OutputError for what no earlier run has written, and DatasetError where the video or the
    mask is among what would be removed.
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
    claim(out, PROGRAM, (MASKS_FOLDER, TRACKS_FILE, OVERLAY_FILE))
    written = _frames_of(out / TRACKS_FILE)
    old = [file for file in left if file.suffix == MASK_SUFFIX]
    for file in old:
        if file.stem not in written:
            raise OutputError(
                f"{file}: lies among the masks of an earlier run, which has not written it; move "
                "it elsewhere, or choose another folder as --out"
            )
    for file in (out / OVERLAY_FILE, *old):
        with writing_to(file):
            file.unlink(missing_ok=True)


def _frames_of(tracks: Path) -> set[str]:
    """The names of the frames that a run has tracked, and so of its masks."""
    try:
        with tracks.open(newline="", encoding="utf-8", errors="replace") as file:
            return {row[0] for row in csv.reader(file) if row}
    except (OSError, csv.Error):
        return set()


class TrackRows:
    """Writes tracks.csv, a row per frame and object, as they come."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / TRACKS_FILE
        self._stack = ExitStack()
        self._found: dict[int, list[float]] = {}
        self.frames = 0

    def __enter__(self) -> TrackRows:
        masks = self._path.parent / MASKS_FOLDER
        with writing_to(masks):
            masks.mkdir(parents=True, exist_ok=True)
        with writing_to(self._path):
            file = self._path.open("w", newline="", encoding="utf-8")
        self._file = self._stack.enter_context(file)
        self._writer = csv.writer(self._file)
        self._writer.writerow(
            ["frame", "id", "state", "area", "x0", "y0", "x1", "y1", "entropy", "predicted_iou"]
        )
        return self

    def __exit__(self, *_: object) -> None:
        with writing_to(self._path):
            self._stack.close()

    def add(self, frame: TrackedFrame) -> None:
        """Write the tracks of a frame: what the tracker said, and the mask that came out.

        They are in the file before the frame's mask is written: a run that is killed then leaves
        no mask which the next one does not know.
        """
        self.frames += 1
        for track in frame.result.tracks:
            mask = frame.labels == track.object_id
            area, box = int(np.count_nonzero(mask)), box_of_mask(mask) or ("", "", "", "")
            iou = "" if track.predicted_iou is None else f"{track.predicted_iou:.4f}"
            row = [frame.name, track.object_id, track.state.name.lower(), area, *box]
            with writing_to(self._path):
                self._writer.writerow([*row, f"{track.uncertainty:.4f}", iou])
            found = self._found.setdefault(track.object_id, [])
            if area and self.frames > 1:
                found.append(track.uncertainty)
        with writing_to(self._path):
            self._file.flush()

    def summary(self) -> Table:
        """On how many frames after the first each object was found, and how sure it was there."""
        table = Table("object", "found on", "mean uncertainty", "worst", title="Tracked")
        later = self.frames - 1
        for object_id, values in self._found.items():
            found = f"{len(values)} of {later} later frames"
            mean = worst = "never found"
            if values:
                mean, worst = f"{np.mean(values):.3f}", f"{max(values):.3f}"
            elif not later:
                found = mean = worst = "-"
            table.add_row(str(object_id), found, mean, worst)
        return table

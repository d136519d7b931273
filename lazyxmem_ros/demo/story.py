# SPDX-License-Identifier: Apache-2.0
"""The pictures that tell a demonstration: overlay video, contact sheet, timeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lazyxmem_ros.basics import SECOND, stamp_of
from lazyxmem_ros.data.samples import VideoSequence
from lazyxmem_ros.demo.summary import Demonstration
from lazyxmem_ros.evaluation import pictures
from lazyxmem_ros.evaluation.figures import save_figure, strip_figure, timeline_figure
from lazyxmem_ros.evaluation.rows import asked_of_people
from lazyxmem_ros.images.drawing import overlay
from lazyxmem_ros.images.files import save_image, write_video

STRIP_HEIGHT = 120
"""Pixels of the running timeline at the video's foot."""
SHOWN_S = 0.7
"""Time that a request or a correction stays marked in the video."""
SHEET_PICTURES = 12
SHEET_COLUMNS = 3
SHEET_WIDTH = 420
"""Pixels of each picture of the contact sheet."""
DEFAULT_FRAME_RATE = 10.0
"""Frames per second of a recording too short to tell."""
ASKED = (245, 158, 11)
CORRECTED = (34, 160, 84)
SELF_CORRECTED = (124, 58, 237)
CURSOR = (31, 41, 51)


@dataclass(frozen=True)
class Clicks:
    """An operator's answer to draw: points [P, 2] (x, y) in pixels."""

    positive: NDArray[np.float32]
    negative: NDArray[np.float32]


@dataclass(frozen=True)
class Story:
    """One object's part in a run, to be shown.

    frames, events: its rows (see `evaluation.rows`). labels_at: the published label map of a stamp.
    compared: name -> its frame rows in another run. clicks: by the stamp that they are
    about. rate: frames per second of the video.
    """

    title: str
    sequence: VideoSequence
    frames: pd.DataFrame
    events: pd.DataFrame
    labels_at: Callable[[int], NDArray[np.uint16] | None]
    compared: Mapping[str, pd.DataFrame]
    clicks: Mapping[int, Clicks]
    rate: float

    def save_timeline(self, path: Path) -> None:
        """Draw IoU, uncertainty, requests and corrections over time."""
        figure = timeline_figure(
            self.frames,
            self.events,
            title=self.title,
            name="with corrections",
            compared=self.compared,
        )
        save_figure(path, figure)

    def save_video(self, path: Path, progressed: Callable[[int], None] = lambda done: None) -> None:
        """Show each frame with what was published for it, above a running timeline.

        progressed: called with the number of frames drawn so far.
        """
        write_video(path, self._video_frames(progressed), rate=self.rate)

    def save_contact_sheet(self, path: Path) -> None:
        """Show the moments that matter: requests, corrections, the worst frame, and even steps."""
        wanted = self._moments()
        chosen = [picture for index, picture in self._annotated() if index in wanted]
        sheet = pictures.contact_sheet(chosen, columns=SHEET_COLUMNS, width=SHEET_WIDTH)
        save_image(path, sheet)

    # ---- single pictures

    def _annotated(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """(frame number, picture) of every frame that has an image."""
        rows = {int(row["index"]): row for _, row in self.frames.iterrows()}
        labels: NDArray[np.uint16] | None = None
        for sample in self.sequence.samples():
            if sample.image is None:
                continue
            published = self.labels_at(sample.stamp)
            # Without a new mask the old one is what a robot would go by.
            labels = published if published is not None else labels
            shown = np.zeros(sample.image.shape[:2], np.uint16) if labels is None else labels
            picture = overlay(sample.image, shown, truth=sample.truth)
            picture = self._annotate(picture, sample.index, sample.stamp, rows)
            yield sample.index, picture

    def _annotate(
        self, picture: NDArray[np.uint8], index: int, stamp: int, rows: Mapping[int, pd.Series]
    ) -> NDArray[np.uint8]:
        row = rows.get(index)
        seconds = (stamp - int(self.frames["stamp"].iloc[0])) / SECOND
        text = f"{seconds:5.1f} s   "
        if row is None:
            text += "no mask: frame dropped"
        else:
            score = "hidden" if row["visible"] is False else f"IoU {row['j']:.2f}"
            text += f"{score}   uncertainty {row['uncertainty']:.2f}   {row['state']}"
        notice = self._notice(stamp)
        if notice is not None:
            colour, words, clicks = notice
            pictures.frame_border(picture, colour)
            if clicks is not None:
                pictures.mark_clicks(picture, clicks.positive, clicks.negative)
            corner = (14, picture.shape[0] - 34)
            picture = pictures.caption(picture, words, corner, size=16, colour=_pale(colour))
        return pictures.caption(picture, text, (14, 12))

    def _notice(self, stamp: int) -> tuple[pictures.Colour, str, Clicks | None] | None:
        """Border colour, words and clicks that tell what happened last, for SHOWN_S."""
        best: tuple[float, tuple[pictures.Colour, str, Clicks | None]] | None = None
        for event in self.events.itertuples(index=False):
            delay = 0.0 if np.isnan(event.delay) else event.delay
            asked_ago = (stamp - event.stamp) / SECOND
            corrected_ago = asked_ago - delay
            if event.applied and 0 <= corrected_ago < SHOWN_S:
                if event.source == "operator":
                    clicks = self.clicks.get(int(event.stamp))
                    found = (CORRECTED, "a person has corrected it", clicks)
                else:
                    found = (SELF_CORRECTED, "it has corrected itself", None)
                age = corrected_ago
            elif event.source == "operator" and 0 <= asked_ago < SHOWN_S:
                found = (ASKED, f"asks for help: {event.reason}", None)
                age = asked_ago
            else:
                continue
            if best is None or age <= best[0]:
                best = (age, found)
        return None if best is None else best[1]

    # ---- the video

    def _video_frames(self, progressed: Callable[[int], None]) -> Iterator[NDArray[np.uint8]]:
        strip: NDArray[np.uint8] | None = None
        columns: dict[int, int] = {}
        cursor = 0
        for done, (index, picture) in enumerate(self._annotated(), start=1):
            if strip is None:
                width = picture.shape[1] - picture.shape[1] % 2
                strip, places = strip_figure(self.frames, self.events, pixels=(width, STRIP_HEIGHT))
                columns = dict(zip(self.frames["index"], places, strict=True))
            cursor = columns.get(index, cursor)
            foot = strip.copy()
            foot[:, max(0, cursor - 1) : cursor + 1] = CURSOR
            rows = picture.shape[0] - picture.shape[0] % 2
            yield np.vstack([picture[:rows, : foot.shape[1]], foot])
            progressed(done)

    def _moments(self) -> set[int]:
        """Numbers of the frames for the contact sheet."""
        indices = self.frames["index"].to_numpy(int)
        wanted: list[int] = [int(indices[0])]
        operator = asked_of_people(self.events)
        stamps = self.frames["stamp"].to_numpy(np.int64)
        for event in operator.itertuples(index=False):
            delay = 0.0 if np.isnan(event.delay) else event.delay
            applied = int(event.stamp + delay * SECOND)
            wanted += [int(event.index), int(indices[np.abs(stamps - applied).argmin()])]
        scored = self.frames[self.frames["scored"].astype(bool)]
        if len(scored):
            wanted.append(int(scored.loc[scored["j"].idxmin(), "index"]))
        return set(_spread(wanted, indices))


def story_of(outcome: Demonstration) -> Story:
    """The story of the demonstration's first object."""
    first = int(outcome.frames["object"].iloc[0])

    def rows_of(table: pd.DataFrame) -> pd.DataFrame:
        return table[table["object"] == first].reset_index(drop=True)

    clicks = {
        stamp_of(answer.header.stamp): Clicks(
            _points(answer.prompt.positive), _points(answer.prompt.negative)
        )
        for answer in outcome.record.answers
        if answer.id == first
    }
    return Story(
        title=f"{outcome.bag.name}: tracked through the ROS graph",
        sequence=outcome.bag,
        frames=rows_of(outcome.frames),
        events=rows_of(outcome.events),
        labels_at=outcome.record.labels_at,
        compared={name: rows_of(table) for name, table in outcome.compared.items()},
        clicks=clicks,
        rate=_frame_rate(outcome) * outcome.rate,
    )


def _points(points: Sequence[Any]) -> NDArray[np.float32]:
    """Message points as float32 [P, 2] (x, y)."""
    return np.array([(point.x, point.y) for point in points], np.float32).reshape(-1, 2)


def _frame_rate(outcome: Demonstration) -> float:
    """Frames per second of the recording."""
    stamps = np.sort(np.fromiter(outcome.record.received, np.int64))
    if len(stamps) < 2:
        return DEFAULT_FRAME_RATE
    return SECOND / float(np.median(np.diff(stamps)))


def _spread(wanted: Sequence[int], indices: NDArray[np.int_]) -> list[int]:
    """SHEET_PICTURES numbers: the first wanted, then those farthest from all that are chosen."""
    chosen = list(dict.fromkeys(wanted))[:SHEET_PICTURES]
    while len(chosen) < min(SHEET_PICTURES, len(indices)):
        distance = np.abs(indices[:, None] - np.array(chosen)[None, :]).min(axis=1)
        chosen.append(int(indices[int(distance.argmax())]))
    return chosen


def _pale(colour: pictures.Colour) -> pictures.Colour:
    red, green, blue = (round(0.45 * channel + 0.55 * 255) for channel in colour)
    return red, green, blue

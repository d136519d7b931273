# SPDX-License-Identifier: Apache-2.0
"""What a run through the ROS graph published: read from its recording, and scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.basics import SECOND, stamp_of
from lazyxmem_ros.data.bag_messages import decode_labels, pack_labels, unpack_labels
from lazyxmem_ros.data.bag_reader import BagReader
from lazyxmem_ros.data.samples import VideoSequence
from lazyxmem_ros.evaluation.graph import names
from lazyxmem_ros.evaluation.rows import FrameName, FrameRows, Measured, RunLog, event_row

STATES = ("tracked", "uncertain", "lost", "paused")
NANOSECONDS_PER_MILLISECOND = 1e6
MILLISECONDS_PER_SECOND = 1e3


@dataclass
class GraphRecord:
    """The recorded messages.

    Four of them are kept by the stamp of their frame (ns). masks: label maps packed as PNG, which
    `labels_at` unpacks. received: when the recorder got the frame's image, ns. latency: ms from
    then until it got the mask. tracks: decoded TrackArray messages.

    requests, answers: decoded messages in order. corrected: the same, each with the stamp (ns) of
    the newest frame when it came. diagnostics: the last value by name.
    """

    masks: dict[int, bytes] = field(default_factory=dict)
    received: dict[int, int] = field(default_factory=dict)
    latency: dict[int, float] = field(default_factory=dict)
    tracks: dict[int, Any] = field(default_factory=dict)
    requests: list[Any] = field(default_factory=list)
    corrected: list[tuple[int, Any]] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    diagnostics: dict[str, str] = field(default_factory=dict)

    def labels_at(self, stamp: int) -> NDArray[np.uint16] | None:
        """The label map published for a frame, uint16 [H, W]; None where there was none."""
        data = self.masks.get(stamp)
        if data is None:
            return None
        return unpack_labels(data)

    def latency_ms(self, percentile: float) -> float:
        """The latency in ms at a percentile (0..100); NaN where nothing was tracked."""
        values = list(self.latency.values())
        return float(np.percentile(values, percentile)) if values else float("nan")


def read_record(path: Path, image_topic: str) -> GraphRecord:
    """Read a recording of `run_graph`; raises BagError where it is damaged."""
    record = GraphRecord()
    with BagReader(path) as bag:
        for message in bag.messages():
            _take(record, message.topic, message.content, message.received, image_topic)
    for stamp, received in record.received.items():
        if stamp in record.latency:
            record.latency[stamp] = (record.latency[stamp] - received) / NANOSECONDS_PER_MILLISECOND
    record.latency = {
        stamp: value for stamp, value in record.latency.items() if stamp in record.received
    }
    return record


def score_record(record: GraphRecord, sequence: VideoSequence, log: RunLog) -> None:
    """Add the rows of the frames for which a mask was published, and of all corrections, to `log`.

    sequence: what was played, with the stamps that it was played with.
    """
    rows = FrameRows(log.frames)
    frame_of: dict[int, FrameName] = {}
    for sample in sequence.samples():
        frame_of[sample.stamp] = FrameName.of(sample)
        rows.introduce(sample)
        labels = record.labels_at(sample.stamp)
        if labels is not None:
            latency = record.latency.get(sample.stamp, float("nan")) / MILLISECONDS_PER_SECOND
            rows.add(sample, labels, _measured(record, sample.stamp), latency=latency)
    log.events.extend(sorted(_events(record, frame_of), key=lambda row: row["index"]))


def _take(record: GraphRecord, topic: str, content: Any, received: int, image_topic: str) -> None:
    if topic == image_topic:
        record.received.setdefault(stamp_of(content.header.stamp), received)
    elif topic == names.MASK_TOPIC:
        stamp = stamp_of(content.header.stamp)
        record.latency.setdefault(stamp, float(received))
        record.masks[stamp] = pack_labels(decode_labels(content))
    elif topic == names.TRACKS_TOPIC:
        record.tracks[stamp_of(content.header.stamp)] = content
    elif topic == names.REQUEST_TOPIC:
        record.requests.append(content)
    elif topic == names.ANSWER_TOPIC:
        record.answers.append(content)
    elif topic == names.CORRECTED_TOPIC:
        newest = max(
            record.received, key=record.received.__getitem__, default=stamp_of(content.header.stamp)
        )
        record.corrected.append((newest, content))
    elif topic == names.DIAGNOSTICS_TOPIC:
        for status in content.status:
            for value in status.values:
                record.diagnostics[f"{status.name}: {value.key}"] = value.value


def _measured(record: GraphRecord, stamp: int) -> dict[int, Measured]:
    """Object id -> what was published of it for a frame."""
    message = record.tracks.get(stamp)
    tracks = [] if message is None else message.tracks
    return {
        int(track.id): Measured(
            float(track.uncertainty),
            float(track.uncertainty_rate),
            STATES[track.state],
            float(track.predicted_iou),
        )
        for track in tracks
    }


def _events(record: GraphRecord, frame_of: dict[int, FrameName]) -> Iterator[dict[str, Any]]:
    """Corrections that came, then requests to the operator that were never answered."""
    reasons = {
        (stamp_of(entry.header.stamp), int(entry.id)): entry.reason for entry in record.requests
    }
    done = set()
    for newest, entry in record.corrected:
        stamp, object_id = stamp_of(entry.header.stamp), int(entry.id)
        if stamp in frame_of:
            done.add((stamp, object_id, entry.source))
            asked = reasons.get((stamp, object_id), "") if entry.source == "operator" else ""
            yield event_row(
                frame_of[stamp],
                object_id,
                entry.source,
                asked,
                applied=bool(entry.applied),
                outcome=entry.message,
                delay=(newest - stamp) / SECOND,
            )
    for (stamp, object_id), reason in reasons.items():
        if stamp in frame_of and (stamp, object_id, "operator") not in done:
            yield event_row(
                frame_of[stamp],
                object_id,
                "operator",
                reason,
                applied=False,
                outcome="not answered",
            )

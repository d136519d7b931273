# SPDX-License-Identifier: Apache-2.0
"""What a run through the ROS graph published, as the same rows that an offline run gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lazyxmem_ros.evaluation import graph
from lazyxmem_ros.evaluation.bags import (
    BagReader,
    decode_labels,
    pack_labels,
    stamp_of,
    unpack_labels,
)
from lazyxmem_ros.evaluation.metrics import boundary_f, region_similarity
from lazyxmem_ros.evaluation.sequences import VideoSequence
from lazyxmem_ros.evaluation.tables import EVENT_COLUMNS

STATES = ("tracked", "uncertain", "lost")
NANOSECONDS_PER_MILLISECOND = 1e6


@dataclass
class GraphRecord:
    """The recorded messages, by the stamp of their frame (ns).

    masks: PNG-coded label maps; `labels_at` decodes. received: when the recorder got a frame's
    image. latency: ms from there until it got the mask. tracks: decoded TrackArray messages.
    requests, answers: decoded messages in order; corrected: the same with the
    stamp (ns) of the newest frame when each came. diagnostics: last values by name.
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
        """A percentile (0..100) of the latency in ms; NaN where nothing was tracked."""
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


def score_record(
    record: GraphRecord, sequence: VideoSequence, *, method: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Frame and event rows (see `tables`) of the frames for which a mask was published."""
    frames: list[dict[str, Any]] = []
    first_index: dict[int, int] = {}
    previous: dict[int, NDArray[np.bool_]] = {}
    index_of: dict[int, tuple[int, str]] = {}
    run = {"sequence": sequence.name, "method": method, "repeat": 0}
    for sample in sequence.samples():
        index_of[sample.stamp] = (sample.index, sample.key)
        for object_id in sample.given:
            first_index.setdefault(object_id, sample.index)
        labels = record.labels_at(sample.stamp)
        if labels is None:
            continue
        tracks = _tracks_at(record, sample.stamp)
        for object_id, first in first_index.items():
            mask = labels == object_id
            truth = None if sample.truth is None else sample.truth == object_id
            track = tracks.get(object_id)
            before = previous.get(object_id)
            frames.append(
                {
                    **run,
                    "index": sample.index,
                    "key": sample.key,
                    "stamp": sample.stamp,
                    "object": object_id,
                    "scored": truth is not None and sample.index > first,
                    "visible": None if truth is None else bool(truth.any()),
                    "j": np.nan if truth is None else region_similarity(mask, truth),
                    "f": np.nan if truth is None else boundary_f(mask, truth),
                    "area": int(np.count_nonzero(mask)),
                    "stability": np.nan if before is None else region_similarity(mask, before),
                    "uncertainty": np.nan if track is None else float(track.uncertainty),
                    "uncertainty_rate": np.nan if track is None else float(track.uncertainty_rate),
                    "state": "" if track is None else STATES[track.state],
                    "held": False,
                    "seconds": record.latency.get(sample.stamp, np.nan) / 1e3,
                }
            )
            previous[object_id] = mask
    return pd.DataFrame(frames), _events(record, index_of, run)


def _take(record: GraphRecord, topic: str, content: Any, received: int, image_topic: str) -> None:
    if topic == image_topic:
        record.received.setdefault(stamp_of(content), received)
    elif topic == graph.MASK_TOPIC:
        stamp = stamp_of(content)
        record.latency.setdefault(stamp, float(received))
        record.masks[stamp] = pack_labels(decode_labels(content))
    elif topic == graph.TRACKS_TOPIC:
        record.tracks[stamp_of(content)] = content
    elif topic == graph.REQUEST_TOPIC:
        record.requests.append(content)
    elif topic == graph.ANSWER_TOPIC:
        record.answers.append(content)
    elif topic == graph.CORRECTED_TOPIC:
        newest = max(record.received, key=record.received.__getitem__, default=stamp_of(content))
        record.corrected.append((newest, content))
    elif topic == graph.DIAGNOSTICS_TOPIC:
        for status in content.status:
            for value in status.values:
                record.diagnostics[f"{status.name}: {value.key}"] = value.value


def _tracks_at(record: GraphRecord, stamp: int) -> dict[int, Any]:
    message = record.tracks.get(stamp)
    return {} if message is None else {int(track.id): track for track in message.tracks}


def _events(
    record: GraphRecord, index_of: dict[int, tuple[int, str]], run: dict[str, Any]
) -> pd.DataFrame:
    """Requests to the operator with their answers, and the tracker's own corrections."""
    rows = []
    reasons = {(stamp_of(entry), int(entry.id)): entry.reason for entry in record.requests}
    done = set()
    for newest, entry in record.corrected:
        stamp, object_id = stamp_of(entry), int(entry.id)
        if stamp not in index_of:
            continue
        done.add((stamp, object_id, entry.source))
        rows.append(
            _event(
                run,
                index_of[stamp],
                stamp,
                object_id,
                entry.source,
                reasons.get((stamp, object_id), "") if entry.source == "operator" else "",
                applied=bool(entry.applied),
                outcome=entry.message,
                delay=(newest - stamp) / 1e9,
            )
        )
    for (stamp, object_id), reason in reasons.items():
        if stamp in index_of and (stamp, object_id, "operator") not in done:
            rows.append(
                _event(
                    run,
                    index_of[stamp],
                    stamp,
                    object_id,
                    "operator",
                    reason,
                    applied=False,
                    outcome="not answered",
                )
            )
    return pd.DataFrame(rows, columns=EVENT_COLUMNS).sort_values("index", ignore_index=True)


def _event(
    run: dict[str, Any],
    frame: tuple[int, str],
    stamp: int,
    object_id: int,
    source: str,
    reason: str,
    *,
    applied: bool,
    outcome: str,
    delay: float = float("nan"),
) -> dict[str, Any]:
    return {
        **run,
        "index": frame[0],
        "key": frame[1],
        "stamp": stamp,
        "object": object_id,
        "source": source,
        "reason": reason,
        "applied": applied,
        "outcome": outcome,
        "delay": delay,
        "j_before": np.nan,
        "j_after": np.nan,
    }

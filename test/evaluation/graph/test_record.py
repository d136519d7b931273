# SPDX-License-Identifier: Apache-2.0
"""What a recording says, and what it does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from lazyxmem_ros.data.bag_messages import pack_labels
from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.evaluation.graph.record import GraphRecord, score_record
from lazyxmem_ros.evaluation.rows import RunLog


def test_what_is_not_published_is_not_known(make_tree: Callable[..., Path]) -> None:
    (sequence,) = open_dataset(make_tree("walk", 3, {index: (1,) for index in range(3)}))
    samples = list(sequence.samples())
    record = GraphRecord()
    for sample in (samples[0], samples[2]):  # the second frame was dropped
        assert sample.truth is not None
        record.masks[sample.stamp] = pack_labels(sample.truth)
        record.latency[sample.stamp] = 250.0
    log = RunLog()
    score_record(record, sequence, log)
    assert [row["index"] for row in log.frames] == [0, 2]
    for row in log.frames:
        assert row["held"] is None
        assert math.isnan(row["seconds"])
        assert row["latency"] == 0.25
    frames, _ = log.tables(sequence="walk", method="xmem")
    assert frames["held"].isna().all()

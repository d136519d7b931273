# SPDX-License-Identifier: Apache-2.0
"""How memory takes in a frame, the first time and when it is gone through again."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lazyxmem_ros.basics import BoolMask
from lazyxmem_ros.lazy.config import LazyConfig
from lazyxmem_ros.lazy.policy import doubted_since
from lazyxmem_ros.lazy.predicted_iou import Looks
from lazyxmem_ros.lazy.record import FrameRecord
from lazyxmem_ros.xmem import XMemTracker


def close_frame(
    tracker: XMemTracker,
    config: LazyConfig,
    record: FrameRecord,
    looks: Mapping[int, Looks],
    masks: Mapping[int, BoolMask],
    *,
    held: bool,
) -> None:
    """Closes a tracker's open frame: memory takes it in with corrected masks [H, W], if there are
    any, as it was predicted, or, where it is `held` and no mask was given on it, not at all.
    """
    if masks:
        learn(tracker, config, record, looks, masks, told=record.told & masks.keys())
    elif held and not record.given:
        tracker.hold(record.frame)
    else:
        tracker.memorize(record.frame)


def learn(
    tracker: XMemTracker,
    config: LazyConfig,
    record: FrameRecord,
    looks: Mapping[int, Looks],
    masks: Mapping[int, BoolMask],
    *,
    told: Collection[int],
) -> None:
    """Lets memory take in corrected masks [H, W] of a tracker's newest frame. What a person shows
    in those `told` is what the objects look like, as soon as memory knows.
    """
    doubted = doubted_since(config, record.histories, told)
    tracker.correct(record.frame, masks, told=told, doubted_since=doubted)
    for object_id in told:
        if object_id in looks and config.is_in_view(masks[object_id]):
            looks[object_id].told = record.stamp

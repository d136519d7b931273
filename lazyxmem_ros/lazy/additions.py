# SPDX-License-Identifier: Apache-2.0
"""How objects that are shown on a past frame reach memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lazyxmem_ros.basics import BoolMask
from lazyxmem_ros.lazy.past import Past
from lazyxmem_ros.lazy.policy import ObjectHistory
from lazyxmem_ros.lazy.record import FrameRecord
from lazyxmem_ros.lazy.results import Outcome
from lazyxmem_ros.lazy.state import FollowedObject, LazyState
from lazyxmem_ros.xmem import MaskError


def add_to_past(
    state: LazyState, past: Past, records: list[FrameRecord], masks: dict[int, BoolMask]
) -> Outcome:
    """Adds masks [H, W] of objects on a past frame; see `LazyTracker.add_to_past`.

    records: those of that frame (`Past.replayable`). Raises MaskError, changing nothing.
    """
    frame, newest = records[-1].frame, state.newest
    assert newest is not None
    for object_id, mask in masks.items():
        _check_new(state, frame.stamp, object_id, mask)
    labels = state.labels_with(records[-1], {})
    labels[np.isin(labels, list(masks))] = 0  # a known object is where it is shown, nowhere else
    for object_id, mask in reversed(list(masks.items())):  # of two the one named first covers
        labels[mask] = object_id
    for record in records:
        record.show(masks)
    for object_id in masks:
        _introduce(state, object_id, frame.index)
    left = past.schedule(frame.stamp, at_once=True)
    return Outcome(
        applied=True,
        reason=f"shown {newest.index - frame.index} frames late, on the frame itself; "
        f"{left} frames are gone through again",
        stamp=frame.stamp,
        object_ids=tuple(masks),
        applied_stamp=frame.stamp,
        labels=labels,
    )


def _check_new(state: LazyState, stamp: int, object_id: int, mask: BoolMask) -> None:
    """An id belongs to one object at a time, and its first mask shows something."""
    item = state.objects.get(object_id)
    since = [record.frame for record in state.history.replayable(since=stamp)]
    if state.newest is not None and state.newest.frame not in since:
        since.append(state.newest.frame)
    before = (f for f in since if item is None or f.index < item.born)
    if any(object_id in f.object_ids for f in before):
        raise MaskError(
            f"object id {object_id} belonged to another object on that frame or since: "
            "choose another id"
        )
    first = item is None or all(f.index < item.born for f in since if f.stamp == stamp)
    if first and not mask.any():
        raise MaskError(f"the first mask of object {object_id} is empty")


def _introduce(state: LazyState, object_id: int, index: int) -> None:
    """The object is known from a past frame on; a given mask starts the person's cool-down."""
    item = state.objects.get(object_id)
    if item is None:
        history = ObjectHistory(operator_index=index)
        state.objects[object_id] = FollowedObject(
            label="", born=index, history=history, arriving=True
        )
        state.removed.discard(object_id)
        return
    helped = max(index, item.history.operator_index or 0)
    item.history = replace(item.history, operator_index=helped)
    if item.born > index:
        item.born, item.arriving = index, True

# SPDX-License-Identifier: Apache-2.0
"""Objects that are shown on a past frame: they enter memory there, and the frames since are gone
through again, as after a late correction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lazyxmem_ros.correction.base import BoolMask
from lazyxmem_ros.lazy.late import Moment
from lazyxmem_ros.lazy.policy import ObjectHistory
from lazyxmem_ros.lazy.state import FollowedObject, LazyState, label_map
from lazyxmem_ros.lazy.types import Labels, Outcome
from lazyxmem_ros.lazy.uncertainty import winning_class
from lazyxmem_ros.xmem import MaskError


def add_to_past(state: LazyState, moments: list[Moment], masks: dict[int, BoolMask]) -> Outcome:
    """Adds masks [H, W] of objects on a past frame; see `LazyTracker.add_to_past`.

    moments: what is kept of that frame (`LazyState.moments`). Raises MaskError, changing nothing.
    """
    frame, newest = moments[-1].frame, state.newest
    assert newest is not None
    for object_id, mask in masks.items():
        _check(state, frame.stamp, object_id, mask)
    labels = _labels_with(moments[-1], masks)
    for moment in moments:
        moment.additions.append(dict(masks))
    for object_id in masks:
        _introduce(state, object_id, frame.index)
    left = state.go_back(frame.stamp, at_once=True)
    return Outcome(
        applied=True,
        reason=f"shown {newest.frame.index - frame.index} frames late, on the frame itself; "
        f"{left} frames are gone through again",
        stamp=frame.stamp,
        object_ids=tuple(masks),
        applied_stamp=frame.stamp,
        labels=labels,
    )


def _check(state: LazyState, stamp: int, object_id: int, mask: BoolMask) -> None:
    """An id belongs to one object at a time, and its first mask shows something."""
    item = state.objects.get(object_id)
    since = [m.frame for m in state.timeline.moments if m.stamp >= stamp]
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


def _labels_with(moment: Moment, masks: Mapping[int, BoolMask]) -> Labels:
    """The frame's label map, uint16 [H, W], with masks; of two the one named first covers."""
    labels = label_map(winning_class(moment.frame.probabilities), moment.frame.object_ids)
    for object_id, mask in reversed(list(masks.items())):
        labels[mask] = object_id
    return labels

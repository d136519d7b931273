# SPDX-License-Identifier: Apache-2.0
"""What is decided about a past frame that is gone through again.

The same rules as the first time, with each object's history as it is in the corrected past: who is
LOST there has no say in whether memory learns the frame. Nobody is asked anything: that moment has
passed. What an object has looked like is followed through the corrected past too, so that its
predicted IoU is then what it would be had the answer been instant.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from lazyxmem_ros.lazy.policy import (
    Decision,
    LazyConfig,
    ObjectHistory,
    Observation,
    TrackState,
    decide,
    hold_frame,
)
from lazyxmem_ros.lazy.predicted_iou import IouPredictor, Looks
from lazyxmem_ros.lazy.uncertainty import measure
from lazyxmem_ros.xmem import Frame

Histories = dict[int, ObjectHistory]
"""Object id -> what the policy remembers of it."""
AllLooks = dict[int, Looks]
"""Object id -> what it has looked like."""


def judge_again(
    config: LazyConfig,
    frame: Frame,
    histories: Mapping[int, ObjectHistory],
    *,
    chosen: Collection[int],
    given: Collection[int],
    paused: Collection[int],
    looks: AllLooks,
    iou_predictor: IouPredictor | None,
) -> tuple[Histories, bool]:
    """Decides about objects of a frame that is open again.

    Args:
        config: the settings.
        frame: with its new probabilities.
        histories: of its objects up to the frame before; new objects have none.
        chosen: ids of the objects that are decided upon; the others' histories stay.
        given: ids of those whose mask was given on it.
        paused: ids of those that were paused on it.
        looks: what its objects have looked like up to the frame before; where `iou_predictor` is
            given, the chosen ones' are brought up to this frame.
        iou_predictor: for predicted IoUs.

    Returns:
        The histories of the frame's objects with this frame, and whether the frame stays out of
        memory as far as these objects go.
    """
    quiet = replace(config, operator_corrections=False, pseudo_corrections=False)
    after = {i: histories[i] for i in frame.object_ids if i in histories}
    decisions: list[Decision] = []
    measured = measure(frame.probabilities).objects
    predicted: dict[int, float | None] = {}
    if iou_predictor is not None:
        mine = {i: looks.setdefault(i, Looks()) for i in frame.object_ids if i in chosen}
        predicted = iou_predictor.of_frame(frame, measured, mine)
    for object_id, seen in zip(frame.object_ids, measured, strict=True):
        if object_id not in chosen:
            continue
        before = _rested(after.get(object_id, ObjectHistory()), object_id in paused)
        observation = Observation(
            index=frame.index,
            stamp=frame.stamp,
            area=seen.area,
            entropy=seen.entropy,
            given=object_id in given,
            predicted_iou=predicted.get(object_id),
        )
        decision, after[object_id] = decide(quiet, before, observation, waiting=0)
        decisions.append(decision)
    return after, hold_frame(quiet, decisions)


def copied(looks: AllLooks) -> AllLooks:
    """The same, with lives of their own."""
    return {object_id: one.copy() for object_id, one in looks.items()}


def adopted(now: ObjectHistory, past: ObjectHistory, *, arriving: bool) -> ObjectHistory:
    """An object's history once the corrected past has caught up with the present.

    What was seen of it comes from there; who was asked for help, and when, from here. Where a
    pause began or ended since, the present holds. arriving: the object was not tracked here.
    """
    if TrackState.PAUSED in (now.state, past.state):
        return now
    if arriving:
        return past
    return replace(
        now,
        state=past.state,
        entropy=past.entropy,
        seen_stamp=past.seen_stamp,
        found_streak=past.found_streak,
    )


def _rested(history: ObjectHistory, paused: bool) -> ObjectHistory:
    """The history with a pause that begins or ends on this frame."""
    if paused:
        return history.paused()
    return ObjectHistory() if history.state is TrackState.PAUSED else history

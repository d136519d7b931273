# SPDX-License-Identifier: Apache-2.0
"""Takes a person's correction back, as if it had never been given."""

from __future__ import annotations

from dataclasses import replace

from lazyxmem_ros.lazy.config import Source
from lazyxmem_ros.lazy.past import Past
from lazyxmem_ros.lazy.policy import ObjectHistory, TrackState
from lazyxmem_ros.lazy.results import Outcome
from lazyxmem_ros.lazy.state import GivenAnswer, LazyState


def retract(state: LazyState, past: Past, stamp: int, object_id: int) -> Outcome:
    """See `LazyTracker.retract`."""
    newest = state.newest
    answers = [one for one in state.answers.get(object_id, []) if one.stamp == stamp]
    if not answers:
        return Outcome(
            False,
            f"there is no correction of object {object_id} on the frame of stamp {stamp} ns by "
            "a person that could be taken back",
            stamp,
        )
    answer = answers[-1]
    applied = answer.applied_stamp
    assert newest is not None
    now = applied == newest.stamp and newest.open
    if not now and not past.replayable(applied):
        return Outcome(
            False,
            f"the frame of stamp {applied} ns is not kept any more: corrections are taken back "
            "within correction_horizon and correction_bytes",
            stamp,
        )
    records = past.records(applied)
    for record in records:
        record.take_back(object_id, stamp)
    if now and answer is state.answers[object_id][-1]:
        item = state.objects[object_id]
        item.history = _without_answer(item.history, answer.before)
    _take_back(state, object_id, answer)
    reason = ""
    if not now:
        reason = f"{past.schedule(applied)} frames are gone through again without it"
    record = newest if now else past.replayable(applied)[-1]
    masks = newest.all_corrections() if now else record.learnt
    followed = state.tracker.object_ids
    return Outcome(
        applied=True,
        reason=reason,
        stamp=stamp,
        object_ids=(object_id,),
        applied_stamp=applied,
        labels=state.labels_with(record, {i: m for i, m in masks.items() if i in followed}),
    )


def _without_answer(now: ObjectHistory, before: ObjectHistory) -> ObjectHistory:
    """An object's history `before` an answer; a pause that began or ended since holds."""
    if now.state is TrackState.PAUSED:
        return before.paused()
    return now if before.state is TrackState.PAUSED else before


def _take_back(state: LazyState, object_id: int, answer: GivenAnswer) -> None:
    """Undoes what an answer has changed besides its frame: cool-down and requests."""
    answers, item = state.answers[object_id], state.objects[object_id]
    place = answers.index(answer)
    later = answers[place + 1 :]
    for one in later:  # each leads back to what was before it
        if one.before.operator_index == answer.index:
            one.before = _helped_as(one.before, answer.before)
    del answers[place]
    if later:
        later[0].corrected = answer.corrected
    if item.history.operator_index == answer.index and not any(
        one.index == answer.index for one in answers
    ):
        item.history = _helped_as(item.history, answer.before)
    first = answers[0].corrected if answers else answer.corrected
    item.corrected[Source.OPERATOR] = max([first, *(one.stamp for one in answers)])
    if not item.corrected[Source.OPERATOR]:
        del item.corrected[Source.OPERATOR]
    if not later:
        _ask_again(state, object_id, answer)
    named = state.history.find(answer.stamp)
    if named is not None:
        named.applied.pop((object_id, Source.OPERATOR), None)
        for one in answers:
            if one.stamp == answer.stamp:
                named.applied[object_id, Source.OPERATOR] = one.digest


def _helped_as(history: ObjectHistory, other: ObjectHistory) -> ObjectHistory:
    """A history in which persons have helped as in another one; what was found since holds."""
    absences = min(history.absences, other.absences)
    return replace(history, operator_index=other.operator_index, absences=absences)


def _ask_again(state: LazyState, object_id: int, answer: GivenAnswer) -> None:
    """What the answer has answered is not answered any more."""
    assert state.newest is not None
    item = state.objects[object_id]
    for request in answer.requests:
        record = state.history.find(request.stamp)
        if record is None or item.history.state is TrackState.PAUSED:
            continue
        record.requests[object_id] = request
        in_time = request.deadline is None or state.newest.stamp <= request.deadline
        if request.stamp in answer.open and in_time:
            asked = (*item.history.open, (Source.OPERATOR, request.stamp))
            item.history = replace(item.history, open=asked)

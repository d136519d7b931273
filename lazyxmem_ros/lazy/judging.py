# SPDX-License-Identifier: Apache-2.0
"""Judges a frame: measures it, decides about each object, and says so in a result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from lazyxmem_ros.basics import Labels
from lazyxmem_ros.lazy.config import Source
from lazyxmem_ros.lazy.packed import PackedMask
from lazyxmem_ros.lazy.past import Past
from lazyxmem_ros.lazy.policy import Decision, Observation, decide_together, hold_frame
from lazyxmem_ros.lazy.prompts import operator_prompt, pseudo_prompt
from lazyxmem_ros.lazy.record import FrameRecord, Request
from lazyxmem_ros.lazy.results import StateChange, StepResult, Track
from lazyxmem_ros.lazy.state import LazyState, label_map
from lazyxmem_ros.lazy.uncertainty import Uncertainty, measure


class FrameJudge:
    """Makes the newest frame's result and notes in the state what was decided."""

    def __init__(self, state: LazyState, past: Past) -> None:
        self._state = state
        self._past = past

    def conclude(self, newest: FrameRecord, given: set[int]) -> StepResult:
        """Measures the frame, decides and makes the result.

        Where the frame has been decided upon before (objects were added to it), only the
        objects of `given` masks are decided upon.
        """
        frame, state = newest.frame, self._state
        uncertainty = measure(frame.probabilities)
        again = state.history.find(frame.stamp) is not None
        expired = [] if again else state.expire_requests(frame.stamp)
        chosen = given if again else set(frame.object_ids)
        self._weigh(newest, uncertainty, chosen)
        decisions = self._decide(newest, uncertainty, chosen, given)
        labels = label_map(uncertainty.winner, frame.object_ids)
        requests = self._requests(newest, labels, uncertainty, decisions)
        if newest.all_corrections():
            labels = state.labels_with(newest, newest.all_corrections())
        newest.masks = {i: PackedMask.pack(labels == i) for i in frame.object_ids}
        if not again:
            newest.held = hold_frame(state.config, decisions.values())
        tracks = self._tracks(newest, uncertainty)
        return StepResult(
            stamp=frame.stamp,
            index=frame.index,
            labels=labels,
            tracks=tracks,
            requests=requests,
            changes=self._publish_states(tracks),
            suppressed={i: d.reason for i, d in decisions.items() if d.suppressed},
            expired=expired,
            held=newest.held and not newest.given,
            _entropy=uncertainty.entropy,
        )

    def _weigh(self, newest: FrameRecord, uncertainty: Uncertainty, chosen: set[int]) -> None:
        """The predicted IoU of each of the chosen objects, and portraits where they are due."""
        frame, state = newest.frame, self._state
        if state.iou_predictor is None:
            return
        looks = {i: state.objects[i].looks for i in frame.object_ids if i in chosen}
        predicted = state.iou_predictor.of_frame(
            frame, uncertainty.objects, looks, all_known=self._past.replay is None
        )
        for object_id, expected in predicted.items():
            state.objects[object_id].predicted_iou = expected

    def _decide(
        self, newest: FrameRecord, uncertainty: Uncertainty, chosen: set[int], given: set[int]
    ) -> dict[int, Decision]:
        """A decision for each of the chosen objects, in the order in which they may ask."""
        frame, state = newest.frame, self._state
        seen = {
            object_id: Observation(
                index=frame.index,
                stamp=frame.stamp,
                area=measured.area,
                entropy=measured.entropy,
                given=object_id in given,
                predicted_iou=state.objects[object_id].predicted_iou,
                share=state.objects[object_id].looks.share,
                mistakable=object_id in frame.places and frame.places[object_id].mistakable,
            )
            for object_id, measured in zip(frame.object_ids, uncertainty.objects, strict=True)
            if object_id in chosen
        }
        histories = {i: state.objects[i].history for i in seen}
        waiting = len(state.open_questions() - {frame.stamp})
        unsettled = self._past.told_ids - given
        decisions: dict[int, Decision] = {}
        for object_id, (decision, history) in decide_together(
            state.config, histories, seen, waiting=waiting
        ).items():
            item = state.objects[object_id]
            if object_id in unsettled:  # what is found may be what a person said that it is not
                history = replace(history, absences=item.history.absences)
            item.history, item.rate = history, decision.rate
            decisions[object_id] = decision
        return decisions

    def _tracks(self, newest: FrameRecord, uncertainty: Uncertainty) -> list[Track]:
        tracks = []
        for object_id, seen in zip(newest.frame.object_ids, uncertainty.objects, strict=True):
            item = self._state.objects[object_id]
            tracks.append(
                Track(
                    object_id=object_id,
                    label=item.label,
                    state=item.history.state,
                    box=seen.box,
                    area=seen.area,
                    uncertainty=seen.entropy,
                    uncertainty_rate=item.rate,
                    predicted_iou=item.predicted_iou,
                )
            )
        return tracks

    def _publish_states(self, tracks: Iterable[Track]) -> list[StateChange]:
        changes = []
        for track in tracks:
            item = self._state.objects[track.object_id]
            before = item.published
            if before is not None and before is not track.state:
                changes.append(StateChange(track.object_id, track.label, before, track.state))
            item.published = track.state
        return changes

    def _requests(
        self,
        newest: FrameRecord,
        labels: Labels,
        uncertainty: Uncertainty,
        decisions: Mapping[int, Decision],
    ) -> list[Request]:
        frame, image, requests = newest.frame, newest.image, []
        assert image is not None  # it is the newest frame
        timeout = self._state.config.request_timeout
        for object_id, decision in decisions.items():
            if decision.request is None:
                continue
            mask = labels == object_id
            position = frame.object_ids.index(object_id)
            if decision.request is Source.PSEUDO:
                # Within the mask the masked entropy map is the entropy map.
                prompt = pseudo_prompt(mask, uncertainty.entropy.float().cpu().numpy())
            else:
                prompt = operator_prompt(mask)
            requests.append(
                Request(
                    object_id=object_id,
                    label=self._state.objects[object_id].label,
                    source=decision.request,
                    reason=decision.reason,
                    uncertainty=uncertainty.objects[position].entropy,
                    uncertainty_rate=decision.rate,
                    stamp=frame.stamp,
                    index=frame.index,
                    deadline=frame.stamp + timeout if timeout else None,
                    image=image,
                    mask=mask,
                    prompt=replace(prompt, prior_iou=self._state.objects[object_id].predicted_iou),
                )
            )
        return requests

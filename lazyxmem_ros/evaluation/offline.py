# SPDX-License-Identifier: Apache-2.0
"""Runs one method on one sequence, frame by frame: the paper's offline evaluation.

The tracker is the node's `LazyTracker`. Its corrections come from a simulated operator, who knows
the ground truth, and straight from the corrector. Without a reaction delay a correction changes the
frame that it is about before that frame is scored; with a delay it comes when a later frame is the
newest.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.basics import SECOND, Labels
from lazyxmem_ros.correction.base import (
    BoolMask,
    Corrector,
    CorrectorError,
    Prompt,
    PromptError,
    Refinement,
    objection,
)
from lazyxmem_ros.data.errors import DatasetError, because
from lazyxmem_ros.data.samples import Sample, VideoSequence, begin_late, jump_ahead, with_next
from lazyxmem_ros.evaluation.methods import Method, Schedule, Trigger
from lazyxmem_ros.evaluation.metrics import region_similarity
from lazyxmem_ros.evaluation.rows import (
    NAN,
    FrameName,
    FrameRows,
    Measured,
    RunLog,
    event_row,
    truth_of,
)
from lazyxmem_ros.evaluation.simulated_operator import SimulatedOperator
from lazyxmem_ros.lazy import (
    Correction,
    LazyTracker,
    Request,
    Source,
    StampError,
    StepResult,
)
from lazyxmem_ros.xmem import FrameError

USABLE_SCORE = 0.0
"""A refinement with this score is the corrector's way of saying that it failed."""


@dataclass(frozen=True, eq=False)
class Ask:
    """A question to the operator: which object and frame it is about, what was predicted there."""

    object_id: int
    frame: FrameName
    image: NDArray[np.uint8]
    mask: BoolMask
    truth: BoolMask | None
    reason: str
    predicted_iou: float | None


@dataclass(frozen=True, eq=False)
class FrameOutcome:
    """A tracked frame and the label map, uint16 [H, W], that was published for it in the end."""

    sample: Sample
    labels: Labels
    result: StepResult
    seconds: float
    """Time that tracker and corrector took together, without reading and scoring."""


class SequenceRunner:
    """Runs a method over a sequence; iterate it to get every tracked frame, then read `log`.

    strict: raise DatasetError at the first fault instead of leaving the frame out. log: takes the
    rows, a new one where None. Raises DatasetError where a sequence has nothing to track.
    """

    def __init__(
        self,
        tracker: LazyTracker,
        corrector: Corrector,
        operator: SimulatedOperator,
        method: Method,
        *,
        schedule: Schedule | None = None,
        strict: bool = False,
        log: RunLog | None = None,
    ) -> None:
        self.log = RunLog() if log is None else log
        self._rows = FrameRows(self.log.frames)
        self._tracker = tracker
        self._corrector = corrector
        self._operator = operator
        self._method = method
        self._schedule = schedule or {}
        self._strict = strict
        self._asked_index: dict[int, int] = {}
        # A queue by the time of the answer; the counter keeps requests of one moment in order.
        self._answers: list[tuple[int, int, Ask]] = []
        self._questions = 0
        self._newest_stamp = 0
        # Names this run's images: a corrector outlives it, and the files of every sequence have
        # the same stamps.
        self._images = object()
        self._not_begun: set[int] = set()

    def run(self, sequence: VideoSequence) -> Iterator[FrameOutcome]:
        """Track, correct and score; yields each tracked frame once it is final."""
        try:
            for sample, following in with_next(sequence.samples()):
                for fault in sample.faults:
                    self._note_fault(sequence.name, fault)
                self.log.seen += 1
                self.log.read += sample.image is not None
                self._not_begun -= begin_late(sample, self._not_begun)
                if sample.image is None or not (self._rows.first_index or sample.given):
                    continue
                try:
                    if fault := jump_ahead(sample, following, self._newest_stamp):
                        raise StampError(fault)
                    outcome = self._track(sample)
                except (FrameError, StampError) as error:  # nothing has changed in the tracker
                    self._note_fault(sequence.name, f"frame {sample.key}: {error}")
                    self._not_begun |= sample.given.keys()
                    continue
                self._score(outcome)
                yield outcome
        finally:
            self._leave_unanswered()
        self._tracker.close()
        if len(sequence) == 0:
            raise DatasetError(f"{sequence.name}: the sequence is empty")
        if not self._rows.first_index:
            raise DatasetError(
                f"{sequence.name}: no frame with both an image and a mask of an object to track"
                + (because(self.log.faults) or f"; {sequence.mask_advice}")
            )

    def _note_fault(self, name: str, fault: str) -> None:
        if self._strict:
            raise DatasetError(f"{name}: {fault}")
        self.log.faults.append(fault)

    def _track(self, sample: Sample) -> FrameOutcome:
        assert sample.image is not None
        started = time.perf_counter()
        self._give_answers(before=sample.stamp)
        result = self._tracker.step(sample.image, sample.stamp, masks=sample.given or None)
        self._newest_stamp = sample.stamp
        self._rows.introduce(sample)
        labels = self._correct_itself(sample, result, result.labels)
        self._ask(sample, result, labels)
        labels = self._give_answers(before=sample.stamp + 1, labels=labels)
        return FrameOutcome(
            sample, self._tracker.shown(labels), result, time.perf_counter() - started
        )

    # ---- the tracker's own corrections

    def _correct_itself(self, sample: Sample, result: StepResult, labels: Labels) -> Labels:
        requests = [entry for entry in result.requests if entry.source is Source.PSEUDO]
        if not requests:
            return labels
        masks: dict[int, BoolMask] = {}
        for request in requests:
            answer = self._refine(request.image, request.prompt, request.stamp)
            if answer is None or not answer.mask.any():
                fault = "the corrector found nothing"
            else:
                fault = objection(answer.score, request.prompt.prior_iou)
            if answer is None or fault:
                self._event(sample, request, applied=False, reason=fault)
                self._tracker.dismiss(request.object_id, request.source)
                continue
            masks[request.object_id] = answer.mask
        if not masks:
            return labels
        outcome = self._tracker.apply(Correction(result.stamp, masks, Source.PSEUDO))
        for request in requests:
            if request.object_id in masks:
                self._event(
                    sample,
                    request,
                    applied=outcome.applied,
                    reason=outcome.reason,
                    after=masks[request.object_id],
                )
        return labels if outcome.labels is None else outcome.labels

    # ---- the operator's

    def _ask(self, sample: Sample, result: StepResult, labels: Labels) -> None:
        """Put the questions of this frame into the operator's queue."""
        # A request of the tracker's own goes out with what it found before anything is corrected;
        # whoever asks without one sees what is published.
        own = self._method.trigger is Trigger.POLICY
        shown = result.labels if own else self._tracker.shown(labels)
        expected = {track.object_id: track.predicted_iou for track in result.tracks}
        for object_id, reason in self._questions_on(sample, result, shown):
            truth = truth_of(sample, object_id)
            assert sample.image is not None
            ask = Ask(
                object_id,
                FrameName.of(sample),
                sample.image,
                shown == object_id,
                truth,
                reason,
                expected.get(object_id),
            )
            self._asked_index[object_id] = sample.index
            due = self._operator.answer_time(sample.stamp)
            heapq.heappush(self._answers, (due, self._questions, ask))
            self._questions += 1

    def _questions_on(
        self, sample: Sample, result: StepResult, labels: Labels
    ) -> list[tuple[int, str]]:
        """(object, reason) of the questions that this method's trigger asks on this frame."""
        trigger = self._method.trigger
        if trigger is Trigger.POLICY:
            return [
                (request.object_id, request.reason)
                for request in result.requests
                if request.source is Source.OPERATOR
            ]
        questions = []
        for object_id, first in self._rows.first_index.items():
            age = sample.index - first
            if age == 0:
                continue
            if trigger is Trigger.RANDOM and sample.index in self._schedule.get(object_id, ()):
                questions.append((object_id, "drawn at random"))
            elif trigger is Trigger.EVERY_N and age % self._method.every == 0:
                questions.append((object_id, f"every {self._method.every} frames"))
            elif trigger is Trigger.ORACLE and sample.truth is not None:
                score = region_similarity(labels == object_id, sample.truth == object_id)
                if score < self._method.below and not self._cooling_down(object_id, sample.index):
                    questions.append((object_id, f"IoU {score:.2f}"))
        return questions

    def _cooling_down(self, object_id: int, index: int) -> bool:
        last = self._asked_index.get(object_id)
        return last is not None and index - last <= self._method.lazy.cooldown_frames

    def _give_answers(self, *, before: int, labels: Labels | None = None) -> Labels:
        """Apply the answers that come before the time `before` (ns); returns the newest labels."""
        newest = np.zeros((0, 0), np.uint16) if labels is None else labels
        while self._answers and self._answers[0][0] < before:
            batch = self._next_answers()
            answers = {ask.object_id: self._answer(ask) for ask in batch}
            masks = {number: mask for number, mask in answers.items() if mask is not None}
            if not masks:
                continue
            stamp = self._newest_stamp if self._method.to_newest else batch[0].frame.stamp
            outcome = self._tracker.apply(Correction(stamp, masks, Source.OPERATOR))
            for ask in batch:
                if ask.object_id in masks:
                    self._answered(ask, outcome.applied, outcome.reason, masks)
            # A late correction shows its own frame, not the newest one.
            if outcome.labels is not None and outcome.applied_stamp == self._newest_stamp:
                newest = outcome.labels
        return newest

    def _next_answers(self) -> list[Ask]:
        """The next answers that come at one time and are about one frame."""
        due, _, first = heapq.heappop(self._answers)
        batch = [first]
        while (
            self._answers
            and self._answers[0][0] == due
            and self._answers[0][2].frame.stamp == first.frame.stamp
        ):
            batch.append(heapq.heappop(self._answers)[2])
        return batch

    def _answer(self, ask: Ask) -> BoolMask | None:
        """The mask that the operator's answer leads to; None where there is no answer."""
        request = self._tracker.request(ask.frame.stamp, ask.object_id)
        if request is not None and not self._tracker.is_open(request):
            self._answered(ask, False, "it came too late", {})
            return None
        if ask.truth is None:
            self._declined(ask, "the frame is not annotated")
            return None
        prompt = self._operator.click(ask.truth, ask.mask)
        if prompt is None:
            self._declined(ask, "the operator saw nothing to correct")
            return None
        if prompt.is_only_mask:
            return prompt.mask
        prompt = prompt.about(ask.mask, ask.predicted_iou)
        answer = self._refine(ask.image, prompt, ask.frame.stamp)
        if answer is None:
            self._answered(ask, False, "the corrector found nothing", {})
            return None
        return answer.mask

    def _declined(self, ask: Ask, why: str) -> None:
        """The operator has nothing to say, which ends the request."""
        self._answered(ask, False, why, {})
        self._tracker.dismiss(ask.object_id, Source.OPERATOR)

    def _leave_unanswered(self) -> None:
        """Write down the questions that the end has overtaken."""
        for _, _, ask in sorted(self._answers):
            self.log.events.append(
                event_row(
                    ask.frame,
                    ask.object_id,
                    "operator",
                    ask.reason,
                    applied=False,
                    outcome="not answered",
                    before=ask.mask,
                    truth=ask.truth,
                )
            )

    def _refine(self, image: NDArray[np.uint8], prompt: Prompt, stamp: int) -> Refinement | None:
        try:
            (refinement,) = self._corrector.refine(image, [prompt], image_key=(self._images, stamp))
        except (PromptError, CorrectorError) as error:
            self.log.faults.append(f"{self._corrector.name}: {error}")
            return None
        return refinement if refinement.score > USABLE_SCORE else None

    # ---- what is written down

    def _event(
        self,
        sample: Sample,
        request: Request,
        *,
        applied: bool,
        reason: str,
        after: BoolMask | None = None,
    ) -> None:
        self.log.events.append(
            event_row(
                FrameName.of(sample),
                request.object_id,
                "pseudo",
                request.reason,
                applied=applied,
                outcome=reason,
                delay=0.0,
                before=request.mask,
                after=after,
                truth=truth_of(sample, request.object_id),
            )
        )

    def _answered(
        self, ask: Ask, applied: bool, outcome: str, masks: Mapping[int, BoolMask]
    ) -> None:
        self.log.events.append(
            event_row(
                ask.frame,
                ask.object_id,
                "operator",
                ask.reason,
                applied=applied,
                outcome=outcome,
                delay=(self._newest_stamp - ask.frame.stamp) / SECOND,
                before=ask.mask,
                after=masks.get(ask.object_id),
                truth=ask.truth,
            )
        )

    def _score(self, outcome: FrameOutcome) -> None:
        measured = {
            track.object_id: Measured(
                track.uncertainty,
                NAN if track.uncertainty_rate is None else track.uncertainty_rate,
                track.state.name.lower(),
                NAN if track.predicted_iou is None else track.predicted_iou,
            )
            for track in outcome.result.tracks
        }
        held, seconds = outcome.result.held, outcome.seconds
        self._rows.add(outcome.sample, outcome.labels, measured, held=held, seconds=seconds)

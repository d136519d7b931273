# SPDX-License-Identifier: Apache-2.0
"""What lazy tracking remembers between calls, and how it goes through the past again.

A person answers after seconds, and the camera does not wait. What is said of a past frame enters
memory as that frame's: a fork of the tracker starts from the last copy of memory before it and goes
through the frames since from their features, a few with every new one, until it has caught up; then
it takes the tracker's place.

The same rules decide about a frame as the first time, with each object's history as it is in the
corrected past: who is LOST there has no say in whether memory learns the frame. What an object has
looked like is followed through the corrected past too, so that its predicted IoU is then what it
would be had the answer been instant. Nobody is asked anything: that moment has passed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from lazyxmem_ros.basics import BoolMask, Labels
from lazyxmem_ros.lazy.history import (
    AllLooks,
    FrameRecord,
    Histories,
    History,
    Request,
    copy_looks,
    last_copy,
)
from lazyxmem_ros.lazy.policy import (
    Decision,
    LazyConfig,
    ObjectHistory,
    Observation,
    Source,
    TrackState,
    decide,
    doubted_since,
    expire,
    hold_frame,
)
from lazyxmem_ros.lazy.predicted_iou import IouPredictor, Looks
from lazyxmem_ros.lazy.uncertainty import measure, winning_class
from lazyxmem_ros.xmem import Frame, TrackerError, TrackerState, XMemTracker

ATTEMPTS = 3
"""Times that a replay may fail (the device's memory is full) until it is given up."""
FRAMES_AT_LEAST = 2
"""Frames that a replay goes through with every new one, whatever its budget: one new frame comes
with each step, so with fewer it would never arrive."""
RETURNS = 2
"""Times that corrections send a replay back before it takes over first and goes back then: those
who answer all the time would keep it from ever arriving."""


@dataclass
class FollowedObject:
    """What is known of an object besides its memory.

    Attributes:
        label: its name.
        born: index of the frame that introduced it.
        history: for the policy.
        published: its state in the last result; None before the first.
        rate: its entropy's change on the last frame that was decided upon, or None.
        predicted_iou: its predicted IoU on that frame, or None.
        looks: what it has looked like.
        corrected: source -> stamp of the newest frame of which a correction was applied.
        arriving: it was shown on a past frame, before it was known, and the frames since are still
            being gone through.
    """

    label: str
    born: int
    history: ObjectHistory = field(default_factory=ObjectHistory)
    published: TrackState | None = None
    rate: float | None = None
    predicted_iou: float | None = None
    looks: Looks = field(default_factory=Looks)
    corrected: dict[Source, int] = field(default_factory=dict)
    arriving: bool = False

    def copy(self) -> FollowedObject:
        """The same, with a life of its own."""
        return replace(self, looks=self.looks.copy(), corrected=dict(self.corrected))


@dataclass(eq=False)
class GivenAnswer:
    """A person's correction of an object that may be taken back, and what it has changed.

    Attributes:
        stamp: of the frame that it named. applied_stamp: of the frame that it was applied to.
        index: of the newest frame when it came.
        digest: of its mask.
        before: the object's history before it.
        corrected: `FollowedObject.corrected` of persons before it, 0 for none.
        told: `Looks.told` before it.
        requests: those that it has answered.
        open: of these, the stamps of those that were open.
    """

    stamp: int
    applied_stamp: int
    index: int
    digest: bytes
    before: ObjectHistory
    corrected: int
    told: int | None
    requests: list[Request]
    open: frozenset[int]


@dataclass
class LazyState:
    """Everything.

    Attributes:
        tracker: XMem, with its memory.
        config: the settings.
        history: the frames of the last seconds.
        iou_predictor: the calibration of the tracker's weights; None: it has none.
        objects: by id.
        removed: ids of objects that were removed and are not followed now.
        newest: the newest frame; None before the first.
        replay: the replay of past frames that is under way.
        answers: object id -> its corrections by persons that may be taken back, as they came.
    """

    tracker: XMemTracker
    config: LazyConfig
    history: History
    iou_predictor: IouPredictor | None = None
    objects: dict[int, FollowedObject] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    newest: FrameRecord | None = None
    replay: Replay | None = None
    answers: dict[int, list[GivenAnswer]] = field(default_factory=dict)

    # ---- requests

    def open_requests(self) -> list[tuple[int, Source]]:
        """Requests that wait for an answer: (object id, source)."""
        return [(i, source) for i, item in self.objects.items() for source, _ in item.history.open]

    def request(self, stamp: int, object_id: int) -> Request | None:
        """What a person was asked about an object on a frame and has not answered."""
        record = self.history.find(stamp)
        return None if record is None else record.requests.get(object_id)

    def is_open(self, request: Request) -> bool:
        """Whether a request may still be answered."""
        item = self.objects.get(request.object_id)
        return item is not None and (request.source, request.stamp) in item.history.open

    def dismiss(self, object_id: int, source: Source) -> None:
        """Counts a request as not open any more; unknown objects and sources are ignored."""
        item = self.objects.get(object_id)
        if item is not None:
            self._unregister(object_id, source)
            item.history = item.history.closed(source)

    def expire_requests(self, stamp: int) -> list[tuple[int, Source]]:
        """Gives up what is too old on the frame of a stamp; returns (object id, source)."""
        oldest = self.history.oldest
        given_up: list[tuple[int, Source]] = []
        for object_id, item in self.objects.items():
            item.history, late = expire(
                self.config, item.history, stamp, oldest=oldest.stamp if oldest else 0
            )
            given_up += [(object_id, source) for source in late]
        return given_up

    def note_corrected(self, object_id: int, source: Source, *, stamp: int, in_view: bool) -> None:
        """An object was corrected, now, on the frame of a stamp; that answers its open requests."""
        assert self.newest is not None
        item, newest = self.objects[object_id], self.newest
        if source is Source.OPERATOR:
            self._unregister(object_id, source)
            if (record := self.history.find(stamp)) is not None:
                record.requests.pop(object_id, None)  # also where its time was up
        item.history = item.history.corrected(
            source, index=newest.index, stamp=newest.stamp, in_view=in_view
        )
        item.corrected[source] = max(stamp, item.corrected.get(source, 0))
        if source is Source.OPERATOR:
            item.looks.told = item.corrected[source]

    def note_answer(self, object_id: int, stamp: int, applied_stamp: int, digest: bytes) -> None:
        """Notes what a person's correction is about to change of an object (`note_corrected`)."""
        assert self.newest is not None
        item = self.objects[object_id]
        open_ones = frozenset(s for source, s in item.history.open if source is Source.OPERATOR)
        asked = (self.request(named, object_id) for named in {stamp, *open_ones})
        answers = self.answers.setdefault(object_id, [])
        answers[:] = [one for one in answers if self.history.find(one.applied_stamp) is not None]
        answers.append(
            GivenAnswer(
                stamp=stamp,
                applied_stamp=applied_stamp,
                index=self.newest.index,
                digest=digest,
                before=item.history,
                corrected=item.corrected.get(Source.OPERATOR, 0),
                told=item.looks.told,
                requests=[request for request in asked if request is not None],
                open=open_ones,
            )
        )

    def take_back(self, object_id: int, answer: GivenAnswer) -> None:
        """Undoes what an answer has changed besides its frame: cool-down, requests, looks."""
        answers, item = self.answers[object_id], self.objects[object_id]
        place = answers.index(answer)
        later = answers[place + 1 :]
        for one in later:  # each leads back to what was before it
            if one.before.operator_index == answer.index:
                one.before = replace(one.before, operator_index=answer.before.operator_index)
        del answers[place]
        if later:
            later[0].corrected = answer.corrected
        if item.history.operator_index == answer.index and not any(
            one.index == answer.index for one in answers
        ):
            item.history = replace(item.history, operator_index=answer.before.operator_index)
        first = answers[0].corrected if answers else answer.corrected
        item.corrected[Source.OPERATOR] = max([first, *(one.stamp for one in answers)])
        if not item.corrected[Source.OPERATOR]:
            del item.corrected[Source.OPERATOR]
        if not later:
            item.looks.told = answer.told
            self._ask_again(object_id, answer)
        named = self.history.find(answer.stamp)
        if named is not None:
            named.applied.pop((object_id, Source.OPERATOR), None)
            for one in answers:
                if one.stamp == answer.stamp:
                    named.applied[object_id, Source.OPERATOR] = one.digest

    def _ask_again(self, object_id: int, answer: GivenAnswer) -> None:
        """What the answer has answered is not answered any more."""
        assert self.newest is not None
        item = self.objects[object_id]
        for request in answer.requests:
            record = self.history.find(request.stamp)
            if record is None or item.history.state is TrackState.PAUSED:
                continue
            record.requests[object_id] = request
            in_time = request.deadline is None or self.newest.stamp <= request.deadline
            if request.stamp in answer.open and in_time:
                asked = (*item.history.open, (Source.OPERATOR, request.stamp))
                item.history = replace(item.history, open=asked)

    def _unregister(self, object_id: int, source: Source) -> None:
        """Nobody is asked any more what the object's open requests to a person asked."""
        for other, stamp in self.objects[object_id].history.open:
            record = self.history.find(stamp)
            if other is source is Source.OPERATOR and record is not None:
                record.requests.pop(object_id, None)

    # ---- objects

    def paused_ids(self) -> frozenset[int]:
        """The objects that are paused."""
        paused = TrackState.PAUSED
        return frozenset(i for i, item in self.objects.items() if item.history.state is paused)

    def arriving_ids(self) -> set[int]:
        """The objects shown on a past frame that has not been caught up with."""
        return {i for i, item in self.objects.items() if item.arriving}

    def pause(self, object_id: int) -> None:
        """Lets an object rest; its open requests are dismissed."""
        self._unregister(object_id, Source.OPERATOR)
        item = self.objects[object_id]
        item.history = item.history.paused()

    def forget(self, object_id: int) -> None:
        """Forgets an object that was removed while the newest frame was the newest."""
        self._unregister(object_id, Source.OPERATOR)
        item = self.objects.pop(object_id)
        self.answers.pop(object_id, None)
        self.removed.add(object_id)
        if self.newest is not None:
            self.newest.forget(object_id)
            if not item.arriving:
                self.newest.removed.add(object_id)
        if item.arriving:
            self._unsay(object_id)

    def _unsay(self, object_id: int) -> None:
        """Replays the past as if nobody had shown an object that never arrived."""
        past = [*self.history.replayable(), *(self.replay.records if self.replay else ())]
        past += [self.newest] if self.newest else []
        shown = [record for record in past if record.shows(object_id)]
        for record in shown:
            record.forget(object_id)
            record.frame.given.pop(object_id, None)  # where the frame has been replayed
        if self.replay is not None and shown:
            first = min(record.stamp for record in shown)
            self.replay.revisit(max(first, self.replay.start), at_once=True)

    # ---- the newest frame

    def to_learn(self) -> dict[int, BoolMask]:
        """The corrected masks of the newest frame that memory takes in."""
        learnt: dict[int, BoolMask] = {}
        if self.newest is None:
            return learnt
        if self.config.update_from_pseudo:
            learnt |= self.newest.corrections[Source.PSEUDO]
        if self.config.update_from_operator:
            learnt |= self.newest.corrections[Source.OPERATOR]
        return learnt

    # ---- the past

    def replayable(self, stamp: int) -> list[FrameRecord]:
        """The records of the closed frame of a stamp: as it was, and as a replay has made it.

        Empty where it is not replayable.
        """
        found = [r for r in self.history.replay_for(stamp) if r.stamp == stamp]
        if self.replay is not None:
            again = (r for r in self.replay.records if r.stamp == stamp)
            found += [r for r in again if r not in found]
        return found

    def schedule_replay(self, stamp: int, *, at_once: bool = False) -> int:
        """Schedules replay from `stamp`, which is `replayable`; returns the frames queued.

        A replay that is under way from an earlier frame goes back to `stamp`. at_once: also where
        corrections have sent it back too often (see `Replay.revisit`).
        """
        if self.replay is not None and stamp >= self.replay.start:
            self.replay.revisit(stamp, at_once=at_once)
        else:
            records = self.history.replay_for(stamp)
            assert records
            self.replay = Replay(
                self.tracker,
                records,
                config=lambda: self.config,
                arriving=self.arriving_ids,
                iou_predictor=self.iou_predictor,
            )
        return self.replay.frames_left

    def advance_replay(self, budget: float) -> int:
        """Goes on with the replay for `budget` seconds; returns its frames once it has caught up,
        else 0.

        Every frame must be closed. What goes wrong on a frame is raised, and the next time it is
        gone through once more; the `ATTEMPTS`-th time the past is given up.
        """
        replay = self.replay
        if replay is None:
            return 0
        try:
            caught_up = replay.run(budget)
        except Exception as error:
            if replay.failures < ATTEMPTS:
                raise
            self.forget_features()
            raise TrackerError(
                "the frames since a late correction cannot be gone through again; the correction "
                f"is not learnt, and tracking goes on without it: {error}"
            ) from error
        if kept := self.history.replayable():
            replay.trim(kept[0].stamp)
        if not caught_up:
            return 0
        frames = replay.take_over(self.tracker, self.history, self.objects)
        for object_id, history in replay.histories.items():
            item = self.objects.get(object_id)
            if item is not None:
                item.history = adopted(item.history, history, arriving=item.arriving)
                item.looks = replay.looks.get(object_id, item.looks)
        for item in self.objects.values():
            item.arriving = False
        self.newest = replay.records[-1]
        if not replay.go_on():
            self.replay = None
        return frames

    def forget_features(self) -> None:
        """No frame before the next is replayable; objects that have not arrived go with it."""
        for object_id in self.arriving_ids() - set(self.tracker.object_ids):
            del self.objects[object_id]
            self.removed.add(object_id)
        for item in self.objects.values():
            item.arriving = False
        self.replay = None
        self.history.forget_features()

    def remembered(self) -> tuple[TrackerState, dict[int, FollowedObject]]:
        """Returns a copy of the tracker's memory and of what is known of its objects.

        While objects are arriving it is a copy of the corrected past, as far as that has been
        replayed and at least to where they all are known: the frames since are lost with the
        process, the objects are not.
        """
        now = self.tracker.state()
        if self.replay is None or not self.arriving_ids():
            return now, {i: self.objects[i].copy() for i in self.tracker.object_ids}
        known = set(self.replay.records[-1].frame.object_ids) | self.arriving_ids()
        self.replay.reach(known & self.objects.keys())
        state = self.replay.state(self.objects)
        objects = {i: self.objects[i].copy() for i in state.births}
        for object_id, item in objects.items():
            past = self.replay.histories.get(object_id, item.history)
            item.history = adopted(item.history, past, arriving=item.arriving)
            item.looks = self.replay.looks.get(object_id, item.looks).copy()
            item.arriving = False
        # Cool-downs count frames, those that are lost included.
        return replace(state, frames=now.frames), objects

    def corrected_labels(self, newest: FrameRecord) -> Labels:
        """The newest frame's label map with its corrections."""
        probabilities = self.tracker.preview(newest.frame, newest.all_corrections())
        return label_map(winning_class(probabilities), newest.frame.object_ids)


class Replay:
    """Goes through past frames again, from the first one's copy of the tracker's memory on."""

    def __init__(
        self,
        tracker: XMemTracker,
        records: list[FrameRecord],
        *,
        config: Callable[[], LazyConfig],
        arriving: Callable[[], set[int]],
        iou_predictor: IouPredictor | None,
    ) -> None:
        """Args:
        records: the frames, oldest first; the first one has a copy of memory.
        config: returns the settings as they are now.
        arriving: returns the objects that the tracker does not know yet on some of the frames.
        iou_predictor: predicts IoUs of the past frames.
        """
        self._iou_predictor = iou_predictor
        self._tracker = tracker
        self._config = config
        self._arriving = arriving
        self._pending = deque(records)
        self._done: list[FrameRecord] = []
        self._fork: XMemTracker | None = None  # until the first frame is gone through
        self._returns = 0
        self._left: int | None = None  # stamp from which to go on after taking over
        self.failures = 0
        """How often a frame could not be gone through."""
        self.histories: Histories = {}
        self.looks: AllLooks = {}

    @property
    def start(self) -> int:
        """Stamp of the first frame, nanoseconds."""
        return (self._done[0] if self._done else self._pending[0]).stamp

    @property
    def frames_left(self) -> int:
        """Frames still to go through."""
        return len(self._pending)

    @property
    def nbytes(self) -> int:
        """Bytes of what was made on the way; the features are the history's."""
        made = (r.frame.made_bytes + (r.state.nbytes if r.state else 0) for r in self._done)
        return sum(made)

    @property
    def records(self) -> list[FrameRecord]:
        """All frames, oldest first; those gone through are what they are now."""
        return [*self._done, *self._pending]

    def follow(self, record: FrameRecord) -> None:
        """Appends a new frame that was closed."""
        self._pending.append(record)

    def revisit(self, stamp: int, *, at_once: bool) -> None:
        """Goes back to the frame of a stamp, of which something new was said, if it is done.

        After `RETURNS` returns it goes back only once it has taken over, unless `at_once`. The
        stamp must not lie before `start`.
        """
        if not self._done or self._done[-1].stamp < stamp:
            return
        if self._left is not None:
            stamp = min(stamp, self._left)
        if self._returns == RETURNS and not at_once:
            self._left = stamp
            return
        self._returns += not at_once
        self._return_to(stamp)

    def _return_to(self, stamp: int) -> None:
        """Puts the frames from the last copy at or before a stamp on before the pending ones."""
        start = last_copy(self._done, stamp)
        assert start is not None  # the first one has a copy
        self._pending.extendleft(reversed(self._done[start:]))
        del self._done[start:]
        self._fork = self._left = None

    def run(self, budget: float) -> bool:
        """Goes on for `budget` seconds, `FRAMES_AT_LEAST` frames in any case.

        Returns whether it has caught up.
        """
        until, frames = time.monotonic() + budget, 0
        while self._pending and (frames < FRAMES_AT_LEAST or time.monotonic() < until):
            self._advance()
            frames += 1
        return not self._pending

    def reach(self, object_ids: set[int]) -> None:
        """Goes on until the fork knows these objects, or all frames are done."""
        while self._pending and not (self._fork and object_ids <= set(self._fork.object_ids)):
            self._advance()

    def trim(self, oldest: int) -> None:
        """Lets go of what only a return to before a stamp would need."""
        if self._left is not None:
            oldest = min(oldest, self._left)
        del self._done[: last_copy(self._done, oldest) or 0]

    def state(self, followed: Collection[int]) -> TrackerState:
        """Returns a copy of the fork's memory of the `followed` objects, after `reach`."""
        assert self._fork is not None
        fork, gone = self._fork, set(self._fork.object_ids) - set(followed)
        if gone:
            fork = self._tracker.fork(fork.state())
            fork.remove_objects(gone)
        return fork.state()

    def take_over(self, tracker: XMemTracker, history: History, followed: Iterable[int]) -> int:
        """Makes the fork the tracker and the replayed frames the history; returns their number.

        followed: the objects to go on with; others have been removed since.
        """
        assert self._fork is not None
        self._fork.remove_objects(set(self._fork.object_ids) - set(followed))
        tracker.adopt(self._fork)
        history.rewrite(self._done)
        return len(self._done)

    def go_on(self) -> bool:
        """Goes back, after taking over, for what could not wait for it; False: there is nothing."""
        if self._left is None:
            return False
        self._returns = self.failures = 0
        self._return_to(self._left)
        return True

    def _advance(self) -> None:
        """Goes through the next frame; where that fails, from the last copy on the next time."""
        record = self._pending[0]
        try:
            self._done.append(self._again(record))
        except BaseException:
            self.failures += 1
            if self._done:
                self._return_to(record.stamp)
            self._fork = None  # half of the frame was done
            raise
        self._pending.popleft()

    def _again(self, record: FrameRecord) -> FrameRecord:
        """Goes through a frame; returns its record as it is now."""
        fresh = self._fork is None
        if self._fork is None:
            assert record.state is not None
            self._fork = self._tracker.fork(record.state)
            self.histories, self.looks = dict(record.histories), copy_looks(record.looks)
        fork, arriving = self._fork, self._arriving()
        went = (set(fork.object_ids) - set(record.frame.object_ids) - arriving) | record.removed
        fork.remove_objects([i for i in fork.object_ids if i in went])
        self.looks = {i: looks for i, looks in self.looks.items() if i not in went}
        if fresh:
            assert fork.frame is not None  # the copy was made while its frame was open
            frame, held = fork.frame, record.held
        else:
            frame = fork.resegment(record.opening())
            held = self._decide(frame, record, frame.object_ids, set(frame.given))
        frame.settle()
        again = replace(
            record,
            features=frame,
            histories=self.histories,
            looks=self.looks,
            held=held,
            state=fork.state() if record.state else None,
        ).copy()
        for added in again.additions:
            fork.add_objects(frame, added)
            self._decide(frame, record, added, added)
        self._close(fork, frame, record, held=held or record.never_learnt)
        for object_id in record.told & self.looks.keys():
            self.looks[object_id].told = frame.stamp
        frame.settle()
        return again

    def _close(self, fork: XMemTracker, frame: Frame, record: FrameRecord, *, held: bool) -> None:
        learnt = {i: m for i, m in record.learnt.items() if i in fork.object_ids}
        if learnt:
            told = record.told & learnt.keys()
            doubted = doubted_since(self._config(), self.histories, told)
            fork.correct(frame, learnt, told=told, doubted_since=doubted)
            for object_id, mask in learnt.items():
                in_view = int(np.count_nonzero(mask)) > self._config().lost_area
                history = self.histories.get(object_id, ObjectHistory())
                self.histories[object_id] = history.corrected(
                    Source.OPERATOR, index=frame.index, stamp=frame.stamp, in_view=in_view
                )
        elif held and not frame.given:
            fork.hold(frame)
        else:
            fork.memorize(frame)

    def _decide(
        self, frame: Frame, record: FrameRecord, chosen: Collection[int], given: Collection[int]
    ) -> bool:
        """Decides about the `chosen` objects of a frame that is open again, and notes it in
        `histories` and `looks`; the other objects' stay. given: those whose mask was given on it.

        Returns whether the frame stays out of memory as far as the chosen objects go.
        """
        quiet = replace(self._config(), operator_corrections=False, pseudo_corrections=False)
        histories = {i: self.histories[i] for i in frame.object_ids if i in self.histories}
        measured = measure(frame.probabilities).objects
        predicted: dict[int, float | None] = {}
        if self._iou_predictor is not None:
            looks = {i: self.looks.setdefault(i, Looks()) for i in frame.object_ids if i in chosen}
            predicted = self._iou_predictor.of_frame(frame, measured, looks)
        decisions: list[Decision] = []
        for object_id, seen in zip(frame.object_ids, measured, strict=True):
            if object_id not in chosen:
                continue
            before = _rested(histories.get(object_id, ObjectHistory()), object_id in record.paused)
            observation = Observation(
                index=frame.index,
                stamp=frame.stamp,
                area=seen.area,
                entropy=seen.entropy,
                given=object_id in given,
                predicted_iou=predicted.get(object_id),
            )
            decision, histories[object_id] = decide(quiet, before, observation, waiting=0)
            decisions.append(decision)
        self.histories = histories
        return hold_frame(quiet, decisions)


def adopted(now: ObjectHistory, past: ObjectHistory, *, arriving: bool) -> ObjectHistory:
    """Returns an object's history once the corrected past has caught up with the present.

    What was seen of it comes from the past; who was asked for help, and when, from the present.
    Where a pause began or ended since, the present holds. arriving: the object was not tracked in
    the present.
    """
    if TrackState.PAUSED in (now.state, past.state):
        return now
    if arriving:
        return replace(past, open=now.open)
    return replace(
        now,
        state=past.state,
        entropy=past.entropy,
        seen_stamp=past.seen_stamp,
        found_streak=past.found_streak,
        trusted_index=past.trusted_index,
    )


def _rested(history: ObjectHistory, paused: bool) -> ObjectHistory:
    """Returns the history with a pause that begins or ends on this frame."""
    if paused:
        return history.paused()
    return ObjectHistory() if history.state is TrackState.PAUSED else history


def label_map(winner: Tensor, object_ids: tuple[int, ...]) -> Labels:
    """Classes [H, W] on the device (0 = background) -> label map uint16 [H, W] of object ids."""
    ids = np.array([0, *object_ids], np.uint16)
    # There are far fewer classes than 2^15, and fewer bytes leave the device.
    return ids[winner.short().cpu().numpy()]

# SPDX-License-Identifier: Apache-2.0
"""What lazy tracking remembers between calls."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from lazyxmem_ros.basics import BoolMask, Labels
from lazyxmem_ros.lazy.history import FrameRecord, History
from lazyxmem_ros.lazy.policy import LazyConfig, ObjectHistory, Source, TrackState, expire
from lazyxmem_ros.lazy.predicted_iou import IouPredictor, Looks
from lazyxmem_ros.lazy.replay_past import Replay, adopted
from lazyxmem_ros.lazy.types import Request
from lazyxmem_ros.lazy.uncertainty import winning_class
from lazyxmem_ros.xmem import TrackerError, TrackerState, XMemTracker

ATTEMPTS = 3
"""Times that a replay may fail (the device's memory is full) until it is given up."""


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
    """

    tracker: XMemTracker
    config: LazyConfig
    history: History
    iou_predictor: IouPredictor | None = None
    objects: dict[int, FollowedObject] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    newest: FrameRecord | None = None
    replay: Replay | None = None

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


def label_map(winner: Tensor, object_ids: tuple[int, ...]) -> Labels:
    """Classes [H, W] on the device (0 = background) -> label map uint16 [H, W] of object ids."""
    ids = np.array([0, *object_ids], np.uint16)
    # There are far fewer classes than 2^15, and fewer bytes leave the device.
    return ids[winner.short().cpu().numpy()]

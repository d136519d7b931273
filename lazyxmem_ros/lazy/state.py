# SPDX-License-Identifier: Apache-2.0
"""What lazy tracking remembers between calls of its objects, and of what was asked about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from lazyxmem_ros.basics import BoolMask, Labels
from lazyxmem_ros.lazy.config import LazyConfig, Source
from lazyxmem_ros.lazy.history import History
from lazyxmem_ros.lazy.policy import ObjectHistory, TrackState, expire
from lazyxmem_ros.lazy.predicted_iou import IouPredictor, Looks
from lazyxmem_ros.lazy.record import AllLooks, FrameRecord, Request
from lazyxmem_ros.lazy.uncertainty import winning_class
from lazyxmem_ros.xmem import XMemTracker


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

    def begun_again(self) -> FollowedObject:
        """A copy for when any stamp may come next: nothing is asked, and no frame can be named."""
        history = replace(self.history, open=())
        return replace(self, history=history, looks=self.looks.begun_again(), corrected={})


@dataclass(eq=False)
class GivenAnswer:
    """A person's correction of an object that may be taken back, and what it has changed.

    Attributes:
        stamp: of the frame that it named. applied_stamp: of the frame that it was applied to.
        index: of the newest frame when it came.
        digest: of its mask.
        before: the object's history before it.
        corrected: `FollowedObject.corrected` of persons before it, 0 for none.
        requests: those that it has answered.
        open: of these, the stamps of those that were open.
    """

    stamp: int
    applied_stamp: int
    index: int
    digest: bytes
    before: ObjectHistory
    corrected: int
    requests: list[Request]
    open: frozenset[int]


@dataclass
class LazyState:
    """Holds all that lazy tracking remembers between calls.

    Attributes:
        tracker: XMem, with its memory.
        config: the settings.
        history: the frames of the last seconds.
        iou_predictor: the calibration of the tracker's weights; None: it has none.
        objects: by id.
        removed: ids of objects that were removed and are not followed now.
        newest: the newest frame; None before the first.
        answers: object id -> its corrections by persons that may be taken back, as they came.
    """

    tracker: XMemTracker
    config: LazyConfig
    history: History
    iou_predictor: IouPredictor | None = None
    objects: dict[int, FollowedObject] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    newest: FrameRecord | None = None
    answers: dict[int, list[GivenAnswer]] = field(default_factory=dict)

    # ---- requests

    def open_requests(self) -> list[tuple[int, Source]]:
        """Requests that wait for an answer: (object id, source)."""
        return [(i, source) for i, item in self.objects.items() for source, _ in item.history.open]

    def open_questions(self) -> set[int]:
        """Stamps (ns) of the frames about which a person has been asked and has not answered."""
        asked = (one for item in self.objects.values() for one in item.history.open)
        return {stamp for source, stamp in asked if source is Source.OPERATOR}

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

    def forget_answers(self) -> None:
        """Forgets answers on forgotten frames, which cannot be taken back any more: they hold the
        images of what they answered.
        """
        for answers in self.answers.values():
            answers[:] = [a for a in answers if self.history.find(a.applied_stamp) is not None]

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

    def note_answer(self, object_id: int, stamp: int, applied_stamp: int, digest: bytes) -> None:
        """Notes what a person's correction is about to change of an object (`note_corrected`)."""
        assert self.newest is not None
        item = self.objects[object_id]
        open_ones = frozenset(s for source, s in item.history.open if source is Source.OPERATOR)
        asked = (self.request(named, object_id) for named in {stamp, *open_ones})
        self.answers.setdefault(object_id, []).append(
            GivenAnswer(
                stamp=stamp,
                applied_stamp=applied_stamp,
                index=self.newest.index,
                digest=digest,
                before=item.history,
                corrected=item.corrected.get(Source.OPERATOR, 0),
                requests=[request for request in asked if request is not None],
                open=open_ones,
            )
        )

    def _unregister(self, object_id: int, source: Source) -> None:
        """Nobody is asked any more what the object's open requests to a person asked."""
        for other, stamp in self.objects[object_id].history.open:
            record = self.history.find(stamp)
            if other is source is Source.OPERATOR and record is not None:
                record.requests.pop(object_id, None)

    # ---- objects

    @property
    def looks(self) -> AllLooks:
        """What the objects have looked like."""
        return {object_id: item.looks for object_id, item in self.objects.items()}

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

    def forget(self, object_id: int) -> FollowedObject:
        """Forgets an object; returns it."""
        self._unregister(object_id, Source.OPERATOR)
        item = self.objects.pop(object_id)
        self.answers.pop(object_id, None)
        self.removed.add(object_id)
        return item

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

    # ---- any frame that can be gone through again

    def labels_with(self, record: FrameRecord, masks: Mapping[int, BoolMask]) -> Labels:
        """A frame's label map, uint16 [H, W], with masks [H, W] of some of its objects: from its
        prediction or, where that was let go, from what was published of it and learnt on it.
        """
        frame = record.frame
        if frame.predicted:
            with_masks = self.tracker.preview(frame, masks) if masks else frame.probabilities
            return label_map(winning_class(with_masks), frame.object_ids)
        labels = record.published
        for object_id, mask in (*record.learnt.items(), *masks.items()):
            labels[labels == object_id] = 0
            labels[mask] = object_id
        return labels


def label_map(winner: Tensor, object_ids: tuple[int, ...]) -> Labels:
    """Classes [H, W] on the device (0 = background) -> label map uint16 [H, W] of object ids."""
    ids = np.array([0, *object_ids], np.uint16)
    # There are far fewer classes than 2^15, and fewer bytes leave the device.
    return ids[winner.short().cpu().numpy()]

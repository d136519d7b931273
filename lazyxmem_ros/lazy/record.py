# SPDX-License-Identifier: Apache-2.0
"""What is known of one frame: what was published, asked and said of it, and what replay needs.

A record loses its features first, and with them what only replay needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.basics import BoolMask, Labels
from lazyxmem_ros.correction.base import Prompt
from lazyxmem_ros.lazy.config import Source
from lazyxmem_ros.lazy.events import Corrected, Event, Removed, Resumed, Said, Shown, without
from lazyxmem_ros.lazy.packed import PackedLabels, PackedMask
from lazyxmem_ros.lazy.policy import ObjectHistory
from lazyxmem_ros.lazy.predicted_iou import Looks
from lazyxmem_ros.xmem import Frame, TrackerState

Histories = dict[int, ObjectHistory]
"""Object id -> what the policy remembers of it."""
AllLooks = dict[int, Looks]
"""Object id -> what it has looked like."""


@dataclass(frozen=True, eq=False)
class Request:
    """A correction is wanted.

    Attributes:
        object_id, label: of the object.
        source: whom to ask.
        reason: why, for people.
        uncertainty, uncertainty_rate: that called for it.
        stamp, index: of the frame that it is about (nanoseconds; number).
        deadline: nanoseconds, in the stamps' time: later it counts as given up; None: never.
        image: that frame, uint8 [H, W, 3], RGB; not a copy.
        mask: bool [H, W], the predicted mask.
        prompt: for a corrector: the tracker's click and the predicted mask (PSEUDO), or the
            predicted mask alone, to which a person's clicks are added (OPERATOR).
    """

    object_id: int
    label: str
    source: Source
    reason: str
    uncertainty: float
    uncertainty_rate: float | None
    stamp: int
    index: int
    deadline: int | None
    image: NDArray[np.uint8]
    mask: BoolMask
    prompt: Prompt


@dataclass(eq=False)
class FrameRecord:
    """All that is known of one tracked frame.

    Attributes:
        stamp: nanoseconds since the epoch.
        index: its number.
        size: (H, W).
        masks: object id -> its mask as published with the frame.
        applied: (object id, source) -> digest of the correction that was applied to it.
        requests: object id -> what a person was asked about it and has not answered; also after
            the deadline.

    For the newest frame:
        image: uint8 [H, W, 3], RGB; None once there is a newer frame.
        corrections: source -> object id -> corrected mask bool [H, W], none overlapping another.

    For replay, empty once the features are gone:
        paused: ids of the objects that were paused on it.
        histories: its objects', as of its prediction: before masks were added or corrected.
        looks: what its objects had looked like, as of then.
        held: whether the policy keeps its prediction out of memory.
        asked_itself: a self-correction that must not be learnt was pending.
        never_learnt: never learnt on replay: for that, or since its correction must not be learnt.
        events: what happened on it after it was opened, while it was the newest frame or late, in
            the order in which it came.
        learnt: corrected masks that memory took in on it, object id -> bool [H, W].
        told: ids of the objects that a person corrected on it.
        state: the tracker's memory while the frame was open, before the additions; None where no
            copy was made.
    """

    stamp: int
    index: int
    size: tuple[int, int]
    masks: dict[int, PackedMask] = field(default_factory=dict)
    applied: dict[tuple[int, Source], bytes] = field(default_factory=dict)
    requests: dict[int, Request] = field(default_factory=dict)

    image: NDArray[np.uint8] | None = None
    corrections: dict[Source, dict[int, BoolMask]] = field(
        default_factory=lambda: {source: {} for source in Source}
    )

    features: Frame | None = None
    paused: frozenset[int] = frozenset()
    histories: Histories = field(default_factory=dict)
    looks: AllLooks = field(default_factory=dict)
    held: bool = False
    asked_itself: bool = False
    never_learnt: bool = False
    events: list[Event] = field(default_factory=list)
    learnt: dict[int, BoolMask] = field(default_factory=dict)
    told: set[int] = field(default_factory=set)
    state: TrackerState | None = None

    @classmethod
    def opened(cls, frame: Frame, image: NDArray[np.uint8]) -> FrameRecord:
        """The record of a frame that was just segmented."""
        return cls(frame.stamp, frame.index, frame.size, image=image, features=frame)

    @property
    def frame(self) -> Frame:
        """The tracker's frame. Only for a record that still has its features."""
        assert self.features is not None
        return self.features

    @property
    def open(self) -> bool:
        """Whether the frame can still be kept out of memory."""
        return self.features is not None and self.features.open

    @property
    def given(self) -> bool:
        """Whether masks of its objects were given on it; such a frame is always learnt."""
        return bool(self.frame.given)

    @property
    def eventful(self) -> bool:
        """Whether memory learnt on it what no prediction says: given or corrected masks, objects
        that came or went.
        """
        came_or_went = any(isinstance(event, (Shown, Removed)) for event in self.events)
        return bool(self.given or self.learnt or came_or_went)

    @property
    def said(self) -> list[Said]:
        """The corrections, in the order in which they came."""
        return [event for event in self.events if isinstance(event, Said)]

    @property
    def additions(self) -> list[dict[int, BoolMask]]:
        """The masks given after it was opened, in that order: object id -> bool [H, W]."""
        return [event.masks for event in self.events if isinstance(event, Shown)]

    @property
    def lasting_bytes(self) -> int:
        """Bytes of what stays without features: published masks and unanswered requests."""
        asked = sum(r.image.nbytes + r.mask.nbytes for r in self.requests.values())
        return asked + PackedLabels(self.size, self.masks).nbytes

    @property
    def feature_bytes(self) -> int:
        """Bytes that only replay needs."""
        masks = [*self.learnt.values(), *(m for added in self.additions for m in added.values())]
        said = sum(entry.mask.bits.nbytes for entry in self.said)
        return sum(self.tensors.values()) + said + sum(mask.nbytes for mask in masks)

    @property
    def tensors(self) -> dict[int, int]:
        """The tensors and masks of places that only replay needs, each once: its id -> bytes."""
        kept = [*self.frame.kept()]
        if self.state is not None:
            kept += self.state.kept()
        masks = (mask for place in self.frame.places.values() for mask in place.masks)
        return {id(t): t.nbytes for t in kept} | {id(mask): mask.nbytes for mask in masks}

    def mask(self, object_id: int) -> BoolMask:
        """An object's published mask, bool [H, W]. Raises KeyError if it was not followed then."""
        return self.masks[object_id].unpack(self.size)

    # ---- what becomes of the record

    def copy(self) -> FrameRecord:
        """A copy whose replay may differ; what was published and asked is shared, as are the frame
        and the copy of memory.
        """
        return replace(
            self,
            histories=dict(self.histories),
            looks=copy_looks(self.looks),
            events=list(self.events),
            learnt=dict(self.learnt),
            told=set(self.told),
        )

    def release(self) -> None:
        """Lets go of what is computed again when the frame, which is closed, is gone through again.
        A copy of memory keeps its prediction, for it was made with the frame open.
        """
        if self.frame.predicted:
            self.frame.release()
            if self.state is not None and self.state.frame is not None:
                self.state.frame.release(prediction=False)

    @property
    def published(self) -> Labels:
        """The label map of its published masks, uint16 [H, W]."""
        return PackedLabels(self.size, self.masks).unpack()

    def without_features(self) -> FrameRecord:
        """What stays of it when it can be replayed no more."""
        return FrameRecord(
            self.stamp, self.index, self.size, self.masks, self.applied, self.requests
        )

    # ---- what is said of the frame

    def corrected(self, masks: Mapping[int, BoolMask], source: Source) -> FrameRecord:
        """A copy with more corrected masks of the newest frame (see `correct`)."""
        again = replace(self, corrections=dict(self.corrections))
        for object_id, mask in masks.items():
            again.correct(object_id, mask, source)
        return again

    def correct(self, object_id: int, mask: BoolMask, source: Source) -> None:
        """Notes a corrected mask of the newest frame, which takes its pixels from earlier ones."""
        self._take_pixels({object_id: mask})
        self.corrections[source][object_id] = mask

    def _take_pixels(self, masks: Mapping[int, BoolMask]) -> None:
        """Drops the corrected masks of some objects, and their new ones' pixels from the others."""
        taken = np.logical_or.reduce(list(masks.values()))
        for source, corrected in self.corrections.items():
            left = {i: mask & ~taken for i, mask in corrected.items() if i not in masks}
            self.corrections[source] = left

    def all_corrections(self) -> dict[int, BoolMask]:
        """The corrected masks of all sources."""
        return {i: mask for masks in self.corrections.values() for i, mask in masks.items()}

    def show(self, masks: Mapping[int, BoolMask]) -> None:
        """Notes masks given after it was opened. They hold instead of what was said of these
        objects before, and take their pixels from what was said of others.
        """
        self.events.append(Shown(dict(masks)))
        self.retell()

    def learn(self, masks: dict[int, BoolMask]) -> None:
        """Notes that memory learns corrected masks, none overlapping another; they take their
        pixels from earlier ones.
        """
        taken = np.logical_or.reduce(list(masks.values()))
        self.learnt = {i: mask & ~taken for i, mask in self.learnt.items()} | masks

    def told_masks(self) -> list[BoolMask]:
        """What memory learnt on it from a person."""
        return [self.learnt[i] for i in self.told & self.learnt.keys()]

    def in_turn(self) -> Iterator[Corrected | Shown | Resumed | Removed]:
        """What happened on it, in turn, corrections as they held when they came. A self-correction
        is without what a person had said of other objects.
        """
        told: dict[int, BoolMask] = {}
        for event in self.events:
            if isinstance(event, Shown):
                taken = np.logical_or.reduce(list(event.masks.values()))
                told = {i: other & ~taken for i, other in told.items() if i not in event.masks}
            if not isinstance(event, Said):
                yield event
                continue
            mask = event.mask.unpack(self.size)
            if event.source is Source.OPERATOR:
                told = {i: other & ~mask for i, other in told.items()} | {event.object_id: mask}
            else:
                mask = np.logical_and.reduce([mask, *(~other for other in told.values())])
                if event.mask.box is not None and not mask.any():
                    continue  # so it is refused where it comes
            yield Corrected(event.object_id, event.source, mask, event.learnt)

    def retell(self) -> None:
        """Makes of what happened on it what holds."""
        again = FrameRecord(self.stamp, self.index, self.size)
        learns: dict[int, bool] = {}
        for event in self.in_turn():
            if isinstance(event, Corrected):
                again.correct(event.object_id, event.mask, event.source)
                learns[event.object_id] = event.learnt
            elif isinstance(event, Shown):
                again._take_pixels(event.masks)
        self.told = set(again.corrections[Source.OPERATOR])
        if not self.open:
            self.learnt = {i: m for i, m in again.all_corrections().items() if learns[i]}
        if self.image is not None:
            self.corrections = again.corrections

    def take_back(self, object_id: int, named: int) -> None:
        """Makes it as if the last correction of an object by a person, of those that named the
        stamp `named`, had not come.
        """
        wanted = (object_id, Source.OPERATOR, named)
        last = [one for one in self.said if (one.object_id, one.source, one.named) == wanted][-1]
        self.events.remove(last)
        self.retell()
        self.never_learnt = self.asked_itself or (self.never_learnt and bool(self.said))

    def shows(self, object_id: int) -> bool:
        """Whether masks of the object were added after the frame was opened."""
        return any(object_id in added for added in self.additions)

    def remove(self, object_id: int, *, tracked: bool) -> None:
        """Notes that an object was removed, of which nothing holds any more that was said on this
        frame, the newest one. tracked: whether the tracker knew it.
        """
        self.forget(object_id)
        if self.open:  # else memory has learnt what was left of the others' masks
            self.retell()
        if tracked:
            self.events.append(Removed(object_id, closed=not self.open))

    def forget(self, object_id: int) -> None:
        """Takes back all that was said of the object after the frame was opened."""
        self.events = [left for event in self.events if (left := without(event, object_id))]
        for masks in self.corrections.values():
            masks.pop(object_id, None)
        self.frame.given.pop(object_id, None)  # where it has been replayed
        self.learnt.pop(object_id, None)
        self.told.discard(object_id)
        for source in Source:
            self.applied.pop((object_id, source), None)


def copy_looks(looks: AllLooks) -> AllLooks:
    """A copy that may be changed."""
    return {object_id: one.copy() for object_id, one in looks.items()}

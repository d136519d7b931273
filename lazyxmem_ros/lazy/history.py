# SPDX-License-Identifier: Apache-2.0
"""The frames of the last seconds, for corrections and objects that come late.

A frame is replayable while its record has features: then what is said of it late can be learnt as
if it had been said at once. Features and copies of memory are large and go first. What was
published of the frame stays longer, so that a correction may still be carried to the newest frame.
At last the whole record goes, and the frame is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.basics import BoolMask
from lazyxmem_ros.correction.base import Prompt, box_of_mask
from lazyxmem_ros.lazy.policy import LazyConfig, ObjectHistory, Source
from lazyxmem_ros.lazy.predicted_iou import Looks
from lazyxmem_ros.xmem import Frame, TrackerState

Histories = dict[int, ObjectHistory]
"""Object id -> what the policy remembers of it."""
AllLooks = dict[int, Looks]
"""Object id -> what it has looked like."""


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A mask as the bits of its tight box: an eighth of a byte per pixel of the box.

    Attributes:
        box: (x0, y0, x1, y1), half-open pixels; None for an empty mask.
        bits: uint8, the box's pixels in row order, eight to a byte.
    """

    box: tuple[int, int, int, int] | None
    bits: NDArray[np.uint8]

    @classmethod
    def pack(cls, mask: BoolMask) -> PackedMask:
        """Packs a mask bool [H, W]."""
        box = box_of_mask(mask)
        if box is None:
            return cls(None, np.zeros(0, np.uint8))
        x0, y0, x1, y1 = box
        return cls(box, np.packbits(mask[y0:y1, x0:x1]))

    def unpack(self, size: tuple[int, int]) -> BoolMask:
        """The mask, bool [H, W] of `size` (H, W)."""
        mask = np.zeros(size, bool)
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            count = (y1 - y0) * (x1 - x0)
            pixels = np.unpackbits(self.bits, count=count).astype(bool)
            mask[y0:y1, x0:x1] = pixels.reshape(y1 - y0, x1 - x0)
        return mask


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


@dataclass(frozen=True, eq=False)
class Said:
    """A corrected mask as it was given, whatever other objects have taken of it.

    Attributes:
        object_id: whose it is. source: who gave it. mask: of the frame's size.
        named: the stamp (ns) that the correction named; it may have been applied to a later frame.
    """

    object_id: int
    source: Source
    mask: PackedMask
    named: int


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
        given: whether masks were given on it; such a frame is always learnt.
        corrections: source -> object id -> corrected mask bool [H, W], none overlapping another.

    For replay, empty once the features are gone:
        paused: ids of the objects that were paused on it.
        histories: its objects', as of its prediction: before masks were added or corrected.
        looks: what its objects had looked like, as of then.
        held: whether the policy keeps its prediction out of memory.
        asked_itself: a self-correction that must not be learnt was pending.
        never_learnt: never learnt on replay: for that, or since its correction must not be learnt.
        said: the corrections, in the order in which they came.
        additions: masks given after it was opened, in that order, object id -> bool [H, W].
        removed: ids of the objects that were removed while it was the newest frame.
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
    given: bool = False
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
    said: list[Said] = field(default_factory=list)
    additions: list[dict[int, BoolMask]] = field(default_factory=list)
    removed: set[int] = field(default_factory=set)
    learnt: dict[int, BoolMask] = field(default_factory=dict)
    told: set[int] = field(default_factory=set)
    state: TrackerState | None = None

    @classmethod
    def opened(cls, frame: Frame, image: NDArray[np.uint8], *, given: bool) -> FrameRecord:
        """The record of a frame that was just segmented."""
        size, stamp, index = frame.size, frame.stamp, frame.index
        return cls(stamp, index, size, image=image, given=given, features=frame)

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
    def lasting_bytes(self) -> int:
        """Bytes of what stays without features: published masks and unanswered requests."""
        asked = sum(r.image.nbytes + r.mask.nbytes for r in self.requests.values())
        return asked + sum(mask.bits.nbytes for mask in self.masks.values())

    @property
    def feature_bytes(self) -> int:
        """Bytes that only replay needs."""
        masks = [*self.learnt.values(), *(m for added in self.additions for m in added.values())]
        state = self.state.nbytes if self.state else 0
        said = sum(entry.mask.bits.nbytes for entry in self.said)
        return self.frame.nbytes + state + said + sum(mask.nbytes for mask in masks)

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
            additions=[dict(added) for added in self.additions],
            removed=set(self.removed),
            said=list(self.said),
            learnt=dict(self.learnt),
            told=set(self.told),
        )

    def without_features(self) -> FrameRecord:
        """What stays of it when it can be replayed no more."""
        return FrameRecord(
            self.stamp, self.index, self.size, self.masks, self.applied, self.requests
        )

    # ---- what is said of the frame

    def correct(self, object_id: int, mask: BoolMask, source: Source) -> None:
        """Notes a corrected mask of the newest frame, which takes its pixels from earlier ones."""
        for masks in self.corrections.values():
            masks.pop(object_id, None)
            for other in masks:
                masks[other] = masks[other] & ~mask
        self.corrections[source][object_id] = mask

    def all_corrections(self) -> dict[int, BoolMask]:
        """The corrected masks of all sources."""
        return {i: mask for masks in self.corrections.values() for i, mask in masks.items()}

    def learn(self, masks: dict[int, BoolMask]) -> None:
        """Notes that memory learns corrected masks, none overlapping another; they take their
        pixels from earlier ones.
        """
        taken = np.logical_or.reduce(list(masks.values()))
        self.learnt = {i: mask & ~taken for i, mask in self.learnt.items()} | masks

    def told_masks(self) -> list[BoolMask]:
        """What memory learnt on it from a person."""
        return [self.learnt[i] for i in self.told & self.learnt.keys()]

    def take_back(self, object_id: int, named: int, *, learns: Callable[[Source], bool]) -> None:
        """Makes it as if the last correction of an object by a person, of those that named the
        stamp `named`, had not come. learns(source): whether memory learns such corrections.
        """
        last = max(
            place
            for place, entry in enumerate(self.said)
            if (entry.object_id, entry.source, entry.named) == (object_id, Source.OPERATOR, named)
        )
        del self.said[last]
        again = FrameRecord(self.stamp, self.index, self.size)
        for entry in self.said:
            mask = entry.mask.unpack(self.size)
            if entry.source is Source.PSEUDO:
                for told in again.corrections[Source.OPERATOR].values():
                    mask = mask & ~told
                if entry.mask.box is not None and not mask.any():
                    continue  # so it is refused where it comes
            again.correct(entry.object_id, mask, entry.source)
        given = again.corrections
        self.told = set(given[Source.OPERATOR])
        if self.learnt:
            self.learnt = {
                i: m for source in Source if learns(source) for i, m in given[source].items()
            }
        self.never_learnt = self.asked_itself or (self.never_learnt and bool(self.said))
        if self.image is not None:
            self.corrections = given

    def shows(self, object_id: int) -> bool:
        """Whether masks of the object were added after the frame was opened."""
        return any(object_id in added for added in self.additions)

    def forget(self, object_id: int) -> None:
        """Takes back all that was said of the object after the frame was opened."""
        for masks in self.corrections.values():
            masks.pop(object_id, None)
        for added in self.additions:
            added.pop(object_id, None)
        self.additions = [added for added in self.additions if added]
        self.said = [entry for entry in self.said if entry.object_id != object_id]
        self.learnt.pop(object_id, None)
        self.told.discard(object_id)

    def opening(self) -> Frame:
        """Its frame with only those given masks with which it was opened."""
        given = {i: mask for i, mask in self.frame.given.items() if not self.shows(i)}
        return replace(self.frame, given=given)


class History:
    """The records of the last seconds by stamp, oldest first, bounded in time, number and bytes.

    Features stay for `correction_horizon` and within `correction_bytes`; the newest frame has its
    features in any case, for the tracker works with them. Records stay for `history_time`, longer
    where they have features, and `history_frames` at most.
    """

    def __init__(self, config: LazyConfig) -> None:
        self._config = config
        self._records: OrderedDict[int, FrameRecord] = OrderedDict()
        self._sizes: OrderedDict[int, int] = OrderedDict()
        """Stamp -> bytes of the features, as they were when they were counted."""
        self._feature_bytes = 0
        self.evicted = 0
        """Frames that lost their features to `correction_bytes` before their time."""

    def configure(self, config: LazyConfig) -> None:
        """Changes the bounds and forgets what lies beyond them."""
        self._config = config
        self._trim()

    def __len__(self) -> int:
        return len(self._records)

    @property
    def newest(self) -> FrameRecord | None:
        """The frame added last."""
        return next(reversed(self._records.values()), None)

    @property
    def oldest(self) -> FrameRecord | None:
        """The oldest frame that is not forgotten."""
        return next(iter(self._records.values()), None)

    @property
    def feature_bytes(self) -> int:
        """Bytes of features and copies of memory."""
        return self._feature_bytes

    @property
    def nbytes(self) -> int:
        """Bytes of everything."""
        return self._feature_bytes + sum(record.lasting_bytes for record in self._records.values())

    def find(self, stamp: int) -> FrameRecord | None:
        """The record of a stamp; None: that frame is forgotten, or there was none."""
        return self._records.get(stamp)

    def replayable(self, since: int = 0) -> list[FrameRecord]:
        """The records with features from a stamp on, oldest first."""
        return [self._records[stamp] for stamp in self._sizes if stamp >= since]

    def replay_for(self, stamp: int) -> list[FrameRecord]:
        """The closed frames that a replay for the frame of a stamp goes through, oldest first: from
        the last copy of memory at or before it on. Empty: the frame is not replayable.

        A frame that is still open follows when it is closed.
        """
        records = self.replayable()
        start = last_copy(records, stamp)
        return [] if start is None else [record for record in records[start:] if not record.open]

    def copy_due(self, stamp: int) -> bool:
        """Whether the next frame, of this stamp, needs a copy of memory."""
        copies = (r.stamp for r in reversed(self.replayable()) if r.state is not None)
        last = next(copies, None)
        return last is None or stamp - last >= self._config.state_period

    def add(self, record: FrameRecord) -> None:
        """Adds a frame newer than all before, and forgets what lies beyond the bounds."""
        before = self.newest
        self._records[record.stamp] = record
        if before is not None:
            before.image = None
            if before.stamp not in self._sizes:
                self._records[before.stamp] = before.without_features()
            else:
                before.frame.settle()  # a correction may have replaced its masks
        if self._config.correction_horizon:
            self._count(record)
        self._trim()

    def rewrite(self, records: Sequence[FrameRecord]) -> None:
        """Puts replayed records in the place of those that are kept; what was published stays."""
        newest = self.newest
        for record in records:
            before = self._records.get(record.stamp)
            if before is None or not (record.stamp in self._sizes or before is newest):
                continue
            record.masks, record.image = before.masks, before.image
            self._records[record.stamp] = record
            if record.stamp in self._sizes:
                self._count(record)
        self._trim()

    def forget_features(self) -> None:
        """No frame can be replayed any more."""
        while self._sizes:
            self._lose_features(next(iter(self._sizes)))

    def clear(self) -> None:
        """Forgets every frame."""
        self._records.clear()
        self._sizes.clear()
        self._feature_bytes = 0

    def _count(self, record: FrameRecord) -> None:
        self._feature_bytes -= self._sizes.get(record.stamp, 0)
        self._sizes[record.stamp] = record.feature_bytes
        self._feature_bytes += self._sizes[record.stamp]

    def _trim(self) -> None:
        newest = self.newest
        if newest is None:
            return
        config = self._config
        while self._sizes:
            oldest = next(iter(self._sizes))
            young = config.correction_horizon and newest.stamp - oldest <= config.correction_horizon
            if young and self._feature_bytes <= config.correction_bytes:
                break
            self.evicted += bool(young)
            self._lose_features(oldest)
        while len(self._records) > 1:
            stamp = next(iter(self._records))
            needed = stamp in self._sizes or newest.stamp - stamp <= config.history_time
            if needed and len(self._records) <= config.history_frames:
                return
            if stamp in self._sizes:
                self._lose_features(stamp)
            del self._records[stamp]

    def _lose_features(self, stamp: int) -> None:
        """A replay that is under way has the record itself, and keeps what it needs."""
        self._feature_bytes -= self._sizes.pop(stamp)
        record = self._records[stamp]
        if record is not self.newest:
            self._records[stamp] = record.without_features()


def last_copy(records: Iterable[FrameRecord], stamp: int) -> int | None:
    """The place of the last record at or before a stamp that has a copy of memory; oldest first."""
    places = (n for n, r in enumerate(records) if r.state is not None and r.stamp <= stamp)
    return max(places, default=None)


def copy_looks(looks: AllLooks) -> AllLooks:
    """A copy that may be changed."""
    return {object_id: one.copy() for object_id, one in looks.items()}

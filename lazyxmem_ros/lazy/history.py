# SPDX-License-Identifier: Apache-2.0
"""The frames of the last seconds, for corrections and objects that come late.

A frame is replayable while its record has the tracker's frame and there is a copy of memory at or
before it: then what is said of it late can be learnt as if it had been said at once. Where bytes
are short the frame keeps its image alone, of which a replay makes everything again, and copies of
memory lie further apart. What was published of the frame stays longer, so that a correction may
still be carried to the newest frame. At last the whole record goes, and the frame is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from lazyxmem_ros.lazy.config import LazyConfig
from lazyxmem_ros.lazy.copying import copy_period
from lazyxmem_ros.lazy.record import FrameRecord
from lazyxmem_ros.xmem import TrackerState


class History:
    """The records of the last seconds by stamp, oldest first, bounded in time, number and bytes.

    Features stay for `correction_horizon`, and those before it from the last copy of memory on, of
    which a replay starts; and all within `correction_bytes`. The newest frame has its features in
    any case, for the tracker works with them. Records stay for `history_time`, longer where they
    have features, and `history_frames` at most.
    """

    def __init__(self, config: LazyConfig) -> None:
        self._config = config
        self._records: OrderedDict[int, FrameRecord] = OrderedDict()
        self._sizes: OrderedDict[int, int] = OrderedDict()
        """Stamp -> bytes of the features, as they were when they were counted."""
        self._feature_bytes = 0
        self._others = 0
        self._held: Sequence[FrameRecord] = ()
        self._apart = False
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
    def reach(self) -> int:
        """Nanoseconds from the oldest frame that can be gone through again to the newest one, the
        horizon at most.
        """
        newest, first = self.newest, next(iter(self._copies()), None)
        if newest is None or first is None:
            return 0
        return min(newest.stamp - first.stamp, self._config.correction_horizon)

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

    def copy_due(self, stamp: int, *, asked: bool, compact: bool, fork: int) -> bool:
        """Whether the next frame, of this stamp, needs a copy of memory.

        asked: whether a person was asked about it. compact: whether a copy would not be smaller
        some frames later. fork: bytes of a fork of the tracker.
        """
        records, usual = self.replayable(), self._config.state_period
        place = last_copy(records, stamp)
        if place is None:
            return True
        period = copy_period(self._config, records, place, fork=fork)
        since = stamp - records[place].stamp
        self._apart = period > usual
        if not self._apart:
            return asked or since >= usual
        return since >= (period if compact else period + usual)

    def before_copy(self) -> TrackerState | None:
        """The copy of memory with which the next one shares what it can: the last one, where bytes
        are short.
        """
        copies = self._copies() if self._apart else []
        return copies[-1].state if copies else None

    def add(self, record: FrameRecord) -> None:
        """Adds a frame newer than all before, and forgets what lies beyond the bounds."""
        before = self.newest
        self._records[record.stamp] = record
        if self._config.correction_horizon:
            self._count(record)
        if before is not None:
            before.image = None
            if before.stamp not in self._sizes:
                self._records[before.stamp] = before.without_features()
            else:
                before.frame.settle()  # a correction may have replaced its masks
        self._trim()

    def rewrite(self, records: Sequence[FrameRecord]) -> None:
        """Puts replayed records in the place of those that are kept; what was published stays."""
        newest = self.newest
        self._others, self._held = 0, ()  # they are all here now
        for record in records:
            before = self._records.get(record.stamp)
            if before is None or not (record.stamp in self._sizes or before is newest):
                continue
            record.masks, record.image = before.masks, before.image
            self._records[record.stamp] = record
            if record.stamp in self._sizes:
                self._count(record)
        self._trim()

    def share(self, replayed: FrameRecord) -> None:
        """Takes over the copy of memory of a frame that a replay has gone through, in the place of
        the one that the corrected past has overtaken. Where bytes are short, so that the oldest
        frame has let go of what can be computed again, the replayed one does, too.
        """
        record = self._records.get(replayed.stamp)
        if record is None or record.stamp not in self._sizes or record is replayed:
            return
        oldest = self._records[next(iter(self._sizes))]
        short = not (oldest.frame.predicted and record.frame.predicted)
        if short and record is not self.newest:  # the tracker works with that one
            replayed.release()
        if replayed.state is not None and record.state is not replayed.state:
            record.state = replayed.state
            self._count(record)

    def make_room(self, others: int, held: Sequence[FrameRecord] = ()) -> None:
        """Lets so many bytes of others count as those kept here.

        held: the records that others hold, oldest first. To lose frames from the first of these on
        gains nothing.
        """
        self._others, self._held = others, held
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
        self._others, self._held = 0, ()

    def _count(self, record: FrameRecord) -> None:
        self._feature_bytes -= self._sizes.get(record.stamp, 0)
        self._sizes[record.stamp] = record.feature_bytes
        self._feature_bytes += self._sizes[record.stamp]

    def _trim(self) -> None:
        newest = self.newest
        if newest is None:
            return
        config = self._config
        self._lose_until(newest.stamp - config.correction_horizon)
        while self._sizes and self._feature_bytes + self._others > config.correction_bytes:
            if self._release_oldest():
                continue
            oldest = next(iter(self._sizes))
            if self._held and oldest >= self._held[0].stamp:
                break
            young = [s for s in self._sizes if s >= newest.stamp - config.correction_horizon]
            self._lose_features(oldest)
            self._lose_until(oldest)
            self.evicted += len(young) - sum(stamp in self._sizes for stamp in young)
        while len(self._records) > 1:
            stamp = next(iter(self._records))
            needed = stamp in self._sizes or newest.stamp - stamp <= config.history_time
            if needed and len(self._records) <= config.history_frames:
                return
            if stamp in self._sizes:
                self._lose_features(stamp)
            del self._records[stamp]

    def _lose_until(self, stamp: int) -> None:
        """Frames that no replay needs which starts at or before a stamp, or later where no earlier
        one can start, lose their features; without a horizon, all do.
        """
        copies = self._copies()
        starts = [r.stamp for r in copies[:1]] + [r.stamp for r in copies if r.stamp <= stamp]
        while self._sizes and not (
            self._config.correction_horizon and starts and next(iter(self._sizes)) >= starts[-1]
        ):
            self._lose_features(next(iter(self._sizes)))
        self._detach_orphans()

    def _copies(self) -> list[FrameRecord]:
        """The records with a copy of memory, oldest first."""
        return [record for record in self.replayable() if record.state is not None]

    def _detach_orphans(self) -> None:
        """Copies of memory that share with one that nobody keeps any more do not share any more."""
        copies = [(r, r.state.memory) for r in self.replayable() if r.state is not None]
        kept = {id(memory) for _, memory in copies}
        kept |= {id(r.state.memory) for r in self._held if r.state is not None}
        for record, memory in copies:
            if memory is not None and memory.before is not None and id(memory.before) not in kept:
                memory.detach()
                self._count(record)

    def _release_oldest(self) -> bool:
        """Lets go of what replay computes again of the oldest frame that has it. Returns whether
        there was one.
        """
        for stamp in self._sizes:
            record = self._records[stamp]
            if record is not self.newest and record.frame.predicted:
                record.release()
                self._count(record)
                return True
        return False

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

# SPDX-License-Identifier: Apache-2.0
"""The frames of the last seconds, for corrections and objects that come late.

A frame is replayable while its record has features: then what is said of it late can be learnt as
if it had been said at once. Features and copies of memory are large and go first. What was
published of the frame stays longer, so that a correction may still be carried to the newest frame.
At last the whole record goes, and the frame is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from lazyxmem_ros.lazy.config import LazyConfig
from lazyxmem_ros.lazy.record import FrameRecord


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
    def reach(self) -> int:
        """Nanoseconds from the oldest frame that can be gone through again to the newest one."""
        newest = self.newest
        return newest.stamp - next(iter(self._sizes)) if newest is not None and self._sizes else 0

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
            if young and self._release_features():
                continue
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

    def _release_features(self) -> bool:
        """Of the oldest frame that has them, without its becoming less replayable: the replay
        computes them again. Copies of memory share theirs. Returns whether there was one.
        """
        for stamp in self._sizes:
            record = self._records[stamp]
            newest = record is self.newest
            if not newest and record.state is None and record.frame.features is not None:
                record.frame.release_features()
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

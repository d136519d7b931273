# SPDX-License-Identifier: Apache-2.0
"""Bags that stay readable whatever ends their writing: a kill, a full disk, a limit on files.

The storages of `rosbags` keep what they hold readable only if they are closed in order. Those here
commit as they go; where something cannot be written they fall back to their last commit.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sqlite3
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter, PendingChunk
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer

from lazyxmem_ros.data.sqlite_uri import UriPath

COMMIT_PERIOD_S = 1.0
"""Of steady time: no more than this is lost where the process is killed."""
COMMIT_BYTES = 8 << 20
"""Uncommitted messages are held in memory, so they are committed when they are so many bytes."""
RESERVE_BYTES = 256 << 10
"""Of a file that is there to be deleted: a full disk then has room for the index and metadata."""
RESERVE_NAME = ".reserve"

DELETED = "it was deleted or replaced while it was being written"
WRITE_ERRORS = (OSError, sqlite3.Error)
"""What a storage raises where the disk is full or the file must not grow."""


@dataclass(frozen=True)
class _Kept:
    """What is on the disk: messages by connection, and the receive times of first and last, ns."""

    counts: dict[int, int]
    start: int
    end: int


class _WholeFile(io.FileIO):
    """An unbuffered file: what failed to be written is not tried again, and nothing half."""

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += super().write(view[done:])
        return done


class _McapStorage(McapWriter):
    """A chunk is a commit: whatever comes after the last whole one is cut off where it fails."""

    def __init__(self, path: Path, compression: CompressionMode) -> None:
        super().__init__(path, compression)
        self.bio.close()
        file = _WholeFile(self.path, "r+b")
        file.seek(0, os.SEEK_END)
        self.bio: Any = file
        self.kept = self._now()

    def commit(self) -> None:
        """Put what has been written since the last commit on the disk."""
        if self.chunk.msgs:
            self.close_chunk()

    def close_chunk(self) -> None:
        begin = self.bio.tell()
        try:
            super().close_chunk()
        except OSError:
            self._cut(begin)
            raise
        self.kept = self._now()

    def discard(self) -> None:
        """Forget what has been written since the last commit."""
        self.chunk = PendingChunk(2**63 - 1, 0, io.BytesIO(), defaultdict(list))
        self.channel_stats = {**dict.fromkeys(self.channel_stats, 0), **self.kept.counts}
        self.message_start_time, self.message_end_time = self.kept.start, self.kept.end

    def close(self, version: int, metadata: str) -> None:
        """With the index, or where there is no room for that, without: the chunks stay."""
        end = self.bio.tell()
        try:
            super().close(version, metadata)
        except OSError:
            self._cut(end)
            self.bio.close()

    def _now(self) -> _Kept:
        return _Kept(dict(self.channel_stats), self.message_start_time, self.message_end_time)

    def _cut(self, size: int) -> None:
        self.bio.truncate(size)
        self.bio.seek(size)


class _SqliteStorage(Sqlite3Writer):
    """A transaction ends every COMMIT_PERIOD_S, not with the recording."""

    def __init__(self, path: Path, compression: CompressionMode) -> None:
        super().__init__(UriPath(path), compression)
        self.path = path / f"{path.name}.db3"
        # Readers of bags do not know of journals: between commits the file stays as it is.
        self.conn.execute("PRAGMA cache_spill = OFF")
        self._counts: dict[int, int] = {}
        self._start, self._end = 2**63 - 1, 0
        self.kept = self._now()

    def write(self, connection: Connection, timestamp: int, data: bytes | memoryview) -> None:
        super().write(connection, timestamp, data)
        self._counts[connection.id] = self._counts.get(connection.id, 0) + 1
        self._start, self._end = min(timestamp, self._start), max(timestamp, self._end)

    def commit(self) -> None:
        """Put what has been written since the last commit on the disk."""
        self.conn.commit()
        self.kept = self._now()

    def discard(self) -> None:
        """Forget what has been written since the last commit."""
        self.conn.rollback()
        self._counts = dict(self.kept.counts)
        self._start, self._end = self.kept.start, self.kept.end

    def close(self, version: int, metadata: str) -> None:
        """With the metadata in the file, too, or where there is no room for that, without."""
        try:
            super().close(version, metadata)
        except sqlite3.Error:
            self.abort()

    def _now(self) -> _Kept:
        return _Kept(dict(self._counts), self._start, self._end)


class SafeWriter(Writer):
    """A rosbag2 writer that loses COMMIT_PERIOD_S at most.

    Where a `write` raises one of WRITE_ERRORS, the bag holds what was committed before, and is
    closed as usual.
    """

    STORAGE_PLUGINS = {  # noqa: RUF012 - the base class's own
        StoragePlugin.SQLITE3: _SqliteStorage,
        StoragePlugin.MCAP: _McapStorage,
    }

    def open(self) -> None:
        """Create the bag, or nothing. Raises WriterError or OSError."""
        super().open()
        self._file = os.stat(self._storage.path)
        self._uncommitted = 0
        self._committed_at = time.monotonic()
        try:
            self._reserve.write_bytes(os.urandom(RESERVE_BYTES))
        except BaseException:
            with contextlib.suppress(*WRITE_ERRORS):
                self._storage.abort()
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def write(self, connection: Connection, timestamp: int, data: bytes | memoryview) -> None:
        """Append a message, and commit where it is time. Raises one of WRITE_ERRORS."""
        try:
            super().write(connection, timestamp, data)
        except WRITE_ERRORS:
            self._fall_back()
            raise
        self._uncommitted += len(data)
        overdue = time.monotonic() - self._committed_at >= COMMIT_PERIOD_S
        if overdue or self._uncommitted >= COMMIT_BYTES:
            self.commit()

    def commit(self) -> None:
        """Put what has been written on the disk. Raises one of WRITE_ERRORS.

        So it does where the file was deleted or replaced: nobody could read what goes on into it.
        """
        if not self.is_there():
            raise FileNotFoundError(DELETED)
        try:
            self._storage.commit()
        except WRITE_ERRORS:
            self._fall_back()
            raise
        self._uncommitted, self._committed_at = 0, time.monotonic()

    def is_there(self) -> bool:
        """Whether the file that is being written still has its name."""
        try:
            return os.path.samestat(self._file, os.stat(self._storage.path))
        except OSError:
            return False

    def close(self) -> None:
        """Complete the bag. Raises one of WRITE_ERRORS; it then holds what was committed before."""
        if not self.is_there():
            with contextlib.suppress(*WRITE_ERRORS):
                self._storage.abort()
            raise FileNotFoundError(DELETED)
        with contextlib.ExitStack() as then:
            then.callback(super().close)
            then.callback(self._reserve.unlink, missing_ok=True)
            self.commit()

    @property
    def _storage(self) -> Any:
        return self.storage

    @property
    def _reserve(self) -> Path:
        return self.path / RESERVE_NAME

    def _fall_back(self) -> None:
        self._reserve.unlink(missing_ok=True)
        self._storage.discard()
        kept: _Kept = self._storage.kept
        self.counts = {**dict.fromkeys(self.counts, 0), **kept.counts}
        self.min_timestamp, self.max_timestamp = kept.start, kept.end

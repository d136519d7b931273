# SPDX-License-Identifier: Apache-2.0
"""Keeps what the tracker knows on the disk: now and then, on request, and at the end.

The worker only copies the memory, which takes milliseconds; a thread of its own writes the file.
Knows nothing of rclpy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from lazyxmem_ros.lazy import LazyTracker, Snapshot, SnapshotError, read_snapshot, write_snapshot
from lazyxmem_ros.nodes.worker import FrameT, Worker

WRITING_TIMEOUT = 30.0
"""Seconds that the end of the node waits for the last file to be written."""


class SnapshotKeeper:
    """Saves a LazyTracker that a worker owns."""

    def __init__(
        self,
        path: Path,
        lazy: LazyTracker,
        worker: Worker[FrameT],
        *,
        on_fault: Callable[[str], None],
    ) -> None:
        """on_fault(text): called from any thread when a file could not be written."""
        self._path = path
        self._lazy = lazy
        self._worker = worker
        self._on_fault = on_fault
        self._writing = threading.Lock()
        self.saved = 0
        self.last_copy_seconds = 0.0
        """How long the last copy kept the worker."""

    def resume(self) -> tuple[int, ...]:
        """Go on from the file, if there is one; returns the objects followed from there.

        Raises SnapshotError, with nothing changed, where the file cannot be used. Only for use
        before the worker has started.
        """
        if not self._path.exists():
            return ()
        self._lazy.resume(read_snapshot(self._path, self._lazy.tracker))
        return self._lazy.object_ids

    def save_in_background(self) -> None:
        """Save as soon as the worker has a moment, unless a file is being written already."""
        if self._writing.acquire(blocking=False):
            future = self._worker.submit(self._copy)

            def go_on(_: object) -> None:
                if future.cancelled() or future.exception() is not None:
                    self._writing.release()
                    return
                snapshot = future.result()
                threading.Thread(target=self._write_and_release, args=(snapshot,)).start()

            future.add_done_callback(go_on)

    def save(self) -> int:
        """Save and wait for it; returns the file's bytes. Raises SnapshotError or OSError."""
        if not self._writing.acquire(timeout=WRITING_TIMEOUT):
            raise SnapshotError(f"{self._path} is still being written")
        try:
            return self._write(self._worker.submit(self._copy).result(WRITING_TIMEOUT))
        finally:
            self._writing.release()

    def close(self) -> None:
        """Save for the last time; the worker must have ended, so that nothing changes any more."""
        if not self._writing.acquire(timeout=WRITING_TIMEOUT):
            self._on_fault(f"{self._path} is still being written")
            return
        self._lazy.close()
        self._write_and_release(self._copy())

    def _copy(self) -> Snapshot:
        started = time.monotonic()
        snapshot = self._lazy.snapshot()
        self.last_copy_seconds = time.monotonic() - started
        return snapshot

    def _write_and_release(self, snapshot: Snapshot) -> None:
        try:
            self._write(snapshot)
        except OSError as error:
            self._on_fault(f"the snapshot {self._path} cannot be written: {error}")
        finally:
            self._writing.release()

    def _write(self, snapshot: Snapshot) -> int:
        size = write_snapshot(snapshot, self._path)
        self.saved += 1
        return size

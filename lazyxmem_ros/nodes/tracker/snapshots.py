# SPDX-License-Identifier: Apache-2.0
"""Keeps what the tracker knows on the disk: now and then, on request, and at the end.

The worker only copies the memory, which takes milliseconds; a thread of its own writes the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

from rclpy.node import Node
from std_srvs.srv import Trigger

from lazyxmem_ros.basics import reason_of, user_path
from lazyxmem_ros.lazy import LazyTracker, Snapshot, SnapshotError, read_snapshot, write_snapshot
from lazyxmem_ros.lazy.snapshot import check_path
from lazyxmem_ros.nodes.services import SHUTTING_DOWN, Services, result_of
from lazyxmem_ros.nodes.timers import create_steady_timer, end_timer
from lazyxmem_ros.nodes.tracker.worker import FrameT, Worker
from lazyxmem_ros.xmem import weights_digest

SAVING = "~/save_snapshot"
WRITING_TIMEOUT = 30.0
"""Seconds that the end of the node waits for the last file to be written."""
WRITING_NICENESS = 10
"""Of the thread that writes files now and then; the others have the process's, mostly 0."""
MAX_ASIDE = 5
"""Snapshots that could not be used and are kept beside."""
CATCH_UP_TIMEOUT = 2.0
"""Seconds that the end of the node goes on with late corrections and objects that are arriving, so
that they are in the last file; launch kills a node 5 s after it was asked to end."""


def usable_path(text: str) -> Path:
    """The path of a parameter, `~` and links resolved: a snapshot replaces the file, not its link.

    Raises SnapshotError where none can be kept.
    """
    try:
        path = user_path(text)
    except OSError as error:
        raise SnapshotError(f"{text} cannot be a snapshot: {error}") from error
    check_path(path)
    return path.resolve()


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Within, this tracker alone keeps its snapshots at `path`.

    Raises SnapshotError where another one does, or where no file can be made there. The lock lies
    in a file beside it, since every snapshot is a new file; with the process it ends, too.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock").open("ab")
    except OSError as error:
        raise SnapshotError(f"{path} cannot be a snapshot: {error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SnapshotError(
                f"{path} is the snapshot of another tracker, which is running: give each its own "
                "snapshot_path"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield


def set_aside(path: Path) -> Path:
    """Rename a snapshot that cannot be used, lest the next one replaces it; returns where it is.

    With the right settings it may be used again. Of MAX_ASIDE the oldest goes. Raises OSError.
    """
    places = [path.with_name(f"{path.name}.refused{n}") for n in range(1, MAX_ASIDE + 1)]
    aside = min(places, key=lambda place: place.stat().st_mtime if place.exists() else 0.0)
    os.replace(path, aside)
    return aside


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
        weights_digest(lazy.tracker.network)  # takes a moment, which no frame shall wait for
        self._lazy = lazy
        self._worker = worker
        self._on_fault = on_fault
        self._writing = threading.Lock()
        self.path = path
        self.saved = 0
        self.last_fault = ""
        """Why the last snapshot was not saved; "" where it was."""
        self.last_copy_seconds = 0.0
        """How long the last copy kept the worker."""

    def resume(self) -> tuple[int, ...]:
        """Go on from the file, if there is one; returns the objects followed from there.

        Raises SnapshotError, with nothing changed, where the file cannot be used. Only for use
        before the worker has started.
        """
        if not self.path.exists():
            return ()
        self._lazy.resume(read_snapshot(self.path, self._lazy.tracker))
        return self._lazy.object_ids

    def save_in_background(self) -> None:
        """Save as soon as the worker has a moment, unless a file is being written already."""
        if self._writing.acquire(blocking=False):
            future = self._worker.submit(self._copy)

            def go_on(_: object) -> None:
                if future.cancelled():
                    self._writing.release()
                    return
                if (error := future.exception()) is not None:
                    self._writing.release()
                    self._report(f"the memory cannot be copied: {reason_of(error)}")
                    return
                snapshot = future.result()
                try:
                    threading.Thread(target=self._write_unhurried, args=(snapshot,)).start()
                except RuntimeError as no_thread:
                    self._writing.release()
                    self._report(f"the file cannot be written: {no_thread}")

            future.add_done_callback(go_on)

    def save(self) -> int:
        """Save and wait for it; returns the file's bytes. Not for a thread that others wait for.

        Raises SnapshotError or OSError, and whatever copying the memory raises.
        """
        if not self._writing.acquire(timeout=WRITING_TIMEOUT):
            raise SnapshotError(f"{self.path} is still being written")
        try:
            return self._write(self._worker.submit(self._copy).result(WRITING_TIMEOUT))
        except CancelledError:
            raise
        except Exception as error:
            self.last_fault = f"the snapshot {self.path} was not saved: {reason_of(error)}"
            raise
        finally:
            self._writing.release()

    def close(self) -> None:
        """Save for the last time, unless the worker has not ended: then things may be changing."""
        if not self._writing.acquire(timeout=WRITING_TIMEOUT):
            self._report("the file is still being written")
            return
        if not self._worker.has_ended():
            self._writing.release()
            self._report("the worker is still busy, so the memory may be changing")
            return
        try:
            self._lazy.catch_up(CATCH_UP_TIMEOUT)
            snapshot = self._copy()
        except Exception as error:  # noqa: BLE001 - the end of the node goes on
            self._writing.release()
            self._report(f"the memory cannot be copied: {reason_of(error)}")
            return
        self._write_and_release(snapshot)

    def _copy(self) -> Snapshot:
        started = time.monotonic()
        snapshot = self._lazy.snapshot()
        self.last_copy_seconds = time.monotonic() - started
        return snapshot

    def _write_unhurried(self, snapshot: Snapshot) -> None:
        """In a thread of its own, which leaves the processor to frames."""
        if sys.platform == "linux":  # where the priority is the thread's and not the process's
            thread = threading.get_native_id()
            with contextlib.suppress(OSError):  # where even that is forbidden
                niceness = os.getpriority(os.PRIO_PROCESS, thread)  # which may only rise
                os.setpriority(os.PRIO_PROCESS, thread, max(niceness, WRITING_NICENESS))
        self._write_and_release(snapshot)

    def _write_and_release(self, snapshot: Snapshot) -> None:
        try:
            self._write(snapshot)
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it
            self._report(f"the file cannot be written: {reason_of(error)}")
        finally:
            self._writing.release()

    def _report(self, fault: str) -> None:
        self.last_fault = f"the snapshot {self.path} was not saved: {fault}"
        self._on_fault(self.last_fault)

    def _write(self, snapshot: Snapshot) -> int:
        size = write_snapshot(snapshot, self.path)
        self.saved += 1
        self.last_fault = ""
        return size


class SnapshotService:
    """When to save: every `period` seconds of steady time, and on `~/save_snapshot`."""

    def __init__(
        self,
        node: Node,
        services: Services,
        keeper: SnapshotKeeper,
        *,
        period: float,
        on_fault: Callable[[str], None],
    ) -> None:
        """period: seconds; 0: only on request and at the end. on_fault: as SnapshotKeeper's."""
        self._node = node
        self.keeper = keeper
        self._on_fault = on_fault
        self._saving = ThreadPoolExecutor(1, "save-snapshot")
        services.serve(SAVING, self._on_request)
        self._timer = None
        if period:
            self._timer = create_steady_timer(node, period, keeper.save_in_background)

    def close(self) -> None:
        """Stop, and save for the last time; the worker must have ended."""
        if self._timer is not None:
            end_timer(self._node, self._timer)
        self._saving.shutdown()
        self.keeper.close()

    async def _on_request(self, _: Trigger.Request, response: Trigger.Response) -> None:
        try:
            size = await result_of(self._node, self._saving.submit(self.keeper.save))
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told
            why = SHUTTING_DOWN if isinstance(error, CancelledError) else reason_of(error)
            response.message = f"the snapshot {self.keeper.path} was not saved: {why}"
            self._on_fault(response.message)
        else:
            response.message = f"{size} bytes in {self.keeper.path}"
            response.success = True

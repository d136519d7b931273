# SPDX-License-Identifier: Apache-2.0
"""Keeps what the tracker knows on the disk: now and then, on request, and at the end.

The worker only copies the memory, which takes milliseconds; a thread of its own writes the file.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

from rclpy.node import Node
from std_srvs.srv import Trigger

from lazyxmem_ros.lazy import LazyTracker, Snapshot, SnapshotError, read_snapshot, write_snapshot
from lazyxmem_ros.lazy.snapshot import check_path
from lazyxmem_ros.nodes.services import SHUTTING_DOWN, Services, result_of
from lazyxmem_ros.nodes.timers import create_steady_timer
from lazyxmem_ros.nodes.tracker.worker import FrameT, Worker
from lazyxmem_ros.xmem import weights_digest

SAVING = "~/save_snapshot"
WRITING_TIMEOUT = 30.0
"""Seconds that the end of the node waits for the last file to be written."""
WRITING_NICENESS = 10
"""Of the thread that writes files now and then; the others have the process's, mostly 0."""
CATCH_UP_TIMEOUT = 2.0
"""Seconds that the end of the node goes on with late corrections and objects that are arriving, so
that they are in the last file; launch kills a node 5 s after it was asked to end."""


def usable_path(text: str) -> Path:
    """The path of a parameter, `~` expanded; raises SnapshotError where no snapshot can be kept."""
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise SnapshotError(f"{text} cannot be a snapshot: {error}") from error
    check_path(path)
    return path


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
                    self._report(f"the memory cannot be copied: {error}")
                    return
                snapshot = future.result()
                threading.Thread(target=self._write_unhurried, args=(snapshot,)).start()

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
            self.last_fault = f"the snapshot {self.path} was not saved: {error}"
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
            self._report(f"the memory cannot be copied: {error}")
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
            self._report(f"the file cannot be written: {error}")
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
            self._node.destroy_timer(self._timer)
        self._saving.shutdown()
        self.keeper.close()

    async def _on_request(self, _: Trigger.Request, response: Trigger.Response) -> None:
        try:
            size = await result_of(self._node, self._saving.submit(self.keeper.save))
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told
            why = SHUTTING_DOWN if isinstance(error, CancelledError) else str(error) or repr(error)
            response.message = f"the snapshot {self.keeper.path} was not saved: {why}"
            self._on_fault(response.message)
        else:
            response.message = f"{size} bytes in {self.keeper.path}"
            response.success = True

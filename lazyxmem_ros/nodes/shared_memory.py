# SPDX-License-Identifier: Apache-2.0
"""Removes what killed processes have left in shared memory, as `fastdds shm clean` does.

Fast DDS keeps each process's segment (70 MB with config/fastdds.xml) and ports as files. Whoever
owns one holds a lock on a file beside it; a process that was killed holds none, and removes none.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import time
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
MIN_AGE_S = 10.0
"""Of a lock file: a younger one may be its owner's who is just about to lock it."""
OWNER_LOCK, READERS_LOCK = "_el", "_sl"
_OWNED = re.compile(r"fast(dds|rtps)_([0-9a-f]{16}|port\d{1,5})_el")


def remove_leftovers(folder: Path = SHARED_MEMORY) -> int:
    """Remove the segments and ports that no living process owns; returns the bytes freed.

    What may not be removed, of other users for example, stays.
    """
    freed = 0
    for lock in _files(folder):
        if _OWNED.fullmatch(lock.name):
            with contextlib.suppress(OSError):
                freed += _remove_dead(lock)
    return freed


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _remove_dead(lock: Path) -> int:
    """Remove what this lock file guards, unless somebody lives who holds it. Raises OSError."""
    if time.time() - lock.stat().st_mtime < MIN_AGE_S:
        return 0
    owned = lock.with_name(lock.name.removesuffix(OWNER_LOCK))
    readers = lock.with_name(owned.name + READERS_LOCK)
    with contextlib.ExitStack() as held:
        for file in (lock, readers):
            if file.exists():
                # Raises where somebody else holds it. Held until all is removed.
                fcntl.flock(held.enter_context(file.open("ab")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        freed = 0
        if owned.exists():
            freed = owned.stat().st_blocks * 512
            owned.unlink()
        for rest in (owned.with_name(f"sem.{owned.name}_mutex"), readers, lock):
            rest.unlink(missing_ok=True)
    return freed

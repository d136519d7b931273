# SPDX-License-Identifier: Apache-2.0
"""Folders for results: a program replaces there what its own runs have made, and nothing else.

A hidden file in the folder, MARKER, says which program makes which of the folder's files and
folders. What lies there under one of these names, and is not in it, is somebody else's.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lazyxmem_ros.data.errors import OutputError
from lazyxmem_ros.images.files import write_whole

MARKER = ".lazyxmem"


def claim(out: Path, program: str, names: Iterable[str]) -> None:
    """Make the folder of a program's results, of which every run replaces those called `names`.

    Raises OutputError where one of them is there that no run of this program has made, before
    anything is touched, and where the folder cannot be written to.
    """
    marker = out / MARKER
    makers = _read(marker)
    claimed = makers | dict.fromkeys(names, program)
    for name, maker in claimed.items():
        if maker == program != makers.get(name) and os.path.lexists(out / name):
            raise OutputError(
                f"{out / name}: is there already, and a run of {program} would replace it, though "
                f"none has made it (or one of an earlier version, which left no {MARKER} beside "
                "it): move it elsewhere, or choose another folder as --out"
            )
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        if claimed != makers:
            write_whole(marker, json.dumps(claimed, indent=1).encode())


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Within, no other run writes to a folder of results, which is made if it is not there.

    Raises OutputError where one does, or where it cannot be made.
    """
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        folder = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"{out}: another run is writing there: wait until it has ended, or choose another "
                "folder as --out"
            ) from error
        except OSError:
            pass  # a file system without locks keeps nobody out
        yield
    finally:
        os.close(folder)


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Within, an OSError becomes an OutputError that names the path."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written to: {error.strerror or error}; make room, or choose another "
            "folder as --out"
        ) from error


def _read(marker: Path) -> dict[str, str]:
    """Which program makes the files of which name; of an unreadable marker nothing is known."""
    try:
        makers = json.loads(marker.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(makers, dict):
        return {}
    return {name: maker for name, maker in makers.items() if isinstance(maker, str)}

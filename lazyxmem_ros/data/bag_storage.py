# SPDX-License-Identifier: Apache-2.0
"""What all reading of rosbag2 bags shares: one error in plain words, and no silent early end."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Protocol

from rosbags.interfaces import Connection

from lazyxmem_ros.data.errors import BagError, DamagedBagError


class StorageReader(Protocol):
    """What the readers of `rosbags` have in common; times are ns, end_time lies after the last."""

    @property
    def start_time(self) -> int: ...  # noqa: D102

    @property
    def end_time(self) -> int: ...  # noqa: D102

    def messages(  # noqa: D102
        self, connections: Collection[Connection], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[Connection, int, bytes]]: ...


def serialized_messages(
    reader: StorageReader,
    path: Path,
    connections: Collection[Connection],
    *,
    start: int | None = None,
    stop: int | None = None,
) -> Iterator[tuple[Connection, int, bytes]]:
    """(connection, receive time, CDR) of the messages received in start <= t < stop, in order.

    None leaves a side open. Yields all that is intact, then raises DamagedBagError where the
    storage is damaged, and where the whole bag was read and holds less than its metadata promises.
    """
    if not connections:
        return  # to `rosbags`, none would mean all
    whole = (start is None or start <= reader.start_time) and (
        stop is None or stop >= reader.end_time
    )
    if whole:
        start = stop = None
    count, promised = 0, sum(connection.msgcount for connection in connections)
    with explained(path):
        for connection, received, data in reader.messages(connections, start, stop):
            yield connection, received, bytes(data)
            count += 1
        if whole and count < promised:  # a storage may end early without a word
            raise EOFError(f"{count} of {promised} messages")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns whatever a storage raises on a damaged bag into one DamagedBagError."""
    try:
        yield
    except (BagError, GeneratorExit):
        raise
    except Exception as error:
        # Damaged data surfaces as anything: apsw, struct, zstd and lz4 errors, wrong lengths.
        raise DamagedBagError(
            f"{path}: cannot be read ({type(error).__name__}: {error}). If the recording was "
            "cut short, repair it with `ros2 bag reindex` (sqlite3) or `mcap recover` (MCAP)"
        ) from error

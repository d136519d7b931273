# SPDX-License-Identifier: Apache-2.0
"""What all reading of bags shares: how one is opened, one error in plain words, no silent end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Generator, Iterator
from heapq import heappop, heappush, merge
from itertools import groupby
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag2 import Reader as Ros2Reader
from rosbags.rosbag2 import reader as rosbag2_reader
from rosbags.rosbag2.reader import DirectoryReader
from rosbags.rosbag2.storage_mcap import McapReader
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.data.errors import BagError, DamagedBagError
from lazyxmem_ros.data.files import (
    BAG_METADATA,
    ROS1_SUFFIX,
    ROS2_SUFFIXES,
    ZSTD_SUFFIXES,
    children,
    suffix_of,
)
from lazyxmem_ros.data.mcap import (
    ROS1_ENCODING,
    AmendedMcap,
    ForeignMcapError,
    McapError,
    amended,
)
from lazyxmem_ros.data.slowness import Tell, TellSlowness, silent
from lazyxmem_ros.data.sqlite_uri import UriPath
from lazyxmem_ros.data.unpacking import unpack_file

PACKED_SUFFIXES = (*ZSTD_SUFFIXES, ".lz4", ".bz2", ".gz", ".xz")
MOST_COUNT = (1 << 63) - 1
"""A number that fits into the 64 bits of messages and of times in nanoseconds."""
LATEST_NS = SECOND
"""So much later than newer messages one may come in a file without an index: recorders write down
what they received as their threads get to it."""


class _SqliteReader(Sqlite3Reader):
    """Reads a file of any name."""

    def __init__(self, path: Path) -> None:
        super().__init__(UriPath(path))


class _McapReader(McapReader):
    """Reads files without an index, too, whose messages are a little out of order."""

    def messages(
        self, connections: Collection[Connection], start: int | None = None, stop: int | None = None
    ) -> Generator[tuple[Connection, int, bytes], None, None]:
        """See McapReader. Raises BagError where they are far out of order."""
        if self.chunks:
            yield from super().messages(connections, start, stop)
            return
        waiting: list[tuple[int, int, tuple[Connection, int, bytes]]] = []
        newest = last = 0
        fault: Exception | None = None
        try:
            for number, message in enumerate(self.messages_scan(connections, start, stop)):
                if message[1] < last:
                    raise BagError(
                        f"{self.path}: its messages are more than {LATEST_NS / SECOND:g} s out of "
                        "order, and it has no index; `mcap sort` makes a file of it that has"
                    )
                newest = max(newest, message[1])
                heappush(waiting, (message[1], number, message))
                while waiting[0][0] < newest - LATEST_NS:
                    last, _, oldest = heappop(waiting)
                    yield oldest
        except Exception as error:  # noqa: BLE001 - once what is intact has gone out
            fault = error
        yield from (message for _, _, message in sorted(waiting))
        if fault is not None:
            raise fault


class _FolderReader(DirectoryReader):
    """A bag's folder, whatever its metadata say of the quality of service that topics had.

    People edit that, so that another version of ROS plays the bag, and `rosbags` would then find no
    messages of these topics.
    """

    STORAGE_PLUGINS = {  # noqa: RUF012 - the base class's own
        "mcap": _McapReader,
        "sqlite3": _SqliteReader,
    }

    def open(self) -> None:
        """See DirectoryReader."""
        super().open()
        known = {(own.topic, own.msgtype): own for own in self.connections}
        if len(known) < len(self.connections):
            return
        for storage in self.storages:
            for place, connection in enumerate(storage.connections):
                own = known.get((connection.topic, connection.msgtype))
                if own is not None:
                    storage.connections[place] = connection._replace(ext=own.ext, digest="")


class _Reader(Ros2Reader):
    """A bag of ROS 2: a folder, or one file."""

    STORAGE_PLUGINS = {  # noqa: RUF012 - the base class's own
        "dir": _FolderReader,
        ".mcap": _McapReader,
        ".db3": _SqliteReader,
    }


class OpenBag:
    """An open bag: a rosbag2 folder, a single .mcap or .db3 file (packed by zstd or not), a ROS 1
    bag.

    damage: why it ends early, None for a bag that is whole; what is intact can be read anyway.
    """

    def __init__(self, path: Path, tell: Tell = silent) -> None:
        """tell: gets a sentence now and then where opening takes long.

        Raises BagError for what is no bag, and DamagedBagError for one that cannot be opened.
        """
        _check_kind(path)
        _check_permission(path)
        self.path = path
        self.damage: str | None = None
        self._tell = tell
        self._stack = contextlib.ExitStack()
        self._file = path
        with contextlib.ExitStack() as failed, explained(path):
            failed.callback(self.close)
            if suffix_of(path) in ZSTD_SUFFIXES:
                self._file = self._unpacked()
            elif path.is_file() and path.suffix != suffix_of(path):
                self._file = self._linked()
            self._readers = self._open()
            self._check_metadata()
            failed.pop_all()

    def _unpacked(self) -> Path:
        """The file that this one unpacks to, in a folder that goes with the closing."""
        name = Path(self.path.stem)
        file = self._own_folder() / name.with_suffix(suffix_of(name))
        unpack_file(self.path, file, TellSlowness(self._tell, f"unpacking {self.path.name}"))
        return file

    def _linked(self) -> Path:
        """The file under a name whose suffix is in lower case, by which rosbags tells its kind."""
        file = self._own_folder() / f"{self.path.stem}{suffix_of(self.path)}"
        file.symlink_to(self.path.resolve())
        return file

    def _own_folder(self) -> Path:
        """A folder that goes with the closing."""
        return Path(self._stack.enter_context(TemporaryDirectory(prefix="lazyxmem_bag_")))

    def _open(self) -> list[Any]:
        of_ros1 = self._file.suffix == ROS1_SUFFIX
        reader: Any = Ros1Reader(self._file) if of_ros1 else _Reader(self._file)
        try:
            reader.open()
        except Exception:
            files = _mcap_files(self._file)
            if not files:
                raise
            return self._open_amended(files)
        self._stack.callback(reader.close)
        return [reader]

    def _check_metadata(self) -> None:
        """Raise DamagedBagError for what a bag's metadata cannot mean."""
        for connection in self.connections:
            count = connection.msgcount
            if not isinstance(count, int) or not 0 <= count <= MOST_COUNT:
                raise DamagedBagError(
                    _damaged(self.path, f"{connection.topic} has {count!r} messages, it says")
                )
        for time in (self.start_time, self.end_time - 1):
            if self.connections and not -1 <= time <= MOST_COUNT:
                raise DamagedBagError(
                    _damaged(self.path, f"its times, {time} ns for one, are no times")
                )

    def _open_amended(self, files: list[Path]) -> list[Any]:
        """Each MCAP file by what is intact in it and of ROS."""
        readers = []
        for file in files:
            told = TellSlowness(self._tell, f"looking for what is of ROS in {file.name}")
            try:
                view: Any = amended(file, told)
            except ForeignMcapError as error:
                raise BagError(f"{file}: {error}") from error
            except McapError as error:
                raise DamagedBagError(_damaged(self.path, f"{file.name}: {error}")) from error
            readers.append(_Reader(view))
            readers[-1].open()
            self._stack.callback(readers[-1].close)
            self._note_damage(view)
        missing = _missing_parts(self._file)
        if missing:
            self.damage = f"{', '.join(missing)}: this part of the bag is missing"
        return readers

    def _note_damage(self, view: AmendedMcap) -> None:
        if view.damage is not None and self.damage is None:
            self.damage = f"{view.path.name}: {view.damage}"

    @property
    def connections(self) -> list[Connection]:
        """What was recorded: topics with their types; one may have several."""
        return [connection for reader in self._readers for connection in reader.connections]

    @property
    def start_time(self) -> int:
        """Nanoseconds since the epoch of the first message's receipt."""
        return min(int(reader.start_time) for reader in self._readers)

    @property
    def end_time(self) -> int:
        """Nanoseconds since the epoch, right after the last message's receipt."""
        return max(int(reader.end_time) for reader in self._readers)

    def messages(
        self, connections: Collection[Connection], start: int | None, stop: int | None
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """(connection, receive time, data) of the messages received in start <= t < stop."""
        by_owner = sorted(connections, key=lambda connection: id(connection.owner))
        streams = []
        for _, group in groupby(by_owner, key=lambda connection: id(connection.owner)):
            chosen = list(group)
            reader = next(r for r in self._readers if chosen[0] in r.connections)
            streams.append(reader.messages(chosen, start, stop))
        return merge(*streams, key=lambda entry: entry[1])

    def close(self) -> None:
        """Close the bag's files."""
        self._stack.close()


def is_ros1(connection: Connection) -> bool:
    """Whether the messages of a topic are serialised as ROS 1 does it."""
    form = getattr(connection.ext, "serialization_format", ROS1_ENCODING)
    return bool(form == ROS1_ENCODING)


def serialized_messages(
    bag: OpenBag,
    connections: Collection[Connection],
    *,
    start: int | None = None,
    stop: int | None = None,
) -> Iterator[tuple[Connection, int, bytes]]:
    """(connection, receive time, data) of the messages received in start <= t < stop, in order.

    None leaves a side open. Yields all that is intact, then raises DamagedBagError where the
    storage is damaged, and where the whole bag was read and holds less than its metadata promises.
    """
    if not connections:
        return  # to `rosbags`, none would mean all
    whole = (start is None or start <= bag.start_time) and (stop is None or stop >= bag.end_time)
    if whole:
        start = stop = None
    count, promised = 0, sum(connection.msgcount for connection in connections)
    with explained(bag.path):
        for connection, received, data in bag.messages(connections, start, stop):
            yield connection, received, bytes(data)
            count += 1
        if whole and count < promised:  # a storage may end early without a word
            raise EOFError(f"{count} of {promised} messages")
    if whole and bag.damage is not None:
        raise DamagedBagError(_damaged(bag.path, bag.damage))


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns whatever a storage raises on a damaged bag into one DamagedBagError."""
    try:
        yield
    except (BagError, GeneratorExit):
        raise
    except Exception as error:
        # Damaged data surfaces as anything: apsw, struct, zstd and lz4 errors, wrong lengths.
        raise DamagedBagError(_damaged(path, f"{type(error).__name__}: {error}")) from error


def _check_kind(path: Path) -> None:
    """Raise BagError for a path that is no bag, saying what to give instead."""
    if not path.exists():
        raise BagError(f"{path}: there is no such bag")
    if path.is_dir():
        if (path / BAG_METADATA).is_file():
            return
        files = [file for file in children(path) if _is_bag_file(file)]
        if files:
            raise DamagedBagError(
                f"{path}: cannot be read: it has no {BAG_METADATA}, which comes with the end of a "
                f"recording; give the file itself, {files[0]}, or let `ros2 bag reindex` make one"
            )
        raise BagError(f"{path}: is no bag: it holds neither {BAG_METADATA} nor a bag's file")
    if _is_bag_file(path):
        return
    if suffix_of(path) in PACKED_SUFFIXES:
        tool = {".lz4": "lz4", ".bz2": "bzip2", ".gz": "gzip", ".xz": "xz"}.get(
            suffix_of(path), "zstd"
        )
        raise BagError(
            f"{path}: is a compressed file; unpack it with `{tool} -d` and give what comes out"
        )
    raise BagError(
        f"{path}: is no bag: give a folder that holds a {BAG_METADATA}, or a .mcap, .db3 or .bag "
        "file"
    )


def _check_permission(path: Path) -> None:
    """Raise BagError where a bag's files may not be read: to storages that is like damage."""
    if not os.access(path, os.R_OK):
        raise BagError(f"{path}: may not be read by this user; `sudo chmod a+r` lets everybody")
    if path.is_dir():
        for file in filter(_is_bag_file, children(path)):
            _check_permission(file)


def _is_bag_file(path: Path) -> bool:
    """Whether its name is that of a bag's file, packed by zstd or not."""
    name = path.with_suffix("") if suffix_of(path) in ZSTD_SUFFIXES else path
    return suffix_of(name) in (*ROS2_SUFFIXES, ROS1_SUFFIX)


def _mcap_files(path: Path) -> list[Path]:
    """The MCAP files of a bag: those that its metadata name, or where none of them is there all."""
    if path.is_dir():
        files = [file for file in children(path) if suffix_of(file) == ".mcap"]
        named = set(_parts(path))
        return [file for file in files if file.name in named] or files
    return [path] if suffix_of(path) == ".mcap" else []


def _missing_parts(path: Path) -> list[str]:
    """The files of a bag that its metadata name and that are not there."""
    return [name for name in _parts(path) if not (path / name).exists()]


def _parts(path: Path) -> list[str]:
    """The files that a bag's metadata name."""
    try:
        yaml: Any = getattr(rosbag2_reader, "YAML")(typ="safe")  # noqa: B009 - what rosbags reads by
        content = yaml.load((path / BAG_METADATA).read_text(encoding="utf-8"))
        parts = content["rosbag2_bagfile_information"]["relative_file_paths"]
        return [PurePath(part).name for part in parts]
    except Exception:  # noqa: BLE001 - there are none, or they cannot be read: the files are enough
        return []


def _damaged(path: Path, reason: str) -> str:
    """What is wrong with a bag, and what helps."""
    if path.is_dir() and _missing_parts(path):
        return (
            f"{path}: cannot be read whole ({reason}). Put its missing files back beside the others"
        )
    if suffix_of(path) == ROS1_SUFFIX:
        advice = "repair it with `rosbag reindex`"
    elif suffix_of(path) == ".mcap" or _mcap_files(path):
        advice = "repair it with `mcap recover`"
    elif suffix_of(path) == ".db3" or any(path.glob("*.db3")):
        advice = "save what is left with `sqlite3 FILE.db3 .recover | sqlite3 NEW.db3`"
    else:
        return f"{path}: cannot be read ({reason})"
    return (
        f"{path}: cannot be read ({reason}). If it is still being recorded, end that first; if the "
        f"recording was cut short, {advice}"
    )

# SPDX-License-Identifier: Apache-2.0
"""All that a LazyTracker knows, in one file, so that a restarted process follows the same objects.

Taking a snapshot copies the memory (milliseconds); writing it may be left to another thread. The
file appears whole or not at all: it is written beside its place, flushed to the disk, and renamed.
A file that was damaged, or that another network or other memory settings made, is refused.

    magic, 12 bytes | SHA-256 of the rest, 32 bytes | safetensors, one of the tensors being JSON
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import operator
import os
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from lazyxmem_ros.basics import MAX_LABEL_LENGTH, reason_of
from lazyxmem_ros.lazy.fields import LARGEST, ContentError, Fields
from lazyxmem_ros.lazy.policy import ObjectHistory, TrackState
from lazyxmem_ros.lazy.predicted_iou import MAX_PORTRAITS, Looks
from lazyxmem_ros.lazy.state import FollowedObject
from lazyxmem_ros.xmem import (
    MemoryState,
    StateError,
    TrackerState,
    XMemTracker,
    check_state,
    weights_digest,
)

MAGIC = b"lazyxmem\x00\x00\x00\x04"
"""Names the format; the last byte is its version."""
DIGEST_BYTES = 32
MAX_LOG_AREA = math.log(LARGEST)
"""Of an object's usual area, whose logarithm is kept."""
JSON = "json"
"""Name of the tensor that holds everything but tensors."""


class SnapshotError(ValueError):
    """A snapshot cannot be used; the text says why."""


@dataclass(frozen=True)
class Snapshot:
    """A copy of everything, between two frames.

    Attributes:
        tracker: XMem's memory, hidden states and clocks.
        objects: what lazy tracking knows of each object.
        removed: ids of removed objects.
        made_by: what a tracker must be like to go on from here.
    """

    tracker: TrackerState
    objects: dict[int, FollowedObject]
    removed: frozenset[int]
    made_by: dict[str, Any]


def describe(tracker: XMemTracker) -> dict[str, Any]:
    """What the memory's content depends on: the weights, memory settings and internal size."""
    return {
        "network": asdict(tracker.network.config),
        "weights": weights_digest(tracker.network),
        "memory": asdict(tracker.config),
        "max_internal_size": tracker.max_internal_size,
    }


def write_snapshot(snapshot: Snapshot, path: Path) -> int:
    """Write the file in one step; returns its size in bytes. Raises OSError where that fails, and
    where something is there that is no regular file: a device would be replaced.
    """
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "is no regular file; choose another name", str(path))
    payload = safetensors.torch.save(_tensors(snapshot))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    try:
        with beside.open("wb") as file:
            file.write(MAGIC)
            file.write(hashlib.sha256(payload).digest())
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return len(MAGIC) + DIGEST_BYTES + len(payload)


def read_snapshot(path: Path, tracker: XMemTracker) -> Snapshot:
    """Read a file that this tracker can go on from: all of its content has been looked at.

    Raises SnapshotError where it is damaged, was made by another network or other settings, or
    holds anything that no tracker writes, and for a path that is no regular file.
    """
    check_path(path)
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
            if magic[:-1] != MAGIC[:-1]:  # before the rest of whatever it is fills the memory
                raise SnapshotError(f"{path} is no snapshot of lazyxmem_ros")
            if magic != MAGIC:
                raise SnapshotError(f"{path} has format version {magic[-1]}, not {MAGIC[-1]}")
            digest, payload = file.read(DIGEST_BYTES), file.read()
    except (OSError, MemoryError) as error:
        raise SnapshotError(f"{path} cannot be read: {reason_of(error)}") from error
    if hashlib.sha256(payload).digest() != digest:
        raise SnapshotError(f"{path} is damaged: its checksum does not match its content")
    try:
        tensors = safetensors.torch.load(payload)
        scalars = json.loads(tensors.pop(JSON).numpy().tobytes())
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise SnapshotError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    try:
        content = Fields.of(scalars, "the snapshot")
        _check_maker(path, content.take("made_by", dict), describe(tracker))
        snapshot = _assemble(tensors, content, describe(tracker))
        check_state(snapshot.tracker, tracker)
        _check_looks(snapshot, tracker.network.config.key_dim)
    except (ContentError, StateError) as error:
        raise SnapshotError(f"{path} holds what no tracker writes: {error}") from error
    return snapshot


def check_path(path: Path) -> None:
    """Raise SnapshotError unless snapshots can be kept at `path`, as far as that shows now."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        _check_folder(path)
        return
    except (OSError, ValueError) as error:
        raise SnapshotError(f"{path} cannot be a snapshot: {error}") from error
    if not stat.S_ISREG(mode):
        raise SnapshotError(f"{path} cannot be a snapshot: it is no regular file")


def _check_folder(path: Path) -> None:
    """Raises SnapshotError where a new file of this path could not be made."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise SnapshotError(f"{path} cannot be a snapshot: {folder} cannot be written to")


def _check_maker(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    ours = json.loads(json.dumps(ours))
    for name, what in (
        ("network", "a network of other widths"),
        ("weights", "other weights"),
        ("memory", "other memory settings"),
        ("max_internal_size", "another max_internal_size"),
    ):
        if theirs.get(name) != ours[name]:
            raise SnapshotError(f"{path} was made with {what}; it cannot be used here")


# ---- tensors: "shared.key", "values.7", "hidden.7"


def _tensors(snapshot: Snapshot) -> dict[str, Tensor]:
    # Ids and stamps may be NumPy's integers.
    text = bytearray(json.dumps(_scalars(snapshot), default=operator.index).encode())
    tensors = {JSON: torch.frombuffer(text, dtype=torch.uint8)}
    tensors |= {f"hidden.{i}": h for i, h in snapshot.tracker.hidden.items()}
    for i, item in snapshot.objects.items():
        if item.looks.portraits is not None:
            tensors[f"portraits.{i}"] = item.looks.portraits
    memory = snapshot.tracker.memory
    if memory is not None:
        tensors |= {f"shared.{name}": t for name, t in memory.shared.items()}
        tensors |= {f"values.{i}": v for i, v in memory.values.items()}
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}


# ---- everything else: JSON, whose object keys are text


def _scalars(snapshot: Snapshot) -> dict[str, Any]:
    tracker, memory = snapshot.tracker, snapshot.tracker.memory
    return {
        "made_by": snapshot.made_by,
        "tracker": {
            "size": tracker.size,
            "tokens": tracker.tokens,
            "births": _pairs(tracker.births),
            "frames": tracker.frames,
            "clock": tracker.clock,
            "last_memory": tracker.last_memory,
            "last_deep_update": tracker.last_deep_update,
        },
        "memory": None
        if memory is None
        else {
            "births": _pairs(memory.births),
            "anchored": sorted(memory.anchored),
            "working": memory.working,
            "long_term": memory.long_term,
            "told": [{"frame": frame, "ids": sorted(ids)} for frame, ids in memory.told.items()],
        },
        "objects": [
            {
                "id": i,
                "label": o.label,
                "born": o.born,
                "history": _history(o.history),
                "usual_area": o.looks.usual_area,
                "portrayed": o.looks.portrayed,
                "told": o.looks.told,
            }
            for i, o in snapshot.objects.items()
        ],
        "removed": sorted(snapshot.removed),
    }


def _pairs(numbers: dict[int, int]) -> list[tuple[int, int]]:
    return list(numbers.items())


def _history(history: ObjectHistory) -> dict[str, Any]:
    values = {name: getattr(history, name) for name in HISTORY_READERS}
    return values | {"state": history.state.name}


def _read_history(fields: Fields) -> ObjectHistory:
    history = ObjectHistory(**{name: read(fields, name) for name, read in HISTORY_READERS.items()})
    fields.end()
    return history


def _read_state(fields: Fields, name: str) -> TrackState:
    return TrackState[fields.choice(name, [state.name for state in TrackState])]


READERS: dict[Any, Callable[[Fields, str], Any]] = {
    TrackState: _read_state,
    bool: Fields.boolean,
    int: Fields.integer,
    int | None: Fields.optional_integer,
    float | None: Fields.optional_number,
}
"""Type of a field -> what reads one."""
HISTORY_READERS = {
    name: READERS[kind] for name, kind in get_type_hints(ObjectHistory).items() if name != "open"
}
"""Field of an object's history -> what reads it. Open requests stay behind: whoever answers them
talks to a process that is gone.
"""


def _check_looks(snapshot: Snapshot, key_dim: int) -> None:
    for object_id, item in snapshot.objects.items():
        looks, portraits = item.looks, item.looks.portraits
        if not 0 <= (looks.usual_area or 0) <= MAX_LOG_AREA:
            raise ContentError(f"the usual area of object {object_id} is that of no image")
        if portraits is not None:
            fits = portraits.dtype is torch.float32 and portraits.shape[1:] == (key_dim,)
            if not (fits and 1 <= len(portraits) <= MAX_PORTRAITS and portraits.isfinite().all()):
                raise ContentError(f"the portraits of object {object_id} are no mean keys")
        if (portraits is None) is not (looks.portrayed is None):
            raise ContentError(f"object {object_id} has portraits of no time, or a time of none")


def _assemble(tensors: dict[str, Tensor], content: Fields, made_by: dict[str, Any]) -> Snapshot:
    """The snapshot, of which only what `check_state` looks at may be wrong; raises ContentError."""
    tracker, memory = content.fields("tracker"), content.optional_fields("memory")
    removed = content.ids("removed")
    objects = content.list_of_fields("objects")
    content.end()
    left = dict(tensors)
    state = None
    if memory is not None:
        state = MemoryState(
            shared=_take_group(left, "shared"),
            values=_by_id(_take_group(left, "values")),
            births=memory.pairs("births"),
            anchored=frozenset(memory.ids("anchored")),
            working=tuple(memory.integers("working")),
            long_term=memory.integer("long_term"),
            told=dict(map(_told, memory.list_of_fields("told"))),
        )
        memory.end()
    restored = TrackerState(
        size=tracker.size("size"),
        tokens=tracker.size("tokens"),
        memory=state,
        births=tracker.pairs("births"),
        hidden=_by_id(_take_group(left, "hidden")),
        places={},  # nobody knows how long ago that was
        frame=None,
        frames=tracker.integer("frames"),
        clock=tracker.integer("clock"),
        last_memory=tracker.integer("last_memory"),
        last_deep_update=tracker.integer("last_deep_update"),
    )
    tracker.end()
    portraits = _by_id(_take_group(left, "portraits"))
    followed = {item.integer("id"): _object(item, portraits) for item in objects}
    if set(followed) != set(restored.births) or len(followed) != len(objects):
        raise ContentError("its objects are not those that the tracker remembers")
    if left or portraits:
        names = [*left, *(f"portraits.{object_id}" for object_id in portraits)]
        raise ContentError(f"it has tensors that are not known: {', '.join(names)}")
    return Snapshot(
        tracker=restored,
        objects=followed,
        removed=frozenset(removed),
        made_by=made_by,
    )


def _told(item: Fields) -> tuple[int, frozenset[int]]:
    """A frame's number and the objects that a person told of on it."""
    told = item.integer("frame"), frozenset(item.ids("ids"))
    item.end()
    return told


def _take_group(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Takes out the tensors "prefix.name"; returns them by name."""
    start = f"{prefix}."
    names = [name for name in tensors if name.startswith(start)]
    return {name[len(start) :]: tensors.pop(name) for name in names}


def _by_id(tensors: dict[str, Tensor]) -> dict[int, Tensor]:
    for name in tensors:
        if not name.isdecimal():
            raise ContentError(f"{name!r} is no object id")
    return {int(name): tensor for name, tensor in tensors.items()}


def _object(item: Fields, portraits: dict[int, Tensor]) -> FollowedObject:
    """One object; its portraits are taken out of those that are left."""
    object_id = item.integer("id")
    history = _read_history(item.fields("history"))
    made = FollowedObject(
        label=item.text("label")[:MAX_LABEL_LENGTH],
        born=item.integer("born"),
        history=history,
        looks=Looks(
            portraits.pop(object_id, None),
            item.optional_number("usual_area"),
            item.optional_integer("portrayed"),
            item.optional_integer("told"),
        ),
        published=history.state,
    )
    item.end()
    return made


def _sync_folder(folder: Path) -> None:
    """Makes the renaming itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

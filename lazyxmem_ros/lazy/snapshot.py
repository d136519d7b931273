# SPDX-License-Identifier: Apache-2.0
"""All that a LazyTracker knows, in one file, so that a restarted process follows the same objects.

Taking a snapshot copies the memory (milliseconds); writing it may be left to another thread. The
file appears whole or not at all: it is written beside its place, flushed to the disk, and renamed.
A file that was damaged, or that another network or other memory settings made, is refused.

    magic, 12 bytes | SHA-256 of the rest, 32 bytes | safetensors, one of the tensors being JSON
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from lazyxmem_ros.lazy.policy import ObjectHistory, TrackState
from lazyxmem_ros.lazy.predicted_iou import Looks
from lazyxmem_ros.lazy.state import FollowedObject
from lazyxmem_ros.xmem import MemoryState, TrackerState, XMemTracker

MAGIC = b"lazyxmem\x00\x00\x00\x01"
"""Names the format; the last byte is its version."""
DIGEST_BYTES = 32
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
    first = tracker.network.key_proj.key_proj.weight
    digest = hashlib.sha256(first.detach().float().cpu().numpy().tobytes()).hexdigest()
    return {
        "network": asdict(tracker.network.config),
        "key_projection": digest,
        "memory": asdict(tracker.config),
        "max_internal_size": tracker.max_internal_size,
    }


def write_snapshot(snapshot: Snapshot, path: Path) -> int:
    """Write the file in one step; returns its size in bytes. Raises OSError where that fails."""
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
    """Read a file that this tracker can go on from.

    Raises SnapshotError where it is damaged, or was made by another network or other settings.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SnapshotError(f"{path} cannot be read: {error}") from error
    if not data.startswith(MAGIC[:-1]):
        raise SnapshotError(f"{path} is no snapshot of lazyxmem_ros")
    if data[len(MAGIC) - 1] != MAGIC[-1]:
        raise SnapshotError(f"{path} has format version {data[len(MAGIC) - 1]}, not {MAGIC[-1]}")
    payload = data[len(MAGIC) + DIGEST_BYTES :]
    if hashlib.sha256(payload).digest() != data[len(MAGIC) : len(MAGIC) + DIGEST_BYTES]:
        raise SnapshotError(f"{path} is damaged: its checksum does not match its content")
    try:
        tensors = safetensors.torch.load(payload)
        scalars = json.loads(tensors.pop(JSON).numpy().tobytes())
    except (SafetensorError, KeyError, ValueError) as error:
        raise SnapshotError(f"{path} is damaged: {error}") from error
    _check_maker(path, scalars["made_by"], describe(tracker))
    return _assemble(tensors, scalars)


def _check_maker(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    ours = json.loads(json.dumps(ours))
    for name, what in (
        ("network", "a network of other widths"),
        ("key_projection", "other weights"),
        ("memory", "other memory settings"),
        ("max_internal_size", "another max_internal_size"),
    ):
        if theirs.get(name) != ours[name]:
            raise SnapshotError(f"{path} was made with {what}; it cannot be used here")


# ---- tensors: "shared.key", "values.7", "hidden.7"


def _tensors(snapshot: Snapshot) -> dict[str, Tensor]:
    text = bytearray(json.dumps(_scalars(snapshot)).encode())
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


def _group(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {n[len(start) :]: t for n, t in tensors.items() if n.startswith(start)}


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
        },
        "objects": [
            {
                "id": i,
                "label": o.label,
                "born": o.born,
                "history": _history(o.history),
                "usual_area": o.looks.usual_area,
                "portrayed": o.looks.portrayed,
            }
            for i, o in snapshot.objects.items()
        ],
        "removed": sorted(snapshot.removed),
    }


def _pairs(numbers: dict[int, int]) -> list[tuple[int, int]]:
    return list(numbers.items())


def _history(history: ObjectHistory) -> dict[str, Any]:
    """Open requests stay behind: whoever answers them talks to a process that is gone."""
    return {
        "state": history.state.name,
        "entropy": history.entropy,
        "seen_stamp": history.seen_stamp,
        "operator_index": history.operator_index,
        "pseudo_index": history.pseudo_index,
    }


def _assemble(tensors: dict[str, Tensor], scalars: dict[str, Any]) -> Snapshot:
    tracker, memory = scalars["tracker"], scalars["memory"]
    state = None
    if memory is not None:
        state = MemoryState(
            shared=_group(tensors, "shared"),
            values={int(i): v for i, v in _group(tensors, "values").items()},
            births=dict(memory["births"]),
            anchored=frozenset(memory["anchored"]),
            working=tuple(memory["working"]),
            long_term=memory["long_term"],
        )
    return Snapshot(
        tracker=TrackerState(
            size=_pair(tracker["size"]),
            tokens=_pair(tracker["tokens"]),
            memory=state,
            births=dict(tracker["births"]),
            hidden={int(i): h for i, h in _group(tensors, "hidden").items()},
            frame=None,
            frames=tracker["frames"],
            clock=tracker["clock"],
            last_memory=tracker["last_memory"],
            last_deep_update=tracker["last_deep_update"],
        ),
        objects={
            o["id"]: _object(o, tensors.get(f"portraits.{o['id']}")) for o in scalars["objects"]
        },
        removed=frozenset(scalars["removed"]),
        made_by=scalars["made_by"],
    )


def _pair(value: list[int] | None) -> tuple[int, int] | None:
    return None if value is None else (value[0], value[1])


def _object(scalars: dict[str, Any], portraits: Tensor | None) -> FollowedObject:
    history = dict(scalars["history"])
    state = TrackState[history.pop("state")]
    return FollowedObject(
        label=scalars["label"],
        born=scalars["born"],
        history=ObjectHistory(state=state, **history),
        looks=Looks(portraits, scalars.get("usual_area"), scalars.get("portrayed")),
        published=state,
    )


def _sync_folder(folder: Path) -> None:
    """Makes the renaming itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

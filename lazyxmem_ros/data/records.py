# SPDX-License-Identifier: Apache-2.0
"""Reads the tracker's records of what people were asked and said, and makes a dataset of them.

Which topics a record has, and what is on them, says `nodes.tracker.records`, which writes them.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lazyxmem_ros.basics import TAKEN_BACK, BoolMask, StampRangeError, stamp_of
from lazyxmem_ros.data.bag_messages import decode_image, pack_labels, unpack_labels
from lazyxmem_ros.data.bag_reader import BagMessage, BagReader
from lazyxmem_ros.data.errors import BagError, DamagedBagError, DatasetError
from lazyxmem_ros.data.files import natural_order
from lazyxmem_ros.data.label_maps import save_label_map
from lazyxmem_ros.data.outputs import writing_to
from lazyxmem_ros.images import ImageError, label_values
from lazyxmem_ros.images.files import save_image, write_whole
from lazyxmem_ros.signals import undisturbed

FRAMES, TRACKS, CORRECTED = "correction_frame/compressed", "tracks", "corrected"
OPERATOR = "operator"
LABEL_BYTES = 100
"""Of an object's name in that of its folders, for which file systems have 255."""
UNFINISHED = ".unfinished"
"""The hidden folder in which a dataset lies until it is complete."""
RESOLUTION = "Full-Resolution"
"""DAVIS' name of pictures that are as large as they came."""


@dataclass(frozen=True)
class ObjectKey:
    """One object of one tracker. tracker: its full name. number: ids are given again; the first
    object of an id is 1.
    """

    tracker: str
    object_id: int
    number: int


@dataclass(frozen=True)
class SaidMask:
    """A mask that a person gave.

    mask: bool [H, W], as PNG. place: which of the frames of its stamp it is of, from 1 on: a
    simulation's clock may begin anew with each session.
    """

    mask: bytes
    place: int


@dataclass
class Answers:
    """What people have said, as it holds in the end.

    Attributes:
        masks: object -> stamp of the frame (ns) -> its masks in the order in which they came, of
            which the last one holds; at least one.
        labels: object -> its name, where it has one.
        not_applied: answers that the tracker did not take.
        taken_back: that were taken back.
        faults: what could not be read, in words.
        recorded: whether there was any record of a tracker.
    """

    masks: dict[ObjectKey, dict[int, list[SaidMask]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    labels: dict[ObjectKey, str] = field(default_factory=dict)
    not_applied: int = 0
    taken_back: int = 0
    faults: list[str] = field(default_factory=list)
    recorded: bool = False


@dataclass(frozen=True)
class ExportedSequence:
    """One object's answered frames.

    begun_late: frames left out at the begin, on which the object was not in view. without_frame:
    answers whose frame is not in the records.
    """

    name: str
    frames: int
    begun_late: int
    without_frame: int


def record_files(path: Path) -> list[Path]:
    """The MCAP files of a record, a folder of records or a file, in order.

    Raises DatasetError where there are none.
    """
    if not path.exists():
        raise DatasetError(f"{path}: there is no such folder")
    found = [path] if path.is_file() else [file for file in path.rglob("*.mcap") if file.is_file()]
    if not found:
        raise DatasetError(f"{path}: holds no records; give the tracker's record_dir")
    return sorted(found, key=lambda file: natural_order(str(file)))


def read_answers(files: list[Path]) -> Answers:
    """What people have said in records, files of one tracker in their order.

    A file that was cut short is read as far as it goes.
    """
    answers = Answers()
    followed: dict[str, set[int]] = defaultdict(set)
    numbers: Counter[tuple[str, int]] = Counter()
    frames: Counter[tuple[str, int | None]] = Counter()
    for tracker, topic, message in _messages(files, (TRACKS, CORRECTED, FRAMES), answers.faults):
        if topic == FRAMES:
            frames[tracker, _stamp(message)] += 1
            continue
        answers.recorded = True
        if topic == TRACKS:
            labels = {int(track.id): str(track.label) for track in message.tracks}
            for gone in followed[tracker] - labels.keys():
                numbers[tracker, gone] += 1
            followed[tracker] = set(labels)
            for object_id, label in labels.items():
                if label:
                    key = ObjectKey(tracker, object_id, numbers[tracker, object_id] + 1)
                    answers.labels[key] = label
        elif message.source == OPERATOR:
            object_id = int(message.id)
            key = ObjectKey(tracker, object_id, numbers[tracker, object_id] + 1)
            _take(answers, key, message, frames[tracker, _stamp(message)])
    return answers


def export(files: list[Path], answers: Answers, out: Path) -> list[ExportedSequence]:
    """Writes a dataset in DAVIS' layout, a sequence for each object, and returns its sequences.

    It is there as a whole or not at all. Raises DatasetError where `out` holds something already,
    OutputError where it cannot be written to.
    """
    # In `out` and not beside it: that may be a volume of its own, and no other be writable.
    draft = out / UNFINISHED
    if out.exists() and (not out.is_dir() or any(child != draft for child in out.iterdir())):
        raise DatasetError(f"{out} holds something already; choose another folder")
    with writing_to(out):
        if draft.exists():  # of a run that was killed
            shutil.rmtree(draft)
        draft.mkdir(parents=True)
    try:
        written = _write(files, answers, draft)
        if any(sequence.frames for sequence in written):
            with undisturbed(), writing_to(out):
                for part in draft.iterdir():
                    part.rename(out / part.name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return written


def _write(files: list[Path], answers: Answers, out: Path) -> list[ExportedSequence]:
    writers: list[_SequenceWriter] = []
    wanted: dict[tuple[str, int, int], list[_SequenceWriter]] = defaultdict(list)
    for key, name in _names(answers).items():
        held = {stamp: said[-1] for stamp, said in answers.masks[key].items()}
        writers.append(_SequenceWriter(out, name, held))
        for stamp in writers[-1].numbers:
            wanted[key.tracker, stamp, held[stamp].place].append(writers[-1])
    frames: Counter[tuple[str, int]] = Counter()
    for tracker, _, message in _messages(files, (FRAMES,), []):
        named = _stamp(message)
        if named is None:
            continue
        frames[tracker, named] += 1
        for writer in wanted.pop((tracker, named, frames[tracker, named]), ()):
            try:
                writer.write(named, message)
            except (BagError, DatasetError) as error:
                answers.faults.append(f"left out: {writer.name}, frame of {named} ns: {error}")
    written = [writer.finished() for writer in writers]
    made = [sequence for sequence in written if sequence.frames]
    listing = out / "ImageSets" / "2017" / "train.txt"
    write_whole(listing, "".join(f"{sequence.name}\n" for sequence in made).encode())
    return written


class _SequenceWriter:
    """Writes an object's frames as they are found; their numbers follow the stamps."""

    def __init__(self, out: Path, name: str, held: dict[int, SaidMask]) -> None:
        stamps = sorted(held)
        shown = [stamp for stamp in stamps if unpack_labels(held[stamp].mask).any()]
        kept = [stamp for stamp in stamps if shown and stamp >= shown[0]]
        self.name = name
        self.numbers = {stamp: number for number, stamp in enumerate(kept)}
        self._held = held
        self._out = out
        self._late = len(stamps) - len(kept)
        self._frames = 0

    def write(self, stamp: int, message: Any) -> None:
        """Writes a frame and its mask. Raises BagError or DatasetError where they do not fit."""
        image, labels = decode_image(message), unpack_labels(self._held[stamp].mask)
        if image.shape[:2] != labels.shape:
            raise DatasetError("the mask is of another size than its frame")
        stem = f"{self.numbers[stamp]:05d}"
        picture = self._out / "JPEGImages" / RESOLUTION / self.name / f"{stem}.jpg"
        data = bytes(message.data)
        if "jpeg compressed bgr8" in message.format and data.startswith(b"\xff\xd8"):
            write_whole(picture, data)  # not once more through the loss of JPEG
        else:
            save_image(picture, image)
        save_label_map(self._out / "Annotations" / RESOLUTION / self.name / f"{stem}.png", labels)
        self._frames += 1

    def finished(self) -> ExportedSequence:
        """What has become of it."""
        return ExportedSequence(
            self.name, self._frames, self._late, len(self.numbers) - self._frames
        )


def _messages(
    files: list[Path], topics: tuple[str, ...], faults: list[str]
) -> Iterator[tuple[str, str, Any]]:
    """(tracker, one of the `topics`, message) of all files; what is damaged goes to `faults`."""
    for file in files:
        try:
            with BagReader(file) as bag:
                names = [t for t in bag.topics if _split(t, topics) is not None]
                for message in bag.messages(*names) if names else ():
                    yield *_split_known(message, topics), message.content
        except DamagedBagError as error:
            faults.append(f"read as far as it goes: {error}")
        except BagError as error:
            faults.append(f"left out: {error}")


def _split_known(message: BagMessage, topics: tuple[str, ...]) -> tuple[str, str]:
    split = _split(message.topic, topics)
    assert split is not None
    return split


def _split(name: str, topics: tuple[str, ...]) -> tuple[str, str] | None:
    """The tracker and its topic; None for another topic."""
    for topic in topics:
        if name.endswith(f"/{topic}"):
            return name.removesuffix(f"/{topic}"), topic
    return None


def _take(answers: Answers, key: ObjectKey, outcome: Any, frames: int) -> None:
    """Note what became of an answer. frames: how many of its stamp the records have so far."""
    stamp = _stamp(outcome)
    if stamp is None:
        return
    if not outcome.applied:
        if outcome.message.startswith(TAKEN_BACK):
            answers.taken_back += _take_back(answers.masks[key], stamp)
        else:
            answers.not_applied += 1
        return
    try:
        mask: BoolMask = label_values(outcome.prompt.mask) != 0
    except ImageError as error:
        answers.faults.append(
            f"left out: object {key.object_id} on the frame of {stamp} ns: {error}"
        )
        return
    said = SaidMask(pack_labels(mask.astype(np.uint16)), max(frames, 1))
    answers.masks[key].setdefault(stamp, []).append(said)


def _take_back(masks: dict[int, list[SaidMask]], stamp: int) -> bool:
    """Takes back the last mask of a stamp, if there is one: the one before it holds again."""
    if stamp not in masks:
        return False
    masks[stamp].pop()
    if not masks[stamp]:
        del masks[stamp]
    return True


def _stamp(message: Any) -> int | None:
    try:
        return stamp_of(message.header.stamp)
    except StampRangeError:
        return None


def _names(answers: Answers) -> dict[ObjectKey, str]:
    """A name for each object that has answers; none is another's."""
    names: dict[ObjectKey, str] = {}
    for key in sorted(
        (key for key, masks in answers.masks.items() if masks),
        key=lambda key: (key.tracker, key.object_id, key.number),
    ):
        label = answers.labels.get(key, "").encode(errors="ignore")[:LABEL_BYTES]
        named = label.decode(errors="ignore") or "object"
        parts = [key.tracker.strip("/"), named, str(key.object_id)]
        name = "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts)
        while name in names.values():
            name = f"{name}-{key.number}"
        names[key] = name
    return names

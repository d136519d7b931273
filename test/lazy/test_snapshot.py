# SPDX-License-Identifier: Apache-2.0
"""Snapshots: the same objects after a restart, and nothing from a bad file."""

import copy
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from late_runs import CALIBRATION
from random_clip import TINY, image, mask

from lazyxmem_ros.basics import MAX_LABEL_LENGTH, SECOND
from lazyxmem_ros.lazy import (
    Correction,
    LazyConfig,
    LazyTracker,
    SnapshotError,
    Source,
    TrackState,
    read_snapshot,
    write_snapshot,
)
from lazyxmem_ros.lazy.policy import ObjectHistory
from lazyxmem_ros.lazy.snapshot import DIGEST_BYTES, MAGIC, check_path
from lazyxmem_ros.xmem import MemoryConfig, XMem, XMemTracker, load_network, save_network

CONFIG = LazyConfig(operator_corrections=False, pseudo_corrections=False, hold_entropy=math.inf)


def tracker(network: XMem, memory: MemoryConfig = TINY) -> XMemTracker:
    return XMemTracker(network, memory)


def begun(network: XMem, frames: int = 30) -> LazyTracker:
    lazy = LazyTracker(tracker(network), CONFIG)
    for index in range(frames):
        masks = {0: {1: mask(0, 0), 2: mask(20, 30)}, 8: {np.uint8(7): mask(5, 40)}}.get(index)
        lazy.step(image(index), index * SECOND, masks=masks, labels={1: "cup"})
    lazy.remove_objects(np.array([2], np.uint8))  # ids as label maps have them
    lazy.close()
    return lazy


@pytest.fixture(scope="module")
def written(small_network: XMem, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("snapshots") / "s"
    write_snapshot(begun(small_network, 12).snapshot(), path)
    return path.read_bytes()


def test_a_restarted_process_goes_on_as_the_first_would(
    small_network: XMem, tmp_path: Path
) -> None:
    first = begun(small_network)
    size = write_snapshot(first.snapshot(), tmp_path / "state" / "s.snapshot")
    assert (tmp_path / "state" / "s.snapshot").stat().st_size == size
    second = LazyTracker(tracker(small_network), CONFIG)
    second.resume(read_snapshot(tmp_path / "state" / "s.snapshot", second.tracker))
    assert second.object_ids == first.object_ids == (1, 7)
    for index in range(30, 50):
        a, b = (lazy.step(image(index), index * SECOND) for lazy in (first, second))
        assert np.array_equal(a.labels, b.labels)
        assert [t.uncertainty for t in a.tracks] == [t.uncertainty for t in b.tracks]
        assert [(t.label, t.state) for t in a.tracks] == [(t.label, t.state) for t in b.tracks]
    assert b.tracks[0].label == "cup"
    assert b.tracks[0].state in TrackState


def test_another_clock_changes_nothing_but_the_stamps(small_network: XMem) -> None:
    first, second = begun(small_network), begun(small_network)
    second.change_clock()
    assert second.object_ids == first.object_ids == (1, 7)
    assert not second.keeps(29 * SECOND)
    for index in range(30, 50):
        a = first.step(image(index), index * SECOND)
        b = second.step(image(index), (index - 25) * SECOND)
        assert np.array_equal(a.labels, b.labels)
        assert [(t.object_id, t.label) for t in a.tracks] == [
            (t.object_id, t.label) for t in b.tracks
        ]
        assert TrackState.LOST not in {t.state for t in b.tracks if t.area > 16}


def test_what_was_asked_and_said_lies_before_another_clock(small_network: XMem) -> None:
    asks = replace(CONFIG, operator_corrections=True, operator_entropy=0.0, cooldown_frames=0)
    lazy = LazyTracker(tracker(small_network), asks, iou_predictor=CALIBRATION)
    lazy.step(image(0), 100 * SECOND, masks={1: mask(0, 0)})
    lazy.step(image(1), 101 * SECOND)
    assert lazy.open_requests
    lazy.change_clock()
    assert not lazy.open_requests
    for index in range(2, 4):
        lazy.step(image(index), index * SECOND)
    assert lazy.apply(Correction(3 * SECOND, {1: mask(30, 10)})).applied
    lazy.step(image(4), 4 * SECOND)
    portraits = lazy.snapshot().objects[1].looks.portraits
    assert portraits is not None
    assert len(portraits) == 2


def test_a_paused_object_is_paused_after_a_restart(small_network: XMem, tmp_path: Path) -> None:
    first = begun(small_network, 12)
    first.pause_objects([7])
    write_snapshot(first.snapshot(), tmp_path / "s")
    second = LazyTracker(tracker(small_network), CONFIG)
    second.resume(read_snapshot(tmp_path / "s", second.tracker))
    assert second.paused_ids == {7}
    states = {t.object_id: t.state for t in second.step(image(12), 12 * SECOND).tracks}
    assert states[7] is TrackState.PAUSED
    assert states[1] is not TrackState.PAUSED
    second.resume_objects([7])
    assert second.step(image(13), 13 * SECOND).tracks[1].state is not TrackState.PAUSED


def test_all_that_is_known_of_an_object_is_in_the_file_but_what_was_asked(
    small_network: XMem, tmp_path: Path
) -> None:
    lazy = begun(small_network, 12)
    known = ObjectHistory(
        state=TrackState.LOST,
        entropy=0.25,
        seen_stamp=5,
        found_streak=2,
        operator_index=3,
        pseudo_index=4,
        trusted_index=6,
        mistakable=True,
        absences=7,
        open=((Source.OPERATOR, 8),),
    )
    assert all(getattr(known, f.name) != f.default for f in fields(known)), "nothing is left out"
    lazy._state.objects[1].history = known
    write_snapshot(lazy.snapshot(), tmp_path / "s")
    read = read_snapshot(tmp_path / "s", lazy.tracker).objects[1]
    assert read.history == replace(known, open=())
    assert read.published is TrackState.LOST


def test_a_portrait_that_is_due_is_taken_after_a_restart(
    small_network: XMem, tmp_path: Path
) -> None:
    lazy = LazyTracker(tracker(small_network), CONFIG, iou_predictor=CALIBRATION)
    for index in range(3):
        lazy.step(image(index), index * SECOND, masks={1: mask(0, 0)} if index == 0 else None)
    assert lazy.apply(Correction(2 * SECOND, {1: mask(30, 10)})).applied
    lazy.close()
    write_snapshot(lazy.snapshot(), tmp_path / "s")
    lazy.resume(read_snapshot(tmp_path / "s", lazy.tracker))
    lazy.step(image(3), 3 * SECOND)
    portraits = lazy.snapshot().objects[1].looks.portraits
    assert portraits is not None
    assert len(portraits) == 2


def test_a_snapshot_is_a_copy(small_network: XMem, tmp_path: Path) -> None:
    lazy = begun(small_network)
    snapshot = lazy.snapshot()
    write_snapshot(snapshot, tmp_path / "early")
    for index in range(30, 45):
        lazy.step(image(index), index * SECOND)
    lazy.remove_objects([1])
    write_snapshot(snapshot, tmp_path / "later")
    assert (tmp_path / "early").read_bytes() == (tmp_path / "later").read_bytes()


def test_an_empty_tracker_has_a_snapshot_too(small_network: XMem, tmp_path: Path) -> None:
    lazy = LazyTracker(tracker(small_network), CONFIG)
    write_snapshot(lazy.snapshot(), tmp_path / "s")
    lazy.resume(read_snapshot(tmp_path / "s", lazy.tracker))
    assert lazy.object_ids == ()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda b: b[:-1], "checksum"),
        (lambda b: b[:3000] + b"\x00\x01" + b[3002:], "checksum"),
        (lambda b: b[: len(b) // 2], "checksum"),
        (lambda _: b"", "no snapshot"),
        (lambda _: b"PK\x03\x04 something else", "no snapshot"),
        (lambda b: b[:11] + b"\x09" + b[12:], "version 9"),
        (lambda b: b[:11] + b"\x03" + b[12:], "version 3, not 4"),
    ],
)
def test_a_damaged_file_is_refused_and_named(
    change, text: str, written: bytes, small_network: XMem, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    path.write_bytes(change(written))
    with pytest.raises(SnapshotError, match=text) as error:
        read_snapshot(path, tracker(small_network))
    assert str(path) in str(error.value)


def test_a_huge_file_of_another_kind_is_refused_by_its_begin(
    small_network: XMem, tmp_path: Path
) -> None:
    with (tmp_path / "s").open("wb") as file:
        file.truncate(1 << 40)  # of which nothing is on the disk
    with pytest.raises(SnapshotError, match="no snapshot"):
        read_snapshot(tmp_path / "s", tracker(small_network))


def test_a_foreign_file_is_refused(written: bytes, small_network: XMem, tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(written)
    with pytest.raises(SnapshotError, match="memory settings"):
        read_snapshot(path, tracker(small_network, replace(TINY, top_k=6)))
    torch.manual_seed(5)
    with pytest.raises(SnapshotError, match="other weights"):
        read_snapshot(path, tracker(XMem(small_network.config)))
    with pytest.raises(SnapshotError, match="other widths"):
        read_snapshot(path, tracker(XMem(replace(small_network.config, hidden_dim=0))))
    with pytest.raises(SnapshotError, match="cannot be read"):
        read_snapshot(tmp_path / "none", tracker(small_network))


def rewritten(path: Path, change: Callable[[dict, dict], object]) -> None:
    """Change the JSON and the tensors of a snapshot's file; the checksum fits again.

    change(scalars, tensors): in place, or returns what the JSON is to be instead.
    """
    payload = path.read_bytes()[len(MAGIC) + DIGEST_BYTES :]
    tensors = safetensors.torch.load(payload)
    scalars = json.loads(tensors.pop("json").numpy().tobytes())
    instead = change(scalars, tensors)
    text = instead if isinstance(instead, bytes) else json.dumps(scalars).encode()
    as_bytes = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    tensors["json"] = instead if isinstance(instead, torch.Tensor) else as_bytes
    payload = safetensors.torch.save(tensors)
    path.write_bytes(MAGIC + hashlib.sha256(payload).digest() + payload)


def put(*keys: Any) -> Callable[[dict, dict], None]:
    """Puts a value, the last key, where the others say, as in ("tracker", "frames", -1)."""

    def change(scalars: Any, tensors: dict) -> None:
        *way, last, value = keys
        for key in way:
            scalars = scalars[key]
        scalars[last] = value

    return change


def drop(part: int, name: str) -> Callable[..., None]:
    """Takes out a field (part 0) or a tensor (part 1)."""

    def change(*parts: dict) -> None:
        del parts[part][name]

    return change


def drop_of_history(name: str) -> Callable[[dict, dict], None]:
    """Takes a field out of the first object's history."""

    def change(scalars: dict, tensors: dict) -> None:
        del scalars["objects"][0]["history"][name]

    return change


def instead(text: bytes) -> Callable[[dict, dict], bytes]:
    return lambda scalars, tensors: text


def turn(name: str, make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict, dict], None]:
    """Makes another tensor of one."""

    def change(scalars: dict, tensors: dict) -> None:
        tensors[name] = make(tensors[name]).contiguous()

    return change


def add(name: str, *shape: int) -> Callable[[dict, dict], None]:
    def change(scalars: dict, tensors: dict) -> None:
        tensors[name] = torch.ones(*shape)

    return change


def no_entropy(scalars: dict, tensors: dict) -> bytes:
    scalars["objects"][0]["history"]["entropy"] = math.nan
    return json.dumps(scalars).encode()


def one_object_twice(scalars: dict, tensors: dict) -> None:
    scalars["objects"].append(scalars["objects"][0])


def a_huge_image(scalars: dict, tensors: dict) -> None:
    scalars["tracker"].update(size=[HUGE, HUGE], tokens=[HUGE // 16, HUGE // 16])


def another_order(scalars: dict, tensors: dict) -> None:
    scalars["memory"]["births"].reverse()


HUGE = 2**31
BAD_CONTENT = {
    "another version's field": (put("colour", "red"), "not known: colour"),
    "another version's object": (put("objects", 0, "mood", 1), "not known: mood"),
    "no objects": (drop(0, "objects"), "lacks objects"),
    "objects that are none": (put("objects", []), "are not those"),
    "no absences": (drop_of_history("absences"), "lacks absences"),
    "mistakable 1": (put("objects", 0, "history", "mistakable", 1), "mistakable is 1, not bool"),
    "told in words": (put("objects", 0, "told", "now"), "told has 'now', not an integer"),
    "no maker": (drop(0, "made_by"), "lacks made_by"),
    "an object twice": (one_object_twice, "are not those"),
    "an unknown state": (put("objects", 0, "history", "state", "HAPPY"), "'HAPPY', not one of"),
    "id -5": (put("objects", 0, "id", -5), "are not those"),
    "id abc": (put("objects", 0, "id", "abc"), "id has 'abc', not an integer"),
    "id true": (put("objects", 0, "id", True), "id has True, not an integer"),
    "births of -5": (put("tracker", "births", [[-5, 0]]), "are not those"),
    "a removed id of 70000": (put("removed", [70_000]), "are not object ids"),
    "a size of 2^31": (put("tracker", "size", [HUGE, HUGE]), "memory tokens are no image of"),
    "tokens of 2^31": (put("tracker", "tokens", [HUGE, HUGE]), "are no image of"),
    "size and tokens of 2^31": (a_huge_image, "memory column key is"),
    "a size of nothing": (put("tracker", "size", [0, 96]), "no height and width"),
    "long-term memory of 2^31": (put("memory", "long_term", HUGE), "long-term memory holds"),
    "negative frames": (put("tracker", "frames", -1), "has seen -1 frames"),
    "frames beyond 64 bits": (put("tracker", "frames", 10**30), "not an integer"),
    "a clock ahead": (put("tracker", "clock", 10_000), "its clock is 10000"),
    "a frame of working memory twice": (put("memory", "working", 1, 0), "not in order, each once"),
    "working memory of nothing": (put("memory", "working", []), "holds 0 frames"),
    "no memory": (put("memory", None), "values.1"),
    "an entropy that is none": (no_entropy, "not a finite number"),
    "text of numbers": (lambda *_: torch.ones(4, dtype=torch.bfloat16), "is damaged"),
    "a list": (instead(b"[1, 2, 3]"), "a list of 3, not an object"),
    "a number": (instead(b"7"), "is 7, not an object"),
    "JSON 100 000 deep": (instead(b"[" * 100_000 + b"]" * 100_000), "is damaged"),
    "no JSON": (instead(b"\xff{"), "is damaged"),
    "a label that is no text": (put("objects", 0, "label", 3), "label is 3, not str"),
    "another tensor": (add("more", 1), "not known: more"),
    "portraits of nobody": (add("portraits.99", 1, 8), "not known: portraits.99"),
    "portraits of another width": (add("portraits.1", 1, 3), "portraits of object 1"),
    "a tensor less": (drop(1, "values.7"), "other objects than"),
    "a tensor of -7": (add("values.-7", 1), "'-7' is no object id"),
    "other shapes": (turn("shared.key", lambda t: t[:, :3]), "column key is"),
    "other types": (turn("shared.key", lambda t: t.double()), "torch.float64"),
    "values that are no numbers": (turn("values.1", lambda t: t * math.nan), "not finite"),
    "tokens that show nobody": (turn("shared.shows", lambda t: t - 9), "outside 0..65535"),
    "tokens of before an object": (turn("shared.born", lambda t: t * 0), "nothing of object 7's"),
    "memory of objects in another order": (another_order, "in another order"),
    "a usual area of nothing": (put("objects", 0, "usual_area", -1e300), "usual area of object 1"),
    "a usual area of 2^99": (put("objects", 0, "usual_area", 99.0), "usual area of object 1"),
    "a time of no portraits": (put("objects", 0, "portrayed", 5), "object 1 has portraits of no"),
    "portraits of no time": (add("portraits.1", 1, 8), "object 1 has portraits of no"),
    "other hidden states": (turn("hidden.1", lambda t: t[..., :1]), "hidden state of object 1"),
}


@pytest.mark.parametrize("what", BAD_CONTENT)
def test_wrong_content_with_the_right_checksum_is_refused(
    what: str, written: bytes, small_network: XMem, tmp_path: Path
) -> None:
    change, fault = BAD_CONTENT[what]
    path = tmp_path / "s"
    path.write_bytes(written)
    rewritten(path, change)
    with pytest.raises(SnapshotError) as refused:
        read_snapshot(path, tracker(small_network))
    assert fault in str(refused.value)
    assert str(path) in str(refused.value)


def test_content_that_is_written_again_unchanged_is_taken(
    written: bytes, small_network: XMem, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    path.write_bytes(written)
    rewritten(path, lambda scalars, tensors: None)
    assert set(read_snapshot(path, tracker(small_network)).objects) == {1, 7}


def test_a_name_that_is_too_long_is_cut(
    written: bytes, small_network: XMem, tmp_path: Path
) -> None:
    """Names had no limit once, and the objects are worth more."""
    path = tmp_path / "s"
    path.write_bytes(written)
    rewritten(path, put("objects", 0, "label", "x" * 10_000))
    item = read_snapshot(path, tracker(small_network)).objects[1]
    assert item.label == "x" * MAX_LABEL_LENGTH


@pytest.mark.parametrize("layer", ["decoder", "value_encoder", "key_proj"])
def test_weights_that_differ_in_any_layer_are_others(
    layer: str, written: bytes, small_network: XMem, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    path.write_bytes(written)
    other = copy.deepcopy(small_network)
    weight = [w for name, w in other.named_parameters() if name.startswith(layer)][-1]
    with torch.no_grad():
        weight.view(-1)[0] += 1e-3
    with pytest.raises(SnapshotError, match="other weights"):
        read_snapshot(path, tracker(other))


def test_paths_where_no_snapshot_can_be(tmp_path: Path) -> None:
    fifo, zeros = tmp_path / "fifo", tmp_path / "zeros"
    os.mkfifo(fifo)
    zeros.symlink_to("/dev/zero")
    (tmp_path / "file").write_text("")
    for path, fault in (
        (Path("/dev/full"), "no regular file"),
        (fifo, "no regular file"),
        (zeros, "no regular file"),
        (Path("/"), "no regular file"),
        (tmp_path, "no regular file"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / "file" / "s", "cannot be a snapshot"),
        (tmp_path / "nul\0", "cannot be a snapshot"),
    ):
        with pytest.raises(SnapshotError, match=fault):
            check_path(path)
    check_path(tmp_path / "new" / "folders" / "s")


def test_nothing_but_a_file_is_replaced(small_network: XMem, tmp_path: Path) -> None:
    """A rename would put the file in the place of a device, such as /dev/null."""
    snapshot = LazyTracker(tracker(small_network), CONFIG).snapshot()
    fifo, folder = tmp_path / "fifo", tmp_path / "folder"
    os.mkfifo(fifo)
    folder.mkdir()
    for path in (fifo, folder):
        with pytest.raises(OSError, match="no regular file"):
            write_snapshot(snapshot, path)
    assert fifo.is_fifo()
    assert sorted(tmp_path.iterdir()) == [fifo, folder]


@pytest.mark.parametrize("number", [np.uint64, np.int64])
def test_stamps_may_be_numpy_s(number: type[np.integer], small_network: XMem, tmp_path: Path):
    lazy = LazyTracker(tracker(small_network), CONFIG)
    for index in range(3):
        lazy.step(image(index), number(index * SECOND), {1: mask(0, 0)} if not index else None)
    assert lazy.keeps(0)
    assert lazy.apply(Correction(number(SECOND), {1: mask(0, 0)})).applied
    write_snapshot(lazy.snapshot(), tmp_path / "s")
    assert read_snapshot(tmp_path / "s", tracker(small_network)).objects.keys() == {1}


WRITER = """
# A child for each line of the input, so that what takes seconds to import is imported once.
import os, sys
from pathlib import Path
import test_snapshot as t
import torch
from lazyxmem_ros.lazy import write_snapshot
from lazyxmem_ros.xmem import load_network
torch.set_num_threads(1)  # a fork has none of its parent's threads
lazy = t.begun(load_network(sys.argv[1]), 12)
for _ in sys.stdin:
    child = os.fork()
    if not child:
        print(os.getpid(), flush=True)
        while True:
            write_snapshot(lazy.snapshot(), Path(sys.argv[2]))
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


def written_at(path: Path) -> int:
    """When a file was written, ns; 0 before it is there."""
    return path.stat().st_mtime_ns if path.exists() else 0


@pytest.mark.slow
def test_killed_in_the_middle_of_writing_the_file_is_whole(
    small_network: XMem, tmp_path: Path
) -> None:
    weights, path = tmp_path / "w.safetensors", tmp_path / "s"
    save_network(small_network, weights)
    reader = tracker(load_network(weights))
    command = [sys.executable, "-c", WRITER, str(weights), str(path)]
    here = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    rng = np.random.default_rng(0)
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": here},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(5):
            before = written_at(path)
            print(file=process.stdin, flush=True)
            writer = int(process.stdout.readline())
            while written_at(path) == before:  # then it begins again
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.1))
            os.kill(writer, signal.SIGKILL)
            assert process.stdout.readline() == "ended\n"
            assert read_snapshot(path, reader).objects.keys() == {1, 7}


@pytest.mark.parametrize("shown", ["first", "with the image", "added"])
def test_objects_shown_on_the_open_frame_are_in_it(
    shown: str, small_network: XMem, tmp_path: Path
) -> None:
    first = LazyTracker(tracker(small_network), CONFIG)
    first.step(image(0), 0, masks={1: mask(0, 0)})
    if shown != "first":
        first.step(image(1), SECOND)
        new = {2: mask(20, 30)}
        first.step(image(2), 2 * SECOND, masks=new if shown == "with the image" else None)
        if shown == "added":
            first.add_objects(new)
    write_snapshot(first.snapshot(), tmp_path / "s")
    second = LazyTracker(tracker(small_network), CONFIG)
    second.resume(read_snapshot(tmp_path / "s", second.tracker))
    assert second.object_ids == first.object_ids
    for index in range(3, 20):
        a, b = (lazy.step(image(index), index * SECOND) for lazy in (first, second))
        assert np.array_equal(a.labels, b.labels)

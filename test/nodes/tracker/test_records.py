# SPDX-License-Identifier: Apache-2.0
"""What people were asked and said is kept, whatever happens, and becomes a dataset."""

from __future__ import annotations

import contextlib
import math
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from node_graph import (
    FIRST_STAMP,
    STEP,
    WAIT_S,
    header,
    scene,
    scene_message,
    show_until_tracked,
    stamps,
    wait_for,
)
from node_process import NodeProcess
from sensor_msgs.msg import Image
from tracker_harness import Tracker, ask_the_operator, with_fields

from lazyxmem_ros.basics import stamp_of
from lazyxmem_ros.cli import main
from lazyxmem_ros.data.bag_reader import BagReader
from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.errors import DamagedBagError
from lazyxmem_ros.data.records import read_answers, record_files
from lazyxmem_ros.images import MAX_PIXELS
from lazyxmem_ros.msg import Correction, CorrectionRequest, Prompt
from lazyxmem_ros.nodes.conversions import image_message, labels_message, mask_message
from lazyxmem_ros.nodes.tracker.records import _compressed
from lazyxmem_ros.srv import RemoveObjects

ASKING = {"operator_corrections": True, "operator_entropy": 0.0, "cooldown_frames": 0}
MEBIBYTE = 1 << 20


def mask_answer(index: int, mask: Any, object_id: int = 1) -> Correction:
    prompt = Prompt(mask=mask_message(mask, header(index)))
    return Correction(header=header(index), id=object_id, prompt=prompt)


def answer(tracker: Tracker, index: int, mask: Any) -> Correction:
    """Answers about a frame and waits for what becomes of it."""
    before = len(tracker.out("corrected"))
    tracker.probe.publish(f"{tracker.name}/operator_correction", mask_answer(index, mask))
    wait_for(lambda: len(tracker.out("corrected")) > before, "what became of the answer")
    outcome: Correction = tracker.out("corrected")[-1]
    return outcome


def blocks(image: Any) -> Any:
    """Mean colours of blocks of 16x16 pixels."""
    height, width = image.shape[0] // 16, image.shape[1] // 16
    return image.reshape(height, 16, width, 16, 3).mean(axis=(1, 3))


def contents(folder: Path) -> dict[str, list[Any]]:
    """Topic without its tracker -> messages of all bags, in order."""
    found: dict[str, list[Any]] = {}
    for file in record_files(folder):
        # A bag that is being written ends without its index.
        with contextlib.suppress(DamagedBagError), BagReader(file) as bag:
            for message in bag.messages():
                topic = message.topic.partition("lazyxmem_tracker/")[2]
                found.setdefault(topic, []).append(message.content)
    return found


def test_requests_answers_and_outcomes_are_kept_as_they_were(
    own_tracker: Callable[..., Tracker], tmp_path: Path
) -> None:
    folder = tmp_path / "records"
    tracker = own_tracker(record_dir=str(folder))
    asked = ask_the_operator(tracker)
    truth = scene(1)[1]
    assert answer(tracker, 1, truth).applied
    assert not answer(tracker, 1, truth).applied, "a duplicate"
    assert answer(tracker, 0, scene(0)[1]).message, "of a frame that nobody asked about"
    records = tracker.node._parts.records
    wait_for(lambda: records.written >= 10, "the records on the disk")
    kept = contents(folder)
    [request] = kept["correction_request"]
    assert stamp_of(request.header.stamp) == stamp_of(asked.header.stamp)
    assert (request.reason, request.mask.data.tobytes()) == (asked.reason, bytes(asked.mask.data))
    assert request.image.height == 0, "the image is a frame of its own"
    assert [stamp_of(a.header.stamp) for a in kept["operator_correction"]] == [
        FIRST_STAMP + STEP,
        FIRST_STAMP + STEP,
        FIRST_STAMP,
    ]
    assert [outcome.applied for outcome in kept["corrected"]][:2] == [True, False]
    assert len(kept["correction_frame/compressed"]) == 2, "once per frame"
    [prediction] = kept["mask"]
    assert stamp_of(prediction.header.stamp) == FIRST_STAMP, "the frame that nobody asked about"


def test_an_id_that_is_given_again_is_another_object(
    own_tracker: Callable[..., Tracker], tmp_path: Path
) -> None:
    folder = tmp_path / "records"
    tracker = own_tracker(record_dir=str(folder))
    tracker.show_object(0)
    assert answer(tracker, 0, ~scene(0)[1]).applied
    name = f"{tracker.name}/remove_objects"
    assert tracker.probe.call(RemoveObjects, name, RemoveObjects.Request()).success
    tracker.show_object(1)
    tracker.send(2)
    assert answer(tracker, 1, ~scene(1)[1]).applied
    assert answer(tracker, 2, ~scene(2)[1]).applied
    tracker.change(Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
    answers = read_answers(record_files(folder))
    assert [len(masks) for masks in answers.masks.values()] == [1, 2]
    assert not answers.faults
    assert (next(folder.iterdir()) / "metadata.yaml").is_file(), "complete, for `ros2 bag`"


@pytest.mark.parametrize("with_reset", [True, False])
def test_another_recording_of_the_same_stamps_has_its_images(
    own_tracker: Callable[..., Tracker], tmp_path: Path, *, with_reset: bool
) -> None:
    """After a reset, and where the tracker finds by itself that stamps begin again."""
    folder = tmp_path / "records"
    tracker = own_tracker(record_dir=str(folder))
    tracker.show_object(0)
    for index in range(1, 5):
        tracker.send(index)
    assert answer(tracker, 2, ~scene(2)[1]).applied
    if with_reset:
        tracker.reset()
        tracker.show_object(2)
    else:
        before = len(tracker.out("mask"))
        for index in range(3):  # of which only the last one is taken
            tracker.probe.publish(f"{tracker.ns}/image", scene_message(index))
        wait_for(lambda: len(tracker.out("mask")) > before, "a frame of the other clock")
    assert answer(tracker, 2, scene(2)[1]).applied
    tracker.change(Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
    frames = contents(folder)["correction_frame/compressed"]
    assert stamps(frames) == 2 * [FIRST_STAMP + 2 * STEP]
    masks = read_answers(record_files(folder)).masks.values()
    places = {said[-1].place for of_object in masks for said in of_object.values()}
    assert places == ({1, 2} if with_reset else {2})


def test_a_bag_begins_with_the_objects_of_its_first_message(
    own_tracker: Callable[..., Tracker], tmp_path: Path
) -> None:
    """Not with those that have come until it could be begun."""
    folder = tmp_path / "records"
    tracker = own_tracker(record_dir=str(folder))
    records = tracker.node._parts.records

    def applied(index: int) -> Correction:
        return with_fields(mask_answer(index, scene(index)[1]), applied=True, source="operator")

    records.see_objects(FIRST_STAMP, {1: "cup"})
    records.outcome(applied(0))
    wait_for(lambda: records.written, "it on the disk")
    before = records.written
    with something_in_the_way(folder):
        records.outcome(applied(1))
        wait_for(lambda: records.last_fault, "the fault")
        records.see_objects(FIRST_STAMP + 2 * STEP, {})
        records.see_objects(FIRST_STAMP + 3 * STEP, {1: "box"})
        records.outcome(applied(4))
    wait_for(lambda: records.written == before + 4, "the others")
    answers = read_answers(record_files(folder))
    found = [(answers.labels[key], list(masks)) for key, masks in answers.masks.items()]
    assert found == [("cup", [FIRST_STAMP + STEP]), ("box", [FIRST_STAMP + 4 * STEP])]


def test_a_killed_trackers_records_are_a_dataset_to_evaluate_on(
    start: Callable[..., NodeProcess],
    probe: Any,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ns, folder = "/records_test", tmp_path / "records"
    name = f"{ns}/lazyxmem_tracker"
    values = {"weights": weights, "device": "cpu", "record_dir": folder, **ASKING}
    values["pseudo_corrections"] = False
    process = start("tracker", values, "-r", f"__ns:={ns}")
    for kind, topic in ((Image, "mask"), (CorrectionRequest, "correction_request")):
        probe.listen(kind, f"{name}/{topic}")
    probe.listen(Correction, f"{name}/corrected")
    index = show_until_tracked(probe, ns, 0)
    labels = scene(index)[1].astype(np.uint16)
    probe.publish(f"{name}/init_mask", labels_message(labels, header(index)))
    answered = []
    for _ in range(3):
        seen = len(probe.messages(f"{name}/correction_request"))
        while len(probe.messages(f"{name}/correction_request")) == seen:
            index = show_until_tracked(probe, ns, index + 1)
        asked = probe.messages(f"{name}/correction_request")[-1]
        about = (stamp_of(asked.header.stamp) - FIRST_STAMP) // STEP
        probe.publish(f"{name}/operator_correction", mask_answer(about, scene(about)[1]))
        answered.append(about)
        count = len(answered)
        wait_for(lambda c=count: len(probe.messages(f"{name}/corrected")) == c, "the outcome")  # type: ignore[misc]
    assert all(outcome.applied for outcome in probe.messages(f"{name}/corrected"))
    wait_for(lambda: len(outcomes(folder)) == 3, "it on the disk")
    assert process.stop(signal.SIGKILL) == -signal.SIGKILL

    out = tmp_path / "dataset"
    assert main(["export", str(folder), "--out", str(out)]) == 0
    assert "as far as it goes" in capsys.readouterr().out, "that the bag was cut short is said"
    [sequence] = open_dataset(out)
    samples = list(sequence.samples())
    assert len(samples) == 3
    for about, sample in zip(answered, samples, strict=True):
        image, mask = scene(about)
        assert sample.truth is not None
        assert sample.image is not None
        assert ((sample.truth == 1) == mask).all()
        assert np.abs(blocks(sample.image) - blocks(image)).max() < 6, "noise, as JPEG keeps it"
    assert main(["export", str(folder), "--out", str(out)]) == 1, "it is not overwritten"

    results = tmp_path / "results"
    arguments = ["evaluate", str(out), "--weights", str(weights), "--out", str(results)]
    options = ["--methods", "xmem", "--device", "cpu", "--workers", "1", "--format", "csv"]
    assert main([*arguments, *options]) == 0
    assert sequence.name in "".join(f.read_text() for f in results.rglob("*.csv"))


def test_the_oldest_bags_go(own_tracker: Callable[..., Tracker], tmp_path: Path) -> None:
    folder = tmp_path / "records"
    tracker = own_tracker(record_dir=str(folder), record_max_megabytes=1, record_max_bags=2)
    records = tracker.node._parts.records
    noise = np.random.default_rng(0)
    for index in range(24):
        mask = noise.integers(0, 2, (600, 800)).astype(bool)  # 60 kB where it is compressed
        message = mask_answer(index, mask)
        records.outcome(message)
        wait_for(lambda n=index: records.written > n, "the outcome on the disk")  # type: ignore[misc]
        total = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        assert total < MEBIBYTE * 1.6, "with the file that is kept for a full disk"
        assert len(list(folder.iterdir())) <= 2
    first = min(int(bag.name.rpartition("-")[2]) for bag in folder.iterdir())
    assert first > 1
    assert stamps(contents(folder)["corrected"])[-1] == FIRST_STAMP + 23 * STEP


def test_an_image_that_was_let_in_is_kept_however_large_it_is() -> None:
    side = math.isqrt(MAX_PIXELS) + 1
    image = image_message(np.zeros((side, side), np.uint8), "mono8", header(0))
    assert bytes(_compressed(image).data[:2]) == b"\xff\xd8"


def test_a_folder_that_cannot_be_written_is_refused(
    own_tracker: Callable[..., Tracker], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(Exception, match=r"record_dir: .* cannot hold records.*name a folder"):
        own_tracker(record_dir=str(file / "records"))


def outcomes(folder: Path) -> list[Correction]:
    return contents(folder).get("corrected", []) if list(folder.glob("*/*.mcap")) else []


def test_after_its_folder_was_deleted_a_new_one_is_begun(
    own_tracker: Callable[..., Tracker], tmp_path: Path
) -> None:
    folder = tmp_path / "records"
    tracker = own_tracker(record_dir=str(folder))
    records = tracker.node._parts.records
    for index in range(3):
        records.outcome(mask_answer(index, scene(index)[1]))
        wait_for(lambda n=index: records.written > n, "the outcome on the disk")  # type: ignore[misc]
        if index == 0:
            shutil.rmtree(folder)
    assert stamps(outcomes(folder)) == [FIRST_STAMP + STEP, FIRST_STAMP + 2 * STEP]


@contextlib.contextmanager
def something_in_the_way(folder: Path) -> Iterator[None]:
    """A file where the folder was."""
    shutil.rmtree(folder)
    folder.write_text("in the way")
    yield
    folder.unlink()
    folder.mkdir()


@contextlib.contextmanager
def no_room(folder: Path) -> Iterator[None]:
    """A full disk."""
    filler = folder.parent / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    yield
    filler.unlink()


@pytest.mark.parametrize("obstacle", [something_in_the_way, no_room])
def test_what_cannot_be_written_waits_is_said_and_tracking_goes_on(
    obstacle: Callable[[Path], contextlib.AbstractContextManager[None]],
    request: pytest.FixtureRequest,
) -> None:
    full = obstacle is no_room
    folder = request.getfixturevalue("small_disk" if full else "tmp_path") / "records"
    tracker = request.getfixturevalue("own_tracker")(record_dir=str(folder))
    records = tracker.node._parts.records
    tracker.show_object(0)
    if full:
        assert answer(tracker, 0, ~scene(0)[1]).applied
        wait_for(lambda: outcomes(folder), "what was said before, on the disk")
    noise = np.random.default_rng(0)
    with obstacle(folder):
        tracker.send(1)
        assert answer(tracker, 1, ~scene(1)[1]).applied
        for index in range(2, 12):  # 60 kB each: more than the bag has room for
            records.outcome(mask_answer(index, noise.integers(0, 2, (600, 800)).astype(bool)))
        wait_for(lambda: records.last_fault, "the fault")
        report = records.status()
        assert report.level == report.ERROR
        assert "records are not kept" in report.message
        tracker.send(2)
    expected = [FIRST_STAMP + index * STEP for index in range(0 if full else 1, 12)]
    wait_for(lambda: stamps(outcomes(folder))[-1:] == expected[-1:], "the next attempt")
    assert stamps(outcomes(folder)) == expected
    assert (records.lost, records.last_fault) == (0, "")


def test_what_nobody_expects_costs_its_messages_and_is_said(
    own_tracker: Callable[..., Tracker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Afterwards records are written as before."""
    tracker = own_tracker(record_dir=str(tmp_path))
    records = tracker.node._parts.records

    def fail(*_: Any) -> int:
        raise MemoryError

    with monkeypatch.context() as broken:
        broken.setattr(records, "_write_once", fail)
        tracker.show_object(0)
        wait_for(lambda: records.lost == 1, "the loss of the object")
        records.outcome(mask_answer(1, scene(1)[1]))
        wait_for(lambda: records.lost == 2, "the loss of the outcome")
    report = records.status()
    assert report.level == report.ERROR
    assert report.message.endswith("MemoryError; 1 lost")
    records.outcome(mask_answer(2, scene(2)[1]))
    wait_for(lambda: stamps(outcomes(tmp_path)) == [FIRST_STAMP + 2 * STEP], "the next one")
    followed = [[track.id for track in tracks.tracks] for tracks in contents(tmp_path)["tracks"]]
    assert followed == [[], [1]]
    assert records.last_fault == ""


def test_objects_that_there_is_no_room_for_are_not_lost(
    own_tracker: Callable[..., Tracker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are kept once there is room."""
    tracker = own_tracker(record_dir=str(tmp_path))
    records = tracker.node._parts.records
    go_on = threading.Event()
    write = records._write

    def wait_and_write(batch: list[Any]) -> None:
        go_on.wait(WAIT_S)
        write(batch)

    monkeypatch.setattr(records, "_write", wait_and_write)
    sent = 0
    while not records._queue.full():
        records.outcome(mask_answer(sent, scene(sent % 10)[1]))
        sent += 1
    for _ in range(10):
        records.see_objects(1, {1: "cup"})
    go_on.set()
    wait_for(lambda: records.written >= sent, "the messages")
    records.see_objects(1, {1: "cup"})
    wait_for(lambda: records.written == sent + 1, "the objects")
    assert records.lost == 0

# SPDX-License-Identifier: Apache-2.0
"""The tracker node over DDS: what is too large, or no message at all, costs that message alone."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_graph import (
    HEIGHT,
    WIDTH,
    Probe,
    header,
    scene,
    show_until_tracked,
    wait_for,
)
from node_process import NodeProcess
from sensor_msgs.msg import Image
from tracker_harness import Tracker

from lazyxmem_ros.lazy import LazyTracker
from lazyxmem_ros.msg import Correction, NewObject, Prompt
from lazyxmem_ros.nodes.conversions import image_message, labels_message, mask_message
from lazyxmem_ros.nodes.tracker import object_input
from lazyxmem_ros.srv import AddObjects, ListObjects

OwnTracker = Callable[..., Tracker]
MESSAGES, MEBIBYTE = 200, 1 << 20


def label_map(*object_ids: int) -> np.ndarray:
    labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    for position, object_id in enumerate(object_ids):
        labels[8 * position : 8 * position + 8, 10:60] = object_id
    return labels


def refused(tracker: Tracker, key: str, count: int = 1) -> None:
    name = f"{tracker.name}/{key}"
    wait_for(lambda: tracker.refusals().get(name, 0) >= count, f"{count} of {key}")


def add(tracker: Tracker, *object_ids: int) -> Any:
    prompts = [mask_message(label_map(i) > 0, header(0)) for i in object_ids]
    new = [NewObject(id=i, prompt=Prompt(mask=m)) for i, m in zip(object_ids, prompts, strict=True)]
    request = AddObjects.Request(objects=new)
    return tracker.probe.call(AddObjects, f"{tracker.name}/add_objects", request)


def test_no_more_objects_than_the_limit(own_tracker: OwnTracker) -> None:
    tracker = own_tracker(max_objects=3)
    tracker.send(0)
    topic = f"{tracker.name}/init_mask"
    tracker.probe.publish(topic, labels_message(label_map(1, 2, 3, 4), header(0)))
    refused(tracker, "init_mask: image")
    tracker.probe.publish(topic, labels_message(label_map(1, 2), header(0)))
    wait_for(lambda: tracker.objects() == [1, 2], "the two objects")
    tracker.probe.publish(topic, labels_message(label_map(3, 4), header(0)))
    refused(tracker, "init_mask: too many objects")
    tracker.probe.publish(topic, labels_message(label_map(5, 6), header(2)))  # has yet to come
    refused(tracker, "init_mask: too many objects", 2)
    answer = add(tracker, 7, 8)
    assert not answer.success
    assert "there would be 4 objects; up to 3 are followed (max_objects)" in answer.message
    assert add(tracker, 9).success
    tracker.send(1)
    assert tracker.objects() == [1, 2, 9]


def test_no_more_pixels_than_the_limit(own_tracker: OwnTracker) -> None:
    tracker = own_tracker(max_pixels=HEIGHT * WIDTH)
    large = image_message(np.zeros((HEIGHT + 1, WIDTH, 3), np.uint8), "rgb8", header(1))
    tracker.send(0)
    tracker.probe.publish(f"{tracker.ns}/image", large)
    wait_for(lambda: tracker.refusals() == {f"{tracker.ns}/image: image": 1}, "the refusal")
    labels = labels_message(np.ones((HEIGHT + 1, WIDTH), np.uint16), header(0))
    tracker.probe.publish(f"{tracker.name}/init_mask", labels)
    refused(tracker, "init_mask: image")
    tracker.send(2)


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
def test_what_there_is_no_memory_for_costs_its_message_alone(
    own_tracker: OwnTracker, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """While a label map is read, in the executor's thread; and in the worker's."""
    tracker = own_tracker()
    tracker.send(0)
    topic = f"{tracker.name}/init_mask"

    def fail(*_: Any, **__: Any) -> Any:
        raise error("out of memory")

    for target, name in ((object_input, "read_object_masks"), (LazyTracker, "step")):
        before = tracker.count("failed")
        with monkeypatch.context() as broken:
            broken.setattr(target, name, fail)
            tracker.probe.publish(topic, labels_message(label_map(1), header(0)))
            wait_for(lambda n=before: tracker.count("failed") == n + 1, "the failure")
    tracker.probe.publish(topic, labels_message(label_map(1), header(0)))
    wait_for(lambda: tracker.objects() == [1], "the object")
    tracker.send(1)


def resident(process: NodeProcess) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def test_garbage_makes_no_objects_and_takes_no_memory(
    weights: Path, probe: Probe, start: Callable[..., NodeProcess]
) -> None:
    """Random bytes behind, and in, the fields of real messages."""
    probe.forget()
    name = "/garbage/lazyxmem_tracker"
    values = {"weights": weights, "device": "cpu", "image_reliability": "reliable"}
    tracker = start("tracker", values, "-r", "__ns:=/garbage")
    probe.listen(Image, f"{name}/mask")
    index = show_until_tracked(probe, "/garbage", 0)
    noise = np.random.default_rng(0)
    labels = labels_message(scene(index)[1].astype(np.uint16), header(index))
    correction = Correction(header=header(index), id=1, prompt=Prompt(mask=labels))
    probe.publish(f"{name}/init_mask", labels)
    wait_for(lambda: np.any(probe.messages(f"{name}/mask")[-1].data), "the object")
    before = resident(tracker)
    for number in range(MESSAGES):
        wild = labels_message(noise.integers(0, 2**16, (HEIGHT, WIDTH), np.uint16), labels.header)
        probe.publish(f"{name}/init_mask", wild)
        probe._publishers[f"{name}/init_mask"].publish(b"\0\1\0\0" + noise.bytes(5000))
        correction.id = int(noise.integers(2**16))
        probe.publish(f"{name}/operator_correction", correction)
        probe._publishers[f"{name}/operator_correction"].publish(b"\0\1\0\0" + noise.bytes(5000))
        if number % 10 == 0:
            time.sleep(0.05)
    show_until_tracked(probe, "/garbage", index + 1)
    listed = probe.call(ListObjects, f"{name}/list_objects", ListObjects.Request())
    assert [track.id for track in listed.objects] == [1]
    assert resident(tracker) - before < 100 * MEBIBYTE
    assert tracker.stop() == 0
    said = [line for line in tracker.log.splitlines() if "lazyxmem_tracker]" in line]
    assert len(said) < MESSAGES / 2, said[-5:]

# SPDX-License-Identifier: Apache-2.0
"""The tracker node over DDS: which images it takes, raw or compressed, and by which clock."""

from __future__ import annotations

import array
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from node_graph import (
    HEIGHT,
    WAIT_S,
    WIDTH,
    header,
    labels_of,
    scene,
    scene_message,
    stamps,
    wait_for,
)
from sensor_msgs.msg import CompressedImage, Image
from tracker_harness import Tracker

from lazyxmem_ros.basics import stamp_of
from lazyxmem_ros.images import Pixels, read_image
from lazyxmem_ros.nodes.conversions import labels_message
from lazyxmem_ros.nodes.tracker import received_frames

OwnTracker = Callable[..., Tracker]
TOPICS = {"raw": "image", "compressed": "image/compressed"}


def compressed(index: int) -> CompressedImage:
    _, data = cv2.imencode(".png", scene(index)[0][..., ::-1])
    message = CompressedImage(header=header(index), format="rgb8; png compressed bgr8")
    message.data = array.array("B", data.tobytes())
    return message


@pytest.mark.parametrize("transport", TOPICS)
def test_only_the_wanted_transport_is_subscribed_to(
    own_tracker: OwnTracker, transport: str
) -> None:
    tracker = own_tracker(image_transport=transport)
    topics = {subscription.topic_name for subscription in tracker.node.subscriptions}
    taken = {name for name in TOPICS if f"{tracker.ns}/{TOPICS[name]}" in topics}
    assert taken == {transport}


def test_compressed_images_are_tracked_and_nonsense_is_refused(own_tracker: OwnTracker) -> None:
    tracker = own_tracker(image_transport="compressed")
    topic = f"{tracker.ns}/image/compressed"
    tracker.probe.publish(topic, compressed(0))
    wait_for(lambda: tracker.mask_of(0) is not None, "the mask")
    assert labels_of(tracker.mask_of(0)).shape == (HEIGHT, WIDTH)
    for index, data in ((1, b""), (2, b"nonsense")):
        message = CompressedImage(header=header(index), format="jpeg", data=data)
        tracker.probe.publish(topic, message)
    wait_for(lambda: tracker.refusals() == {f"{topic}: image": 2}, "both refusals")
    tracker.probe.publish(topic, compressed(3))
    wait_for(lambda: tracker.mask_of(3) is not None, "the next mask")


def test_an_image_is_decoded_once_whoever_looks(
    own_tracker: OwnTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tracker, both pictures for people and the correction service share it."""
    decodings: Counter[int] = Counter()

    def counting(message: Any, **limits: int) -> Pixels:
        decodings[stamp_of(message.header.stamp)] += 1
        return read_image(message, **limits)

    tracker = own_tracker(image_transport="compressed")
    tracker.service.truth = scene(0)[1]
    for name in ("overlay", "uncertainty"):
        tracker.probe.listen(Image, f"{tracker.name}/{name}")
    outputs = tracker.node._parts.outputs
    for publisher in (outputs._overlay, outputs._uncertainty):
        wait_for(publisher.get_subscription_count, "the subscriptions")
    tracker.send(0, compressed(0))
    labels = labels_message(scene(0)[1].astype(np.uint16), header(0))
    tracker.probe.publish(f"{tracker.name}/init_mask", labels)
    wait_for(tracker.objects, "the object")
    assert tracker.set(pseudo_corrections=True, pseudo_entropy=0.0) == ""
    monkeypatch.setattr(received_frames, "read_image", counting)
    for index in range(1, 5):
        tracker.send(index, compressed(index))
        wanted = stamp_of(header(index).stamp)
        for name in ("overlay", "uncertainty"):
            wait_for(lambda name=name, w=wanted: w in stamps(tracker.out(name)), name)
        # While one answer is awaited nothing more is asked.
        wait_for(lambda index=index: len(tracker.out("corrected")) >= index, "the answer")
    assert len(tracker.service.requests) == 4
    assert decodings == {stamp_of(header(index).stamp): 1 for index in range(1, 5)}
    kept = [tracker.node._parts.received.find(stamp) for stamp in decodings]
    assert None not in kept
    wait_for(lambda: all(frame.decoded is None for frame in kept[:-1]), "the end of older images")
    assert tracker.set(pseudo_corrections=False) == ""
    drawing = threading.Event()
    outputs._pictures.offer(lambda: drawing.wait(WAIT_S))
    tracker.send(5, compressed(5))
    tracker.reset()  # now nobody but the picture that waits needs the frame
    drawing.set()
    wait_for(lambda: tracker.out("overlay"), "the overlay")
    assert decodings[stamp_of(header(5).stamp)] == 1


def paused(tracker: Tracker) -> None:
    """Deactivated and activated again."""
    tracker.change(Transition.TRANSITION_DEACTIVATE)
    topic = f"{tracker.ns}/image"
    wait_for(lambda: tracker.probe.node.count_subscribers(topic) == 0, "the subscription's end")
    tracker.change(Transition.TRANSITION_ACTIVATE)


def test_a_clock_that_began_again_while_inactive_is_taken(own_tracker: OwnTracker) -> None:
    tracker = own_tracker()
    tracker.send(50)
    paused(tracker)
    tracker.send(3)
    tracker.send(4)
    assert tracker.refusals() == {}


def test_with_objects_such_a_clock_needs_a_reset(own_tracker: OwnTracker) -> None:
    tracker = own_tracker()
    tracker.show_object(50)
    paused(tracker)
    key = f"{tracker.ns}/image: stamp runs backwards"
    tracker.probe.publish(f"{tracker.ns}/image", scene_message(3))
    wait_for(lambda: tracker.refusals().get(key) == 1, "the refusal")
    tracker.send(51)
    assert tracker.objects() == [1]
    tracker.reset()
    tracker.send(3)


def test_a_frame_that_waits_at_deactivation_counts_as_dropped(own_tracker: OwnTracker) -> None:
    tracker = own_tracker()
    tracker.send(0)
    with tracker.busy():
        tracker.probe.publish(f"{tracker.ns}/image", scene_message(1))
        wait_for(lambda: tracker.count("received") == 2, "receipt")
        tracker.change(Transition.TRANSITION_DEACTIVATE)
    assert tracker.count("dropped") == 1

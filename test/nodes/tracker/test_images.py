# SPDX-License-Identifier: Apache-2.0
"""The tracker node over DDS: which images it takes, raw or compressed, and by which clock."""

from __future__ import annotations

import array
from collections.abc import Callable

import cv2
import pytest
from lifecycle_msgs.msg import Transition
from node_graph import HEIGHT, WIDTH, header, labels_of, scene, scene_message, wait_for
from sensor_msgs.msg import CompressedImage
from tracker_harness import Tracker

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

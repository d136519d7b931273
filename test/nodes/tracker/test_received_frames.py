# SPDX-License-Identifier: Apache-2.0
"""The recent frames: found by stamp, bounded in bytes and age."""

from __future__ import annotations

import time

import numpy as np
import pytest
from node_graph import FIRST_STAMP, HEIGHT, STEP, WIDTH, scene, scene_message
from sensor_msgs.msg import CompressedImage

from lazyxmem_ros.nodes.conversions import image_message
from lazyxmem_ros.nodes.tracker.received_frames import ReceivedFrame, ReceivedFrames


def frame(index: int) -> ReceivedFrame:
    message = scene_message(index)
    return ReceivedFrame(FIRST_STAMP + index * STEP, "/image", message, time.monotonic())


def indices(history: ReceivedFrames, up_to: int) -> list[int]:
    return [i for i in range(up_to) if history.find(FIRST_STAMP + i * STEP) is not None]


def test_frames_are_found_by_their_stamp() -> None:
    history = ReceivedFrames(1 << 30, 1 << 60)
    assert history.newest() is None
    frames = [frame(index) for index in range(4)]
    for one in frames:
        history.add(one)
    assert history.find(frames[2].stamp) is frames[2]
    assert history.find(frames[2].stamp + 1) is None
    assert history.newest() is frames[3]
    history.clear()
    assert len(history) == 0


def test_the_oldest_go_beyond_so_many_bytes_or_seconds() -> None:
    size = frame(0).nbytes
    by_bytes = ReceivedFrames(3 * size, 1 << 60)
    by_age = ReceivedFrames(1 << 60, 2 * STEP)
    tiny = ReceivedFrames(1, 1 << 60)
    for index in range(6):
        for history in (by_bytes, by_age, tiny):
            history.add(frame(index))
    assert indices(by_bytes, 6) == [3, 4, 5]
    assert indices(by_age, 6) == [3, 4, 5]
    assert indices(tiny, 6) == [5]  # the newest always stays
    by_age.set_max_age(0)
    by_age.add(frame(6))
    assert indices(by_age, 7) == [6]


def test_what_is_not_the_newest_tracked_frame_keeps_its_labels_packed() -> None:
    """Frames can be named for longer within the same bytes."""
    history = ReceivedFrames(1 << 30, 1 << 60)
    labels = scene(0)[1].astype(np.uint16) * 300
    one, next_one = frame(0), frame(1)
    image = one.nbytes
    for each in (one, next_one):
        each.labels = labels
        history.tracked = each
    history.pack_older()
    assert history.tracked is next_one
    assert next_one.labels is labels
    assert one.nbytes < image + labels.nbytes // 16
    np.testing.assert_array_equal(one.labels, labels)
    assert one.size == labels.shape
    corrected = np.roll(labels, 5, axis=1)
    one.correct(corrected, [300])
    np.testing.assert_array_equal(one.labels, corrected)
    assert one.nbytes < image + labels.nbytes // 16


def test_how_far_back_the_images_go_is_known() -> None:
    history = ReceivedFrames(3 * frame(0).nbytes, 1 << 60)
    assert history.reach == 0
    for index in range(6):
        history.add(frame(index))
    assert history.reach == 2 * STEP


def test_a_header_is_known_for_longer_than_its_image() -> None:
    history = ReceivedFrames(1, 1 << 60)
    frames = [frame(index) for index in range(2)]
    for one in frames:
        history.add(one)
    assert history.find(frames[0].stamp) is None
    assert history.header(frames[0].stamp).frame_id == frames[0].header.frame_id != ""
    history.clear()
    assert history.header(frames[0].stamp).frame_id == ""


def test_a_published_label_map_counts() -> None:
    one = frame(0)
    before = one.nbytes
    one.labels = np.zeros((10, 10), np.uint16)
    assert one.nbytes == before + 200


@pytest.mark.parametrize("compressed", [False, True])
def test_a_frame_gives_its_image_as_a_message(compressed: bool) -> None:
    import cv2

    image = scene(0)[0]
    message = scene_message(0)
    if compressed:
        _, data = cv2.imencode(".png", image[..., ::-1])
        message = CompressedImage(header=message.header, format="png", data=data.tobytes())
    one = ReceivedFrame(FIRST_STAMP, "/image", message, 0.0)
    given = one.image_message()
    assert given.header == message.header
    if compressed:
        expected = image_message(image, "rgb8", message.header)
        assert (given.encoding, given.data) == (expected.encoding, expected.data)
    else:
        assert given is message  # passed on as it came
    np.testing.assert_array_equal(one.rgb(), image)


def test_those_who_need_an_image_at_a_time_share_one() -> None:
    message = scene_message(0, "bgr8")
    one = ReceivedFrame(FIRST_STAMP, "/image", message, 0.0)
    held = one.rgb()
    assert one.rgb() is held
    assert one.decoded is held
    one.labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    del held
    assert one.decoded is None  # the frame does not keep it
    assert one.size == (HEIGHT, WIDTH)
    assert one.decoded is None

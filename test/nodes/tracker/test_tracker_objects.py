# SPDX-License-Identifier: Apache-2.0
"""The tracker node over DDS: pausing, resuming and listing objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Point
from node_graph import FIRST_STAMP, STEP, header, labels_of, scene, wait_for
from tracker_harness import NODE, Tracker

from lazyxmem_ros.basics import stamp_of
from lazyxmem_ros.msg import Correction, NewObject, Prompt, Track
from lazyxmem_ros.nodes.conversions import mask_message
from lazyxmem_ros.srv import AddObjects, ListObjects, PauseObjects, RemoveObjects

ASK_ALWAYS = {"operator_corrections": True, "operator_entropy": 0.0, "cooldown_frames": 0}


def pause(tracker: Tracker, *ids: int, resume: bool = False) -> Any:
    request = PauseObjects.Request(ids=list(ids), pause=not resume)
    return tracker.probe.call(PauseObjects, f"{NODE}/pause_objects", request)


def listed(tracker: Tracker) -> Any:
    return tracker.probe.call(ListObjects, f"{NODE}/list_objects", ListObjects.Request())


def states(tracker: Tracker) -> dict[int, int]:
    """Of the objects on the newest tracks."""
    return {track.id: track.state for track in tracker.out("tracks")[-1].tracks}


def asked(tracker: Tracker, index: int) -> set[int]:
    """The objects that a person was asked about on a frame."""
    stamp = FIRST_STAMP + index * STEP
    requests = tracker.out("correction_request")
    return {r.id for r in requests if stamp_of(r.header.stamp) == stamp}


def show_two(tracker: Tracker) -> None:
    """Objects 1 ("cup") and 5 on frame 0, and a tracker that asks whenever it can."""
    tracker.send(0)
    other = np.zeros_like(scene(0)[1])
    other[50:60, 60:80] = True
    objects = [
        NewObject(id=1, label="cup", prompt=Prompt(mask=mask_message(scene(0)[1], header(0)))),
        NewObject(id=5, prompt=Prompt(mask=mask_message(other, header(0)))),
    ]
    request = AddObjects.Request(objects=objects)
    response = tracker.probe.call(AddObjects, f"{NODE}/add_objects", request)
    assert response.success, response.message
    assert tracker.set(**ASK_ALWAYS, max_open_requests=0) == ""


def test_a_paused_object_asks_for_nothing_until_it_is_resumed(tracker: Tracker) -> None:
    show_two(tracker)
    tracker.send(1)
    wait_for(lambda: asked(tracker, 1) == {1, 5}, "requests for both")
    wait_for(lambda: tracker.node._parts.corrections.open_requests == 2, "the count of both")
    response = pause(tracker, 1)
    assert response.success, response.message
    assert list(response.ids) == [1]
    wait_for(lambda: tracker.node._parts.corrections.open_requests == 1, "the dismissal")
    # Answer object 5, so that only its own open request does not keep it from asking again.
    for index in (2, 3):
        answer(tracker, index - 1, 5)
        tracker.send(index)
        wait_for(lambda index=index: asked(tracker, index) == {5}, "the other object's request")
        assert states(tracker)[1] == Track.PAUSED
        assert states(tracker)[5] != Track.PAUSED
    response = pause(tracker, 1, resume=True)
    assert response.success, response.message
    tracker.send(4)
    first = tracker.out("tracks")[-1].tracks[0]
    assert first.id == 1
    assert first.state != Track.PAUSED
    assert np.isnan(first.uncertainty_rate)
    tracker.send(5)
    wait_for(lambda: asked(tracker, 5) >= {1}, "a request of the resumed object")
    assert 1 not in asked(tracker, 2) | asked(tracker, 3) | asked(tracker, 4)


def answer(tracker: Tracker, index: int, object_id: int) -> None:
    """A person's mask for an object on a frame, applied."""
    mask = np.zeros_like(scene(0)[1])
    mask[50:60, 60:80] = True
    before = len(tracker.out("corrected"))
    message = Correction(
        header=header(index), id=object_id, prompt=Prompt(mask=mask_message(mask, header(index)))
    )
    tracker.probe.publish(f"{NODE}/operator_correction", message)
    wait_for(lambda: len(tracker.out("corrected")) > before, "the outcome")
    assert tracker.out("corrected")[-1].applied, tracker.out("corrected")[-1].message


def test_a_paused_object_may_be_corrected_by_a_person(tracker: Tracker) -> None:
    show_two(tracker)
    assert pause(tracker, 5).success
    tracker.send(1)
    answer(tracker, 1, 5)
    tracker.send(2)
    assert states(tracker)[5] == Track.PAUSED


def test_the_service_is_not_asked_about_a_paused_object(tracker: Tracker) -> None:
    tracker.show_object(0)
    values = {"pseudo_corrections": True, "pseudo_entropy": 0.0}
    assert tracker.set(**values) == ""
    assert pause(tracker).success
    for index in range(1, 4):
        tracker.send(index)
    assert tracker.service.requests == []
    assert pause(tracker, resume=True).success
    tracker.send(4)
    tracker.send(5)
    wait_for(lambda: tracker.service.requests, "the service's request")
    assert stamp_of(tracker.service.requests[0].image.header.stamp) == FIRST_STAMP + 5 * STEP


def test_without_ids_every_object_is_meant(tracker: Tracker) -> None:
    show_two(tracker)
    assert list(pause(tracker).ids) == [1, 5]
    tracker.send(1)
    assert states(tracker) == {1: Track.PAUSED, 5: Track.PAUSED}
    assert list(pause(tracker, resume=True).ids) == [1, 5]
    tracker.send(2)
    assert Track.PAUSED not in states(tracker).values()


@pytest.mark.parametrize("resume", [False, True])
def test_an_unknown_object_is_refused_with_the_reason(tracker: Tracker, resume: bool) -> None:
    show_two(tracker)
    assert pause(tracker, 5).success
    before = tracker.refusals().get(f"{NODE}/pause_objects: UnknownObjectError", 0)
    response = pause(tracker, 1, 5, 77, resume=resume)
    assert not response.success
    assert "no object 77 is tracked; there is 1, 5" in response.message
    assert list(response.ids) == []
    assert tracker.refusals()[f"{NODE}/pause_objects: UnknownObjectError"] == before + 1
    tracker.send(1)
    assert states(tracker)[5] == Track.PAUSED
    assert states(tracker)[1] != Track.PAUSED


def test_a_name_that_is_too_long_is_refused_before_a_mask_is_made(tracker: Tracker) -> None:
    tracker.send(0)
    prompt = Prompt(positive=[Point(x=5.0, y=5.0)])
    objects = [NewObject(label=label, prompt=prompt) for label in ("cup", "x" * 81)]
    request = AddObjects.Request(objects=objects)
    response = tracker.probe.call(AddObjects, f"{NODE}/add_objects", request)
    assert not response.success
    assert response.message == "the name of object 2 has 81 characters: give one of at most 80"
    assert tracker.refusals()[f"{NODE}/add_objects: LabelError"] == 1
    assert tracker.service.requests == []
    assert list(listed(tracker).objects) == []


def test_objects_are_listed_as_last_published(tracker: Tracker) -> None:
    empty = listed(tracker)
    assert stamp_of(empty.stamp) == 0
    assert list(empty.objects) == []
    tracker.send(0)
    assert listed(tracker).stamp == header(0).stamp
    assert list(listed(tracker).objects) == []
    show_two(tracker)
    assert [(track.id, track.label) for track in listed(tracker).objects] == [(1, "cup"), (5, "")]
    assert pause(tracker, 1).success
    tracker.send(1)
    now = listed(tracker)
    assert now.stamp == header(1).stamp
    # As texts: NaN is not equal to itself.
    assert str(now.objects) == str(tracker.out("tracks")[-1].tracks)
    assert now.objects[0].state == Track.PAUSED
    assert now.objects[0].area == (labels_of(tracker.mask_of(1)) == 1).sum()
    request = RemoveObjects.Request(ids=[1])
    assert tracker.probe.call(RemoveObjects, f"{NODE}/remove_objects", request).success
    assert [track.id for track in listed(tracker).objects] == [5]


def test_tracks_come_by_ascending_id(tracker: Tracker) -> None:
    tracker.show_object(0, object_id=7)
    new = np.zeros_like(scene(0)[1])
    new[50:60, 60:80] = True
    objects = [NewObject(id=3, prompt=Prompt(mask=mask_message(new, header(0))))]
    request = AddObjects.Request(objects=objects)
    assert tracker.probe.call(AddObjects, f"{NODE}/add_objects", request).success
    tracker.send(1)
    assert tracker.objects() == [3, 7]
    assert [track.id for track in listed(tracker).objects] == [3, 7]


def test_an_object_shown_on_a_past_frame_arrives(tracker: Tracker) -> None:
    """By the service, on the frame's stamp; the answer says how, and the next ids know of it."""
    show_two(tracker)
    for index in range(1, 6):
        tracker.send(index)
    new = np.zeros_like(scene(0)[1])
    new[5:25, 5:25] = True
    objects = [NewObject(label="late", prompt=Prompt(mask=mask_message(new, header(2))))]
    request = AddObjects.Request(header=header(2), objects=objects)
    response = tracker.probe.call(AddObjects, f"{NODE}/add_objects", request)
    assert response.success, response.message
    assert list(response.ids) == [2]
    assert "shown 3 frames late, on the frame itself" in response.message
    assert [track.id for track in tracker.out("tracks")[-1].tracks] == [1, 5]
    for index in range(6, 14):
        tracker.send(index)
    tracks = {track.id: track.label for track in tracker.out("tracks")[-1].tracks}
    assert tracks == {1: "cup", 5: "", 2: "late"}


def test_a_removed_objects_request_is_not_open_any_more(tracker: Tracker) -> None:
    show_two(tracker)
    tracker.send(1)
    wait_for(lambda: tracker.node._parts.corrections.open_requests == 2, "the requests")
    request = RemoveObjects.Request(ids=[5])
    assert tracker.probe.call(RemoveObjects, f"{NODE}/remove_objects", request).success
    wait_for(lambda: tracker.node._parts.corrections.open_requests == 1, "the dismissal")

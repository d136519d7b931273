# SPDX-License-Identifier: Apache-2.0
"""The tracker node over DDS: corrections asked of the service and of a person."""

from __future__ import annotations

import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from node_graph import (
    FIRST_STAMP,
    HEIGHT,
    STEP,
    WAIT_S,
    WIDTH,
    header,
    labels_of,
    scene,
    scene_message,
    wait_for,
)
from tracker_harness import NODE, NS, Tracker, ask_the_operator, click

from lazyxmem_ros import lazy as lazy_api
from lazyxmem_ros.msg import Correction, Prompt
from lazyxmem_ros.nodes.conversions import labels_message, mask_message, time_message
from lazyxmem_ros.nodes.tracker import corrections
from lazyxmem_ros.srv import RemoveObjects


def show_two_objects(tracker: Tracker) -> None:
    """1, which is the scene's, and 2, on frame 0."""
    labels = scene(0)[1].astype(np.uint16)
    labels[:6, :6] = 2
    tracker.send(0)
    tracker.probe.publish(f"{NODE}/init_mask", labels_message(labels, header(0)))
    wait_for(lambda: tracker.objects() == [1, 2], "both objects")


def test_an_uncertainty_spike_calls_the_service(tracker: Tracker) -> None:
    tracker.show_object(0)
    assert tracker.set(pseudo_corrections=True, pseudo_entropy=0.0) == ""
    tracker.service.truth = scene(1)[1]
    tracker.send(1)
    wait_for(lambda: tracker.out("corrected"), "the correction")
    [asked] = tracker.service.requests
    assert asked.image.header == header(1)
    assert asked.prompts[0].positive
    corrected = tracker.out("corrected")[0]
    assert corrected.header == header(1)
    assert (corrected.id, corrected.source, corrected.applied) == (1, "pseudo", True)
    np.testing.assert_array_equal(labels_of(corrected.prompt.mask) > 0, scene(1)[1])


def test_a_frame_is_sent_once_for_all_of_its_objects(tracker: Tracker) -> None:
    """And each object's answer is applied on its own."""
    show_two_objects(tracker)
    assert tracker.set(pseudo_corrections=True, pseudo_entropy=0.0) == ""
    tracker.service.truth = scene(1)[1]
    tracker.service.refused = {1}
    tracker.send(1)
    wait_for(lambda: len(tracker.out("corrected")) == 2, "both answers")
    [asked] = tracker.service.requests
    assert len(asked.prompts) == len(asked.prior_ious) == 2
    assert all(len(prompt.positive) == 1 for prompt in asked.prompts)
    messages = {c.applied: c.message for c in tracker.out("corrected")}
    assert sorted(messages) == [False, True]
    assert messages[False] == "truth: not this one"


def test_a_frame_may_wait_for_its_correction(tracker: Tracker) -> None:
    """The published mask is then the corrected one."""
    tracker.show_object(0)
    values = {"pseudo_corrections": True, "pseudo_entropy": 0.0, "correction_wait": 5.0}
    assert tracker.set(**values) == ""
    tracker.service.truth = scene(1)[1]
    np.testing.assert_array_equal(labels_of(tracker.send(1)), scene(1)[1])
    [track] = tracker.out("tracks")[-1].tracks
    assert track.area == scene(1)[1].sum()
    rows, columns = np.nonzero(scene(1)[1])
    assert (track.box.x_offset, track.box.y_offset) == (columns.min(), rows.min())
    assert (track.box.width, track.box.height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)


@pytest.mark.parametrize(
    ("mode", "fault"),
    [
        ("silent", "did not answer within 0.2 s"),
        ("fail", "truth: no idea"),
        ("small", f"sent a mask of {WIDTH}x{HEIGHT - 1}"),
        ("boast", "sent a score of inf"),
        ("dead", "is not there"),
    ],
)
def test_a_service_without_an_answer_costs_its_correction_alone(
    tracker: Tracker, mode: str, fault: str
) -> None:
    probe = tracker.probe
    probe.listen(DiagnosticArray, "/diagnostics")
    tracker.show_object(0)
    client = tracker.node._parts.client
    if mode == "dead":
        tracker.service.stop()
        wait_for(lambda: not client.is_available(), "the service's end")
    tracker.service.mode = mode
    tracker.set(pseudo_corrections=True, pseudo_entropy=0.0)
    if mode == "silent":
        tracker.set(correction_timeout=0.2)
    tracker.send(1)
    wait_for(lambda: tracker.out("corrected"), "the failure's report")
    failed = tracker.out("corrected")[0]
    assert not failed.applied
    assert fault in failed.message

    def report() -> str:
        return " ".join(
            status.message
            for array_ in probe.messages("/diagnostics")
            for status in array_.status
            if status.name == "tracker_test/lazyxmem_tracker: corrections"
        )

    wait_for(lambda: fault in report(), "the diagnostics")
    tracker.send(2)  # tracking goes on, and asks again
    wait_for(lambda: len(tracker.out("corrected")) == 2, "the second failure")
    if mode == "dead":
        tracker.service.start()
        wait_for(client.is_available, "the service's return")
    tracker.set(correction_timeout=WAIT_S)
    tracker.service.mode = "truth"
    tracker.service.truth = scene(3)[1]
    tracker.send(3)
    wait_for(lambda: tracker.out("corrected")[-1].applied, "a correction by the service's return")


def test_a_mask_that_promises_no_more_is_declined_and_is_no_failure(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The harness's network has no calibration, so that its masks are expected to be nothing.
    monkeypatch.setattr(corrections, "objection", lambda *_: "no better")
    tracker.show_object(0)
    tracker.service.truth = scene(1)[1]
    refused, failed = tracker.refusals(), tracker.count("pseudo failed")
    declined = tracker.count("pseudo declined")
    tracker.set(pseudo_corrections=True, pseudo_entropy=0.0)
    tracker.send(1)
    wait_for(lambda: tracker.out("corrected"), "the report")
    corrected = tracker.out("corrected")[0]
    assert (corrected.applied, corrected.message) == (False, "no better")
    assert tracker.count("pseudo declined") == declined + 1
    assert (tracker.refusals(), tracker.count("pseudo failed")) == (refused, failed)


def keep_a_frame_waiting(tracker: Tracker) -> None:
    """Frame 1 is tracked, a person is asked about object 1 on it, and its mask waits for them."""
    tracker.show_object(0)
    tracker.set(
        operator_corrections=True, operator_entropy=0.0, cooldown_frames=0, correction_wait=600.0
    )
    tracker.probe.publish(f"{NS}/image", scene_message(1))
    wait_for(lambda: tracker.out("correction_request"), "the request")
    assert tracker.mask_of(1) is None


def test_a_person_is_asked_with_all_that_is_needed(tracker: Tracker) -> None:
    request = ask_the_operator(tracker)
    assert request.header == header(1)
    assert request.id == 1
    assert "uncertainty" in request.reason
    assert request.uncertainty > 0
    np.testing.assert_array_equal(
        np.frombuffer(request.image.data, np.uint8).reshape(HEIGHT, WIDTH, 3), scene(1)[0]
    )
    np.testing.assert_array_equal(labels_of(request.mask) > 0, labels_of(tracker.mask_of(1)) == 1)
    shades = np.frombuffer(request.uncertainty_map.data, np.uint8).reshape(HEIGHT, WIDTH)
    assert request.uncertainty_map.header == header(1)
    assert shades.max() > shades.min()
    assert request.deadline.sec > 0


def test_a_frame_does_not_wait_for_an_object_that_was_removed(tracker: Tracker) -> None:
    keep_a_frame_waiting(tracker)
    request = RemoveObjects.Request(ids=[1])
    assert tracker.probe.call(RemoveObjects, f"{NODE}/remove_objects", request).success
    wait_for(lambda: tracker.mask_of(1), "the mask")
    assert not labels_of(tracker.mask_of(1)).any()


def test_a_frame_waits_no_longer_once_a_person_has_nothing_to_say(tracker: Tracker) -> None:
    keep_a_frame_waiting(tracker)
    refused, declined = tracker.refusals(), tracker.count("operator declined")
    word = Correction(header=header(1), id=1, message="nothing to correct")
    tracker.probe.publish(f"{NODE}/operator_correction", word)
    wait_for(lambda: tracker.mask_of(1), "the mask")
    wait_for(lambda: tracker.out("corrected"), "the report")
    corrected = tracker.out("corrected")[0]
    assert (corrected.applied, corrected.message) == (False, "nothing to correct")
    assert tracker.count("operator declined") == declined + 1
    assert tracker.refusals() == refused


def test_an_object_may_ask_again_after_a_person_declined(tracker: Tracker) -> None:
    tracker.set(request_timeout=0.0, max_open_requests=1)
    ask_the_operator(tracker)
    tracker.send(2)
    word = Correction(header=header(1), id=1, message="nothing to correct")
    tracker.probe.publish(f"{NODE}/operator_correction", word)
    wait_for(lambda: tracker.out("corrected"), "the report")
    assert tracker.node._parts.corrections.open_requests == 0
    tracker.send(3)
    wait_for(lambda: len(tracker.out("correction_request")) == 2, "the next request")
    assert tracker.out("correction_request")[1].header == header(3)


def test_a_persons_click_goes_through_the_service_and_changes_the_mask(tracker: Tracker) -> None:
    request = ask_the_operator(tracker)
    tracker.set(operator_corrections=False)
    tracker.service.truth = scene(1)[1]
    answer = Correction(header=request.header, id=1, prompt=Prompt(positive=[click(1)]))
    tracker.probe.publish(f"{NODE}/operator_correction", answer)
    wait_for(lambda: tracker.out("corrected"), "the correction")
    corrected = tracker.out("corrected")[0]
    assert corrected.applied, corrected.message
    assert corrected.source == "operator"
    assert corrected.header == header(1)
    [asked] = tracker.service.requests
    assert list(asked.prompts[0].positive) == [click(1)]
    assert asked.prompts[0].mask.height == HEIGHT  # what was tracked is the prior
    np.testing.assert_array_equal(labels_of(corrected.prompt.mask) > 0, scene(1)[1])
    # The next frame is tracked from a memory that has taken the correction in.
    without = labels_of(tracker.mask_of(1))
    newest = tracker.node._parts.received.tracked
    np.testing.assert_array_equal(newest.labels == 1, scene(1)[1])
    assert (newest.labels != without).any()


def test_a_persons_mask_is_applied_as_it_is(tracker: Tracker) -> None:
    request = ask_the_operator(tracker)
    mask = scene(1)[1]
    answer = Correction(
        header=request.header, id=1, prompt=Prompt(mask=mask_message(mask, request.header))
    )
    tracker.probe.publish(f"{NODE}/operator_correction", answer)
    wait_for(lambda: tracker.out("corrected"), "the correction")
    assert tracker.out("corrected")[0].applied
    assert not tracker.service.requests
    np.testing.assert_array_equal(tracker.node._parts.received.tracked.labels == 1, mask)


@pytest.mark.parametrize("clicked", [True, False])
def test_an_answer_that_fails_is_answered(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, clicked: bool
) -> None:
    """Who waits for it would wait for ever."""
    request = ask_the_operator(tracker)
    tracker.service.truth = mask = scene(1)[1]
    prompt = Prompt(mask=mask_message(mask, request.header))
    if clicked:
        prompt = Prompt(positive=[click(1)])

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as broken:
        broken.setattr(tracker.node._parts.session._lazy, "apply", fail)
        answer = Correction(header=request.header, id=1, prompt=prompt)
        tracker.probe.publish(f"{NODE}/operator_correction", answer)
        wait_for(lambda: tracker.out("corrected"), "what became of it")
    [outcome] = tracker.out("corrected")
    assert (outcome.source, outcome.id, outcome.applied) == ("operator", 1, False)
    assert outcome.message == "out of memory"


def test_answers_about_other_objects_are_taken_where_one_fails(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    show_two_objects(tracker)
    assert tracker.set(pseudo_corrections=True, pseudo_entropy=0.0) == ""
    tracker.service.truth = scene(1)[1]
    lazy = tracker.node._parts.session._lazy
    apply = lazy.apply

    def fail_for_one(given: lazy_api.Correction) -> lazy_api.Outcome:
        if 1 in given.masks:
            raise RuntimeError("out of memory")
        return apply(given)

    monkeypatch.setattr(lazy, "apply", fail_for_one)
    tracker.send(1)
    wait_for(lambda: len(tracker.out("corrected")) == 2, "both outcomes")
    outcomes = {outcome.id: outcome for outcome in tracker.out("corrected")}
    assert (outcomes[1].applied, outcomes[1].message) == (False, "out of memory")
    assert outcomes[2].applied, outcomes[2].message
    assert not tracker.node._parts.corrections.awaited


def test_a_burst_of_answers_is_read(tracker: Tracker) -> None:
    """One for each of 64 objects; the middleware's queue would keep the last ten of them."""
    tracker.send(0)
    before = tracker.count("operator received")
    for number in range(64):
        answer = Correction(header=header(0), id=number + 1, message="nothing to correct")
        tracker.probe.publish(f"{NODE}/operator_correction", answer)
    wait_for(lambda: tracker.count("operator received") == before + 64, "all of them")


def open_in_report(tracker: Tracker) -> str:
    """How many requests are open, by the newest report on /diagnostics."""
    values = [
        pair.value
        for array in tracker.probe.messages("/diagnostics")
        for status in array.status
        for pair in status.values
        if pair.key == "operator open"
    ]
    return values[-1] if values else ""


def test_an_answer_after_its_deadline_is_refused(tracker: Tracker) -> None:
    tracker.probe.listen(DiagnosticArray, "/diagnostics")
    assert tracker.set(request_timeout=0.05) == ""
    request = ask_the_operator(tracker)
    tracker.set(operator_corrections=False)
    assert request.deadline == time_message(FIRST_STAMP + STEP + 50_000_000)
    tracker.send(2)  # 0.1 s later by its stamp
    # A report that says so does not forget the request.
    tracker.probe.forget()
    wait_for(lambda: open_in_report(tracker) == "0", "the report")
    answer = Correction(header=request.header, id=1, prompt=Prompt(positive=[click(1)]))
    tracker.probe.publish(f"{NODE}/operator_correction", answer)
    wait_for(lambda: tracker.out("corrected"), "the refusal")
    assert not tracker.out("corrected")[0].applied
    assert "too late" in tracker.out("corrected")[0].message
    assert not tracker.service.requests


def test_a_person_has_the_frames_time_and_a_service_steady_time(tracker: Tracker) -> None:
    """While no image comes, a person's time stands still, but a service that hangs is noticed."""
    assert tracker.set(request_timeout=0.2, correction_timeout=0.2) == ""
    request = ask_the_operator(tracker)
    tracker.set(operator_corrections=False)
    assert request.deadline == time_message(FIRST_STAMP + STEP + 200_000_000)
    time.sleep(0.4)
    tracker.service.mode = "silent"
    answer = Correction(header=request.header, id=1, prompt=Prompt(positive=[click(1)]))
    tracker.probe.publish(f"{NODE}/operator_correction", answer)
    wait_for(lambda: tracker.out("corrected"), "the service's deadline")
    assert "did not answer within 0.2 s" in tracker.out("corrected")[0].message
    assert tracker.set(correction_timeout=WAIT_S) == ""
    tracker.service.mode = "truth"
    tracker.service.truth = scene(1)[1]
    tracker.probe.publish(f"{NODE}/operator_correction", answer)  # there is time to try again
    wait_for(lambda: len(tracker.out("corrected")) == 2, "the correction")
    assert tracker.out("corrected")[1].applied, tracker.out("corrected")[1].message


def test_what_a_person_was_asked_outlives_the_image(tracker: Tracker) -> None:
    """A click is refined on the request's image where the received one is not kept any more."""
    request = ask_the_operator(tracker)
    tracker.set(operator_corrections=False)
    tracker.send(2)
    tracker.node._parts.received.clear()
    tracker.service.truth = scene(1)[1]
    answer = Correction(header=request.header, id=1, prompt=Prompt(positive=[click(1)]))
    tracker.probe.publish(f"{NODE}/operator_correction", answer)
    wait_for(lambda: tracker.out("corrected"), "the correction")
    assert tracker.out("corrected")[0].applied, tracker.out("corrected")[0].message
    [asked] = tracker.service.requests
    np.testing.assert_array_equal(np.asarray(asked.image.data), scene(1)[0].ravel())

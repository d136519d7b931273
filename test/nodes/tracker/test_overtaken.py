# SPDX-License-Identifier: Apache-2.0
"""The tracker node over DDS: calls and answers under way that an order overtakes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from node_graph import (
    HEIGHT,
    WAIT_S,
    WIDTH,
    Probe,
    header,
    labels_of,
    scene,
    scene_message,
    show_until_tracked,
    wait_for,
)
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger
from tracker_harness import NODE, Service, Tracker, ask_the_operator, click, sees_service

from lazyxmem_ros.msg import Correction, NewObject, Prompt
from lazyxmem_ros.nodes.conversions import labels_message, mask_message
from lazyxmem_ros.nodes.services import SHUTTING_DOWN
from lazyxmem_ros.srv import AddObjects, ListObjects, PauseObjects, RemoveObjects

OwnTracker = Callable[..., Tracker]
SERVICE_S = 10 * WAIT_S
"""That the service has for an answer: an overtaken call is answered within WAIT_S."""
OTHER = np.zeros((HEIGHT, WIDTH), np.uint16)
OTHER[50:60, 60:80] = 1


@pytest.fixture
def tracker(tracker: Tracker) -> Tracker:
    """Whose service has all the time for an answer."""
    assert tracker.set(correction_timeout=SERVICE_S) == ""
    return tracker


def add_by_click(tracker: Tracker, object_id: int = 0) -> Any:
    """Ask for an object, whose mask the service then holds back."""
    tracker.service.hold()
    tracker.service.truth = scene(0)[1]
    asked = len(tracker.service.requests)
    new = NewObject(id=object_id, prompt=Prompt(positive=[click(0)]))
    request = AddObjects.Request(objects=[new])
    answer = tracker.probe.ask(AddObjects, f"{tracker.name}/add_objects", request)
    wait_for(lambda: len(tracker.service.requests) > asked, "the service's request")
    return answer


def remove(tracker: Tracker, *ids: int) -> Any:
    request = RemoveObjects.Request(ids=list(ids))
    name = f"{tracker.name}/remove_objects"
    return tracker.probe.call(RemoveObjects, name, request)


def is_refused(answer: Any, reason: str) -> None:
    wait_for(answer.done, "the overtaken answer")
    assert (answer.result().success, answer.result().message) == (False, reason)
    assert list(answer.result().ids) == []


def refused(tracker: Tracker, kind: str) -> int:
    return tracker.refusals().get(kind, 0)


# ---- ids


@pytest.mark.parametrize("object_id", [0, 7])
def test_an_id_that_a_call_will_give_is_reserved(tracker: Tracker, object_id: int) -> None:
    tracker.send(0)
    answer = add_by_click(tracker, object_id)
    given = object_id or 1
    kind = f"{NODE}/init_mask: reserved"
    before = refused(tracker, kind)
    tracker.probe.publish(f"{NODE}/init_mask", labels_message(OTHER * given, header(0)))
    wait_for(lambda: refused(tracker, kind) > before, "the refusal")
    second = AddObjects.Request(
        objects=[NewObject(id=given, prompt=Prompt(mask=mask_message(OTHER > 0, header(0))))]
    )
    response = tracker.probe.call(AddObjects, f"{NODE}/add_objects", second)
    assert not response.success
    assert f"object {given} is being added by a call that is under way" in response.message
    second.objects[0].id = 0
    response = tracker.probe.call(AddObjects, f"{NODE}/add_objects", second)
    assert list(response.ids) == [2 if given == 1 else 1], response.message
    tracker.service.release()
    wait_for(answer.done, "the answer")
    assert answer.result().success, answer.result().message
    assert list(answer.result().ids) == [given]
    wait_for(lambda: (labels_of(tracker.mask_of(0)) == given).any(), "the object")
    shown = labels_of(tracker.mask_of(0)) == given
    np.testing.assert_array_equal(shown, scene(0)[1])


def test_a_mask_that_waits_for_its_frame_keeps_its_id(tracker: Tracker) -> None:
    tracker.send(0)
    early = labels_message(OTHER, header(5))
    taken = tracker.count("init masks taken")
    tracker.probe.publish(f"{NODE}/init_mask", early)
    wait_for(lambda: tracker.count("init masks taken") > taken, "the early mask")
    answer = add_by_click(tracker)
    tracker.service.release()
    wait_for(answer.done, "the answer")
    assert list(answer.result().ids) == [2]


def test_the_call_that_failed_frees_its_id(tracker: Tracker) -> None:
    tracker.send(0)
    tracker.service.mode = "fail"
    answer = add_by_click(tracker, 7)
    tracker.service.release()
    wait_for(answer.done, "the answer")
    assert not answer.result().success
    tracker.service.mode = "truth"
    answer = add_by_click(tracker, 7)
    tracker.service.release()
    wait_for(answer.done, "the second answer")
    assert answer.result().success, answer.result().message


# ---- orders overtake


def test_a_reset_overtakes_a_call(tracker: Tracker) -> None:
    tracker.send(0)
    answer = add_by_click(tracker)
    response = tracker.probe.call(Trigger, f"{NODE}/reset", Trigger.Request())
    assert response.success
    is_refused(answer, "the tracker was reset")
    tracker.service.release()
    tracker.send(1)
    assert tracker.objects() == []


@pytest.mark.parametrize("ids", [(), (7,), (7, 3)])
def test_a_removal_overtakes_a_call(tracker: Tracker, ids: tuple[int, ...]) -> None:
    tracker.show_object(0, 3)
    answer = add_by_click(tracker, 7)
    response = remove(tracker, *ids)
    assert response.success, response.message
    assert set(response.removed) == set(ids or (3, 7))
    is_refused(answer, "the object was removed")
    tracker.service.release()
    tracker.send(1)
    assert tracker.objects() == ([3] if ids == (7,) else [])


def test_a_removal_of_other_objects_overtakes_nothing(tracker: Tracker) -> None:
    tracker.show_object(0, 3)
    answer = add_by_click(tracker)
    assert remove(tracker, 3).success
    assert "no object 99" in remove(tracker, 99).message
    tracker.service.release()
    wait_for(answer.done, "the answer")
    assert answer.result().success, answer.result().message


def test_a_removal_overtakes_a_mask_that_waits(tracker: Tracker) -> None:
    tracker.show_object(0)
    worker = tracker.node._parts.worker
    kind = f"{NODE}/init_mask: overtaken"
    before = refused(tracker, kind)
    with tracker.busy():
        tracker.probe.publish(f"{NODE}/init_mask", labels_message(OTHER, header(0)))
        wait_for(lambda: worker._work, "the mask's work")
        request = RemoveObjects.Request(ids=[1])
        answer = tracker.probe.ask(RemoveObjects, f"{NODE}/remove_objects", request)
        wait_for(lambda: worker._commands, "the removal")
    wait_for(answer.done, "the answer")
    assert answer.result().success
    wait_for(lambda: refused(tracker, kind) > before, "the mask's refusal")
    tracker.send(1)
    assert tracker.objects() == []


@pytest.mark.parametrize("order", ["reset", "remove_objects"])
def test_an_order_overtakes_what_the_service_was_asked(tracker: Tracker, order: str) -> None:
    tracker.show_object(0)
    tracker.service.hold()
    tracker.set(pseudo_corrections=True, pseudo_entropy=0.0)
    tracker.send(1)
    wait_for(lambda: tracker.service.requests, "the service's request")
    kind: Any = Trigger if order == "reset" else RemoveObjects
    assert tracker.probe.call(kind, f"{NODE}/{order}", kind.Request()).success
    wait_for(lambda: tracker.out("corrected"), "the outcome")
    [corrected] = tracker.out("corrected")
    reason = "the tracker was reset" if order == "reset" else "the object was removed"
    assert (corrected.header, corrected.applied) == (header(1), False)
    assert corrected.message == reason
    tracker.service.release()
    tracker.send(2)
    assert len(tracker.out("corrected")) == 1  # the answer that came after all says no more


# ---- an inactive node


def test_an_answer_to_an_inactive_node_is_refused_in_words(own_tracker: OwnTracker) -> None:
    tracker = own_tracker()
    request = ask_the_operator(tracker)
    tracker.change(Transition.TRANSITION_DEACTIVATE)
    memory = tracker.node._parts.received.tracked.labels
    prompt = Prompt(mask=mask_message(scene(1)[1], request.header))
    answer = Correction(header=request.header, id=1, prompt=prompt)
    tracker.probe.publish(f"{tracker.name}/operator_correction", answer)
    wait_for(lambda: tracker.out("corrected"), "the refusal")
    [corrected] = tracker.out("corrected")
    assert (corrected.applied, corrected.message) == (False, "the node is not active")
    assert tracker.node._parts.received.tracked.labels is memory


def test_what_a_deactivation_overtakes_is_said(own_tracker: OwnTracker) -> None:
    tracker = own_tracker(correction_timeout=SERVICE_S)
    request = ask_the_operator(tracker)
    tracker.service.hold()
    answer = Correction(header=request.header, id=1, prompt=Prompt(positive=[click(1)]))
    tracker.probe.publish(f"{tracker.name}/operator_correction", answer)
    wait_for(lambda: tracker.service.requests, "the service's request")
    added = add_by_click(tracker)
    tracker.change(Transition.TRANSITION_DEACTIVATE)
    is_refused(added, "the node was deactivated")
    wait_for(lambda: tracker.out("corrected"), "the outcome")
    [corrected] = tracker.out("corrected")
    assert (corrected.applied, corrected.message) == (False, "the node was deactivated")
    tracker.service.release()


def test_a_frame_that_was_not_published_does_not_count_as_tracked(
    own_tracker: OwnTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = own_tracker()
    tracker.show_object(0)
    tracked, dropped = tracker.count("tracked"), tracker.count("dropped")
    parts = tracker.node._parts
    entered, gate = threading.Event(), threading.Event()
    step = parts.session._lazy.step

    def step_slowly(*arguments: Any, **options: Any) -> Any:
        entered.set()
        assert gate.wait(WAIT_S)
        return step(*arguments, **options)

    monkeypatch.setattr(parts.session._lazy, "step", step_slowly)
    tracker.probe.publish(f"{tracker.ns}/image", scene_message(1))
    assert entered.wait(WAIT_S)
    tracker.change(Transition.TRANSITION_DEACTIVATE)
    gate.set()
    wait_for(parts.worker.is_idle, "the worker's rest")
    assert tracker.mask_of(1) is None
    assert tracker.count("tracked") == tracked
    assert tracker.count("dropped") == dropped + 1


# ---- every call is answered


def test_calls_around_a_cleanup_are_all_answered(own_tracker: OwnTracker) -> None:
    tracker = own_tracker()
    calls = {
        "add_objects": (AddObjects, AddObjects.Request(objects=[NewObject()])),
        "remove_objects": (RemoveObjects, RemoveObjects.Request()),
        "pause_objects": (PauseObjects, PauseObjects.Request()),
        "list_objects": (ListObjects, ListObjects.Request()),
        "reset": (Trigger, Trigger.Request()),
        "save_snapshot": (Trigger, Trigger.Request()),
    }
    answers: list[Any] = []
    over = threading.Event()

    def call() -> None:
        while not over.wait(0.03):
            for name, (kind, request) in calls.items():
                answers.append(tracker.probe.ask(kind, f"{tracker.name}/{name}", request))

    caller = threading.Thread(target=call)
    caller.start()
    for _ in range(3):
        for transition in (
            Transition.TRANSITION_DEACTIVATE,
            Transition.TRANSITION_CLEANUP,
            Transition.TRANSITION_CONFIGURE,
            Transition.TRANSITION_ACTIVATE,
        ):
            sent = len(answers)
            wait_for(lambda n=sent: len(answers) >= n + len(calls), "a call of every service")
            tracker.change(transition)
    over.set()
    caller.join()
    wait_for(lambda: all(answer.done() for answer in answers), "every answer")
    reasons = {a.result().message for a in answers if not getattr(a.result(), "success", True)}
    assert "the node is not configured" in reasons
    assert "no snapshot is kept: snapshot_path is empty" in reasons


def test_a_call_is_answered_by_a_node_that_is_asked_to_end(
    probe: Probe, start: Callable[..., Any], weights: Path
) -> None:
    ns = "/ending"
    service = Service(probe, ns)
    process = start(
        "tracker",
        {"weights": weights, "device": "cpu", "correction_timeout": SERVICE_S},
        *("-r", f"__ns:={ns}"),
    )
    node = f"{ns}/lazyxmem_tracker"
    probe.listen(Image, f"{node}/mask")
    probe.listen(DiagnosticArray, "/diagnostics")
    show_until_tracked(probe, ns, 0)
    wait_for(lambda: sees_service(probe, node), "the correction service, as the tracker sees it")
    service.hold()
    request = AddObjects.Request(objects=[NewObject(prompt=Prompt(positive=[click(0)]))])
    answer = probe.ask(AddObjects, f"{node}/add_objects", request)
    wait_for(lambda: service.requests, "the service's request")
    assert process.stop(signal.SIGTERM) == 0, process.log
    is_refused(answer, SHUTTING_DOWN)
    service.release()

# SPDX-License-Identifier: Apache-2.0
"""The tracker node over DDS: whatever goes wrong while it serves, it answers and lives on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from node_graph import header, scene, wait_for
from std_srvs.srv import Trigger
from tracker_harness import Tracker, click

from lazyxmem_ros.msg import NewObject, Prompt
from lazyxmem_ros.nodes.conversions import mask_message
from lazyxmem_ros.nodes.services import SHUTTING_DOWN
from lazyxmem_ros.nodes.tracker.objects import WAS_DEACTIVATED
from lazyxmem_ros.srv import AddObjects, PauseObjects, RemoveObjects

OwnTracker = Callable[..., Tracker]
CLEAN_UP = (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)


def state(tracker: Tracker) -> int:
    response = tracker.probe.call(GetState, f"{tracker.name}/get_state", GetState.Request())
    return int(response.current_state.id)


def start_again(tracker: Tracker) -> None:
    """After a cleanup; proves that it can."""
    assert state(tracker) == State.PRIMARY_STATE_UNCONFIGURED
    tracker.probe.forget()
    tracker.change(Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
    tracker.wait_until_heard()
    tracker.show_object(0)


# ---- requests that are waited for when the node is cleaned up


@pytest.mark.parametrize(
    ("name", "kind"),
    [("remove_objects", RemoveObjects), ("pause_objects", PauseObjects), ("reset", Trigger)],
)
def test_a_request_that_waits_for_the_worker_is_answered_at_a_cleanup(
    own_tracker: OwnTracker, name: str, kind: Any
) -> None:
    tracker = own_tracker()
    tracker.show_object(0)
    worker = tracker.node._parts.worker
    with tracker.busy():
        answer = tracker.probe.ask(kind, f"{tracker.name}/{name}", kind.Request())
        wait_for(lambda: worker._commands, "the command")
        tracker.change(Transition.TRANSITION_DEACTIVATE)
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CLEANUP))
        done = tracker.probe.ask(ChangeState, f"{tracker.name}/change_state", request)
        wait_for(lambda: worker._stopping, "the cleanup")
    wait_for(lambda: done.done() and answer.done(), "both answers")
    assert done.result().success
    assert not answer.result().success
    assert answer.result().message == SHUTTING_DOWN
    start_again(tracker)


def test_a_click_that_waits_for_the_service_is_answered_at_a_cleanup(
    own_tracker: OwnTracker,
) -> None:
    tracker = own_tracker(correction_timeout=600.0)
    tracker.send(0)
    tracker.service.mode = "silent"
    request = AddObjects.Request(objects=[NewObject(prompt=Prompt(positive=[click(0)]))])
    answer = tracker.probe.ask(AddObjects, f"{tracker.name}/add_objects", request)
    wait_for(lambda: tracker.service.requests, "the service's request")
    tracker.change(*CLEAN_UP)
    wait_for(answer.done, "the answer")
    assert not answer.result().success
    # Whichever of the two ends the call first.
    assert answer.result().message in (WAS_DEACTIVATED, SHUTTING_DOWN)
    start_again(tracker)


def test_a_correction_that_is_not_sent_yet_is_forgotten_at_a_shutdown(
    own_tracker: OwnTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = own_tracker()
    tracker.show_object(0)
    to_do: list[Callable[[], None]] = []
    monkeypatch.setattr(tracker.node._parts.client, "_in_executor", to_do.append)
    tracker.set(pseudo_corrections=True, pseudo_entropy=0.0)
    tracker.send(1)
    wait_for(lambda: to_do, "the request")
    tracker.change(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    tracker.node.executor.create_task(to_do[0])
    assert state(tracker) == State.PRIMARY_STATE_FINALIZED


# ---- failures that are nobody's fault


@pytest.mark.parametrize(
    ("name", "kind", "method"),
    [
        ("add_objects", AddObjects, "give_masks"),
        ("remove_objects", RemoveObjects, "remove"),
        ("pause_objects", PauseObjects, "pause_objects"),
        ("reset", Trigger, "reset"),
    ],
)
def test_a_device_without_memory_costs_the_request_alone(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, name: str, kind: Any, method: str
) -> None:
    tracker.show_object(0)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    request = kind.Request()
    if kind is AddObjects:
        request.objects = [NewObject(prompt=Prompt(mask=mask_message(scene(0)[1], header(0))))]
    before = tracker.count("failed")
    with monkeypatch.context() as broken:
        broken.setattr(tracker.node._parts.objects, method, fail)
        response = tracker.probe.call(kind, f"{tracker.name}/{name}", request)
    assert not response.success
    assert response.message == "RuntimeError: out of memory"
    assert tracker.count("failed") == before + 1
    tracker.send(1)
    assert tracker.objects() == [1]

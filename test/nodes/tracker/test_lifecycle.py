# SPDX-License-Identifier: Apache-2.0
"""The tracker as a managed node: every transition, by the services a manager uses."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from node_graph import (
    HEIGHT,
    WIDTH,
    Probe,
    Spinner,
    header,
    labels_of,
    parameters,
    scene,
    scene_message,
    wait_for,
)
from sensor_msgs.msg import Image
from tracker_harness import Tracker

from lazyxmem_ros.msg import NewObject, Prompt, TrackArray
from lazyxmem_ros.nodes.conversions import labels_message, mask_message
from lazyxmem_ros.nodes.diagnostics import LogLimiter
from lazyxmem_ros.nodes.parameters import ParameterError
from lazyxmem_ros.nodes.running import NodeStartError
from lazyxmem_ros.nodes.tracker.node import TrackerNode, make_node
from lazyxmem_ros.srv import AddObjects

NS = "/lifecycle_test"
NODE = f"{NS}/lazyxmem_tracker"


@pytest.fixture
def node(ros: None, weights: Path) -> Iterator[TrackerNode]:
    """Not started: `autostart` is false."""
    made = make_node(
        cli_args=["--ros-args", "-r", f"__ns:={NS}"],
        parameter_overrides=parameters(autostart=False, weights=str(weights), device="cpu"),
    )
    spinner = Spinner(made)
    yield made
    spinner.close()


def change(probe: Probe, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return bool(probe.call(ChangeState, f"{NODE}/change_state", request).success)


def state(probe: Probe) -> int:
    response = probe.call(GetState, f"{NODE}/get_state", GetState.Request())
    return int(response.current_state.id)


def set_parameters(node: TrackerNode, **values: Any) -> str:
    result = node.set_parameters_atomically(parameters(**values))
    return "" if result.successful else str(result.reason)


def subscribers(probe: Probe) -> int:
    return int(probe.node.count_subscribers(f"{NS}/image"))


def newest_objects(probe: Probe) -> list[int]:
    arrays = probe.messages(f"{NODE}/tracks")
    return [track.id for track in arrays[-1].tracks] if arrays else []


def send(probe: Probe, index: int) -> None:
    """A frame, until its tracks are there."""
    probe.publish(f"{NS}/image", scene_message(index))
    wait_for(
        lambda: any(m.header == header(index) for m in probe.messages(f"{NODE}/tracks")),
        f"the tracks of frame {index}",
    )


def show(probe: Probe, index: int) -> None:
    """The object on a frame, until it is tracked."""
    labels = labels_message(scene(index)[1].astype(np.uint16), header(index))
    probe.publish(f"{NODE}/init_mask", labels)
    wait_for(lambda: newest_objects(probe) == [1], "the object")


def test_a_whole_life(node: TrackerNode, probe: Probe) -> None:
    assert state(probe) == State.PRIMARY_STATE_UNCONFIGURED
    assert probe.node.count_publishers(f"{NODE}/mask") == 0

    assert change(probe, Transition.TRANSITION_CONFIGURE)
    assert state(probe) == State.PRIMARY_STATE_INACTIVE
    probe.listen(Image, f"{NODE}/mask")
    probe.listen(TrackArray, f"{NODE}/tracks")
    assert subscribers(probe) == 0  # no image is even received
    refused = probe.call(
        AddObjects,
        f"{NODE}/add_objects",
        AddObjects.Request(
            objects=[
                NewObject(
                    prompt=Prompt(mask=mask_message(np.ones((HEIGHT, WIDTH), bool), header(0)))
                )
            ]
        ),
    )
    assert not refused.success
    assert refused.message == "the node is not active"
    assert "only while the node is unconfigured" in set_parameters(node, device="auto")

    assert change(probe, Transition.TRANSITION_ACTIVATE)
    assert state(probe) == State.PRIMARY_STATE_ACTIVE
    send(probe, 0)
    show(probe, 0)

    assert change(probe, Transition.TRANSITION_DEACTIVATE)
    wait_for(lambda: subscribers(probe) == 0, "the end of the subscription")
    assert change(probe, Transition.TRANSITION_ACTIVATE)
    send(probe, 1)
    assert newest_objects(probe) == [1]  # it was not forgotten

    assert change(probe, Transition.TRANSITION_DEACTIVATE)
    assert change(probe, Transition.TRANSITION_CLEANUP)
    assert state(probe) == State.PRIMARY_STATE_UNCONFIGURED
    wait_for(lambda: probe.node.count_publishers(f"{NODE}/mask") == 0, "the publishers' end")
    assert set_parameters(node, max_internal_size=32) == ""
    assert change(probe, Transition.TRANSITION_CONFIGURE)
    assert change(probe, Transition.TRANSITION_ACTIVATE)
    send(probe, 2)
    assert newest_objects(probe) == []  # cleaning up forgot it
    [mask] = [m for m in probe.messages(f"{NODE}/mask") if m.header == header(2)]
    assert labels_of(mask).shape == (HEIGHT, WIDTH)

    assert change(probe, Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert state(probe) == State.PRIMARY_STATE_FINALIZED
    assert subscribers(probe) == 0


def test_a_failed_configuration_can_be_repaired(
    node: TrackerNode, probe: Probe, weights: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"this is no weights file")
    for path in (tmp_path / "none.safetensors", wrong):
        assert set_parameters(node, weights=str(path)) == ""
        assert not change(probe, Transition.TRANSITION_CONFIGURE)
        assert str(path) in node._fault
        assert state(probe) == State.PRIMARY_STATE_UNCONFIGURED
    assert set_parameters(node, weights=str(weights)) == ""
    assert change(probe, Transition.TRANSITION_CONFIGURE)
    assert state(probe) == State.PRIMARY_STATE_INACTIVE


def entities(node: TrackerNode) -> set[str]:
    """What the node has on the graph, and how many timers."""
    named = (node.publishers, node.subscriptions)
    called = (node.services, node.clients)
    topics = {entity.topic_name for group in named for entity in group}
    services = {entity.srv_name for group in called for entity in group}
    return {*topics, *services, f"{len(list(node.timers))} timers"}


def test_a_failed_configuration_leaves_nothing_behind(
    node: TrackerNode, probe: Probe, tmp_path: Path
) -> None:
    unusable = "x" * 300
    before = entities(node)
    assert set_parameters(node, snapshot_path=str(tmp_path / unusable)) == ""
    assert not change(probe, Transition.TRANSITION_CONFIGURE)
    assert unusable in node._fault
    assert entities(node) == before
    assert set_parameters(node, snapshot_path="") == ""
    assert change(probe, Transition.TRANSITION_CONFIGURE)


def test_a_cleanup_frees_the_network(node: TrackerNode, probe: Probe) -> None:
    """At once, not when Python comes to look for circles."""
    gc.disable()
    try:
        for index in range(2):
            assert change(probe, Transition.TRANSITION_CONFIGURE)
            assert change(probe, Transition.TRANSITION_ACTIVATE)
            network = weakref.ref(node._parts.session._lazy.tracker.network)
            probe.listen(TrackArray, f"{NODE}/tracks")
            send(probe, index)
            show(probe, index)
            assert network() is not None
            assert change(probe, Transition.TRANSITION_DEACTIVATE)
            assert change(probe, Transition.TRANSITION_CLEANUP)
            wait_for(lambda freed=network: freed() is None, "the network's end")
    finally:
        gc.enable()


def test_a_transition_that_fails_is_said(
    node: TrackerNode, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rclpy makes the node unconfigured, without its objects, and says nothing."""
    assert change(probe, Transition.TRANSITION_CONFIGURE)
    assert change(probe, Transition.TRANSITION_ACTIVATE)

    def fail() -> None:
        raise RuntimeError("out of memory")

    lines: list[str] = []
    monkeypatch.setattr(node._parts, "deactivate", fail)
    monkeypatch.setattr(node._failures, "_limiter", LogLimiter(lines.append))
    change(probe, Transition.TRANSITION_DEACTIVATE)
    assert state(probe) == State.PRIMARY_STATE_UNCONFIGURED
    assert node._measures.last_failure == "RuntimeError: out of memory"
    [line] = lines
    assert "out of memory" in line
    assert change(probe, Transition.TRANSITION_CONFIGURE)


def test_a_successor_of_the_same_name_is_seen(
    own_tracker: Any, probe: Probe, weights: Path
) -> None:
    """A destroyed tracker leaves the graph at once, even where something still refers to it."""
    first = Tracker(probe, weights, "/successor_test")
    name = (first.node.get_name(), first.ns)
    first.close()
    wait_for(lambda: name not in probe.node.get_node_names_and_namespaces(), "its departure")
    own_tracker(first.ns)
    del first
    gc.collect()
    found = probe.node.get_subscriber_names_and_types_by_node(*name)
    assert f"{name[1]}/image" in [topic for topic, _ in found]


def test_transitions_that_do_not_exist_are_refused(node: TrackerNode, probe: Probe) -> None:
    assert not change(probe, Transition.TRANSITION_ACTIVATE)
    assert state(probe) == State.PRIMARY_STATE_UNCONFIGURED


@pytest.mark.parametrize(
    ("values", "error", "reason"),
    [
        ({"weights": "/nowhere/x.pth"}, NodeStartError, "/nowhere/x.pth"),
        ({"device": "tpu"}, NodeStartError, 'device "tpu" is unknown'),
        ({"device": "cuda:99"}, NodeStartError, "is not here"),
        ({"min_working_frames": 12}, ParameterError, "min_working_frames"),
        ({"top_k": 0}, ParameterError, "out of range"),
        ({"operator_rate": "high"}, ParameterError, "expecting type 'DOUBLE'"),
    ],
)
def test_a_node_that_starts_itself_says_why_it_cannot(
    ros: None, weights: Path, values: dict[str, Any], error: type[Exception], reason: str
) -> None:
    overrides = {"weights": str(weights), "device": "cpu", **values}
    with pytest.raises(error) as caught:
        make_node(
            cli_args=["--ros-args", "-r", "__ns:=/broken"],
            parameter_overrides=parameters(**overrides),
        )
    assert reason in str(caught.value)

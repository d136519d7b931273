# SPDX-License-Identifier: Apache-2.0
"""What the console's link to a tracker makes of the ROS graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from node_graph import Probe, Spinner, parameters, wait_for
from rcl_interfaces.msg import ListParametersResult
from rcl_interfaces.srv import ListParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.nodes.conversions import time_message
from lazyxmem_ros.nodes.correction_client import ServiceMeasures
from lazyxmem_ros.nodes.diagnostics import ERROR, Refusals, status
from lazyxmem_ros.nodes.operator import tracker_link
from lazyxmem_ros.nodes.operator.tracker_link import Presence, TrackerLink
from lazyxmem_ros.nodes.tracker.diagnostics import TrackerMeasures, TrackerReport, Upkeep
from lazyxmem_ros.nodes.tracker.node import make_node
from lazyxmem_ros.srv import PauseObjects

TRACKER = "/robot/lazyxmem_tracker"


@pytest.fixture
def spun(ros: None) -> Iterator[tuple[Node, Callable[[], None]]]:
    """A node, and a call of its executor."""
    node = Node("console_link")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    yield node, lambda: executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    node.destroy_node()


def test_a_tracker_that_goes_while_it_is_looked_at_is_absent(
    spun: tuple[Node, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph still names it, and knows nothing of it any more."""
    node, spin_once = spun
    monkeypatch.setattr(
        node, "get_node_names_and_namespaces", lambda: [("lazyxmem_tracker", "/robot")]
    )
    hears, failed = Mock(), Mock()
    link = TrackerLink(node, TRACKER, hears, on_failure=failed)

    def told() -> bool:
        spin_once()
        return failed.called or hears.on_presence.called

    wait_for(told, "who is there")
    failed.assert_not_called()
    assert not hears.on_presence.call_args.args[0].tracker
    link.close()


def link_of(node: Node, hears: Mock) -> TrackerLink:
    """A link; what its callbacks raise fails the test."""

    def fail(error: BaseException) -> None:
        raise error

    return TrackerLink(node, TRACKER, hears, on_failure=fail)


def test_what_the_tracker_complains_about_is_passed_on(
    spun: tuple[Node, Callable[[], None]],
) -> None:
    """And what others complain about is not."""
    node, _ = spun
    hears = Mock()
    link = link_of(node, hears)
    report = TrackerReport(TRACKER, TrackerMeasures(Refusals(print)), ServiceMeasures())
    made = report.statuses(
        device="cpu",
        received_rate=0.0,
        object_ids=(),
        open_requests=0,
        service_available=False,
        images_kept=0,
        images_reach=0,
        upkeep=Upkeep(),
        images_fault="no image for 6 s",
        snapshots=None,
        records=None,
    )
    others = status("robot/lazyxmem_tracker2: frames", {}, level=ERROR, message="not ours")
    link._on_diagnostics(DiagnosticArray(status=[*made, others]))
    hears.on_complaint.assert_called_once_with("no image for 6 s")
    link.close()


def test_images_are_told_from_label_maps_whatever_both_are_called(
    spun: tuple[Node, Callable[[], None]], weights: Path, probe: Probe
) -> None:
    """Nor does their quality of service tell them: the tracker does."""
    node, spin_once = spun
    arguments = ["__ns:=/robot", "image:=/camera/image_raw", "~/init_mask:=/annotations/labels"]
    tracker = make_node(
        cli_args=["--ros-args", *(part for name in arguments for part in ("-r", name))],
        parameter_overrides=parameters(
            weights=str(weights), device="cpu", backend="torch", image_reliability="reliable"
        ),
    )
    spinner = Spinner(tracker)
    hears = Mock()
    link = link_of(node, hears)

    def presence() -> Presence:
        spin_once()
        told = hears.on_presence.call_args
        return Presence() if told is None else told.args[0]

    try:
        wait_for(lambda: presence().listening, "the tracker")
        assert (link._image_topic, link._image_type) == ("/camera/image_raw", Image)
        request = ChangeState.Request()
        request.transition.id = Transition.TRANSITION_DEACTIVATE  # it still listens to label maps
        assert probe.call(ChangeState, f"{TRACKER}/change_state", request).success
        wait_for(lambda: not presence().listening, "its rest")
        assert presence().tracker
        assert link._image_topic == "/camera/image_raw"
    finally:
        link.close()
        spinner.close()


def test_a_tracker_that_does_not_tell_its_images_is_asked_again(
    spun: tuple[Node, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that ends before it answers is followed by another, say."""
    node, _ = spun
    link = link_of(node, Mock())
    asked: list[Future[Any]] = []
    monkeypatch.setattr(link, "_call", lambda kind, request, done: asked.append(done))
    now = 1000.0
    monkeypatch.setattr(tracker_link.time, "monotonic", lambda: now)
    topics = frozenset({"/camera/image_raw", "/annotations/labels"})
    for _ in range(3):
        link._ask_for_image_topics(topics)
    assert len(asked) == 1
    now += tracker_link.PARAMETERS_TIMEOUT_S + 1
    link._ask_for_image_topics(topics)
    assert asked[0].cancelled()
    asked[1].set_exception(tracker_link.NotThereError("gone"))
    link._ask_for_image_topics(topics)
    names = [
        f"qos_overrides./camera/image_raw.subscription.{name}" for name in ("depth", "history")
    ]
    asked[2].set_result(ListParameters.Response(result=ListParametersResult(names=names)))
    assert (link._image_topics, link._asked_about) == ({"/camera/image_raw"}, topics)
    link.close()


def image_of(second: float) -> bytes:
    image = Image(header=Header(stamp=time_message(round(second * SECOND))))
    return bytes(serialize_message(image))


@pytest.mark.parametrize("room", [100, 3])
def test_masks_of_a_tracker_that_needs_seconds_are_shown(
    spun: tuple[Node, Callable[[], None]], monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Ten images a second, of which it tracks the newest, in two seconds each.

    room: for so many images, as where they are large.
    """
    node, _ = spun
    monkeypatch.setattr(tracker_link, "MAX_WAITING_BYTES", room * len(image_of(1.0)))
    hears = Mock()
    link = link_of(node, hears)
    now = 1000.0
    monkeypatch.setattr(tracker_link.time, "monotonic", lambda: now)
    tracked = None
    for tick in range(1, 200):
        now += 0.1
        link._on_image(image_of(tick / 10))
        if tick % 20 == 0:
            if tracked is not None:
                link._on_mask(image_of(tracked))
            tracked = tick / 10
    shown = [call.args[0] for call in hears.on_frame.call_args_list]
    later = [frame for frame in shown if frame.stamp > 6 * SECOND]
    assert [frame.stamp // SECOND for frame in later if frame.labels] == [8, 10, 12, 14, 16]
    assert all(frame.labels for frame in later)  # an older one after a newer one would go back
    for _ in range(200):  # the tracker is no more
        now += 0.1
        link._on_image(image_of(now))
    assert hears.on_frame.call_args.args[0].labels is None
    link.close()


def test_a_call_that_nobody_waits_for_any_more_is_forgotten(
    spun: tuple[Node, Callable[[], None]],
) -> None:
    """The tracker has ended before it could answer."""
    node, spin_once = spun
    link = link_of(node, Mock())
    client = link._services[PauseObjects]
    service = node.create_service(PauseObjects, f"{TRACKER}/pause_objects", lambda *_: None)
    wait_for(lambda: (spin_once(), client.service_is_ready())[1], "the service")
    node.destroy_service(service)
    client.service_is_ready = lambda: True
    future = link.call(PauseObjects, PauseObjects.Request(ids=[1], pause=True))
    wait_for(lambda: (spin_once(), client._pending_requests)[1], "the call")
    assert future.cancel()
    wait_for(lambda: (spin_once(), not client._pending_requests)[1], "its end")
    link.close()

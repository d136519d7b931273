# SPDX-License-Identifier: Apache-2.0
"""Markers for RViz 2 and Foxglove, and the configurations of both that the package brings."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from node_graph import HEIGHT, WIDTH, header, scene, wait_for
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from tracker_harness import Tracker

from lazyxmem_ros.nodes.conversions import labels_message

RVIZ, FOXGLOVE = "lazyxmem.rviz", "foxglove_layout.json"
MARKERS = "visualization_msgs/msg/MarkerArray"
DISPLAYS = {
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
    "rviz_default_plugins/MarkerArray": MARKERS,
}
"""What a display of RViz 2 shows."""


def shown(root: Path) -> Iterator[tuple[str, str, str, str | None]]:
    """(file, topic, what follows the topic in a path, type or None where any is shown)."""
    rviz = yaml.safe_load((root / "config" / RVIZ).read_text())
    for display in rviz["Visualization Manager"]["Displays"]:
        yield RVIZ, display["Topic"]["Value"], "", DISPLAYS[display["Class"]]
    layout = json.loads((root / "config" / FOXGLOVE).read_text())
    for name, panel in layout["configById"].items():
        kind = name.partition("!")[0]
        if kind == "Image":
            yield FOXGLOVE, panel["imageMode"]["imageTopic"], "", "sensor_msgs/msg/Image"
        elif kind == "3D":
            for topic in panel["topics"]:
                yield FOXGLOVE, topic, "", MARKERS
        elif kind == "DiagnosticSummary":
            yield FOXGLOVE, panel["topicToRender"], "", "diagnostic_msgs/msg/DiagnosticArray"
        else:
            paths = [one["value"] for one in panel.get("paths", [])] or [panel["topicPath"]]
            for path in paths:
                topic, _, fields = path.partition(".")
                yield FOXGLOVE, topic, fields, None


def qualities(root: Path) -> Iterator[tuple[str, QoSProfile]]:
    """(topic, the quality of service that RViz 2 asks for)."""
    rviz = yaml.safe_load((root / "config" / RVIZ).read_text())
    for display in rviz["Visualization Manager"]["Displays"]:
        topic = display["Topic"]
        kinds = {"history": HistoryPolicy, "reliability": ReliabilityPolicy}
        kinds["durability"] = DurabilityPolicy
        keys = {name: topic[f"{name.title()} Policy"].lower().replace(" ", "_") for name in kinds}
        policies = {name: kind.get_from_short_key(keys[name]) for name, kind in kinds.items()}
        yield topic["Value"], QoSProfile(depth=topic["Depth"], **policies)


def places(layout: Any) -> Iterator[str]:
    """The panels that a layout of Foxglove places."""
    if isinstance(layout, str):
        yield layout
    else:
        yield from places(layout["first"])
        yield from places(layout["second"])


def field_type(type_name: str, path: str) -> str:
    """The type of what a path such as `tracks[:]{id==1}.area` names in a message; fails if none."""
    for part in path.split("."):
        package, _, name = type_name.replace("/msg/", "/").partition("/")
        fields = getattr(importlib.import_module(f"{package}.msg"), name)
        name, condition = re.fullmatch(r"(\w+)(?:\[:\]\{(\w+)==\d+\})?", part).groups()  # type: ignore[union-attr]
        type_name = fields.get_fields_and_field_types()[name]
        if condition:
            type_name = type_name.removeprefix("sequence<").removesuffix(">")
            field_type(type_name, condition)
    return type_name


def test_what_the_configurations_show_is_there(tracker: Tracker, root: Path) -> None:
    def types() -> dict[str, list[str]]:
        return dict(tracker.probe.node.get_topic_names_and_types())

    wait_for(lambda: f"{tracker.name}/overlay" in types(), "the tracker's topics")
    known, seen = types(), set()
    for file, topic, fields, wanted in shown(root):
        if wanted == MARKERS and tracker.node._parts.outputs._markers._publisher is None:
            continue  # visualization_msgs is not installed, for which the other test is skipped
        own = topic.replace("/lazyxmem_tracker/", f"{tracker.name}/")
        assert own in known, f"{file} shows {topic}, which no tracker publishes"
        [type_name] = known[own]
        assert wanted in (None, type_name), f"{file}: {topic} is {type_name}"
        if fields:
            field_type(type_name, fields)
        seen.add((file, topic.rpartition("/")[2]))
    for topic, wanted in qualities(root):
        own = topic.replace("/lazyxmem_tracker/", f"{tracker.name}/")
        for publisher in tracker.probe.node.get_publishers_info_by_topic(own):
            fits, why = qos_check_compatible(publisher.qos_profile, wanted)
            assert fits != QoSCompatibility.ERROR, f"{RVIZ}: {topic}: {why}"
    assert {(RVIZ, "overlay"), (FOXGLOVE, "overlay"), (FOXGLOVE, "tracks")} <= seen


def test_the_layout_places_each_panel_once(root: Path) -> None:
    layout = json.loads((root / "config" / FOXGLOVE).read_text())
    assert sorted(places(layout["layout"])) == sorted(layout["configById"])


def test_markers_are_boxes_and_names_in_front_of_the_camera(tracker: Tracker) -> None:
    pytest.importorskip("visualization_msgs", reason="visualization_msgs is not installed")
    from visualization_msgs.msg import Marker, MarkerArray

    tracker.show_object(0, object_id=3)
    topic = f"{tracker.name}/markers"
    tracker.probe.listen(MarkerArray, topic)
    wait_for(tracker.node._parts.outputs._markers._publisher.get_subscription_count, "the probe")
    labels = scene(1)[1].astype(np.uint16) * 3
    tracker.send(1)
    tracker.probe.publish(f"{tracker.name}/init_mask", labels_message(labels, header(1)))
    wait_for(lambda: len(tracker.out("markers")) == 2, "the markers of the mask that was given")
    cleared, box, name = tracker.out("markers")[1].markers
    assert cleared.action == Marker.DELETEALL
    assert (box.type, name.type) == (Marker.LINE_STRIP, Marker.TEXT_VIEW_FACING)
    assert box.header == name.header == header(1)
    rows, columns = np.nonzero(labels)
    xs = [(x - WIDTH / 2) / 1000 for x in (columns.min(), columns.max() + 1)]
    ys = [(y - HEIGHT / 2) / 1000 for y in (rows.min(), rows.max() + 1)]
    corners = [(x, y, 1.0) for x, y in ((xs[0], ys[0]), (xs[1], ys[0]), (xs[1], ys[1]))]
    corners += [(xs[0], ys[1], 1.0), (xs[0], ys[0], 1.0)]
    assert [(p.x, p.y, p.z) for p in box.points] == corners
    assert name.text.startswith("3")
    assert name.pose.position.y < ys[0]
    tracker.probe.ignore(topic)

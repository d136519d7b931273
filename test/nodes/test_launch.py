# SPDX-License-Identifier: Apache-2.0
"""What the launch files make of their arguments; needs launch_ros, of which there are no wheels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("launch_ros")


def started(path: Path, **arguments: str) -> dict[str, Any]:
    """The nodes that a launch file starts, by executable, with everything substituted."""
    from launch import LaunchContext, LaunchDescriptionEntity
    from launch.launch_description_sources import PythonLaunchDescriptionSource
    from launch_ros.actions import Node

    context = LaunchContext()
    context.launch_configurations.update(arguments)
    nodes: dict[str, Any] = {}

    def visit(entity: LaunchDescriptionEntity) -> None:
        if isinstance(entity, Node):
            entity._perform_substitutions(context)
            nodes[entity.node_executable] = entity
        else:
            for each in entity.visit(context) or ():
                visit(each)

    visit(PythonLaunchDescriptionSource(str(path)).get_launch_description(context))
    return nodes


def parameters_of(node: Any) -> dict[str, Any]:
    """Of all its parameter files, the last one's going over the others."""
    found: dict[str, Any] = {}
    for name, is_file in node._Node__expanded_parameter_arguments:
        assert is_file
        for section in yaml.safe_load(Path(name).read_text()).values():
            found |= section["ros__parameters"]
    return found


def said_of(path: Path, *argv: str) -> list[str]:
    """What a launch file that replays `/bag` says of its arguments."""
    from launch import LaunchContext
    from launch.actions import LogInfo
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    context = LaunchContext(argv=list(argv))
    context.launch_configurations.update(bag="/bag")
    said: list[str] = []

    def visit(entity: Any) -> None:
        if isinstance(entity, LogInfo):
            said.append("".join(part.perform(context) for part in entity.msg))
        elif "Node" not in type(entity).__name__:
            for each in entity.visit(context) or ():
                visit(each)

    visit(PythonLaunchDescriptionSource(str(path)).get_launch_description(context))
    return said


def test_a_misspelt_argument_is_named(root: Path) -> None:
    """Also one of the launch file that is included."""
    replay = root / "launch" / "replay.launch.py"
    said = said_of(replay, "image_topik:=/x", "image_reliabilty:=reliable", "rate:=2.0")
    assert [text.partition("so it changes nothing; ")[2] for text in said] == [
        "did you mean image_topic?",
        "did you mean image_reliability?",
    ]


def test_an_argument_that_the_replay_sets_itself_is_named(root: Path) -> None:
    replay = root / "launch" / "replay.launch.py"
    assert said_of(replay, "image:=/x", "use_sim_time:=true", "device:=cpu", "--debug") == [
        "image changes nothing here: image_topic is the topic of the bag's images",
        "use_sim_time changes nothing here: clock:=true sets it",
    ]


@pytest.mark.parametrize("name", ["params_file", "correction_params_file", "operator_params_file"])
def test_a_parameter_file_that_is_not_there_ends_the_launch(root: Path, name: str) -> None:
    """launch_ros warns, and starts the node with its defaults."""
    with pytest.raises(FileNotFoundError, match=f"{name}:=/none.yaml: there is no such file"):
        started(root / "launch" / "track.launch.py", **{name: "/none.yaml"})


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_the_cameras_transport_is_the_trackers(root: Path, transport: str) -> None:
    nodes = started(root / "launch" / "track.launch.py", image_transport=transport)
    assert parameters_of(nodes["tracker"])["image_transport"] == transport


def test_one_limit_of_pixels_is_that_of_all_nodes(root: Path) -> None:
    nodes = started(root / "launch" / "track.launch.py", operator="true", max_pixels="100000000")
    limits = {name: parameters_of(node)["max_pixels"] for name, node in nodes.items()}
    assert limits == dict.fromkeys(("tracker", "correction", "operator"), 100_000_000)
    nodes = started(root / "launch" / "track.launch.py", operator="true")
    assert "max_pixels" not in parameters_of(nodes["operator"])


@pytest.mark.parametrize(
    ("arguments", "transport", "topic"),
    [
        ({"image_topic": "/camera/image_raw"}, "raw", "image"),
        ({"image_topic": "/camera/image_raw/compressed"}, "compressed", "image/compressed"),
        (
            {"image_topic": "/jpegs", "image_transport": "compressed"},
            "compressed",
            "image/compressed",
        ),
    ],
)
def test_a_bags_images_are_tracked_as_what_they_are(
    root: Path, arguments: dict[str, str], transport: str, topic: str
) -> None:
    nodes = started(root / "launch" / "replay.launch.py", bag="/bag", **arguments)
    assert nodes["replay"].expanded_remapping_rules == [(arguments["image_topic"], topic)]
    assert parameters_of(nodes["tracker"])["image_transport"] == transport


@pytest.mark.parametrize("address", ["127.0.0.1", "::", "localhost"])
def test_the_console_gets_the_address_as_it_is(root: Path, address: str) -> None:
    """`::`, every address of this machine, is a mapping in YAML."""
    track = root / "launch" / "track.launch.py"
    nodes = started(track, operator="true", operator_address=address)
    assert parameters_of(nodes["operator"])["address"] == address


def test_the_console_takes_a_parameter_file(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "console.yaml"
    file.write_text("/**: {ros__parameters: {token_file: /t, port: 1}}")
    track = root / "launch" / "track.launch.py"
    nodes = started(track, operator="true", operator_params_file=str(file))
    assert parameters_of(nodes["operator"])["token_file"] == "/t"
    assert parameters_of(nodes["operator"])["port"] == 8080, "an argument goes over the file"
    assert "token_file" not in parameters_of(started(track, operator="true")["operator"])


@pytest.mark.parametrize(("argument", "starts"), [("", False), ("true", True), ("false", False)])
def test_whether_the_tracker_starts_itself_is_the_parameter_files_to_say(
    root: Path, tmp_path: Path, argument: str, starts: bool
) -> None:
    file = tmp_path / "tracker.yaml"
    file.write_text("/**: {ros__parameters: {autostart: false}}")
    track = root / "launch" / "track.launch.py"
    nodes = started(track, params_file=str(file), autostart=argument)
    assert parameters_of(nodes["tracker"])["autostart"] is starts

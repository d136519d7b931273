# SPDX-License-Identifier: Apache-2.0
"""Parameters: described, bounded, refused with a reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import pytest
from node_graph import parameters
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from lazyxmem_ros.lazy import LazyConfig
from lazyxmem_ros.nodes.parameters import Changes, ParameterError, Parameters, ParameterSpec
from lazyxmem_ros.nodes.tracker import parameters as tracker_parameters
from lazyxmem_ros.xmem import MemoryConfig

TABLE = (
    ParameterSpec("fixed", "a", "Never changes.", changes=Changes.NEVER),
    ParameterSpec("low", 0.2, "Lower threshold.", bounds=(0.0, float("inf"))),
    ParameterSpec("high", 0.5, "Upper threshold.", bounds=(0.0, float("inf"))),
    ParameterSpec("count", 3, "A number.", bounds=(1, 10)),
    ParameterSpec("kind", "x", "A choice.", choices=("x", "y")),
    ParameterSpec("names", (), "Texts."),
    ParameterSpec("model", "m", "Needs a restart.", changes=Changes.UNCONFIGURED),
)


def low_below_high(values: Mapping[str, Any]) -> str | None:
    if values["low"] > values["high"]:
        return f"low ({values['low']}) must not be above high ({values['high']})"
    return None


@pytest.fixture
def node(ros: None) -> Iterator[Node]:
    made = Node("parameters_test")
    yield made
    made.destroy_node()


def change(node: Node, **values: Any) -> str:
    """Tries to set them together; returns the reason of the refusal, "" if there was none."""
    result = node.set_parameters_atomically(parameters(**values))
    assert result.successful or result.reason
    return "" if result.successful else str(result.reason)


def test_changes_are_validated_together(node: Node) -> None:
    applied: list[Mapping[str, Any]] = []
    mine = Parameters(node, TABLE, validate=low_below_high, apply=applied.append)
    assert "low (0.7) must not be above high (0.5)" in change(node, low=0.7)
    assert mine["low"] == 0.2
    assert not applied
    assert change(node, low=0.7, high=0.9) == ""
    assert (mine["low"], mine["high"]) == (0.7, 0.9)
    assert applied[-1]["high"] == 0.9
    assert change(node, high=float("inf")) == ""


def test_what_another_callback_refuses_is_not_applied(node: Node) -> None:
    if not hasattr(node, "add_post_set_parameters_callback"):
        pytest.skip("needs rclpy's post-set callbacks (Jazzy and later)")
    allowed = SetParametersResult(successful=True)  # while they are declared
    node.add_on_set_parameters_callback(lambda changes: allowed)  # rclpy asks the last one first
    applied: list[Mapping[str, Any]] = []
    mine = Parameters(node, TABLE, apply=applied.append)
    allowed.successful, allowed.reason = False, "not now"
    assert change(node, low=0.3) == "not now"
    assert (mine["low"], node.get_parameter("low").value) == (0.2, 0.2)
    assert not applied


def test_values_are_applied_after_they_are_set(node: Node) -> None:
    if not hasattr(node, "add_post_set_parameters_callback"):
        pytest.skip("needs rclpy's post-set callbacks (Jazzy and later)")
    seen: list[Any] = []
    Parameters(node, TABLE, apply=lambda values: seen.append(node.get_parameter("low").value))
    assert change(node, low=0.3) == ""
    assert seen == [0.3]


def test_values_are_applied_where_rclpy_has_no_post_set_callbacks(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in Humble."""
    monkeypatch.delattr(Node, "add_post_set_parameters_callback", raising=False)
    applied: list[Mapping[str, Any]] = []
    mine = Parameters(node, TABLE, validate=low_below_high, apply=applied.append)
    assert "must not be above" in change(node, low=0.7)
    assert not applied
    assert change(node, low=0.3) == ""
    assert (mine["low"], applied[-1]["low"]) == (0.3, 0.3)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"low": -0.1}, "out of range"),
        ({"low": float("nan")}, "out of range"),
        ({"count": 11}, "out of range"),
        ({"kind": "z"}, "kind must be one of x, y, not 'z'"),
        ({"fixed": "b"}, "read-only"),
        ({"model": "n"}, "model can be changed only while the node is unconfigured"),
        ({"count": "many"}, "type"),
    ],
)
def test_refusals_have_reasons(node: Node, values: dict[str, Any], reason: str) -> None:
    mine = Parameters(node, TABLE, may_reconfigure=lambda: False)
    before = mine.values()
    assert reason in change(node, **values)
    assert mine.values() == before


def test_descriptors_tell_people_what_they_need(node: Node) -> None:
    Parameters(node, TABLE)
    for spec in TABLE:
        described = node.describe_parameter(spec.name)
        assert described.description == spec.text
        assert described.read_only == (spec.changes is Changes.NEVER)
    assert node.describe_parameter("low").floating_point_range[0].from_value == 0.0
    assert node.describe_parameter("count").integer_range[0].to_value == 10
    assert "one of: x, y" in node.describe_parameter("kind").additional_constraints
    assert "unconfigured" in node.describe_parameter("model").additional_constraints


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        (Parameter("count", value=0), "out of range"),
        (Parameter("low", value=3), "expecting type 'DOUBLE'"),
        (Parameter("low", value=2.0), "must not be above high"),
        (Parameter("kind", value="z"), "one of x, y"),
    ],
)
def test_bad_values_at_the_start_are_named(ros: None, override: Parameter, reason: str) -> None:
    node = Node("parameters_start_test", parameter_overrides=[override])
    try:
        with pytest.raises(ParameterError, match=reason):
            Parameters(node, TABLE, validate=low_below_high)
    finally:
        node.destroy_node()


def test_lists_of_texts_may_be_empty_or_given(ros: None, node: Node) -> None:
    assert Parameters(node, TABLE)["names"] == []
    given = Node("parameters_list_test", parameter_overrides=[Parameter("names", value=["a", "b"])])
    assert Parameters(given, TABLE)["names"] == ["a", "b"]
    given.destroy_node()


def test_a_list_is_there_to_be_looked_at(node: Node) -> None:
    table = [ParameterSpec("trackers", ("one", "two"), "Texts.", changes=Changes.NEVER)]
    assert Parameters(node, table)["trackers"] == ["one", "two"]
    assert list(node.get_parameter("trackers").value) == ["one", "two"]


def test_the_trackers_defaults_are_the_cores() -> None:
    values = {spec.name: spec.default for spec in tracker_parameters.table()}
    assert tracker_parameters.lazy_config(values) == LazyConfig()
    assert tracker_parameters.memory_config(values) == MemoryConfig()


def test_every_setting_of_the_core_is_a_parameter() -> None:
    names = {spec.name for spec in tracker_parameters.table()}
    for config in (LazyConfig, MemoryConfig):
        assert {item.name for item in fields(config)} <= names


def test_the_trackers_settings_are_validated_together() -> None:
    values = {spec.name: spec.default for spec in tracker_parameters.table()}
    assert tracker_parameters.fault(values) is None
    reason = tracker_parameters.fault({**values, "min_working_frames": 20})
    assert reason is not None
    assert "min_working_frames" in reason

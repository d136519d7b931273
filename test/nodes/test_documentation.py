# SPDX-License-Identifier: Apache-2.0
"""The documentation names everything that the nodes have."""

from __future__ import annotations

import importlib
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from node_graph import parameters
from rclpy.node import Node

from lazyxmem_ros.evaluation.printing import markdown_table
from lazyxmem_ros.nodes.parameters import ParameterSpec, parameter_rows
from lazyxmem_ros.nodes.tracker.node import TrackerNode, make_node
from tools.parameters import FILES, PAGE, TABLES, write

# What every ROS node has.
COMMON = {"/rosout", "/parameter_events"}


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "topics_and_parameters.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TABLES)
def test_every_parameter_is_documented_as_it_is(name: str, page: str) -> None:
    table: Sequence[ParameterSpec] = TABLES[name]
    section = page.split(f"## `{name}`: node")[1].split("\n## ")[0]
    rows = markdown_table(parameter_rows(table)).splitlines()
    missing = [row for row in rows if row not in section]
    assert not missing, "the page lacks these rows:\n" + "\n".join(missing)
    documented = re.findall(r"^\| `(\w+)` \| [^|]*\|[^|]*\|[^|]*\|[^|]*\|$", section, re.M)
    assert documented == [spec.name for spec in table]


def test_what_is_made_from_the_tables_is_up_to_date(root: Path, tmp_path: Path) -> None:
    for path in (PAGE, *FILES.values()):
        (tmp_path / path).parent.mkdir(exist_ok=True)
    shutil.copy(root / PAGE, tmp_path / PAGE)
    write(tmp_path)
    for path in (PAGE, *FILES.values()):
        ours, made = (folder / path for folder in (root, tmp_path))
        assert ours.read_text() == made.read_text(), (
            f"{path} is not what its table gives; run: tools/run python -m tools.parameters"
        )


def test_every_topic_and_service_is_documented(ros: None, weights: Path, page: str) -> None:
    node: TrackerNode = make_node(
        cli_args=["--ros-args", "-r", "__ns:=/documentation_test"],
        parameter_overrides=parameters(weights=str(weights), device="cpu"),
    )
    try:
        names = _names(node)
    finally:
        node.close()
        node.destroy_node()
    assert len(names) > 12
    missing = [name for name in sorted(names) if f"`{name}`" not in page]
    assert not missing, f"the page lacks {', '.join(missing)}"


def test_every_example_call_is_of_a_service_and_fits_its_request(page: str, root: Path) -> None:
    text = page + (root / "README.md").read_text(encoding="utf-8")
    calls = re.findall(
        r"ros2 service call (\S+)[\s\\]+(\w+)/srv/(\w+)(?:[ \\\n]+\"([^\"]*)\")?", text
    )
    assert len(calls) == text.count("ros2 service call") > 9
    for name, package, kind, text in calls:
        own = name.replace("/lazyxmem_tracker/", "~/")
        assert f"| `{own}` | {package}/{kind} | served" in page
        request = getattr(importlib.import_module(f"{package}.srv"), kind).Request()
        _fill(request, yaml.safe_load(text or "{}"))


def _fill(message: Any, values: Mapping[str, Any]) -> Any:
    """As the command line does; a message refuses a value that is not of its field's type."""
    types = message.get_fields_and_field_types()
    for name, value in values.items():
        kind = types[name].removeprefix("sequence<").removesuffix(">")
        if "/" in kind:
            package, part = kind.split("/")
            cls = getattr(importlib.import_module(f"{package}.msg"), part)
            several = isinstance(value, list)
            parts = [_fill(cls(), given) for given in (value if several else [value])]
            value = parts if several else parts[0]
        setattr(message, name, value)
    return message


def _names(node: Node) -> set[str]:
    """The node's own topics and services as the page writes them."""
    own = f"/documentation_test/{node.get_name()}/"
    subscriptions = [subscription.topic_name for subscription in node.subscriptions]
    publishers = [publisher.topic_name for publisher in node.publishers]
    services = [service.srv_name for service in node.services]
    clients = [client.srv_name for client in node.clients]
    names = {*subscriptions, *publishers, *services, *clients} - COMMON
    ours = set()
    for name in names:
        # Parameter, logger and lifecycle services are those of any managed node.
        if any(word in name for word in ("parameter", "state", "transition", "type_description")):
            continue
        if name.startswith(own):
            ours.add("~/" + name.removeprefix(own))
        else:
            ours.add(name.removeprefix("/documentation_test/"))
    return ours

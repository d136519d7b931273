# SPDX-License-Identifier: Apache-2.0
"""The SROS 2 policy allows the names that nodes really use, and orders by the operator alone."""

from __future__ import annotations

import contextlib
import importlib.util
import xml.etree.ElementTree as ET
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_graph import FIRST_STAMP, Probe, scene, wait_for
from rclpy.node import NodeNameNonExistentError

from lazyxmem_ros.data.bag_messages import StampedImage, StampedLabels
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.extras import MODULES

POLICY = Path(__file__).parents[2] / "config" / "sros2" / "policy.xml"
TRACKER = "/lazyxmem_tracker"
RULES = {
    "publisher": ("topics", "publish"),
    "subscriber": ("topics", "subscribe"),
    "service": ("services", "reply"),
    "client": ("services", "request"),
}
"""How the graph calls what a policy calls so."""
ORDERS = {
    "publisher": [f"{TRACKER}/operator_correction", f"{TRACKER}/init_mask"],
    "client": [
        f"{TRACKER}/{name}"
        for name in (
            "add_objects",
            "remove_objects",
            "pause_objects",
            "reset",
            "retract_correction",
            "save_snapshot",
            "change_state",
            "set_parameters",
            "set_parameters_atomically",
        )
    ],
}
GIVEN_BY = {
    "lazyxmem_operator": {
        f"{TRACKER}/{name}"
        for name in (
            "operator_correction",
            "add_objects",
            "remove_objects",
            "pause_objects",
            "reset",
            "retract_correction",
            "save_snapshot",
        )
    },
    "lazyxmem_simulated_operator": {f"{TRACKER}/operator_correction"},
}
SOMETIMES = {
    "*": {"/clock", "/image", "/image/compressed"},  # by use_sim_time and image_transport
    # Published where vision_msgs and visualization_msgs are installed.
    "lazyxmem_tracker": {f"{TRACKER}/{name}" for name in ("detections", "label_info", "markers")},
    "lazyxmem_recorder": {"/diagnostics", f"{TRACKER}/*"},
    # What is looked at, and what its page does not have a button for.
    "lazyxmem_operator": {
        f"{TRACKER}/{name}"
        for name in ("mask", "uncertainty", "list_objects", "reset", "save_snapshot")
    },
}


def policy() -> dict[str, dict[str, set[str]]]:
    """What each node may do: node -> kind of end -> names."""
    allowed: dict[str, dict[str, set[str]]] = {}
    for profile in ET.parse(POLICY).iter("profile"):
        assert profile.get("ns") == "/"
        ends: dict[str, set[str]] = {kind: set() for kind in RULES}
        for kind, (tag, rule) in RULES.items():
            for group in profile.iter(tag):
                assert set(group.attrib.values()) == {"ALLOW"}
                if rule in group.attrib:
                    ends[kind] |= {(name.text or "").strip() for name in group}
        allowed[str(profile.get("node"))] = ends
    return allowed


def covered(name: str, patterns: set[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def test_each_node_has_an_enclave_of_its_own() -> None:
    enclaves = {
        enclave.get("path"): [profile.get("node") for profile in enclave.iter("profile")]
        for enclave in ET.parse(POLICY).iter("enclave")
    }
    assert enclaves == {f"/lazyxmem/{node.removeprefix('lazyxmem_')}": [node] for node in policy()}


@pytest.mark.parametrize("node", sorted(policy()))
def test_only_operators_give_orders(node: str) -> None:
    allowed = policy()[node]
    given = {
        name for kind, names in ORDERS.items() for name in names if covered(name, allowed[kind])
    }
    assert given == GIVEN_BY.get(node, set())


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    with BagWriter(tmp_path / "bag") as writer:
        writer.write_image("/camera/image_raw", StampedImage(FIRST_STAMP, scene(0)[0]))
        labels = scene(0)[1].astype(np.uint16)
        writer.write_labels("/ground_truth", StampedLabels(FIRST_STAMP, labels))
    return tmp_path / "bag"


@pytest.mark.slow  # it starts six processes
def test_the_policy_names_what_nodes_really_use(
    bag: Path, weights: Path, probe: Probe, start: Callable[..., Any], tmp_path: Path
) -> None:
    started = [
        start("tracker", {"weights": weights, "device": "cpu", "snapshot_path": tmp_path / "s"}),
        start("correction", {"corrector": "grabcut"}),
        start("recorder", {"bag": tmp_path / "new", "topics": [f"{TRACKER}/mask", "/diagnostics"]}),
        start(
            "simulated_operator",
            {"bag": bag},
            *("-r", f"correction_request:={TRACKER}/correction_request"),
            *("-r", f"operator_correction:={TRACKER}/operator_correction"),
        ),
        start(
            "replay",
            {
                "bag": bag,
                "topics": ["/camera/image_raw"],
                "wait_for_subscribers": 9,
                "wait_timeout": 0.0,
                "clock": True,
                "lockstep_topic": f"{TRACKER}/mask",
            },
        ),
    ]
    allowed = policy()
    if all(importlib.util.find_spec(library) for library in MODULES["operator"]):
        started.append(start("operator", {"port": 0}))
    else:
        del allowed["lazyxmem_operator"]

    def ends_of(node: str, kind: str) -> set[str]:
        """The names of a node's publishers, subscriptions, … as far as they are known yet."""
        ends = getattr(probe.node, f"get_{kind}_names_and_types_by_node")
        with contextlib.suppress(NodeNameNonExistentError):  # it is being discovered
            return {name for name, _ in ends(node, "/")}
        return set()

    def used() -> dict[str, dict[str, set[str]]]:
        assert all(node.exit_code() is None for node in started), [n.log for n in started]
        known = probe.node.get_node_names()
        return {
            node: {kind: ends_of(node, kind) for kind in RULES} for node in allowed if node in known
        }

    def missing() -> list[str]:
        """What the policy names, and no node uses."""
        now = used()
        return [
            f"{node}, {kind}: {name}"
            for node, ends in allowed.items()
            for kind, names in ends.items()
            for name in names
            if "*" not in name
            and name not in now.get(node, {}).get(kind, set())
            and not covered(name, SOMETIMES["*"] | SOMETIMES.get(node, set()))
        ]

    wait_for(lambda: not missing(), "all that the policy names")
    forbidden = [
        f"{node}, {kind}: {name}"
        for node, ends in used().items()
        for kind, names in ends.items()
        for name in names
        if not covered(name, allowed[node][kind])
    ]
    assert not forbidden

# SPDX-License-Identifier: Apache-2.0
"""Who publishes a topic in a way that its subscription does not hear."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

LINGERING_S = 30.0
"""Of steady time, after which a node in the graph is taken to be there: one that was killed stays
in it until its lease has run out, mostly 20 s."""


def publisher_name(offer: TopicEndpointInfo) -> str:
    """The full name of the node that publishes."""
    return f"{offer.node_namespace.rstrip('/')}/{offer.node_name}"


def unheard(node: Node, topic: str, message_type: type[Any], quality: QoSProfile) -> str:
    """Whose messages on a topic do not arrive, and why, in words; "" where all do.

    message_type, quality: of the subscription.
    """
    wanted = f"{message_type.__module__.partition('.')[0]}/msg/{message_type.__name__}"
    faults = []
    for offer in node.get_publishers_info_by_topic(topic):
        compatibility, reason = qos_check_compatible(offer.qos_profile, quality)
        if offer.topic_type != wanted:
            faults.append(f"{publisher_name(offer)} publishes {offer.topic_type}, not {wanted}")
        elif compatibility == QoSCompatibility.ERROR:
            faults.append(
                f"{publisher_name(offer)} publishes with another quality of service, by which "
                f"nothing arrives: {reason}"
            )
    return "; ".join(faults)

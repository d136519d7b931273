# SPDX-License-Identifier: Apache-2.0
"""Who publishes images, and why none comes: as what type, with which quality of service."""

from __future__ import annotations

import os

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

from lazyxmem_ros.nodes.offers import publisher_name

SHOWN_TOPICS = 5


def why_no_image(
    node: Node, topic: str, type_name: str, quality: QoSProfile, *, other_topic: str
) -> str:
    """What keeps images from `topic`, in words, and what to do about it.

    type_name: of the images waited for, such as `sensor_msgs/msg/Image`; quality: asked for.
    other_topic: where images of the other transport would come.
    """
    offers = node.get_publishers_info_by_topic(topic)
    if not offers:
        found = f"nobody publishes {topic}"
        if node.count_publishers(other_topic):
            return f"{found}, but {other_topic} is: set image_transport to take that"
        return f"{found}; {_elsewhere(node, type_name)}"
    fitting = [offer for offer in offers if offer.topic_type == type_name]
    if not fitting:
        names = ", ".join(f"{publisher_name(offer)} as {offer.topic_type}" for offer in offers)
        return (
            f"{topic} is published by {names}, not as {type_name}: set image_transport to what it "
            "is, and remap that transport's topic to it"
        )
    faults = [(offer, _misfit(offer, quality)) for offer in fitting]
    if all(fault for _, fault in faults):
        return "; ".join(
            f"{publisher_name(offer)} publishes {topic}, but {fault}" for offer, fault in faults
        )
    names = ", ".join(publisher_name(offer) for offer, fault in faults if not fault)
    return f"{topic} is published by {names}, which has sent nothing"


def publisher_names(node: Node, topic: str, type_name: str) -> list[str]:
    """The nodes that publish a topic with this type, one that does twice twice."""
    offers = node.get_publishers_info_by_topic(topic)
    return sorted(publisher_name(offer) for offer in offers if offer.topic_type == type_name)


def _elsewhere(node: Node, type_name: str) -> str:
    """Where images are published instead, and what to do about it."""
    own = f"{node.get_fully_qualified_name()}/"
    found = [
        name
        for name, types in node.get_topic_names_and_types()
        if type_name in types and not name.startswith(own) and node.count_publishers(name)
    ]
    if not found:
        domain = os.environ.get("ROS_DOMAIN_ID", "0")
        return f"no other such topic is seen in the ROS domain {domain}: is its node in that one?"
    shown = ", ".join(found[:SHOWN_TOPICS]) + (", ..." if len(found) > SHOWN_TOPICS else "")
    return f"such images are on {shown}: remap to the right one (image:=TOPIC of the launch files)"


def quality_text(quality: QoSProfile) -> str:
    """What a subscription asks for, in two words."""
    reliable = quality.reliability == ReliabilityPolicy.RELIABLE
    return "reliable" if reliable else "best effort"


def _misfit(offer: TopicEndpointInfo, quality: QoSProfile) -> str:
    """Why the offered quality of service does not do, or "" where it does."""
    compatibility, reason = qos_check_compatible(offer.qos_profile, quality)
    if compatibility != QoSCompatibility.ERROR:
        return ""
    if quality.reliability == ReliabilityPolicy.RELIABLE != offer.qos_profile.reliability:
        return (
            "as best effort, while reliable is asked for: set image_reliability to best_effort, "
            "or have it publish as reliable"
        )
    return f"with another quality of service ({reason}): see qos_overrides"

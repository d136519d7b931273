# SPDX-License-Identifier: Apache-2.0
"""Why no image comes: who publishes the topic, as what type, and with which quality of service."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo


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
            found += f", but {other_topic} is: set image_transport to take that"
        return found
    fitting = [offer for offer in offers if offer.topic_type == type_name]
    if not fitting:
        names = ", ".join(f"{_name(offer)} as {offer.topic_type}" for offer in offers)
        return (
            f"{topic} is published by {names}, not as {type_name}: set image_transport to what it "
            "is, and remap that transport's topic to it"
        )
    faults = [(offer, _misfit(offer, quality)) for offer in fitting]
    if all(fault for _, fault in faults):
        return "; ".join(
            f"{_name(offer)} publishes {topic}, but {fault}" for offer, fault in faults
        )
    names = ", ".join(_name(offer) for offer, fault in faults if not fault)
    return f"{topic} is published by {names}, which has sent nothing"


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


def _name(offer: TopicEndpointInfo) -> str:
    return f"{offer.node_namespace.rstrip('/')}/{offer.node_name}"

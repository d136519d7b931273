# SPDX-License-Identifier: Apache-2.0
"""Node `lazyxmem_replay`: plays a rosbag2 bag (sqlite3 or MCAP), in step with the tracker if asked.

Messages go out as they were recorded, byte for byte. Topics are renamed the usual way
(`--ros-args -r /camera/image_raw:=/image`).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock as ClockMessage

from lazyxmem_ros.basics import MAX_SECONDS, SECOND, StampRangeError
from lazyxmem_ros.data.errors import BagError
from lazyxmem_ros.nodes.bags.lockstep import Lockstep
from lazyxmem_ros.nodes.bags.pacer import Pacer
from lazyxmem_ros.nodes.bags.rounds import Rounds
from lazyxmem_ros.nodes.bags.source import BagSource, BagTopic, header_stamp
from lazyxmem_ros.nodes.bags.stamped import UNSET, Stamps, find_message_type
from lazyxmem_ros.nodes.conversions import time_message
from lazyxmem_ros.nodes.diagnostics import LogLimiter
from lazyxmem_ros.nodes.logs import info_of, warning_of
from lazyxmem_ros.nodes.parameters import Changes, Parameters, ParameterSpec
from lazyxmem_ros.nodes.running import NodeStartError, run_node

NODE_NAME = "lazyxmem_replay"
QUEUE_DEPTH = 20
CLOCK_PERIOD_S = 0.01
POLL_PERIOD_S = 0.02
FLUSH_TIMEOUT_S = 2.0
SETTLE_S = 0.5
LONG_PAUSE_S = 5.0
"""Of steady time: what is waited for longer than this is said."""
MAX_SLEEP_S = 60.0
"""Python cannot sleep for centuries, which a recording with odd times may ask for."""
CLOCK_TOPIC = "/clock"
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")

PARAMETERS = (
    ParameterSpec(
        "bag",
        "",
        "The rosbag2 bag: its folder, or a single .mcap or .db3 file.",
        changes=Changes.NEVER,
    ),
    ParameterSpec("topics", (), "Topics to play; none = all.", changes=Changes.NEVER),
    ParameterSpec(
        "rate",
        1.0,
        "Speed against the recording; 0 = as fast as lockstep_topic allows.",
        bounds=(0.0, 1000.0),
        changes=Changes.NEVER,
    ),
    ParameterSpec(
        "start_offset",
        0.0,
        "Seconds to leave out at the beginning, from the first message of the played topics on.",
        bounds=(0.0, float("inf")),
        changes=Changes.NEVER,
    ),
    ParameterSpec(
        "duration",
        0.0,
        "Seconds of the recording to play; 0 = to its end.",
        bounds=(0.0, float("inf")),
        changes=Changes.NEVER,
    ),
    ParameterSpec(
        "loop",
        False,
        "Begin again at the end; header stamps (those in /tf, too) and /clock go on rising from "
        "one round to the next.",
        changes=Changes.NEVER,
    ),
    ParameterSpec(
        "clock",
        False,
        "Publish /clock with the recording's time, for nodes with use_sim_time; a recorded /clock "
        "is left out then.",
        changes=Changes.NEVER,
    ),
    ParameterSpec(
        "skip_gaps",
        0.0,
        "Seconds of the recording: a longer time without a message is cut to this; 0 = none is.",
        bounds=(0.0, float("inf")),
        changes=Changes.NEVER,
    ),
    ParameterSpec(
        "wait_for_subscribers",
        0,
        "Begin when every played topic has so many subscribers; 0 = at once.",
        bounds=(0, 1000),
        changes=Changes.NEVER,
    ),
    ParameterSpec(
        "wait_timeout",
        30.0,
        "Seconds of steady time to wait for subscribers before giving up; 0 = for ever.",
        bounds=(0.0, float("inf")),
        changes=Changes.NEVER,
    ),
    ParameterSpec(
        "lockstep_topic",
        "",
        "A mask topic: the next image goes out only when the mask of the last one was seen there; "
        "empty = keep time instead.",
        changes=Changes.NEVER,
    ),
    ParameterSpec(
        "lockstep_image_topic",
        "",
        "The image topic (its name in the bag) that lockstep_topic answers; empty = the first one.",
        changes=Changes.NEVER,
    ),
    ParameterSpec(
        "lockstep_timeout",
        30.0,
        "Seconds of steady time to wait for a mask before going on without it.",
        bounds=(0.001, float("inf")),
        changes=Changes.NEVER,
    ),
    ParameterSpec(
        "lockstep_wait_for_object",
        False,
        "Hold the first image until a mask of it shows an object.",
        changes=Changes.NEVER,
    ),
)


class ReplayStoppedError(Exception):
    """The node is ending; the player has nothing more to do."""


class ReplayNode(Node):
    """Plays a bag in a thread of its own while the node spins; ends when the bag does."""

    def __init__(self, **options: Any) -> None:
        """options: those of rclpy.node.Node.

        Raises ParameterError or NodeStartError where there is nothing that can be played.
        """
        super().__init__(NODE_NAME, **options)
        self.exit_code = 0
        self._settings = Parameters(self, PARAMETERS)
        if not self._settings["bag"]:
            raise NodeStartError("give the bag to play: --ros-args -p bag:=PATH")
        try:
            self._bag = BagSource(self._settings["bag"], self._settings["topics"], info_of(self))
        except BagError as error:
            raise NodeStartError(str(error)) from error
        self._clock_publisher = (
            self.create_publisher(ClockMessage, CLOCK_TOPIC, QUEUE_DEPTH)
            if self._settings["clock"]
            else None
        )
        self._clock_time = 0
        self._played = self._left_out = 0
        self._faults = LogLimiter(warning_of(self))
        self._publishers_by_topic = self._make_publishers()
        self._paced_topic = self._find_paced_topic()
        self._stopping = threading.Event()
        self._lockstep = self._make_lockstep()
        self._thread = threading.Thread(target=self._run, name="replay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop playing and close the bag."""
        self._stopping.set()
        if self._lockstep is not None:
            self._lockstep.end()
        self._thread.join()
        self._bag.__exit__(None, None, None)

    # ---- what is played

    def _make_publishers(self) -> dict[str, Publisher[Any]]:
        publishers = {}
        for topic in self._bag.topics:
            if self._clock_publisher is not None and topic.name == CLOCK_TOPIC:
                self.get_logger().info(
                    f"the recorded {CLOCK_TOPIC} is left out: with `clock` the times of recording "
                    "are published there"
                )
                continue
            message_type = find_message_type(topic.type_name)
            if message_type is None:
                why = (
                    f"its type {topic.type_name} is not installed, or none of a topic's messages "
                    "(PACKAGE/msg/NAME)"
                )
                if topic.name in self._settings["topics"]:
                    raise NodeStartError(f"topic {topic.name} cannot be played: {why}")
                self.get_logger().warning(f"{topic.name} is left out: {why}")
                continue
            try:
                publishers[topic.name] = self.create_publisher(
                    message_type, topic.name, _quality_of_service(topic)
                )
            except InvalidTopicNameException as error:
                raise NodeStartError(
                    f"topic {topic.name!r} cannot be published under this name: {error}; choose "
                    "others by `topics`, or rename it by -r OLD:=NEW"
                ) from error
        if not publishers:
            raise NodeStartError(f"bag {self._bag.path} has no topic that can be played")
        return publishers

    def _image_topics(self) -> list[str]:
        return [
            topic.name
            for topic in self._bag.topics
            if topic.type_name in IMAGE_TYPES and topic.name in self._publishers_by_topic
        ]

    def _find_paced_topic(self) -> str:
        if not self._settings["lockstep_topic"]:
            return ""
        images = self._image_topics()
        wanted = self._settings["lockstep_image_topic"]
        if wanted and wanted not in images:
            raise NodeStartError(
                f"lockstep_image_topic {wanted} is not an image topic that is played; those are "
                + (", ".join(images) or "none")
            )
        if not images:
            raise NodeStartError("lockstep needs an image topic, and none is played")
        return wanted or images[0]

    def _make_lockstep(self) -> Lockstep | None:
        topic = self._settings["lockstep_topic"]
        if not topic:
            return None
        return Lockstep(
            self,
            topic,
            timeout=self._settings["lockstep_timeout"],
            first_shows_object=self._settings["lockstep_wait_for_object"],
        )

    # ---- the player's thread

    def _run(self) -> None:
        try:
            try:
                self._wait_for_subscribers()
                self._play()
            except (BagError, StampRangeError) as error:
                self.get_logger().error(str(error))
                self.exit_code = 1
            self._flush()
        except ReplayStoppedError:
            return
        except Exception as error:
            # rcl's errors are RuntimeErrors: a signal ended the context under what was being sent.
            if self.context.ok() or not isinstance(error, RuntimeError):
                self.exit_code = 1
                raise
        finally:
            if not self._stopping.is_set():
                self.context.try_shutdown()

    def _wait_for_subscribers(self) -> None:
        wanted = self._settings["wait_for_subscribers"]
        timeout = self._settings["wait_timeout"] or float("inf")
        began = time.monotonic()
        said = False
        while True:
            short = [
                f"{publisher.topic_name} ({publisher.get_subscription_count()} of {wanted})"
                for publisher in self._publishers_by_topic.values()
                if publisher.get_subscription_count() < wanted
            ]
            if not short:
                if wanted:
                    # Being matched here does not yet mean being matched there.
                    self._pause(SETTLE_S)
                return
            waited = time.monotonic() - began
            if waited > timeout:
                raise BagError(f"no subscribers after {timeout:g} s on {', '.join(short)}")
            if waited > LONG_PAUSE_S and not said:
                said = True
                self.get_logger().info(f"waiting for subscribers on {', '.join(short)}")
            self._pause(POLL_PERIOD_S)

    def _play(self) -> None:
        first = self._first_moment()
        offset, length = self._nanoseconds("start_offset"), self._nanoseconds("duration")
        start = first + offset
        stop = min(self._bag.end, start + length) if length else self._bag.end
        if start > stop:
            seconds = (self._bag.end - first) / SECOND
            raise BagError(
                f"start_offset {self._settings['start_offset']:g} s lies beyond the bag's "
                f"{seconds:.3f} s"
            )
        beat = next(iter(self._image_topics() or self._publishers_by_topic))
        stamps = {t: Stamps(p.msg_type) for t, p in self._publishers_by_topic.items()}
        rounds = Rounds(beat, stamps)
        self._pacer, self._last_due = Pacer(self._settings["rate"], start), start
        try:
            while True:
                before = self._played
                self._play_once(start, stop, rounds)
                if not self._settings["loop"] or self._played == before:
                    break
                rounds.next(stop - start)
        finally:
            missed = 0 if self._lockstep is None else self._lockstep.missed
            late = f", {missed} masks did not come in time" if missed else ""
            left_out = f", {self._left_out} cannot be read" if self._left_out else ""
            if self.context.ok():  # or nobody can be told
                self.get_logger().info(f"played {self._played} messages{left_out}{late}")

    def _first_moment(self) -> int:
        """When the first of the messages that are played was recorded, ns; the bag's may not be."""
        for message in self._bag.messages(self._bag.start, self._bag.end):
            if message.topic in self._publishers_by_topic:
                return message.recorded_at
        return self._bag.start

    def _play_once(self, start: int, stop: int, rounds: Rounds) -> None:
        """One round."""
        awaited: tuple[int, int] | None = None  # when an image was recorded, and its stamp
        for message in self._bag.messages(start, stop):
            publisher = self._publishers_by_topic.get(message.topic)
            if publisher is None:
                continue
            # What was recorded at the image's own time may be what its mask depends on.
            if awaited is not None and message.recorded_at > awaited[0]:
                self._wait_for_mask(awaited[1])
                awaited = None
            due = rounds.due(message)
            self._cut_gap(due)
            self._wait_until(due)
            try:
                data = rounds.shifted(message)
            except BagError as error:  # no subscriber could read it either
                self._left_out += 1
                self._faults.say(message.topic, f"{message.topic}: left out: {error}")
                continue
            stamp = _stamp_of_image(data) if message.topic == self._paced_topic else UNSET
            if stamp != UNSET:
                assert self._lockstep is not None
                self._lockstep.send(stamp)
                awaited = (message.recorded_at, stamp)
            publisher.publish(data)
            self._played += 1
        if awaited is not None:
            self._wait_for_mask(awaited[1])

    def _nanoseconds(self, name: str) -> int:
        """A parameter that is a number of seconds, which may be infinite."""
        return round(min(self._settings[name], MAX_SECONDS) * SECOND)

    def _cut_gap(self, due: int) -> None:
        """Leave out what `skip_gaps` says of the time since the last message, or say that it is
        long.
        """
        gap, self._last_due = due - self._last_due, due
        longest = self._nanoseconds("skip_gaps")
        seconds = gap / SECOND
        if longest and gap > longest:
            self._pacer.skip(gap - longest)
            self.get_logger().info(
                f"{seconds:.1f} s without a message are cut to {self._settings['skip_gaps']:g} s"
            )
        elif (remaining := self._pacer.remaining(due)) > LONG_PAUSE_S:
            self.get_logger().info(
                f"{seconds:.1f} s without a message: the next one comes in {remaining:.1f} s; "
                "skip_gaps cuts such pauses"
            )

    def _wait_until(self, moment: int) -> None:
        """Until the recording's time `moment` (ns) has come; /clock is published on the way."""
        while True:
            if self._stopping.is_set() or not self.context.ok():
                raise ReplayStoppedError
            remaining = self._pacer.remaining(moment)
            if self._clock_publisher is not None:
                now = moment if remaining <= 0 else self._pacer.now()
                # Postponing and rounding must not turn it back.
                self._clock_time = max(self._clock_time, now)
                self._clock_publisher.publish(ClockMessage(clock=time_message(self._clock_time)))
            if remaining <= 0:
                return
            self._pause(min(remaining, CLOCK_PERIOD_S if self._clock_publisher else MAX_SLEEP_S))

    def _wait_for_mask(self, stamp: int) -> None:
        assert self._lockstep is not None
        self._pacer.postpone(self._lockstep.wait(stamp))

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds) or not self.context.ok():
            raise ReplayStoppedError

    def _flush(self) -> None:
        """Let reliable subscribers get the last messages before the node goes."""
        from rclpy.duration import Duration

        for publisher in self._publishers_by_topic.values():
            publisher.wait_for_all_acked(Duration(seconds=FLUSH_TIMEOUT_S))


def _stamp_of_image(data: bytes) -> int:
    """The stamp (ns) of a serialized image; UNSET where it is no time: it gets no mask."""
    try:
        return header_stamp(data)
    except StampRangeError:
        return UNSET


def _quality_of_service(topic: BagTopic) -> QoSProfile:
    durability = (
        DurabilityPolicy.TRANSIENT_LOCAL if topic.transient_local else DurabilityPolicy.VOLATILE
    )
    return QoSProfile(
        depth=QUEUE_DEPTH, reliability=ReliabilityPolicy.RELIABLE, durability=durability
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until the bag ends or it is asked to; returns the exit code."""
    return run_node(ReplayNode, arguments)


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""One tracker's topics and services, as the console uses them.

Messages come in the executor's thread, and go on to whoever was given as `hears`. What the console
asks for may be asked in any thread: it is done in the executor's.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future as ThreadFuture
from dataclasses import dataclass
from typing import Any, Protocol

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import ListParameters
from rclpy.node import Node, NodeNameNonExistentError
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.task import Future as RosFuture
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from lazyxmem_ros.basics import StampRangeError, stamp_of
from lazyxmem_ros.correction.base import Prompt
from lazyxmem_ros.msg import Correction, CorrectionRequest, TrackArray
from lazyxmem_ros.nodes.correction_client import AnswersCallback, CorrectionClient
from lazyxmem_ros.nodes.diagnostics import OK, status_name
from lazyxmem_ros.nodes.parameters import QOS_OVERRIDES
from lazyxmem_ros.nodes.running import surviving
from lazyxmem_ros.nodes.services import CALLS
from lazyxmem_ros.nodes.timers import create_steady_timer, end_timer
from lazyxmem_ros.srv import AddObjects, PauseObjects, RemoveObjects, RetractCorrection

PRESENCE_PERIOD_S = 0.5
PARAMETERS_TIMEOUT_S = 5.0
"""Of steady time: a tracker that does not tell its parameters for so long is asked again."""
UNMASKED_AFTER_S = 1.0
"""Without a mask for so long, images are shown as they are."""
UNMASKED_AFTER_PERIODS = 2.0
"""Of a tracker whose masks come more slowly than that: the time from one mask to the next."""
MAX_UNMASKED_AFTER_S = 10.0
"""Steady time in all three."""
MAX_WAITING_BYTES = 64 << 20
"""Of images that wait for their masks: two seconds of a usual camera. Of more those stay that the
tracker may have taken."""
PICTURE = QoSProfile(depth=2, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=64)
"""Answers may come at once: one for each object."""
LATCHED = QoSProfile(depth=20, durability=DurabilityPolicy.TRANSIENT_LOCAL)
IMAGE_TYPES = {"sensor_msgs/msg/Image": Image, "sensor_msgs/msg/CompressedImage": CompressedImage}
CORRECT_MASK_TYPE = "lazyxmem_ros/srv/CorrectMask"


class NotThereError(RuntimeError):
    """A service that nobody serves; the text names it."""


@dataclass(frozen=True)
class SeenFrame:
    """An image and what the tracker says of it, all still serialized.

    stamp: nanoseconds. image: a message of `image_type`. labels, entropy: Image messages, None
    where there is none.
    """

    stamp: int
    image: bytes
    image_type: type
    labels: bytes | None
    entropy: bytes | None


@dataclass(frozen=True)
class Presence:
    """Who is there. listening: whether the tracker subscribes to images; camera: whether somebody
    publishes them. takes_back: whether corrections can be undone.
    """

    tracker: bool = False
    listening: bool = False
    camera: bool = False
    corrector: bool = False
    takes_back: bool = False


class Hears(Protocol):
    """What a link tells, in the executor's thread."""

    def on_presence(self, presence: Presence) -> None:
        """Looked at regularly."""

    def on_frame(self, frame: SeenFrame) -> None:
        """A new frame; only while it is watched."""

    def on_tracks(self, message: TrackArray) -> None:
        """The objects of the newest frame."""

    def on_request(self, message: CorrectionRequest) -> None:
        """Somebody's help is wanted."""

    def on_answer(self, message: Correction) -> None:
        """An answer of anybody's, this console's own included."""

    def on_corrected(self, message: Correction) -> None:
        """What became of a correction."""

    def on_complaint(self, text: str) -> None:
        """What the tracker's diagnostics complain about; "" = nothing."""


class TrackerLink:
    """Listens to a tracker and calls its services."""

    def __init__(
        self, node: Node, name: str, hears: Hears, *, on_failure: Callable[[BaseException], None]
    ) -> None:
        """name: the tracker's full node name. on_failure(error): what a callback raised."""
        self.name = name
        self._node = node
        self._hears = hears
        self._on_failure = on_failure
        self._calls: deque[Callable[[], None]] = deque()
        self._wake = node.create_guard_condition(self._run_calls)
        self._presence = Presence()
        self._image_topic = ""
        self._image_type: type = Image
        self._image_topics: frozenset[str] = frozenset()
        """Those that the tracker's parameters name, of all that it listened to when asked."""
        self._asked_about: frozenset[str] = frozenset()
        self._asking: ThreadFuture[Any] | None = None
        self._asked_at = -math.inf
        self._watched = self._with_entropy = False
        self._pictures: dict[str, Any] = {}
        self._images: OrderedDict[int, bytes] = OrderedDict()
        self._at_mask: set[int] = set()
        """The stamps of those that had come when the newest mask came."""
        self._labels: OrderedDict[int, bytes] = OrderedDict()
        self._mask_came_at = -math.inf
        self._unmasked_after = UNMASKED_AFTER_S
        self._corrector: CorrectionClient | None = None
        self._services = {
            kind: node.create_client(kind, f"{name}/{service}", qos_profile=CALLS)
            for kind, service in (
                (AddObjects, "add_objects"),
                (RemoveObjects, "remove_objects"),
                (PauseObjects, "pause_objects"),
                (RetractCorrection, "retract_correction"),
                (ListParameters, "list_parameters"),
            )
        }
        self._answers = node.create_publisher(Correction, f"{name}/operator_correction", RELIABLE)
        self._subscriptions = [
            self._listen(TrackArray, f"{name}/tracks", hears.on_tracks, RELIABLE),
            self._listen(
                CorrectionRequest, f"{name}/correction_request", hears.on_request, LATCHED
            ),
            self._listen(Correction, f"{name}/operator_correction", hears.on_answer, RELIABLE),
            self._listen(Correction, f"{name}/corrected", hears.on_corrected, RELIABLE),
            self._listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, RELIABLE),
        ]
        self._timer = create_steady_timer(
            node, PRESENCE_PERIOD_S, surviving(self._look, on_failure)
        )

    # ---- in any thread

    def watch(self, *, pictures: bool, entropy: bool) -> None:
        """Whether images and masks are listened to, and the maps of uncertainty."""
        self._post(lambda: self._watch(pictures, entropy))

    def answer(self, correction: Correction) -> None:
        """Publishes a person's answer."""
        self._post(lambda: self._answers.publish(correction))

    def refine(
        self, image: Image, prompt: Prompt, *, timeout: float, on_answers: AnswersCallback
    ) -> None:
        """Asks the tracker's own correction service for a mask; on_answers: see CorrectionClient.

        It is called in the executor's thread, also where nobody serves.
        """
        self._post(
            lambda: self._correction_client().request(
                image, [prompt], timeout=timeout, on_answers=on_answers
            )
        )

    def call(self, kind: Any, request: Any) -> ThreadFuture[Any]:
        """Calls one of the tracker's services; the future may get a NotThereError."""
        done: ThreadFuture[Any] = ThreadFuture()
        self._post(lambda: self._call(kind, request, done))
        return done

    def _post(self, call: Callable[[], None]) -> None:
        self._calls.append(call)
        self._wake.trigger()

    # ---- in the executor's thread

    def close(self) -> None:
        """Leaves the graph."""
        self._watch(pictures=False, entropy=False)
        end_timer(self._node, self._timer)
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        for client in self._services.values():
            self._node.destroy_client(client)
        if self._corrector is not None:
            self._corrector.close()
        self._node.destroy_publisher(self._answers)
        self._node.destroy_guard_condition(self._wake)

    def _run_calls(self) -> None:
        while self._calls:
            surviving(self._calls.popleft(), self._on_failure)()

    def _listen(
        self,
        kind: Any,
        topic: str,
        callback: Callable[[Any], None],
        quality: QoSProfile,
        *,
        raw: bool = False,
    ) -> Any:
        return self._node.create_subscription(
            kind, topic, surviving(callback, self._on_failure), quality, raw=raw
        )

    def _call(self, kind: Any, request: Any, done: ThreadFuture[Any]) -> None:
        client = self._services[kind]
        if not client.service_is_ready():
            if done.set_running_or_notify_cancel():
                done.set_exception(NotThereError(f"service {client.srv_name} is not there"))
            return

        def finish(future: RosFuture[Any]) -> None:
            if not done.set_running_or_notify_cancel():
                return  # nobody waits any more
            error = future.exception()
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(future.result())

        asked = client.call_async(request)
        asked.add_done_callback(finish)

        def forget(_: object) -> None:
            if done.cancelled():
                self._post(lambda: client.remove_pending_request(asked))

        done.add_done_callback(forget)

    # ---- who is there

    def _look(self) -> None:
        namespace, _, name = self.name.rpartition("/")
        namespace = namespace or "/"
        there = (name, namespace) in self._node.get_node_names_and_namespaces()
        listening = False
        if there:
            try:
                listening = self._find_images(name, namespace)
                self._find_corrector(name, namespace)
            except NodeNameNonExistentError:  # it went since, or is only just being discovered
                there = False
        if not there:
            self._asked_about = frozenset()  # the next of that name may listen to others
        topic = self._image_topic
        self._presence = Presence(
            there,
            listening,
            bool(topic) and self._node.count_publishers(topic) > 0,
            self._corrector is not None and self._corrector.is_available(),
            self._services[RetractCorrection].service_is_ready(),
        )
        self._hears.on_presence(self._presence)

    def _find_images(self, name: str, namespace: str) -> bool:
        """Finds the images that the tracker listens to; whether it does."""
        found = self._node.get_subscriber_names_and_types_by_node(name, namespace)
        heard = {topic: IMAGE_TYPES[k] for topic, kinds in found for k in kinds if k in IMAGE_TYPES}
        if not heard.keys() <= self._asked_about:
            self._ask_for_image_topics(frozenset(heard))
        for topic in heard.keys() & self._image_topics:
            if (topic, heard[topic]) != (self._image_topic, self._image_type):
                self._image_topic, self._image_type = topic, heard[topic]
                self._watch(self._watched, self._with_entropy)
            return True
        return False

    def _ask_for_image_topics(self, heard: frozenset[str]) -> None:
        """Asks which of the topics that the tracker listens to are its images.

        Label maps are images, too, and may be remapped to any name; but of its images alone a
        tracker lets the quality of service be set, by parameters with the topic's name.
        """
        now = time.monotonic()
        if self._asking is not None and now - self._asked_at > PARAMETERS_TIMEOUT_S:
            self._asking.cancel()
            self._asking = None
        if self._asking is not None:
            return

        def learn(answered: ThreadFuture[Any]) -> None:
            if answered.cancelled():
                return
            self._asking = None
            if answered.exception() is None:  # else it is asked again
                names = answered.result().result.names
                self._image_topics = frozenset(name.split(".")[1] for name in names)
                self._asked_about = heard

        self._asking, self._asked_at = ThreadFuture(), now
        self._asking.add_done_callback(learn)
        self._call(ListParameters, ListParameters.Request(prefixes=[QOS_OVERRIDES]), self._asking)

    def _find_corrector(self, name: str, namespace: str) -> None:
        """Finds the service that the tracker itself calls."""
        found = self._node.get_client_names_and_types_by_node(name, namespace)
        service = next((topic for topic, kinds in found if CORRECT_MASK_TYPE in kinds), None)
        if service is None:
            return
        if self._corrector is not None and self._corrector.service_name != service:
            self._corrector.close()
            self._corrector = None
        if self._corrector is None:
            self._corrector = CorrectionClient(self._node, service=service)

    def _correction_client(self) -> CorrectionClient:
        if self._corrector is None:
            namespace = self.name.rpartition("/")[0]
            self._corrector = CorrectionClient(self._node, service=f"{namespace}/correct_mask")
        return self._corrector

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        begin = status_name(self.name, "")
        ours = [status for status in message.status if status.name.startswith(begin)]
        if ours:
            complaints = [f"{s.message}" for s in ours if s.level != OK]
            self._hears.on_complaint("; ".join(complaints))

    # ---- pictures

    def _watch(self, pictures: bool, entropy: bool) -> None:
        self._watched, self._with_entropy = pictures, pictures and entropy
        wanted: dict[str, tuple[Any, Callable[[bytes], None]]] = {}
        if pictures and self._image_topic:
            wanted[self._image_topic] = (self._image_type, self._on_image)
            wanted[f"{self.name}/mask"] = (Image, self._on_mask)
            if entropy:
                wanted[f"{self.name}/uncertainty"] = (Image, self._on_entropy)
        for topic in self._pictures.keys() - wanted.keys():
            self._node.destroy_subscription(self._pictures.pop(topic))
        for topic in wanted.keys() - self._pictures.keys():
            kind, callback = wanted[topic]
            self._pictures[topic] = self._listen(kind, topic, callback, PICTURE, raw=True)
        if not pictures:
            self._images.clear()
            self._labels.clear()

    def _on_image(self, data: bytes) -> None:
        try:
            stamp = _stamp_of(data)
        except StampRangeError:
            return  # the tracker says so
        if time.monotonic() - self._mask_came_at > self._unmasked_after:
            self._images.clear()
            self._show(SeenFrame(stamp, data, self._image_type, None, None))
        self._images[stamp] = data
        total = sum(len(image) for image in self._images.values())
        while total > MAX_WAITING_BYTES and len(self._images) > 1:
            total -= len(self._images.pop(self._least_needed()))

    def _least_needed(self) -> int:
        """The stamp of the image that goes where there are too many.

        When a mask is out the tracker takes the newest image, or else the next one. Later ones
        come for nothing, but for the newest when the next mask is out.
        """
        *others, _ = self._images
        earlier = [stamp for stamp in others if stamp in self._at_mask]
        return earlier[0] if len(earlier) > 1 else others[-1]

    def _on_mask(self, data: bytes) -> None:
        now = time.monotonic()
        usual = UNMASKED_AFTER_PERIODS * (now - self._mask_came_at)
        self._unmasked_after = min(max(usual, UNMASKED_AFTER_S), MAX_UNMASKED_AFTER_S)
        self._mask_came_at = now
        self._at_mask = set(self._images)
        stamp = _stamp_of(data)
        if self._with_entropy:  # which comes next
            self._labels.clear()
            self._labels[stamp] = data
        else:
            self._pair(stamp, data, None)

    def _on_entropy(self, data: bytes) -> None:
        stamp = _stamp_of(data)
        labels = self._labels.pop(stamp, None)
        if labels is not None:
            self._pair(stamp, labels, data)

    def _pair(self, stamp: int, labels: bytes, entropy: bytes | None) -> None:
        image = self._images.get(stamp)
        if image is None:
            return
        for older in [kept for kept in self._images if kept < stamp]:
            del self._images[older]
        self._show(SeenFrame(stamp, image, self._image_type, labels, entropy))

    def _show(self, frame: SeenFrame) -> None:
        self._hears.on_frame(frame)


def _stamp_of(data: bytes) -> int:
    """The stamp (ns) of a serialized message that begins with a header; raises StampRangeError."""
    return stamp_of(deserialize_message(data, Header).stamp)

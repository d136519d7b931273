# SPDX-License-Identifier: Apache-2.0
"""A session without ROS around it, on the network that comes with the package, and its scene."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from node_graph import FIRST_STAMP, STEP, header
from numpy.typing import NDArray

from lazyxmem_ros import weights
from lazyxmem_ros.basics import SECOND, stamp_of
from lazyxmem_ros.data.label_maps import MAX_OBJECTS
from lazyxmem_ros.lazy import LazyConfig, LazyTracker, iou_predictor_of
from lazyxmem_ros.nodes.conversions import image_message
from lazyxmem_ros.nodes.tracker.corrections import Corrections
from lazyxmem_ros.nodes.tracker.diagnostics import TrackerMeasures
from lazyxmem_ros.nodes.tracker.objects import Objects
from lazyxmem_ros.nodes.tracker.received_frames import ReceivedFrame, ReceivedFrames
from lazyxmem_ros.nodes.tracker.session import GivenMasks, TrackingSession
from lazyxmem_ros.xmem import MemoryConfig, XMemTracker, load_network

HEIGHT, WIDTH, RADIUS = 192, 320, 36


class Outputs:
    """Keeps what a session gives out: what is published, asked of the service, and refused."""

    def __init__(self) -> None:
        self.labels: dict[int, NDArray[np.uint16]] = {}
        self.order: list[int] = []
        self.tracks: dict[int, list[Any]] = {}
        self.corrected: list[tuple[bool, str]] = []
        self.asked: list[int] = []  # the frames' stamps
        self.refused: list[str] = []

    service_name = "correct_mask"

    def publish_frame(self, frame: Any, result: Any, *, largest_id: int) -> None:
        self.labels[frame.stamp] = frame.labels if result is None else result.labels
        self.order.append(frame.stamp)
        self.tracks[frame.stamp] = [] if result is None else result.tracks

    def ask(self, image: Any, prompts: Any, on_answers: Any) -> None:
        self.asked.extend(stamp_of(image.header.stamp) for _ in prompts)

    def publish_request(self, header: Any, request: Any, uncertainty: Any) -> None:
        self.asked.append(request.stamp)

    def publish_corrected(
        self, header: Any, object_id: int, mask: Any, *, source: Any, applied: bool, reason: str
    ) -> None:
        self.corrected.append((applied, reason))

    def record_objects(self, stamp: int, objects: Any) -> None:
        pass

    def begin_records_again(self) -> None:
        pass

    def refuse(self, topic: str, kind: str, fault: str) -> None:
        self.refused.append(f"{topic}: {kind}: {fault}")


class Scene:
    """Two textured discs that move over a blurred background."""

    def __init__(self) -> None:
        random = np.random.default_rng(4)
        noise = random.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        clouds = cv2.GaussianBlur(noise, (0, 0), 9).astype(float)
        self.background = np.clip((clouds - clouds.mean()) * 4 + 110, 0, 255).astype(np.uint8)
        self.textures = [
            np.clip(np.array(color) + self._grain(random), 0, 255).astype(np.uint8)
            for color in ((210, 60, 40), (50, 170, 60))
        ]

    @staticmethod
    def _grain(random: np.random.Generator) -> NDArray[np.float64]:
        return cv2.GaussianBlur(random.normal(0, 60, (HEIGHT, WIDTH)), (0, 0), 2)[..., None]

    def masks(self, index: int) -> dict[int, NDArray[np.bool_]]:
        rows, columns = np.mgrid[:HEIGHT, :WIDTH]
        step = 8 * index
        centres = {1: (61, 70 + step), 2: (130, 240 - step)}
        return {
            i: (rows - y) ** 2 + (columns - x) ** 2 < RADIUS**2 for i, (y, x) in centres.items()
        }

    def image(self, index: int) -> NDArray[np.uint8]:
        image = self.background.copy()
        for texture, mask in zip(self.textures, self.masks(index).values(), strict=True):
            image[mask] = texture[mask]
        return image


class Rig:
    """A session with its history, fed with frames of the scene by their number."""

    def __init__(
        self, max_objects: int = MAX_OBJECTS, *, predict_iou: bool = False, **settings: Any
    ) -> None:
        path = weights.locate("")
        network, predictor = load_network(path), iou_predictor_of(path) if predict_iou else None
        config = LazyConfig(operator_corrections=False, pseudo_corrections=False, **settings)
        tracker = XMemTracker(network, MemoryConfig())
        self.lazy = LazyTracker(tracker, config, iou_predictor=predictor)
        self.received = ReceivedFrames(1 << 30, 60 * SECOND)
        self.outputs = Outputs()
        measures = TrackerMeasures(self.outputs)  # type: ignore[arg-type]
        self.corrections = Corrections(
            self.lazy,
            self.received,
            self.outputs,
            self.outputs,
            measures,
            topic="operator_correction",
            retraction_service="retract_correction",
        )
        self.scene = Scene()
        self.keeps_up = True
        self.session = TrackingSession(
            self.lazy,
            self.received,
            self.outputs,
            self.corrections,
            measures,
            serve_commands=self._serve,
            keeps_up=lambda: self.keeps_up,
        )
        self.objects = Objects(
            self.lazy,
            self.received,
            self.session,
            self.corrections,
            measures,
            make_tracker=lambda: XMemTracker(network, MemoryConfig(long_term=False)),
            max_objects=max_objects,
        )
        self.meanwhile: list[Callable[[], object]] = []

    def _serve(self, done: Callable[[], bool], deadline: float) -> None:
        """The commands of `meanwhile`, as the worker serves those that come while a frame waits."""
        while self.meanwhile and not done():
            self.meanwhile.pop(0)()

    def ask_always(self, *meanwhile: Callable[[], object], **settings: Any) -> None:
        """Ask a person about every object on every frame, and have frames wait for the answer."""
        values = {
            "operator_corrections": True,
            "operator_entropy": 0.0,
            "cooldown_frames": 0,
            **settings,
        }
        self.session.configure(replace(self.lazy.config, **values), correction_wait=1.0)
        self.meanwhile[:] = meanwhile

    def frame(self, index: int) -> ReceivedFrame:
        message = image_message(self.scene.image(index), "rgb8", header(index))
        return ReceivedFrame(FIRST_STAMP + index * STEP, "image", message, time.monotonic())

    def receive(self, index: int) -> ReceivedFrame:
        """Received, and dropped for a newer one."""
        frame = self.frame(index)
        self.received.add(frame)
        return frame

    def track(self, *indices: int) -> bool:
        """Whether all of them were tracked."""
        return all([self.objects.process(self.receive(index)) for index in indices])

    def give(self, index: int, *object_ids: int) -> str:
        masks = {i: self.scene.masks(index)[i] for i in object_ids}
        return self.objects.give_masks(GivenMasks(FIRST_STAMP + index * STEP, masks, topic="init"))

    def overlap(self, index: int, object_id: int) -> float:
        labels = self.outputs.labels[FIRST_STAMP + index * STEP] == object_id
        truth = self.scene.masks(index)[object_id]
        return float((labels & truth).sum() / (labels | truth).sum())

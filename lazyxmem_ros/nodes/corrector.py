# SPDX-License-Identifier: Apache-2.0
"""Node `lazyxmem_correction`: serves `correct_mask`, in its own process and on its own device."""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lazyxmem_ros import weights
from lazyxmem_ros.basics import StampRangeError, stamp_of
from lazyxmem_ros.correction import (
    CORRECTOR_NAMES,
    DEFAULT_CORRECTOR,
    SAM_HQ_WEIGHTS,
    CorrectorError,
    Prompt,
    PromptError,
    make_corrector,
    validate_prompt,
)
from lazyxmem_ros.images import ImageError, read_image
from lazyxmem_ros.nodes import diagnostics
from lazyxmem_ros.nodes.conversions import mask_message
from lazyxmem_ros.nodes.image_limit import max_pixels_parameter
from lazyxmem_ros.nodes.logs import error_of, warning_of
from lazyxmem_ros.nodes.parameters import Changes, Parameters, ParameterSpec
from lazyxmem_ros.nodes.prompts import MAX_PROMPTS, UNKNOWN_IOU, read_prompt
from lazyxmem_ros.nodes.running import NodeStartError, run_node
from lazyxmem_ros.nodes.services import CALLS
from lazyxmem_ros.nodes.timers import create_steady_timer
from lazyxmem_ros.srv import CorrectMask

if TYPE_CHECKING:
    from lazyxmem_ros.correction import Corrector, Refinement

NODE_NAME = "lazyxmem_correction"
DIAGNOSTICS_PERIOD_S = 1.0
"""Of a request: one for each object that a tracker follows by default. They are answered one after
the other, and every other request waits meanwhile."""

PARAMETERS = (
    ParameterSpec(
        "corrector",
        DEFAULT_CORRECTOR,
        "What turns a prompt into a mask: sam_hq, refiner (the embedded network) or grabcut, which "
        "needs no weights; auto = that whose weights checkpoint names (the refiner's end in "
        ".safetensors); else sam_hq where it is installed and its weights are in the user's "
        "cache; else refiner.",
        choices=CORRECTOR_NAMES,
        changes=Changes.NEVER,
    ),
    ParameterSpec(
        "device",
        "auto",
        "Where it runs (but for grabcut): auto (a GPU where there is one), cpu, cuda or cuda:N.",
        changes=Changes.NEVER,
    ),
    ParameterSpec(
        "checkpoint",
        "",
        "Path of the SAM-HQ checkpoint, or of the refiner's; empty = the one in the user's cache "
        "directory, or the embedded one.",
        changes=Changes.NEVER,
    ),
    ParameterSpec(
        "model_type",
        "vit_tiny",
        "Size of the SAM-HQ network; has to fit the checkpoint. What auto finds in the cache is "
        "taken whatever its size.",
        choices=tuple(SAM_HQ_WEIGHTS.values()),
        changes=Changes.NEVER,
    ),
    max_pixels_parameter(Changes.NEVER),
)

ImageKey = tuple[int, str, int, int, int]


class CorrectionNode(Node):
    """Turns an image and prompts into a mask for each, one request after the other.

    The decoded image and the corrector's embedding of it are kept for the requests that follow
    with the same stamp, frame id, size and content.
    """

    def __init__(self, **options: Any) -> None:
        """options: those of rclpy.node.Node.

        Raises ParameterError or NodeStartError where the corrector cannot be made.
        """
        super().__init__(NODE_NAME, **options)
        self._settings = Parameters(self, PARAMETERS)
        self._corrector = self._make_corrector()
        self._last_image: tuple[ImageKey, NDArray[np.uint8]] | None = None
        self._counts = diagnostics.Counts()
        self._recent = diagnostics.Recent(self._counts)
        self._last_failure = ""
        self._latencies = diagnostics.Latencies()
        self._refusals = diagnostics.Refusals(warning_of(self))
        self._failures = diagnostics.LogLimiter(error_of(self))
        self._publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._service = self.create_service(
            CorrectMask, "correct_mask", self._correct, qos_profile=CALLS
        )
        self._timer = create_steady_timer(self, DIAGNOSTICS_PERIOD_S, self._report)
        self.get_logger().info(f"{self._corrector.name} serves {self._service.srv_name}")

    def _make_corrector(self) -> Corrector:
        name, model_type = self._settings["corrector"], self._settings["model_type"]
        checkpoint = self._settings["checkpoint"]
        try:
            if name == "sam_hq":
                checkpoint = weights.locate(checkpoint or f"sam-hq-{model_type[len('vit_') :]}")
            return make_corrector(
                name,
                device=self._settings["device"],
                checkpoint=checkpoint or None,
                model_type=model_type,
            )
        except (CorrectorError, weights.WeightsError, ValueError, OSError) as error:
            raise NodeStartError(f"corrector {name!r} could not be made: {error}") from error

    def _correct(
        self, request: CorrectMask.Request, response: CorrectMask.Response
    ) -> CorrectMask.Response:
        started = time.monotonic()
        response.corrector = self._corrector.name
        count = max(len(request.prompts), 1)
        self._counts.add("requests", count)
        try:
            answers = self._answers(request)
            masks = [_mask_of(answer, request.image.header) for answer in answers]
        except (ImageError, PromptError, CorrectorError, StampRangeError) as error:
            self._refuse(error, count)
            response.message = str(error)
            return response
        except Exception as error:  # noqa: BLE001 - whatever it is, the server outlives it
            self._counts.add("failed", count)
            self._failures.say(type(error).__name__, diagnostics.traced(error))
            self._last_failure = diagnostics.cut(f"{type(error).__name__}: {error}")
            response.message = self._last_failure
            return response
        response.masks = masks
        faults = [str(answer) for answer in answers if isinstance(answer, Exception)]
        for answer in answers:
            if isinstance(answer, Exception):
                self._refuse(answer)
                response.faults.append(str(answer))
                response.scores.append(0.0)
            else:
                self._counts.add("answered")
                response.faults.append("")
                response.scores.append(float(answer.score))
        response.success = not faults
        response.message = "; ".join(dict.fromkeys(faults))
        self._latencies.add(time.monotonic() - started)
        return response

    def _answers(self, request: CorrectMask.Request) -> list[Refinement | Exception]:
        """What becomes of each prompt: its refinement, or why there is none.

        Raises ImageError, PromptError or CorrectorError where none of them can be looked at.
        """
        key = image_key(request.image)
        image = self._image(request.image, key)
        height, width = image.shape[:2]
        prompts = _read_prompts(request, (height, width))
        usable = [prompt for prompt in prompts if isinstance(prompt, Prompt)]
        refinements = iter(self._corrector.refine(image, usable, image_key=key) if usable else ())
        answers: list[Refinement | Exception] = []
        for prompt in prompts:
            if isinstance(prompt, Exception):
                answers.append(prompt)
            elif (refinement := next(refinements)).score > 0:
                answers.append(refinement)
            else:
                answers.append(CorrectorError("the corrector found nothing"))
        return answers

    def _refuse(self, error: Exception, count: int = 1) -> None:
        self._counts.add("refused", count)
        self._refusals.refuse(self._service.srv_name, type(error).__name__, str(error))

    def _image(self, message: Image, key: ImageKey | None) -> NDArray[np.uint8]:
        if key is not None and self._last_image is not None and self._last_image[0] == key:
            return self._last_image[1]
        try:
            image = read_image(message, max_pixels=self._settings["max_pixels"]).rgb()
        except ImageError as error:  # who asked has a limit of the same name
            name = self.get_fully_qualified_name()
            raise ImageError(f"{name} cannot read it: {error}") from error
        self._last_image = (key, image) if key is not None else None
        return image

    def _report(self) -> None:
        values = {
            **{name: self._counts[name] for name in ("requests", "answered", "refused", "failed")},
            "latency p50 (ms)": self._latencies.milliseconds(50),
            "latency p99 (ms)": self._latencies.milliseconds(99),
            **self._refusals.snapshot(),
        }
        level, message = diagnostics.OK, "ok"
        if failed := self._recent.look().get("failed", 0):
            level = diagnostics.ERROR
            message = (
                f"{failed} prompts failed in the last {self._recent.span_s:.0f} s: "
                f"{self._last_failure}"
            )
        status = diagnostics.status(
            diagnostics.status_name(self.get_fully_qualified_name(), self._corrector.name),
            values,
            level=level,
            message=message,
            # A corrector that names no device has none but the processor.
            hardware_id=diagnostics.hardware(str(getattr(self._corrector, "device", "cpu"))),
        )
        now = self.get_clock().now()
        self._publisher.publish(diagnostics.diagnostic_array(now, [status]))


def _mask_of(answer: Refinement | Exception, header: Header) -> Image:
    """The mask of one answer, empty where there is none."""
    return Image() if isinstance(answer, Exception) else mask_message(answer.mask, header)


def image_key(message: Image) -> ImageKey | None:
    """What tells one frame from another: its stamp, frame id and size, and a checksum of the data.

    Cameras that are triggered together have one stamp, and often one frame id. None without a
    stamp: then nothing says that two images are the same. Raises StampRangeError.
    """
    header = message.header
    stamp = stamp_of(header.stamp)
    if not stamp:
        return None
    checksum = zlib.crc32(message.data)
    return stamp, header.frame_id, message.height, message.width, checksum


def _read_prompts(
    request: CorrectMask.Request, size: tuple[int, int]
) -> list[Prompt | PromptError | ImageError]:
    """The request's prompts for an image of `size` (H, W), or what is wrong with each.

    Raises PromptError where there is none, more than MAX_PROMPTS, or another number of prior_ious.
    """
    count = len(request.prompts)
    if not count:
        raise PromptError("the request has no prompt; send one for each object")
    if count > MAX_PROMPTS:
        raise PromptError(f"the request has {count} prompts; send at most {MAX_PROMPTS} at a time")
    if len(request.prior_ious) not in (0, count):
        raise PromptError(
            f"the request has {len(request.prior_ious)} prior_ious for {count} prompts; send one "
            "for each (0 where it is not known), or none"
        )
    prompts: list[Prompt | PromptError | ImageError] = []
    for message, prior_iou in zip(
        request.prompts, request.prior_ious or [UNKNOWN_IOU] * count, strict=True
    ):
        try:
            prompt = read_prompt(message, size, prior_iou=prior_iou)
            validate_prompt(prompt, size)
        except (PromptError, ImageError) as error:
            prompts.append(error)
        else:
            prompts.append(prompt)
    return prompts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until it is asked to end; returns the exit code."""
    return run_node(CorrectionNode, arguments)


if __name__ == "__main__":
    sys.exit(main())

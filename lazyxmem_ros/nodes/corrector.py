# SPDX-License-Identifier: Apache-2.0
"""Node `lazyxmem_correction`: serves `correct_mask`, in its own process and on its own device."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import Image

from lazyxmem_ros import weights
from lazyxmem_ros.basics import stamp_of
from lazyxmem_ros.correction import CORRECTOR_NAMES, DEFAULT_CORRECTOR, SAM_HQ_WEIGHTS
from lazyxmem_ros.nodes import diagnostics
from lazyxmem_ros.nodes.conversions import (
    ImageError,
    is_empty,
    mask_message,
    read_image,
    read_mask,
    read_points,
    read_region,
)
from lazyxmem_ros.nodes.parameters import Changes, Parameters, ParameterSpec
from lazyxmem_ros.nodes.running import NodeStartError, run_node
from lazyxmem_ros.nodes.timers import create_steady_timer
from lazyxmem_ros.srv import CorrectMask

if TYPE_CHECKING:
    from lazyxmem_ros.correction.base import Corrector, Prompt

NODE_NAME = "lazyxmem_correction"
DIAGNOSTICS_PERIOD_S = 1.0

PARAMETERS = (
    ParameterSpec(
        "corrector",
        DEFAULT_CORRECTOR,
        "What turns a prompt into a mask: sam_hq needs a checkpoint, refiner is the embedded "
        "network, grabcut needs no weights; auto = sam_hq where its weights are in the user's "
        "cache, else refiner.",
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
        "Size of the SAM-HQ network; has to fit the checkpoint.",
        choices=tuple(SAM_HQ_WEIGHTS.values()),
        changes=Changes.NEVER,
    ),
)

ImageKey = tuple[int, str, int, int]


class CorrectionNode(Node):
    """Turns (image, prompt) into a mask, one request after the other.

    The decoded image and the corrector's embedding of it are kept for the requests that follow
    with the same stamp, frame id and size.
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
        self._latencies = diagnostics.Latencies()
        self._refusals = diagnostics.Refusals(self.get_logger().warning)
        self._publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._service = self.create_service(CorrectMask, "correct_mask", self._correct)
        self._timer = create_steady_timer(self, DIAGNOSTICS_PERIOD_S, self._report)
        self.get_logger().info(f"{self._corrector.name} serves {self._service.srv_name}")

    def _make_corrector(self) -> Corrector:
        # Imported late: Ctrl-C while PyTorch loads is then an ordinary end.
        from lazyxmem_ros.correction import CorrectorError, make_corrector

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
        from lazyxmem_ros.correction import CorrectorError, PromptError

        started = time.monotonic()
        response.corrector = self._corrector.name
        self._counts.add("requests")
        try:
            image = self._image(request.image)
            prompt = read_prompt(request, image.shape[:2])
            key = image_key(request.image)
            refinement = self._corrector.refine(image, [prompt], image_key=key)[0]
            if not refinement.score > 0:
                raise CorrectorError("the corrector found nothing")
        except (ImageError, PromptError, CorrectorError) as error:
            self._counts.add("refused")
            self._refusals.refuse(self._service.srv_name, type(error).__name__, str(error))
            response.message = str(error)
            return response
        except Exception as error:  # noqa: BLE001 - whatever it is, the server outlives it
            self._counts.add("failed")
            self.get_logger().error(traceback.format_exc())
            response.message = f"{type(error).__name__}: {error}"
            return response
        self._counts.add("answered")
        self._latencies.add(time.monotonic() - started)
        response.success = True
        response.mask = mask_message(refinement.mask, request.image.header)
        response.score = float(refinement.score)
        return response

    def _image(self, message: Image) -> NDArray[np.uint8]:
        key = image_key(message)
        if key is not None and self._last_image is not None and self._last_image[0] == key:
            return self._last_image[1]
        image = read_image(message).rgb()
        self._last_image = (key, image) if key is not None else None
        return image

    def _report(self) -> None:
        values = {
            **{name: self._counts[name] for name in ("requests", "answered", "refused", "failed")},
            "latency p50 (ms)": self._latencies.milliseconds(50),
            "latency p99 (ms)": self._latencies.milliseconds(99),
            **self._refusals.snapshot(),
        }
        status = diagnostics.status(
            f"{self.get_name()}: {self._corrector.name}",
            values,
            hardware_id=self._settings["device"],
        )
        now = self.get_clock().now()
        self._publisher.publish(diagnostics.diagnostic_array(now, [status]))


def image_key(message: Image) -> ImageKey | None:
    """What tells one frame from another: its stamp, frame id and size.

    None without a stamp: then nothing says that two images are the same.
    """
    header = message.header
    stamp = stamp_of(header.stamp)
    return (stamp, header.frame_id, message.height, message.width) if stamp else None


def read_prompt(request: CorrectMask.Request, size: tuple[int, ...]) -> Prompt:
    """The request's clicks, box and prior mask as a Prompt.

    Raises ImageError where the prior does not fit the image of `size` (H, W); what a corrector
    cannot use (nothing given, points outside) is left for it to refuse.
    """
    from lazyxmem_ros.correction.base import Prompt

    prior = None
    if not is_empty(request.prior):
        prior = read_mask(request.prior)
        if prior.shape != size:
            raise ImageError(
                f"the prior mask is {prior.shape[1]}x{prior.shape[0]}, "
                f"the image {size[1]}x{size[0]} pixels"
            )
    return Prompt(
        positive=read_points(request.positive),
        negative=read_points(request.negative),
        box=read_region(request.box) if request.has_box else None,
        mask=prior,
        prior_iou=request.prior_iou or None,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until it is asked to end; returns the exit code."""
    return run_node(CorrectionNode, arguments)


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Answers the tracker's requests by a rule: the largest piece of its mask is the object.

python3 answer_requests.py [--ros-args -r __ns:=/robot/lazyxmem_tracker]
"""

import contextlib
import time

import cv2
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import RegionOfInterest

from lazyxmem_ros.msg import Correction, CorrectionRequest, Prompt


class Answerer(Node):
    """Lives in the namespace of the tracker's own topics."""

    def __init__(self) -> None:
        super().__init__("answer_requests", namespace="/lazyxmem_tracker")
        self._answers = self.create_publisher(Correction, "operator_correction", 10)
        while rclpy.ok() and not self._answers.get_subscription_count():
            time.sleep(0.1)  # an answer that nobody hears yet would be lost
        self.create_subscription(CorrectionRequest, "correction_request", self._on_request, 10)

    def _on_request(self, request: CorrectionRequest) -> None:
        mask = np.frombuffer(request.mask.data, np.uint8).reshape(request.mask.height, -1)
        _, _, pieces, _ = cv2.connectedComponentsWithStats(mask)
        answer = Correction(header=request.header, id=request.id)  # which frame, which object
        if len(pieces) > 1:  # the first one is the background
            piece = max(pieces[1:], key=lambda row: row[cv2.CC_STAT_AREA])
            x, y, width, height = (int(value) for value in piece[:4])
            box = RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)
            answer.prompt = Prompt(has_box=True, box=box)
        else:
            answer.message = "nothing is left of the mask"  # there is nothing to correct
        self._answers.publish(answer)
        self.get_logger().info(f"answered for object {request.id}: {request.reason}")


def main() -> None:
    """Answer until Ctrl-C."""
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(Answerer())


if __name__ == "__main__":
    main()

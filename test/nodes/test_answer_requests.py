# SPDX-License-Identifier: Apache-2.0
"""The example that answers requests, as it stands, and the real tracker."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from node_graph import HEIGHT, WAIT_S, WIDTH, header, wait_for
from tracker_harness import Tracker, ask_the_operator

from lazyxmem_ros.nodes.conversions import mask_message


def test_its_box_is_around_the_largest_piece_and_the_tracker_takes_it(
    tracker: Tracker, root: Path
) -> None:
    example = root / "examples" / "answer_requests.py"
    namespace = ["--ros-args", "-r", f"__ns:={tracker.name}"]
    process = subprocess.Popen([sys.executable, str(example), *namespace])
    try:
        topic = f"{tracker.name}/correction_request"
        wait_for(lambda: tracker.probe.node.count_subscribers(topic) > 1, "the example")
        answers = f"{tracker.name}/operator_correction"
        wait_for(lambda: tracker.probe.node.count_publishers(answers) > 0, "its answers' topic")
        asked = ask_the_operator(tracker)
        wait_for(lambda: tracker.out("corrected"), "what became of the answer")
        assert tracker.out("corrected")[0].header == asked.header

        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[5:8, 5:9] = mask[20:40, 30:70] = True
        asked.mask = mask_message(mask, header(1))
        tracker.service.requests.clear()
        tracker.service.truth = mask
        tracker.probe.publish(topic, asked)
        wait_for(lambda: len(tracker.out("corrected")) == 2, "what became of the box")
        assert tracker.out("corrected")[1].applied, tracker.out("corrected")[1].message
        [prompt] = tracker.service.prompts
        box = prompt.box
        assert (box.x_offset, box.y_offset, box.width, box.height) == (30, 20, 40, 20)

        asked.mask = mask_message(np.zeros_like(mask), header(1))
        tracker.probe.publish(topic, asked)
        wait_for(lambda: len(tracker.out("corrected")) == 3, "the answer in words")
        assert not tracker.out("corrected")[2].applied
        assert "nothing is left" in tracker.out("corrected")[2].message
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0

# SPDX-License-Identifier: Apache-2.0
"""A sequence as a bag that can be replayed and scored: images, first masks, ground truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lazyxmem_ros.data.bags import IMAGE_TYPE, BagWriter, StampedImage, StampedLabels
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.sequences import BagSequence, VideoSequence
from lazyxmem_ros.evaluation.graph.launch import INIT_TOPIC

IMAGE_TOPIC = "/camera/image_raw"
COMPRESSED_TOPIC = f"{IMAGE_TOPIC}/compressed"
TRUTH_TOPIC = "/ground_truth"
FIRST_STAMP = 1_700_000_000_000_000_000
"""ns; a stamp of 0 would mean "now" to many a node."""


def export_bag(
    sequence: VideoSequence,
    path: Path,
    *,
    compression: str = "jpeg",
    storage: str = "mcap",
    progressed: Callable[[int], None] = lambda frames: None,
    faulty: Callable[[str], None] = lambda fault: None,
) -> BagSequence:
    """Write a sequence into a new bag; returns the bag as a sequence, with its ground truth if any.

    Its stamps begin at FIRST_STAMP. compression: "jpeg", "png" or "none" (raw images). Masks of
    objects go to the tracker's init-mask topic on the frame on which they begin. faulty: is told
    what is wrong with a frame. Raises DatasetError where no object begins.
    """
    topic = IMAGE_TOPIC if compression == "none" else COMPRESSED_TOPIC
    frames = begun = annotated = 0
    offset = None
    with BagWriter(path, storage=storage) as bag:
        bag.declare(TRUTH_TOPIC, IMAGE_TYPE)  # the simulated operator looks there in any case
        for sample in sequence.samples():
            if offset is None:
                offset = FIRST_STAMP - sample.stamp
            for fault in sample.faults:
                faulty(fault)
            if sample.image is None:
                continue
            stamp = offset + sample.stamp
            if sample.given:
                begun += len(sample.given)
                labels = np.zeros(sample.image.shape[:2], np.uint16)
                for object_id, mask in sample.given.items():
                    labels[mask] = object_id
                bag.write_labels(INIT_TOPIC, StampedLabels(stamp, labels))
            bag.write_image(topic, StampedImage(stamp, sample.image), compression=compression)
            if sample.truth is not None:
                annotated += 1
                bag.write_labels(TRUTH_TOPIC, StampedLabels(stamp, sample.truth))
            frames += 1
            progressed(frames)
    if not begun:
        raise DatasetError(f"{sequence.name}: no frame has a mask of an object to track")
    truth_topic = TRUTH_TOPIC if annotated else None
    return BagSequence(sequence.name, path, topic, frames, truth_topic, init_topic=INIT_TOPIC)

# SPDX-License-Identifier: Apache-2.0
"""Writes a sequence into a bag that can be replayed and scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from lazyxmem_ros.data.bag_messages import IMAGE_TYPE, StampedImage, StampedLabels
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.data.errors import DatasetError, because
from lazyxmem_ros.data.layouts.bags import BagSequence
from lazyxmem_ros.data.samples import Sample, VideoSequence, begin_late, jump_ahead, with_next
from lazyxmem_ros.evaluation.graph.names import INIT_TOPIC

IMAGE_TOPIC = "/camera/image_raw/compressed"
TRUTH_TOPIC = "/ground_truth"
FIRST_STAMP = 1_700_000_000_000_000_000
"""The first frame's stamp, ns: to many a node a stamp of 0 would mean "now"."""


def export_bag(
    sequence: VideoSequence,
    path: Path,
    *,
    compression: str = "jpeg",
    progressed: Callable[[int], None] = lambda frames: None,
    faulty: Callable[[str], None] = lambda fault: None,
) -> BagSequence:
    """Write a sequence into a new bag; returns the bag as a sequence, with its ground truth if any.

    The stamps are moved so that they begin at FIRST_STAMP; the bag's frames keep the sequence's
    keys. Frames whose stamps do not rise are left out. Images go to IMAGE_TOPIC, ground truth
    to TRUTH_TOPIC, masks of objects to INIT_TOPIC on the frame on which they begin. compression:
    "jpeg" or "png". progressed: is told how many frames are written; faulty: what is wrong with a
    frame. Raises DatasetError where no object begins.
    """
    frames = begun = annotated = 0
    offset = None
    faults: list[str] = []
    keys: list[tuple[int, str]] = []
    with BagWriter(path) as bag:
        bag.declare(TRUTH_TOPIC, IMAGE_TYPE)  # the simulated operator looks there in any case
        for sample in _rising(sequence.samples()):
            for fault in sample.faults:
                faults.append(fault)
                faulty(fault)
            if sample.image is None:
                continue
            if offset is None:
                offset = FIRST_STAMP - sample.stamp
            stamp = offset + sample.stamp
            keys.append((stamp, sample.key))
            if sample.given:
                begun += len(sample.given)
                labels = np.zeros(sample.image.shape[:2], np.uint16)
                for object_id, mask in sample.given.items():
                    labels[mask] = object_id
                bag.write_labels(INIT_TOPIC, StampedLabels(stamp, labels))
            bag.write_image(IMAGE_TOPIC, StampedImage(stamp, sample.image), compression=compression)
            if sample.truth is not None:
                annotated += 1
                bag.write_labels(TRUTH_TOPIC, StampedLabels(stamp, sample.truth))
            frames += 1
            progressed(frames)
    if not begun:
        raise DatasetError(
            f"{sequence.name}: no frame has a mask of an object to track"
            + (because(faults) or f"; {sequence.mask_advice}")
        )
    truth_topic = TRUTH_TOPIC if annotated else None
    return BagSequence(
        name=sequence.name,
        path=path,
        image_topic=IMAGE_TOPIC,
        frames=frames,
        truth_topic=truth_topic,
        init_topic=INIT_TOPIC,
        keys=tuple(keys),
    )


def _rising(samples: Iterable[Sample]) -> Iterator[Sample]:
    """The samples, without the images of those that are not later than the one before, or later
    than the next: the offline run leaves them out, too. Their objects begin on the next that shows
    them.
    """
    newest: int | None = None
    late: set[int] = set()
    for sample, following in with_next(samples):
        fault = jump_ahead(sample, following, newest or 0)
        if newest is not None and sample.stamp <= newest:
            fault = "its stamp is not later than that of the frame before; it is left out"
        if sample.image is not None and fault:
            sample.faults.append(f"frame {sample.key}: {fault}")
            sample.image = None
            late |= sample.given.keys()
        elif sample.image is not None:
            newest = sample.stamp
            late -= begin_late(sample, late)
        yield sample

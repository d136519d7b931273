# SPDX-License-Identifier: Apache-2.0
"""What a dataset's path alone does not say: its layout, its masks, which sequences and how."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from lazyxmem_ros.data.errors import DatasetError


class Layout(enum.Enum):
    """How a dataset lies on the disk."""

    AUTO = "auto"
    DAVIS2016 = "davis2016"
    """JPEGImages/480p/NAME/*.jpg, Annotations/480p/NAME/*.png, binary masks."""
    DAVIS2017 = "davis2017"
    """The same with indexed masks."""
    LVOS = "lvos"
    """JPEGImages/NAME/*.jpg, Annotations/NAME/*.png; objects may begin later, masks have gaps."""
    FOLDER = "folder"
    """A folder of frames and one of label maps: its folder `masks`, or as told."""
    VIDEO = "video"
    """A video file, and a folder of label maps named by the number of their frame, from 0."""
    BAG = "bag"
    """A rosbag2 bag, sqlite3 or MCAP, or a ROS 1 bag."""
    SCENE = "scene"
    """The generated scene."""


OF_USE = {
    Layout.FOLDER: {"masks", "first_mask", "rate"},
    Layout.VIDEO: {"masks", "first_mask", "rate"},
    Layout.BAG: {"masks", "first_mask", "image_topic", "truth_topic"},
    Layout.SCENE: set(),
}
"""The options about files and topics that say something; about a tree it is the rate."""


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """What a path alone does not say.

    masks: folder of label maps (FOLDER, VIDEO), or of maps by stamp (BAG). first_mask: label map
    for the first frame (FOLDER, VIDEO and BAG without ground truth). image_topic, truth_topic: of
    bags. rate: frames per second of files, None = the layout's. sequences: only these names.
    every_nth_frame, twin, cut, passes: views of each of them (see `data.stress`, RepeatedSequence),
    made in this order; cut: the name of the sequence that is cut into all others. binary: whatever
    is not 0 in a mask file is object 1, also where the masks themselves do not say so.
    """

    layout: Layout = Layout.AUTO
    masks: Path | None = None
    first_mask: Path | None = None
    image_topic: str | None = None
    truth_topic: str | None = None
    rate: float | None = None
    sequences: tuple[str, ...] = ()
    passes: int = 1
    binary: bool = False
    every_nth_frame: int = 1
    twin: bool = False
    cut: str | None = None


def check_of_use(layout: Layout, options: DatasetOptions) -> None:
    """Raise DatasetError for an option that would change nothing."""
    for name in ("masks", "first_mask", "image_topic", "truth_topic", "rate"):
        if getattr(options, name) is not None and name not in OF_USE.get(layout, {"rate"}):
            raise DatasetError(
                f"--{name.replace('_', '-')} says nothing about a dataset of the layout "
                f"{layout.value}: leave it out"
            )
    if options.masks is not None and options.truth_topic is not None:
        raise DatasetError("the ground truth of a bag is in --masks or --truth-topic, not both")

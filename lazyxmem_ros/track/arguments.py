# SPDX-License-Identifier: Apache-2.0
"""The command line of `lazyxmem track`: what is there before anything heavy is imported."""

from __future__ import annotations

import argparse

from lazyxmem_ros.basics import PRECISIONS, path_argument
from lazyxmem_ros.correction import CORRECTOR_NAMES
from lazyxmem_ros.data.videos import DEFAULT_RATE
from lazyxmem_ros.extras import BACKENDS
from lazyxmem_ros.lazy import LazyConfig
from lazyxmem_ros.weights import EMBEDDED_INTERNAL_SIZE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("video", type=path_argument, help="a video file, or a folder of frames")
    parser.add_argument(
        "--mask",
        type=path_argument,
        required=True,
        help="PNG that shows the objects on the first frame: black and white, or a cut-out with "
        "transparent surroundings, for one object; or a label map, indexed, grey or of 16 bits, in "
        "which 0 is background and any other value an object's id, 1 to 254 (16 bits: to 65535). "
        "255 beside ids of 8 bits is ignored",
    )
    parser.add_argument(
        "--binary", action="store_true", help="whatever is not 0 in the mask is one object, id 1"
    )
    parser.add_argument(
        "--out",
        type=path_argument,
        required=True,
        help="folder for masks, overlay and tracks.csv, a row per frame and object",
    )
    parser.add_argument(
        "--rate",
        type=float,
        help=f"frames per second (default: the video's own times; of a folder {DEFAULT_RATE:g})",
    )
    parser.add_argument(
        "--weights", default="", help="a known name or a file (default: the embedded tracker)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="of the convolutions; auto: bfloat16 where the processor is quick with it",
    )
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="auto",
        help="what computes the convolutions; auto: the quickest of those that are installed",
    )
    parser.add_argument(
        "--max-internal-size",
        type=int,
        default=EMBEDDED_INTERNAL_SIZE,
        help="short side inside the tracker, pixels; 0: the image's own (default: %(default)s)",
    )
    parser.add_argument(
        "--show-iou",
        type=float,
        metavar="IOU",
        default=LazyConfig().show_iou,
        help="a mask of which the tracker expects less than this IoU is left out, being probably "
        "of something else; 0: every mask is written (default: %(default)s)",
    )
    parser.add_argument(
        "--corrector",
        choices=["none", *CORRECTOR_NAMES],
        default="none",
        help="who carries out the tracker's own corrections (default: %(default)s)",
    )
    parser.add_argument(
        "--corrector-weights", help="checkpoint of the corrector, if not that in the user's cache"
    )
    parser.add_argument("--corrector-model", help="SAM-HQ's size (default: vit_tiny)")
    parser.add_argument(
        "--strict", action="store_true", help="stop at the first frame that cannot be read"
    )
    parser.add_argument("--no-overlay", action="store_true", help="write no overlay video")

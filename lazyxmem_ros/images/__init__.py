# SPDX-License-Identifier: Apache-2.0
"""Pictures, free of ROS: decoding images of messages and files, drawing, writing videos.

There is one reader. The nodes, bags, image files and `~/overlay` all go through it, so that the
same bytes give the same pixels everywhere.
"""

from lazyxmem_ros.images.messages import check_image, label_values, read_image
from lazyxmem_ros.images.pixels import MAX_PIXELS, ChannelOrder, ImageError, Pixels
from lazyxmem_ros.images.raw import ENCODINGS

__all__ = [
    "ENCODINGS",
    "MAX_PIXELS",
    "ChannelOrder",
    "ImageError",
    "Pixels",
    "check_image",
    "label_values",
    "read_image",
]

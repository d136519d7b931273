# SPDX-License-Identifier: Apache-2.0
"""Follows objects through a video or a folder of frames, without ROS.

`track_frames` does it for a program (`examples/` shows how), `command` is `lazyxmem track`.
"""

from lazyxmem_ros.track.frames import TrackedFrame, track_frames
from lazyxmem_ros.track.video import Faulty, StampedFrame, Video, stop

__all__ = ["Faulty", "StampedFrame", "TrackedFrame", "Video", "stop", "track_frames"]

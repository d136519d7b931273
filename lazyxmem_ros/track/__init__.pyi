# SPDX-License-Identifier: Apache-2.0
from .frames import TrackedFrame, track_frames
from .video import Faulty, StampedFrame, Video, stop

__all__ = ["Faulty", "StampedFrame", "TrackedFrame", "Video", "stop", "track_frames"]

# SPDX-License-Identifier: Apache-2.0
"""Follows the objects of a first mask through a video: track_a_video.py VIDEO MASK.PNG OUT."""

import sys
from pathlib import Path

import numpy as np

from lazyxmem_ros.data.label_maps import read_label_map, save_label_map
from lazyxmem_ros.lazy import LazyConfig, open_tracker
from lazyxmem_ros.track import Video, track_frames

if len(sys.argv) != 4:
    sys.exit(__doc__)
video, mask, out = (Path(argument) for argument in sys.argv[1:])
frames = Video.open(video)
labels = read_label_map(mask)
masks = {int(number): labels == number for number in np.unique(labels) if number}
tracker = open_tracker(config=LazyConfig(pseudo_corrections=False))
for frame in track_frames(frames, tracker, masks):
    save_label_map(out / f"{frame.name}.png", frame.labels)
    for track in frame.result.tracks:
        area = int(np.count_nonzero(frame.labels == track.object_id))
        print(frame.name, track.object_id, track.state.name, area, track.predicted_iou)

# SPDX-License-Identifier: Apache-2.0
"""What `~/overlay` writes above each object."""

from __future__ import annotations

from collections.abc import Iterable

from lazyxmem_ros.lazy import Track, TrackState

_STATE_MARKS = {
    TrackState.TRACKED: "",
    TrackState.UNCERTAIN: "?",
    TrackState.LOST: " lost",
    TrackState.PAUSED: " paused",
}


def track_names(tracks: Iterable[Track]) -> dict[int, str]:
    """Object id -> its label, or else its id, and a mark where it is not simply tracked."""
    return {
        track.object_id: (track.label or str(track.object_id)) + _STATE_MARKS[track.state]
        for track in tracks
    }

# SPDX-License-Identifier: Apache-2.0
"""What the tracker's worker does with frames.

Everything here runs in the worker's thread, which owns the LazyTracker; results leave through
`TrackerOutputs`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lazyxmem_ros.basics import BoolMask, Labels, without
from lazyxmem_ros.correction.base import box_of_mask
from lazyxmem_ros.images import ImageError
from lazyxmem_ros.lazy import LazyConfig, LazyTracker, StepResult, Track
from lazyxmem_ros.nodes.diagnostics import fault_kind
from lazyxmem_ros.nodes.tracker.corrections import Corrections
from lazyxmem_ros.nodes.tracker.diagnostics import TrackerMeasures, Upkeep
from lazyxmem_ros.nodes.tracker.publishers import TrackerOutputs
from lazyxmem_ros.nodes.tracker.received_frames import ReceivedFrame, ReceivedFrames
from lazyxmem_ros.xmem import TrackerError

LATE_S = 0.01
"""Seconds for which an image has waited for the worker, and not only for its turn."""
ServeCommands = Callable[[Callable[[], bool], float], None]


@dataclass(frozen=True, eq=False)
class GivenMasks:
    """Masks {id: bool [H, W]} shown on the frame of `stamp` (ns), with texts {id: label}.

    topic: where they came from, for messages.
    """

    stamp: int
    masks: Mapping[int, BoolMask]
    labels: Mapping[int, str] = field(default_factory=dict)
    topic: str = ""


@dataclass(frozen=True)
class Published:
    """The tracks of the newest tracked frame, whose stamp this is (ns); 0: there was none yet."""

    stamp: int = 0
    tracks: tuple[Track, ...] = ()


class TrackingSession:
    """One LazyTracker and its newest frame, which may wait for corrections until it goes out."""

    def __init__(
        self,
        lazy: LazyTracker,
        received: ReceivedFrames,
        outputs: TrackerOutputs,
        corrections: Corrections,
        measures: TrackerMeasures,
        *,
        serve_commands: ServeCommands,
        keeps_up: Callable[[], bool],
        correction_wait: float = 0.0,
    ) -> None:
        """serve_commands(done, deadline): how a frame waits for corrections (see Worker).
        keeps_up: whether tracking alone is as fast as the camera.

        correction_wait: seconds of steady time that a frame may wait for its corrections.
        """
        self._lazy = lazy
        self._received = received
        self._outputs = outputs
        self._corrections = corrections
        self._measures = measures
        self._serve_commands = serve_commands
        self._keeps_up = keeps_up
        self.correction_wait = correction_wait
        self._waiting: StepResult | None = None
        """Result of the newest tracked frame until that is published."""
        self.processed = -1
        """Stamp of the newest frame that was tracked, ns."""
        self.resets = 0
        """How often everything was forgotten."""
        self.beginnings = 0
        """How often every frame was: then, and where stamps began again."""
        # Replaced as wholes, so that other threads may read them at any time.
        self.object_ids: tuple[int, ...] = ()
        self.published = Published()
        self.upkeep = Upkeep()

    # ---- frames

    def track(self, frame: ReceivedFrame, given: Sequence[GivenMasks] = ()) -> None:
        """Track one frame, newer than `processed`, and publish it.

        given: masks that are shown on it. What the tracker refuses of them is reported, and the
        frame is tracked without.
        """
        self._finish_waiting()
        # Catching up made it wait: what is spared now keeps the next one from being dropped. Who
        # is slower than the camera drops frames anyway, and rather arrives.
        late = time.monotonic() - frame.received_at > LATE_S
        try:
            image = frame.rgb()
        except ImageError as error:
            self._measures.refuse(frame.topic, "image", str(error))
            return
        masks = {i: mask for entry in given for i, mask in entry.masks.items()}
        names = {i: text for entry in given for i, text in entry.labels.items()}
        if not masks and not self._lazy.followed_ids:
            self._finish_frame(frame, np.zeros(image.shape[:2], np.uint16), None)
            return
        try:
            result = self._lazy.step(
                image,
                frame.stamp,
                masks=masks or None,
                labels=names or None,
                sparing=late and self._keeps_up(),
            )
        except TrackerError as error:
            topic = given[0].topic if given else frame.topic
            self._measures.refuse(topic, fault_kind(error), str(error))
            if given:
                self.track(frame)
            return
        self._note_tracked(frame, result.labels)
        self._waiting = result
        self.see_objects()
        self._corrections.ask(frame, result)
        if self.correction_wait > 0 and self._corrections.awaited:
            deadline = time.monotonic() + self.correction_wait
            self._serve_commands(lambda: not self._corrections.awaited, deadline)
        self._finish_waiting()

    def begin_at(self, frame: ReceivedFrame, given: Sequence[GivenMasks]) -> None:
        """Track a frame before `processed`, on which masks are shown, while nothing is tracked: so
        nothing is lost by it, and later ones may be tracked again.
        """
        self._finish_waiting()
        self._lazy.reset()
        self.processed = -1
        self.track(frame, given)

    def _note_tracked(self, frame: ReceivedFrame, labels: Labels) -> None:
        frame.labels = labels
        self._received.tracked = frame
        self.processed = max(self.processed, frame.stamp)

    def _finish_waiting(self) -> None:
        """Publish the frame that waits for corrections, if one does, as it is by now."""
        result, self._waiting = self._waiting, None
        self._corrections.awaited = set()
        if result is None:
            return
        frame = self._received.tracked
        assert frame is not None
        labels = frame.labels
        assert labels is not None
        gone = [t.object_id for t in result.tracks if t.object_id not in self.object_ids]
        labels = without(labels, gone)
        if labels is not result.labels:
            result = _with_labels(result, labels, gone)
        self._finish_frame(frame, labels, result)

    def _finish_frame(
        self, frame: ReceivedFrame, labels: Labels, result: StepResult | None
    ) -> None:
        shown = self._lazy.shown(labels)
        self._note_tracked(frame, shown)
        if result is not None and shown is not labels:
            result = _with_labels(result, shown, ())
        # First, so that whoever has the frame's mask finds its tracks here.
        self.published = Published(frame.stamp, () if result is None else tuple(result.tracks))
        self._record_objects()
        largest_id = max(self._lazy.followed_ids, default=0)
        self._outputs.publish_frame(frame, result, largest_id=largest_id)
        self._received.pack_older()
        self.see_upkeep()

    # ---- objects and settings

    def add_to_newest(self, given: GivenMasks) -> None:
        """Show objects on the newest tracked frame, which goes out with them."""
        newest = self._received.tracked
        assert newest is not None
        labels = dict(given.labels)
        result = self._lazy.add_objects(dict(given.masks), stamp=newest.stamp, labels=labels)
        if self._waiting is None:
            self._finish_frame(newest, result.labels, result)
            return
        # Not published yet: the objects go out with the frame.
        changes = [*self._waiting.changes, *result.changes]
        self._waiting = replace(result, changes=changes)
        newest.labels = result.labels

    def reset(self, *, images: bool = True) -> None:
        """Forget every object and frame; any stamp and size may follow.

        images: whether recent images are forgotten too.
        """
        self._lazy.reset()
        if images:
            self._received.clear()
        self._received.tracked = None
        self._waiting, self._corrections.awaited = None, set()
        self.processed = -1
        self.resets += 1
        self.beginnings += 1
        self._outputs.begin_records_again()
        self._corrections.see_open()
        self.published = Published()
        self.see_objects()

    def change_clock(self) -> None:
        """Go on with the same objects where stamps begin again; past frames are forgotten.

        Recent images are the caller's to forget: newer ones may have come.
        """
        self._finish_waiting()
        self._lazy.change_clock()
        self.beginnings += 1
        self._outputs.begin_records_again()
        self._received.tracked = None
        self.processed = -1
        self._corrections.see_open()
        self.see_objects()

    def configure(self, config: LazyConfig, correction_wait: float) -> None:
        """Use other thresholds from the next frame on."""
        self._lazy.config = config
        self._received.set_max_age(config.history_time)
        self.correction_wait = correction_wait

    def pause(self) -> None:
        """Close the newest frame and expect no answers: no more frames are coming for now."""
        self._finish_waiting()
        self._corrections.dismiss(self._lazy.followed_ids)
        self._lazy.close()

    # ---- what others read

    def see_upkeep(self) -> None:
        """Note what is kept for late corrections, and how many requests are open."""
        lazy = self._lazy
        self.upkeep = Upkeep(
            lazy.history_bytes, lazy.frames_behind, lazy.frames_evicted, lazy.correction_reach
        )
        self._corrections.see_open()

    def see_objects(self) -> None:
        """Note which objects are followed, for those who read `object_ids` and `published`."""
        self.object_ids = self._lazy.followed_ids
        known = (t for t in self.published.tracks if t.object_id in self.object_ids)
        self.published = replace(self.published, tracks=tuple(known))
        self._record_objects()

    def _record_objects(self) -> None:
        labels = {track.object_id: track.label for track in self.published.tracks}
        followed = {object_id: labels.get(object_id, "") for object_id in self.object_ids}
        self._outputs.record_objects(max(self.processed, 0), followed)


def _with_labels(result: StepResult, labels: Labels, gone: Sequence[int]) -> StepResult:
    """The result with what its tracks say of the mask from another label map [H, W].

    gone: objects that are not followed any more.
    """
    tracks = []
    for track in result.tracks:
        if track.object_id not in gone:
            mask = labels == track.object_id
            tracks.append(replace(track, box=box_of_mask(mask), area=int(np.count_nonzero(mask))))
    return replace(result, labels=labels, tracks=tracks)

# SPDX-License-Identifier: Apache-2.0
"""What the tracker's worker does with frames and with the masks of objects.

Everything here runs in the worker's thread, which owns the LazyTracker; results leave through
`TrackerOutputs`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lazyxmem_ros.basics import Labels
from lazyxmem_ros.correction.base import box_of_mask
from lazyxmem_ros.data.label_maps import MAX_OBJECTS
from lazyxmem_ros.images import ImageError
from lazyxmem_ros.lazy import LazyConfig, LazyTracker, StepResult, Track
from lazyxmem_ros.nodes.conversions import masks_of_labels
from lazyxmem_ros.nodes.diagnostics import InputRefusedError, fault_kind
from lazyxmem_ros.nodes.tracker.corrections import Corrections
from lazyxmem_ros.nodes.tracker.diagnostics import Upkeep
from lazyxmem_ros.nodes.tracker.frames import (
    EarlyMasks,
    GivenMasks,
    ReceivedFrame,
    ReceivedFrames,
)
from lazyxmem_ros.nodes.tracker.publishers import TrackerOutputs
from lazyxmem_ros.xmem import TrackerError, XMemTracker

ServeCommands = Callable[[Callable[[], bool], float], None]


@dataclass(frozen=True)
class Published:
    """The tracks of the newest tracked frame, whose stamp this is (ns); 0: there was none yet."""

    stamp: int = 0
    tracks: tuple[Track, ...] = ()


class TrackingSession:
    """One LazyTracker, the frames it has seen and what is still to come for them."""

    def __init__(
        self,
        lazy: LazyTracker,
        received: ReceivedFrames,
        outputs: TrackerOutputs,
        corrections: Corrections,
        *,
        make_tracker: Callable[[], XMemTracker],
        serve_commands: ServeCommands,
        correction_wait: float = 0.0,
        max_objects: int = MAX_OBJECTS,
        may_work: Callable[[], bool] = lambda: True,
    ) -> None:
        """make_tracker: makes an empty tracker with the same network.

        serve_commands(done, deadline): how a frame waits for corrections (see Worker).

        correction_wait: seconds of steady time that a frame may wait for its corrections.

        max_objects: that are followed; masks that would make them more are refused.

        may_work(): whether masks that came before their frame may make it dearer (see Worker).
        """
        self._may_work = may_work
        self._max_objects = max_objects
        self._lazy = lazy
        self._received = received
        self._outputs = outputs
        self._corrections = corrections
        self._make_tracker = make_tracker
        self._serve_commands = serve_commands
        self.correction_wait = correction_wait
        self._early = EarlyMasks(outputs.refuse)
        self._waiting: StepResult | None = None
        """Result of the newest tracked frame until that is published."""
        self._processed = -1
        self._resets = 0
        # Replaced as wholes, so that other threads may read them at any time.
        self.object_ids: tuple[int, ...] = ()
        self.published = Published()
        self.upkeep = Upkeep()

    # ---- frames

    def process(self, frame: ReceivedFrame) -> bool:
        """Track one frame and publish it; the frames that early masks were waiting for go first.

        Returns False where it was dropped: a newer one was tracked before it, or everything was
        forgotten meanwhile.
        """
        started = time.monotonic()
        tracked = self._process(frame)
        if not tracked:
            self._outputs.count("dropped")
        self._outputs.time_tracking(time.monotonic() - started)
        return tracked

    def _process(self, frame: ReceivedFrame) -> bool:
        resets = self._resets
        for stamp, masks in self._early.due(frame.stamp):
            self._show_early(frame if stamp == frame.stamp else self._received.find(stamp), masks)
        if self._resets == resets and frame.stamp > self._processed:
            self._process_with(frame, [])
            return self._resets == resets
        return frame.labels is not None

    def _show_early(self, frame: ReceivedFrame | None, early: Sequence[GivenMasks]) -> None:
        """Show masks that came before a frame; None: it is not there."""
        if frame is None:
            for given in early:
                self._early.drop(given)
        elif self._lazy.followed_ids and not self._may_work():
            for given in early:
                self._outputs.refuse(
                    given.topic,
                    "too busy",
                    f"the tracker is busy; masks of the frame of {given.stamp} ns are left out",
                )
        elif frame.stamp > self._processed:
            fitting = [given for given in early if self._done(given, self._check_given, frame)]
            if fitting:
                self._process_with(frame, fitting)
        else:  # other masks were shown on it before
            for given in early:
                self._done(given, self.give_masks)

    def _done(self, given: GivenMasks, do: Callable[..., object], *arguments: object) -> bool:
        """Whether `do(given, ...)` went well; what it refuses is reported."""
        try:
            do(given, *arguments)
        except (InputRefusedError, ImageError, TrackerError) as error:
            self._outputs.refuse(given.topic, fault_kind(error), str(error))
            return False
        return True

    def _process_with(self, frame: ReceivedFrame, given: Sequence[GivenMasks]) -> None:
        self._finish_waiting()
        try:
            image = frame.rgb()
        except ImageError as error:
            self._outputs.refuse(frame.topic, "image", str(error))
            return
        masks = {i: mask for entry in given for i, mask in entry.masks.items()}
        names = {i: text for entry in given for i, text in entry.labels.items()}
        if not masks and not self._lazy.followed_ids:
            self._finish_frame(frame, np.zeros(image.shape[:2], np.uint16), None)
            return
        try:
            result = self._lazy.step(image, frame.stamp, masks=masks or None, labels=names or None)
        except TrackerError as error:
            topic = given[0].topic if given else frame.topic
            self._outputs.refuse(topic, fault_kind(error), str(error))
            if given:
                self._process_with(frame, [])
            return
        self._note_tracked(frame, result.labels)
        self._waiting = result
        self.see_objects()
        self._corrections.ask(frame, result)
        if self.correction_wait > 0 and self._corrections.awaited:
            deadline = time.monotonic() + self.correction_wait
            self._serve_commands(lambda: not self._corrections.awaited, deadline)
        self._finish_waiting()

    def _note_tracked(self, frame: ReceivedFrame, labels: Labels) -> None:
        frame.labels = labels
        self._received.tracked = frame
        self._processed = max(self._processed, frame.stamp)

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
        if gone:
            labels = np.where(np.isin(labels, gone), np.uint16(0), labels)
        if labels is not result.labels:
            result = _with_labels(result, labels, gone)
        self._finish_frame(frame, labels, result)

    def _finish_frame(
        self, frame: ReceivedFrame, labels: Labels, result: StepResult | None
    ) -> None:
        self._note_tracked(frame, labels)
        # First, so that whoever has the frame's mask finds its tracks here.
        self.published = Published(frame.stamp, () if result is None else tuple(result.tracks))
        self._record_objects()
        self._outputs.publish_frame(frame, result)
        self._see_upkeep()

    # ---- objects

    def find_frame(self, stamp: int) -> ReceivedFrame:
        """The frame of this stamp, or the newest tracked one for 0; raises InputRefusedError."""
        if stamp == 0:
            newest = self._received.tracked or self._received.newest()
            if newest is None:
                raise InputRefusedError("no frame", "no frame has been received yet")
            return newest
        frame = self._received.find(stamp)
        if frame is None:
            raise InputRefusedError(
                "forgotten stamp", f"there is no recent frame of stamp {stamp} ns"
            )
        return frame

    def give_masks(self, given: GivenMasks) -> str:
        """Show objects on a frame: now, or when the frame of that stamp arrives.

        Objects that are tracked already get the mask as the truth of that frame. Returns how it
        was done if that was not simply as asked, else "". Raises InputRefusedError or a
        TrackerError, with nothing changed.
        """
        if not given.masks:
            raise InputRefusedError("no object", "the label map names no object: every value is 0")
        self.check_room(given.masks)
        newest = self._received.tracked
        stamp = given.stamp or self.find_frame(0).stamp
        given = replace(given, stamp=stamp)
        if stamp > self._processed and self._received.find(stamp) is None:
            self._early.keep(given)
            return f"the frame of stamp {stamp} ns has not come yet: shown when it does"
        frame = self.find_frame(stamp)
        self._check_sizes(given, frame)
        note = ""
        if stamp > self._processed:
            self._process_with(frame, [given])
        elif newest is not None and stamp == newest.stamp and self._lazy.followed_ids:
            self._add_to_newest(given, newest)
        elif not self._lazy.followed_ids:
            # Nothing is tracked, so nothing is lost by starting at that frame.
            self._lazy.reset()
            self._process_with(frame, [given])
        else:
            assert newest is not None
            note = self._add_to_past(given, frame, newest)
        self.see_objects()
        if not set(given.masks) <= set(self.object_ids):
            raise InputRefusedError(
                "not added", f"the objects could not be added at stamp {stamp} ns"
            )
        return note

    def free_ids(self, count: int, taken: Sequence[int] = (), *, stamp: int = 0) -> list[int]:
        """The lowest `count` object ids that are neither followed nor in `taken`.

        stamp: of a past frame (ns) on which they will be shown: no object had them since.
        """
        used = {*self._lazy.followed_ids, *taken, *(self._lazy.ids_since(stamp) if stamp else ())}
        ids: list[int] = []
        candidate = 1
        while len(ids) < count:
            if candidate not in used:
                ids.append(candidate)
            candidate += 1
        return ids

    def remove(self, object_ids: Sequence[int]) -> tuple[int, ...]:
        """Forget objects (all where none is named); raises a TrackerError for an unknown one."""
        ids = tuple(object_ids) or self._lazy.followed_ids
        self._lazy.remove_objects(list(ids))
        self._corrections.stop_waiting(ids)
        self.see_objects()
        return ids

    def pause_objects(self, object_ids: Sequence[int], *, pause: bool) -> tuple[int, ...]:
        """Pause objects or resume them (all where none is named); returns which were meant.

        Raises a TrackerError for an unknown one, with nothing changed.
        """
        ids = tuple(dict.fromkeys(object_ids)) or self._lazy.followed_ids
        if pause:
            self._lazy.pause_objects(ids)
            self._corrections.stop_waiting(ids)
        else:
            self._lazy.resume_objects(ids)
        return ids

    def reset(self, *, images: bool = True) -> None:
        """Forget every object, early mask and frame; any stamp and size may follow.

        images: whether recent images are forgotten too.
        """
        self._lazy.reset()
        if images:
            self._received.clear()
        self._received.tracked = None
        self._early.clear()
        self._waiting, self._corrections.awaited = None, set()
        self._processed = -1
        self._resets += 1
        self._corrections.see_open()
        self.published = Published()
        self.see_objects()

    def change_clock(self) -> None:
        """Go on with the same objects where stamps begin again; past frames are forgotten.

        Recent images are the caller's to forget: newer ones may have come.
        """
        self._finish_waiting()
        self._lazy.change_clock()
        self._received.tracked = None
        self._early.clear()
        self._processed = -1
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

    # ---- how

    def _add_to_newest(self, given: GivenMasks, newest: ReceivedFrame) -> None:
        labels = dict(given.labels)
        result = self._lazy.add_objects(dict(given.masks), stamp=newest.stamp, labels=labels)
        if self._waiting is None:
            self._finish_frame(newest, result.labels, result)
            return
        # Not published yet: the objects go out with the frame.
        changes = [*self._waiting.changes, *result.changes]
        self._waiting = replace(result, changes=changes)
        newest.labels = result.labels

    def _add_to_past(self, given: GivenMasks, frame: ReceivedFrame, newest: ReceivedFrame) -> str:
        """Shows objects on a frame that has passed; returns how."""
        if not self._lazy.keeps(frame.stamp):
            tracked = frame.labels is not None
            self._add_to_newest(self._carried_forward(given, frame, newest), newest)
            why = "'s features are not kept" if tracked else " was never tracked"
            return (
                f"that frame{why}: the objects were found again in the newest one, and begin there"
            )
        outcome = self._lazy.add_to_past(given.masks, frame.stamp, dict(given.labels))
        frame.labels = outcome.labels
        self._see_upkeep()
        return outcome.reason

    def _carried_forward(
        self, given: GivenMasks, frame: ReceivedFrame, newest: ReceivedFrame
    ) -> GivenMasks:
        """The masks of an older frame as the network finds them in the newest one.

        A tracker of its own segments the older frame with the masks and then the newest: other
        objects keep their memory, at the price of two more frames' work.
        """
        tracker = self._make_tracker()
        # What else was there keeps the new objects from spreading over it.
        others = {} if frame.labels is None else masks_of_labels(frame.labels)
        tracker.memorize(tracker.segment(frame.rgb(), {**others, **given.masks}, stamp=frame.stamp))
        labels = tracker.segment(newest.rgb(), stamp=newest.stamp).labels()
        masks = {object_id: labels == object_id for object_id in given.masks}
        gone = [str(object_id) for object_id, mask in masks.items() if not mask.any()]
        if gone:
            raise InputRefusedError(
                "gone", f"object {', '.join(gone)} was not found again in the newest frame"
            )
        return replace(given, stamp=newest.stamp, masks=masks)

    def check_room(self, object_ids: Iterable[int]) -> None:
        """Raises InputRefusedError unless all of these may be followed, too; any thread."""
        count = len({*self.object_ids, *object_ids})
        if count > self._max_objects:
            raise InputRefusedError(
                "too many objects",
                f"there would be {count} objects; up to {self._max_objects} are followed "
                "(max_objects)",
            )

    def _check_given(self, given: GivenMasks, frame: ReceivedFrame) -> None:
        self.check_room(given.masks)
        self._check_sizes(given, frame)

    def _check_sizes(self, given: GivenMasks, frame: ReceivedFrame) -> None:
        size = frame.rgb().shape[:2]
        for object_id, mask in given.masks.items():
            if mask.shape != size:
                raise InputRefusedError(
                    "size",
                    f"the mask of object {object_id} is {mask.shape[1]}x{mask.shape[0]}, "
                    f"the frame {size[1]}x{size[0]} pixels",
                )

    def _see_upkeep(self) -> None:
        lazy = self._lazy
        self.upkeep = Upkeep(lazy.history_bytes, lazy.frames_behind, lazy.frames_evicted)
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
        self._outputs.record_objects(max(self._processed, 0), followed)


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

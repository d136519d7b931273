# SPDX-License-Identifier: Apache-2.0
"""Lazy tracking: segment, measure, decide, and let corrections reach masks and memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.basics import MAX_LABEL_LENGTH, Labels, by_width, whole_number, without
from lazyxmem_ros.correction.base import BoolMask
from lazyxmem_ros.lazy.additions import add_to_past
from lazyxmem_ros.lazy.config import LazyConfig, Source
from lazyxmem_ros.lazy.corrections import Correction, CorrectionDesk
from lazyxmem_ros.lazy.events import Resumed
from lazyxmem_ros.lazy.fields import LARGEST
from lazyxmem_ros.lazy.history import History
from lazyxmem_ros.lazy.judging import FrameJudge
from lazyxmem_ros.lazy.learning import close_frame
from lazyxmem_ros.lazy.past import ATTEMPTS, NO_MEMORY, Past
from lazyxmem_ros.lazy.policy import TrackState
from lazyxmem_ros.lazy.predicted_iou import IouPredictor
from lazyxmem_ros.lazy.record import FrameRecord, Request, copy_looks
from lazyxmem_ros.lazy.results import Outcome, StepResult
from lazyxmem_ros.lazy.retraction import retract
from lazyxmem_ros.lazy.snapshot import Snapshot, describe
from lazyxmem_ros.lazy.state import FollowedObject, LazyState
from lazyxmem_ros.xmem import FrameError, MaskError, TrackerError, UnknownObjectError, XMemTracker
from lazyxmem_ros.xmem.inputs import checked_masks, image_size

CLOCK_CATCH_UP_S = 2.0
"""Seconds of steady time for which the catching up goes on where the clock changes."""


class StampError(TrackerError):
    """A stamp is not later than that of the frame before, or names no frame that is wanted."""


class LabelError(TrackerError):
    """The name of an object is too long, or no text."""


class LazyTracker:
    """XMem that knows when it loses an object, and asks.

    For each frame call `step`; its result is final for publishing at once. The frame stays open
    until `close` or the next `step`: a correction applied before that is instant, and with
    every correction instant this is the paper's offline evaluation. When the frame is closed
    it enters memory (if due), is held back, or enters with its corrected masks.

    Memory takes in whole frames, so one decision covers all objects of a frame:

    1. A person's corrections (`update_from_operator`) and the tracker's own (`update_from_pseudo`)
       are learnt with a deep update, and with them the frame; uncorrected objects keep their
       prediction. A doubtful other object does not keep a person's answer out.
    2. Else, a frame with given masks is learnt.
    3. Else, it is held if a correction was applied to it that is not to be learnt (what memory
       would take in is known to be wrong), or if the tracker is about to correct itself on it,
       or if `hold_rule` says that its objects are too uncertain.
    4. Else, it is learnt when it is due.

    One thread may use it at a time. `config` may be replaced at any time between calls.
    """

    def __init__(
        self,
        tracker: XMemTracker,
        config: LazyConfig | None = None,
        *,
        iou_predictor: IouPredictor | None = None,
    ) -> None:
        """iou_predictor: the calibration of the tracker's weights, for predicted IoUs."""
        config = config or LazyConfig()
        self._state = LazyState(tracker, config, History(config), iou_predictor)
        self._past = Past(self._state)
        self._judge = FrameJudge(self._state, self._past)
        self._desk = CorrectionDesk(self._state, self._past)
        tracker.gate_radius = config.gate_radius

    @property
    def config(self) -> LazyConfig:
        """The settings; others may be set and hold from then on."""
        return self._state.config

    @config.setter
    def config(self, config: LazyConfig) -> None:
        self._state.config = config
        self._state.history.configure(config)
        self._state.tracker.gate_radius = config.gate_radius

    @property
    def tracker(self) -> XMemTracker:
        """The tracker underneath; to be looked at, not used."""
        return self._state.tracker

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects followed, in the order of `StepResult.tracks`."""
        return self._state.tracker.object_ids

    @property
    def arriving_ids(self) -> tuple[int, ...]:
        """The objects of `add_to_past` that are not in the results yet."""
        return tuple(i for i in self._state.arriving_ids() if i not in self.object_ids)

    @property
    def followed_ids(self) -> tuple[int, ...]:
        """The objects in the results, and those that will be (`arriving_ids`)."""
        return (*self.object_ids, *self.arriving_ids)

    @property
    def paused_ids(self) -> frozenset[int]:
        """The objects that are paused (see `pause_objects`)."""
        return self._state.paused_ids()

    @property
    def open_requests(self) -> list[tuple[int, Source]]:
        """Requests that wait for an answer: (object id, source)."""
        return self._state.open_requests()

    @property
    def frames_behind(self) -> int:
        """Past frames still to go through after a late correction."""
        return self._past.replay.frames_left if self._past.replay else 0

    @property
    def frames_evicted(self) -> int:
        """Frames that lost their features to `correction_bytes` before their time."""
        return self._state.history.evicted

    @property
    def correction_reach(self) -> int:
        """Nanoseconds for which a correction may come late now and still be learnt exactly."""
        return self._state.history.reach

    @property
    def history_bytes(self) -> int:
        """Bytes kept for late corrections, with the memory of the forks that catch up."""
        return self._state.history.nbytes + self._past.nbytes

    # ---- frames

    def step(
        self,
        image: NDArray[np.uint8],
        stamp: int,
        masks: Mapping[int, BoolMask] | None = None,
        labels: Mapping[int, str] | None = None,
        *,
        sparing: bool = False,
    ) -> StepResult:
        """Closes the frame before, tracks this one and leaves it open.

        Args:
            image: RGB uint8 [H, W, 3]; not copied: requests refer to it.
            stamp: nanoseconds since the epoch, later than the frame's before.
            masks: objects known on this frame, id (1..65535) -> bool [H, W]; new ones are added.
            labels: names of objects, id -> text of at most MAX_LABEL_LENGTH characters.
            sparing: the next image may be there before this one is done: past frames are gone
                through without `catch_up_budget`, three with every two new ones at least.

        Raises:
            StampError: the stamp is no whole number, or not later than the frame's before.
            FrameError: not an image, or of another size than the frame before.
            MaskError: a mask of another size or type, an id out of range, a new empty mask.
            LabelError: a name that is too long, or no text.
            In each case nothing has changed and the frame before is still open.
        """
        check_labels(labels)
        stamp = self._checked_stamp(stamp)
        size = self._checked_size(image)
        given = checked_masks({} if masks is None else masks, size, known=self.object_ids)
        self.close()
        newest = self._state.newest
        if newest is not None and newest.size != size:
            self._past.forget_features()  # there is no object, but nothing fits the new size
        caught_up = self._past.advance(self._state.config.catch_up_budget, sparing=sparing)
        frame = self._state.tracker.segment(image, given or None, stamp=stamp)
        newest = FrameRecord.opened(frame, image)
        self._state.newest = newest
        self._introduce(given, labels or {}, frame.index)
        requests: list[Request] = []
        try:
            result = self._judge.conclude(newest, set(given))
            requests = result.requests
        finally:  # memory will know the frame, whatever fails, and so must the history
            self._remember(newest, requests)
        return replace(result, caught_up=caught_up, catching_up=self.frames_behind)

    def close(self) -> None:
        """Closes the newest frame: it enters memory or is held (see the class). Twice is fine."""
        state, newest = self._state, self._state.newest
        if newest is None or not newest.open:
            return
        learnt, corrected = state.to_learn(), bool(newest.all_corrections())
        for one in newest.said:
            one.learnt = state.config.learns_from(one.source)
        held = newest.held or corrected
        close_frame(state.tracker, state.config, newest, state.looks, learnt, held=held)
        if learnt:
            newest.learn(learnt)
        elif corrected:
            newest.never_learnt = True
        self._past.follow(newest)

    def shown(self, labels: Labels) -> Labels:
        """The newest frame's label map without masks that are probably of something else
        (`show_iou`), for publishing.

        labels: uint16 [H, W], of its result or of the outcome of a correction. What was given or
        corrected on it stays. Where nothing is left out it is the same array.
        """
        newest, limit = self._state.newest, self._state.config.show_iou
        if newest is None or not limit:
            return labels
        said = newest.frame.given.keys() | newest.all_corrections().keys()
        doubted = [
            object_id
            for object_id, item in self._state.objects.items()
            if object_id not in said
            and item.predicted_iou is not None
            and 0 < item.predicted_iou < limit  # 0: nothing was found
        ]
        return without(labels, doubted)

    def catch_up(self, budget: float) -> int:
        """Closes the newest frame and goes on with the catching up for `budget` seconds, for when
        no more frames are coming; returns the past frames still to go through.
        """
        until = time.monotonic() + budget
        self.close()
        self._past.advance(budget)
        while self.frames_behind and time.monotonic() < until:  # it went back after taking over
            self._past.advance(until - time.monotonic())
        self._past.make_room()
        return self.frames_behind

    def go_ahead(self) -> bool:
        """Goes through one past frame more, for when there is time before the next frame; returns
        whether there was one. `step` is spared what is done so, and the newest frame stays open.
        """
        return self._past.go_ahead()

    # ---- corrections

    def apply(self, correction: Correction) -> Outcome:
        """Applies corrected masks to the frame that they name, or says why not.

        A correction is applied as a whole or not at all. Raises nothing for whatever it holds.
        """
        return self._desk.apply(correction)

    def retract(self, stamp: int, object_id: int) -> Outcome:
        """Takes back a person's correction of an object on the frame of a stamp (ns), the last one
        if there are several; or says why not.

        Once the frames since have been gone through again, memory, masks and predicted IoUs are
        what they would be had it never been given, and what it answered is open again unless its
        time is up. What was not asked because of it is not asked afterwards, and a self-correction
        that was refused for it stays so.
        """
        return retract(self._state, self._past, stamp, object_id)

    def dismiss(self, object_id: int, source: Source) -> None:
        """Notes that an open request will not be answered (a service failed, a person waved it
        off), so that it stops counting as open. Unknown objects and sources are ignored.
        """
        self._state.dismiss(object_id, source)

    def request(self, stamp: int, object_id: int) -> Request | None:
        """What a person was asked about an object on the frame of a stamp (ns) and has not
        answered, until the frame is forgotten; after the deadline it is not `is_open`.
        """
        return self._state.request(stamp, object_id)

    def is_open(self, request: Request) -> bool:
        """Whether a request still counts as open: it is neither answered nor given up."""
        return self._state.is_open(request)

    # ---- objects

    def add_objects(
        self,
        masks: Mapping[int, BoolMask],
        stamp: int | None = None,
        labels: Mapping[int, str] | None = None,
    ) -> StepResult:
        """Adds objects on the newest frame, or sets the masks of known ones there.

        Args:
            masks: id (1..65535) -> bool [H, W].
            stamp: of the newest frame, nanoseconds; None: whatever it is.
            labels: names of objects, as for `step`.

        Returns:
            The newest frame's result with these objects.

        Raises:
            StampError: there is no frame yet, or the stamp is not the newest frame's.
            MaskError, LabelError: see `step`. Nothing has changed.
        """
        check_labels(labels)
        newest = self._state.newest
        if newest is None:
            raise StampError("no frame has been tracked yet: track one, then add objects")
        if stamp is not None and stamp != newest.stamp:
            raise StampError(
                f"objects can be added on the newest frame, of stamp {newest.stamp} ns, "
                f"not on that of {stamp} ns; add_to_past may do that"
            )
        masks = checked_masks(masks, newest.size, known=self.object_ids)
        if not masks:
            raise MaskError("no mask of an object to add was given")
        self._state.tracker.add_objects(newest.frame, masks)
        self._introduce(masks, labels or {}, newest.frame.index)
        added = _copies(masks)
        for record in self._past.records(newest.stamp):
            record.show(added)
        if self._past.replay is not None:  # a snapshot may have taken it past the frame
            self._past.schedule(newest.stamp, at_once=True)
        return self._judge.conclude(newest, set(masks))

    def keeps(self, stamp: int) -> bool:
        """Whether `add_to_past` and late corrections reach the frame of this stamp (ns)."""
        return bool(self._past.replayable(stamp))

    def add_to_past(
        self,
        masks: Mapping[int, BoolMask],
        stamp: int,
        labels: Mapping[int, str] | None = None,
    ) -> Outcome:
        """Adds objects on a past frame, or sets the masks of known ones there, exactly.

        The frames since are gone through again, a few with each new frame. Then everything is as
        if the masks had been given at once, and the objects appear in the results; until then they
        are `arriving_ids`, and the other objects are tracked on.

        Args:
            masks: id (1..65535) -> bool [H, W]. An id that another object had on that frame or
                since cannot be used.
            stamp: of the frame, nanoseconds; `keeps` tells whether it is kept.
            labels: names of objects, as for `step`.

        Returns:
            What became of it, with the past frame's label map.

        Raises:
            StampError: that frame is not kept.
            MaskError, LabelError: see `step`; or the id is taken. Nothing has changed.
        """
        check_labels(labels)
        records = self._past.replayable(_checked(stamp))
        if not records:
            raise StampError(f"the frame of stamp {stamp} ns is not kept")
        masks = checked_masks(masks, records[0].size, known=self.object_ids)
        if not masks:
            raise MaskError("no mask of an object to add was given")
        outcome = add_to_past(self._state, self._past, records, _copies(masks))
        for object_id, label in (labels or {}).items():
            if object_id in self._state.objects:
                self._state.objects[object_id].label = label
        return outcome

    def ids_since(self, stamp: int) -> frozenset[int]:
        """The ids that objects had on the kept frames from a stamp (ns) on; `add_to_past` takes
        none of them for a new object.
        """
        past = self._state.history.replayable(since=stamp)
        return frozenset(i for record in past for i in record.frame.object_ids)

    def remove_objects(self, object_ids: Iterable[int]) -> None:
        """Forgets objects and their open requests. Raises UnknownObjectError, changing nothing."""
        ids = self._known(object_ids)
        tracked = [i for i in ids if i in self.object_ids]
        self._state.tracker.remove_objects(tracked)
        for object_id in ids:
            item = self._state.forget(object_id)
            for record in self._newest_records():
                record.remove(object_id, tracked=object_id in tracked)
            if item.arriving:
                self._past.unsay(object_id, since=item.born)

    def pause_objects(self, object_ids: Iterable[int]) -> None:
        """Lets objects rest from the next frame on, until `resume_objects`; twice is fine.

        A paused object keeps its memory and is segmented and learnt on, so that its pixels stay
        its own. But it asks for nothing (its open requests are dismissed), its doubt keeps no
        frame out of memory, it is not declared lost, and its track's state is PAUSED. A person
        may correct it; the tracker's own corrections of it are refused.

        Raises UnknownObjectError, changing nothing.
        """
        for object_id in self._known(object_ids):
            self._state.pause(object_id)

    def resume_objects(self, object_ids: Iterable[int]) -> None:
        """Ends the pause of objects, as if they had just been introduced: what was measured and
        asked before is forgotten, but for when each was last right, and on the next frame the rate
        is unknown. Objects that are not paused are left alone. Raises UnknownObjectError, changing
        nothing.
        """
        for object_id in self._known(object_ids):
            item = self._state.objects[object_id]
            if item.history.state is TrackState.PAUSED:
                item.history = item.history.resumed()
                for record in self._newest_records():
                    record.events.append(Resumed(object_id))

    def reset(self) -> None:
        """Forgets every object and frame; any stamp and image size may follow."""
        self._state.tracker.reset()
        self._state.history.clear()
        self._past.stop()
        self._state.answers.clear()
        self._state.objects.clear()
        self._state.removed.clear()
        self._state.newest = None

    def change_clock(self) -> None:
        """Forgets every frame but keeps the objects and their memory; any stamp may come next.

        What was said is learnt first: the newest frame is closed, and the catching up goes on for
        `CLOCK_CATCH_UP_S`. What is not learnt by then, or fails, is lost, but for objects of
        `add_to_past`: those that are still arriving begin with memory as of the past frame on which
        all of them are known, as in a snapshot. Open requests are forgotten, and the time out of
        view counts from the next frame on.
        """
        until = time.monotonic() + CLOCK_CATCH_UP_S
        for _ in range(ATTEMPTS):  # after which a past that fails has been given up
            with suppress(TrackerError, *NO_MEMORY):  # the clock has changed, whatever fails
                self.catch_up(until - time.monotonic())
                break
        long_ago = bool(self._state.arriving_ids())  # so is the frame that memory is then of
        self.resume(self.snapshot())
        if long_ago:
            self._state.tracker.lose_sight()
        for item in self._state.objects.values():
            item.history = replace(item.history, seen_stamp=None)

    # ---- snapshots

    def snapshot(self) -> Snapshot:
        """A copy of everything as of the last closed frame, for `write_snapshot`. The newest frame
        is closed first if masks were given on it, for memory does not know their objects before.

        While objects of `add_to_past` are arriving, memory is as of a past frame on which all are
        known: no object is lost, what was learnt since is. To come to that frame may take as long
        as `step` does for some frames.
        """
        if self._state.newest is not None and self._state.newest.given:
            self.close()
        tracker, objects = self._past.remembered()
        return Snapshot(
            tracker=replace(tracker, frame=None),
            objects=objects,
            removed=frozenset(self._state.removed),
            made_by=describe(self._state.tracker),
        )

    def resume(self, snapshot: Snapshot) -> None:
        """Goes on from a snapshot: the same objects and memory. Any stamp may come next, and
        requests that were open are forgotten.

        The snapshot has to fit the tracker; `read_snapshot` makes sure of that.
        """
        self.reset()
        self._state.tracker.restore(snapshot.tracker)
        for object_id, item in snapshot.objects.items():
            born = snapshot.tracker.births[object_id]
            self._state.objects[object_id] = replace(item.begun_again(), born=born)
        self._state.removed |= snapshot.removed

    def _remember(self, newest: FrameRecord, requests: Iterable[Request]) -> None:
        """Adds the newest frame to the history, with what replay needs. Where there is no room for
        a copy of memory there is none.
        """
        state = self._state
        asked = {request.source for request in requests}
        newest.requests = {r.object_id: r for r in requests if r.source is Source.OPERATOR}
        newest.paused = state.paused_ids()
        newest.histories = {i: item.history for i, item in state.objects.items()}
        newest.looks = copy_looks(state.looks)
        newest.asked_itself = Source.PSEUDO in asked and not state.config.update_from_pseudo
        newest.never_learnt = newest.asked_itself
        with suppress(*NO_MEMORY):
            self._keep_for_replay(newest, asked=Source.OPERATOR in asked)
        state.history.add(newest)
        state.forget_answers()
        self._past.make_room()

    def _keep_for_replay(self, newest: FrameRecord, *, asked: bool) -> None:
        """Moves the newest frame to where it can stay, and copies memory where that is due."""
        state = self._state
        if not state.config.correction_horizon:
            return
        newest.frame.settle()
        if state.history.copy_due(
            newest.stamp, asked=asked, compact=state.tracker.compact, fork=state.tracker.nbytes
        ):
            newest.state = state.tracker.state(before=state.history.before_copy())

    def _newest_records(self) -> set[FrameRecord]:
        """All that is known of the newest frame, if there is one."""
        newest = self._state.newest
        return set() if newest is None else self._past.records(newest.stamp)

    def _introduce(
        self, masks: Mapping[int, BoolMask], labels: Mapping[int, str], index: int
    ) -> None:
        objects = self._state.objects
        for object_id in masks:
            if object_id not in objects:
                objects[object_id] = FollowedObject(label="", born=index)
                self._state.removed.discard(object_id)
        for object_id, label in labels.items():
            if object_id in objects:
                objects[object_id].label = label

    def _known(self, object_ids: Iterable[int]) -> list[int]:
        """The ids, each once; raises UnknownObjectError where one is not followed."""
        ids = list(dict.fromkeys(object_ids))
        unknown = [str(i) for i in ids if i not in self._state.objects]
        if unknown:
            known = ", ".join(map(str, self._state.objects)) or "none"
            raise UnknownObjectError(f"no object {', '.join(unknown)} is tracked; there is {known}")
        return ids

    # ---- checks, all of them before anything changes

    def _checked_stamp(self, stamp: int) -> int:
        stamp = _checked(stamp)
        if self._state.newest is not None and stamp <= self._state.newest.stamp:
            raise StampError(
                f"the frame's stamp {stamp} ns is not later than that of the frame before, "
                f"{self._state.newest.stamp} ns; reset the tracker to start over"
            )
        return stamp

    def _checked_size(self, image: NDArray[np.uint8]) -> tuple[int, int]:
        size = image_size(image)
        if self._state.newest is None or not self._state.objects:
            return size
        before = self._state.newest.size
        if size != before:
            raise FrameError(
                f"the image is {by_width(size)} pixels, the frame before {by_width(before)}; "
                "reset the tracker to change the size"
            )
        return size


def _checked(stamp: int) -> int:
    """A stamp as Python's integer; raises StampError where it is none that a snapshot can hold."""
    try:
        number = whole_number(stamp)
    except TypeError as error:
        raise StampError(
            f"a stamp must be a whole number of nanoseconds, not {stamp!r}; of seconds it is "
            "round(seconds * 1e9)"
        ) from error
    if not 0 <= number <= LARGEST:
        raise StampError(f"a stamp must be nanoseconds since the epoch, 0..{LARGEST}, not {number}")
    return number


def _copies(masks: Mapping[int, BoolMask]) -> dict[int, BoolMask]:
    """The masks, whose arrays whoever gave them may use again."""
    return {object_id: mask.copy() for object_id, mask in masks.items()}


def check_labels(labels: Mapping[int, str] | None) -> None:
    """Raises LabelError for a name of more than MAX_LABEL_LENGTH characters, and for no text."""
    for object_id, label in (labels or {}).items():
        if not isinstance(label, str):
            raise LabelError(f"the name of object {object_id} must be a text, not {label!r}")
        if len(label) > MAX_LABEL_LENGTH:
            raise LabelError(
                f"the name of object {object_id} has {len(label)} characters: give one of at most "
                f"{MAX_LABEL_LENGTH}"
            )

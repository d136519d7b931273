# SPDX-License-Identifier: Apache-2.0
"""How corrections reach masks and memory: of the newest frame, and late ones."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.basics import BoolMask, whole_number
from lazyxmem_ros.correction.base import mask_iou
from lazyxmem_ros.lazy.config import Source
from lazyxmem_ros.lazy.events import Said
from lazyxmem_ros.lazy.learning import learn
from lazyxmem_ros.lazy.packed import PackedMask
from lazyxmem_ros.lazy.past import Past
from lazyxmem_ros.lazy.record import FrameRecord
from lazyxmem_ros.lazy.results import Outcome
from lazyxmem_ros.lazy.state import LazyState
from lazyxmem_ros.xmem import TrackerError
from lazyxmem_ros.xmem.inputs import by_id


@dataclass(frozen=True, eq=False)
class Correction:
    """Corrected masks of one frame.

    Attributes:
        stamp: names the frame, nanoseconds.
        masks: object id -> bool [H, W], of the image's size. An operator's empty mask says that
            the object is not in view.
        source: who made them.
    """

    stamp: int
    masks: Mapping[int, BoolMask]
    source: Source = Source.OPERATOR


class CorrectionRefusedError(Exception):
    """A correction cannot be applied; the text says why."""


class CorrectionDesk:
    """Applies corrections to a state, or says why not."""

    def __init__(self, state: LazyState, past: Past) -> None:
        self._state = state
        self._past = past

    def apply(self, correction: Correction) -> Outcome:
        """See `LazyTracker.apply`."""
        try:
            correction = _plain(correction)
        except (CorrectionRefusedError, TrackerError) as refusal:
            return Outcome(False, str(refusal), correction.stamp)
        try:
            return self._apply(correction)
        except (CorrectionRefusedError, TrackerError) as refusal:
            self._close_unanswered(correction)
            return Outcome(False, str(refusal), correction.stamp)

    def _apply(self, correction: Correction) -> Outcome:
        past = self._frame_named(correction.stamp)
        masks = {
            object_id: self._checked_mask(past, object_id, mask, correction.source)
            for object_id, mask in correction.masks.items()
        }
        if not masks:
            raise CorrectionRefusedError("the correction has no mask")
        given = masks
        masks = _without_overlap(masks)
        digests = {i: _digest(mask) for i, mask in masks.items()}
        source = correction.source
        if all(past.applied.get((i, source)) == digests[i] for i in masks):
            raise CorrectionRefusedError(
                "it is a duplicate: the same correction has been applied already"
            )
        newest = self._state.newest
        assert newest is not None
        if past.stamp == newest.stamp:
            outcome = self._apply_now(correction, masks)
        else:
            outcome = self._apply_late(correction, past, masks)
        past.applied.update({(i, source): digest for i, digest in digests.items()})
        assert outcome.applied_stamp is not None
        learns = self._state.config.learns_from(source)
        said = [
            Said(object_id, source, PackedMask.pack(mask), correction.stamp, learns)
            for object_id, mask in given.items()
        ]
        for record in self._past.records(outcome.applied_stamp):
            record.events += said
        return outcome

    def _apply_now(
        self, correction: Correction, masks: Mapping[int, BoolMask], note: str = ""
    ) -> Outcome:
        """Applies masks to the newest frame, open or not; what fails on the way changes nothing."""
        newest, source = self._state.newest, correction.source
        assert newest is not None
        standing = _left_over(masks, newest.corrections[Source.OPERATOR].values(), source)
        corrected = newest.corrected(standing, source)
        labels = self._state.labels_with(newest, corrected.all_corrections())
        if not newest.open and self._state.config.learns_from(source):
            self._learn_after_closing(standing, source)
        for record in self._past.records(newest.stamp):
            record.corrections = corrected.corrections
            if source is Source.OPERATOR:
                record.told |= masks.keys()
        stamp = newest.stamp
        self._note(correction, standing, stamp=stamp)
        return Outcome(
            applied=True,
            reason=note,
            stamp=correction.stamp,
            object_ids=tuple(masks),
            applied_stamp=stamp,
            labels=labels,
        )

    def _learn_after_closing(self, masks: dict[int, BoolMask], source: Source) -> None:
        """Memory takes in masks of the newest frame although that is closed."""
        newest = self._state.newest
        assert newest is not None
        state, told = self._state, masks.keys() if source is Source.OPERATOR else ()
        learn(state.tracker, state.config, newest, state.looks, masks, told=told)
        records = self._past.replayable(newest.stamp)
        for record in records:
            record.learn(masks)
        if records and self._past.replay is not None:  # its fork may be past the frame
            self._past.schedule(newest.stamp)

    def _note(self, correction: Correction, masks: Mapping[int, BoolMask], *, stamp: int) -> None:
        """The objects have been corrected, now, on the frame of a stamp."""
        for object_id, mask in masks.items():
            if correction.source is Source.OPERATOR:
                self._state.note_answer(object_id, correction.stamp, stamp, _digest(mask))
            in_view = self._state.config.is_in_view(mask)
            self._state.note_corrected(
                object_id, correction.source, stamp=correction.stamp, in_view=in_view
            )

    def _apply_late(
        self, correction: Correction, past: FrameRecord, masks: dict[int, BoolMask]
    ) -> Outcome:
        """Applies masks of an older frame to that frame where it is kept, else to the newest."""
        newest, state = self._state.newest, self._state
        assert newest is not None
        records = self._past.replayable(past.stamp)
        if not records:
            return self._apply_to_newest(correction, past, masks)
        masks = _left_over(masks, records[-1].told_masks(), correction.source)
        labels = state.labels_with(records[-1], masks)
        if correction.source is Source.OPERATOR:
            for record in records:
                record.told |= masks.keys()
        note = f"it came {newest.index - past.index} frames late and is the frame's own"
        if state.config.learns_from(correction.source):
            for record in records:
                record.learn(masks)
            frames = self._past.schedule(past.stamp)
            note += f"; {frames} frames are gone through again"
        self._note(correction, masks, stamp=past.stamp)
        return Outcome(
            applied=True,
            reason=note,
            stamp=correction.stamp,
            object_ids=tuple(masks),
            applied_stamp=past.stamp,
            labels=labels,
        )

    def _apply_to_newest(
        self, correction: Correction, past: FrameRecord, masks: dict[int, BoolMask]
    ) -> Outcome:
        """Applies masks of an older frame to the newest one, if their objects have moved little.

        Whether they have is told by the overlap of their published masks on the two frames.
        """
        newest = self._state.newest
        assert newest is not None
        behind = newest.index - past.index
        for object_id in masks:
            self._check_superseded(object_id, correction)
            if object_id not in past.masks:
                raise CorrectionRefusedError(
                    f"object {object_id} was not tracked yet on that frame"
                )
            iou = mask_iou(past.mask(object_id), newest.mask(object_id))
            if not iou > self._state.config.late_overlap:
                raise CorrectionRefusedError(
                    f"it came {behind} frames late and object {object_id} has moved or changed "
                    f"since (its masks overlap by {iou:.2f}, needed: more than "
                    f"{self._state.config.late_overlap:.2f}); correct the newest frame instead"
                )
        note = f"it came {behind} frames late and was applied to the newest frame"
        return self._apply_now(correction, masks, note)

    def _frame_named(self, stamp: int) -> FrameRecord:
        history = self._state.history
        past = history.find(stamp)
        if past is not None:
            return past
        newest, oldest = history.newest, history.oldest
        if newest is None or oldest is None:
            raise CorrectionRefusedError("no frame has been tracked yet")
        if stamp > newest.stamp:
            raise CorrectionRefusedError(f"no frame of stamp {stamp} ns has been tracked yet")
        if stamp < oldest.stamp:
            raise CorrectionRefusedError(
                f"the frame of stamp {stamp} ns is forgotten; the oldest one kept is of "
                f"{oldest.stamp} ns"
            )
        raise CorrectionRefusedError(f"there was no frame of stamp {stamp} ns")

    def _checked_mask(
        self, past: FrameRecord, object_id: int, mask: BoolMask, source: Source
    ) -> BoolMask:
        if object_id not in self._state.objects:
            if object_id in self._state.removed:
                raise CorrectionRefusedError(f"object {object_id} has been removed")
            known = ", ".join(map(str, self._state.objects)) or "none"
            raise CorrectionRefusedError(f"no object {object_id} is tracked; there is {known}")
        item = self._state.objects[object_id]
        if item.arriving and object_id not in self._state.tracker.object_ids:
            raise CorrectionRefusedError(
                f"object {object_id} was shown on a past frame and is not tracked yet: the frames "
                "since are being gone through"
            )
        if item.born > past.index or not self._was_tracked(past, object_id):
            raise CorrectionRefusedError(f"object {object_id} was not tracked yet on that frame")
        try:
            mask = np.asarray(mask)
        except (TypeError, ValueError, RuntimeError) as error:  # PyTorch's tensors raise all
            raise CorrectionRefusedError(
                f"the mask of object {object_id} is no array: {error}"
            ) from error
        if mask.shape != past.size:
            raise CorrectionRefusedError(
                f"the mask of object {object_id} has shape {list(mask.shape)}, the frame "
                f"{list(past.size)}; send a mask of the frame's height and width"
            )
        if not _is_of_yes_and_no(mask):
            raise CorrectionRefusedError(
                f"the mask of object {object_id} is of {mask.dtype}, and not of 0 and 1 alone; "
                "send bool: true where the object is"
            )
        # A copy in any case: whoever gave the mask may use its array again.
        mask = mask.copy() if mask.dtype == np.bool_ else mask != 0
        if source is Source.PSEUDO:
            if (object_id, Source.OPERATOR) in past.applied:
                raise CorrectionRefusedError(
                    f"an operator has corrected object {object_id} on that frame"
                )
            if object_id in self._state.paused_ids():
                raise CorrectionRefusedError(
                    f"object {object_id} is paused: only a person corrects it"
                )
            if not mask.any():
                raise CorrectionRefusedError(f"the corrector found nothing of object {object_id}")
        return mask

    def _was_tracked(self, past: FrameRecord, object_id: int) -> bool:
        """On that frame as it was published, or as it was gone through again since."""
        records = self._past.replayable(past.stamp)
        return object_id in past.masks or any(object_id in r.frame.object_ids for r in records)

    def _check_superseded(self, object_id: int, correction: Correction) -> None:
        """A late correction must not undo one of a newer frame, nor a guess a person's word."""
        newest, corrected = self._state.newest, self._state.objects[object_id].corrected
        assert newest is not None
        if correction.source is Source.PSEUDO and object_id in newest.corrections[Source.OPERATOR]:
            raise CorrectionRefusedError(
                f"an operator has corrected object {object_id} on the newest frame"
            )
        over = [Source.OPERATOR] if correction.source is Source.OPERATOR else list(Source)
        if any(corrected.get(source, correction.stamp) > correction.stamp for source in over):
            raise CorrectionRefusedError(
                f"a newer frame's correction of object {object_id} came before it"
            )

    def _close_unanswered(self, correction: Correction) -> None:
        """A corrector's useless answer ends its request; a person may still try again."""
        if correction.source is Source.PSEUDO:
            for object_id in correction.masks:
                self._state.dismiss(object_id, Source.PSEUDO)


def _plain(correction: Correction) -> Correction:
    """The same with Python's integers as stamp and ids.

    Raises CorrectionRefusedError or MaskError where they are none, or nobody is its source.
    """
    if not isinstance(correction.source, Source):
        raise CorrectionRefusedError(
            f"the source of a correction must be one of {', '.join(map(str, Source))}, not "
            f"{correction.source!r}"
        )
    try:
        stamp = whole_number(correction.stamp)
    except TypeError as error:
        raise CorrectionRefusedError(
            f"a stamp must be a whole number of nanoseconds, not {correction.stamp!r}"
        ) from error
    return Correction(stamp, by_id(correction.masks), correction.source)


def _is_of_yes_and_no(mask: NDArray[Any]) -> bool:
    """Whether a mask's values say where the object is: truth values, or integers, of which 0 says
    no. Of what is between 0 and 1, and of NaN, nobody knows.
    """
    if mask.dtype.kind == "f":
        return bool(((mask == 0) | (mask == 1)).all())
    return mask.dtype.kind in "biu"


def _without_overlap(masks: Mapping[int, BoolMask]) -> dict[int, BoolMask]:
    """The masks [H, W]; each takes its pixels from those before it."""
    kept: dict[int, BoolMask] = {}
    for object_id, mask in masks.items():
        kept = {i: other & ~mask for i, other in kept.items()} | {object_id: mask}
    return kept


def _left_over(
    masks: Mapping[int, BoolMask], told: Collection[BoolMask], source: Source
) -> dict[int, BoolMask]:
    """The masks [H, W], less those `told` by a person if they are not a person's themselves.

    Raises CorrectionRefusedError where nothing is left of one.
    """
    if source is Source.OPERATOR:
        return dict(masks)
    left = {i: np.logical_and.reduce([mask, *(~m for m in told)]) for i, mask in masks.items()}
    for object_id, mask in left.items():
        if masks[object_id].any() and not mask.any():
            raise CorrectionRefusedError(
                f"what was found of object {object_id} are pixels that an operator gave to "
                "other objects"
            )
    return left


def _digest(mask: BoolMask) -> bytes:
    return hashlib.blake2b(np.packbits(mask).data, digest_size=16).digest()

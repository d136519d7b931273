# SPDX-License-Identifier: Apache-2.0
"""When to ask for a correction and when to keep a frame out of memory.

Pure functions of settings, an object's short history and what was measured on the newest
frame. The thresholds are those of Vujasinović et al. (Lazy-XMem), ACCV 2024, section 3: an
object's masked entropy and its difference to the frame before.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from lazyxmem_ros.lazy.config import HoldRule, LazyConfig, Source


class TrackState(enum.IntEnum):
    """How an object is doing; the values are those of Track.msg."""

    TRACKED = 0
    UNCERTAIN = 1
    LOST = 2
    PAUSED = 3


OBJECTS_TOGETHER = 5
"""Objects that one question is about at most, where `max_open_requests` is a limit."""
MOST_DOUBLINGS = 6
"""Times that the cool-down is doubled at most while a person says that an object is not there."""
JUMPED = "may have jumped to something alike"
UNCLEAR = 0.5
"""Share of `uncertain_entropy` from which an object's outline looks unsure."""


@dataclass(frozen=True)
class Observation:
    """What was measured of one object on the newest frame.

    Attributes:
        index: the frame's number.
        stamp: nanoseconds since the epoch.
        area: pixels of the object's mask.
        entropy: its masked entropy, >= 0.
        given: whether the object's mask was given on this frame (it was introduced or set).
        predicted_iou: its predicted IoU, 0..1; None: not known.
        share: its area relative to its usual one; None: not known.
        mistakable: whether from this frame on it may be another that looks like it.
    """

    index: int
    stamp: int
    area: int
    entropy: float
    given: bool = False
    predicted_iou: float | None = None
    share: float | None = None
    mistakable: bool = False


@dataclass(frozen=True)
class ObjectHistory:
    """What the policy remembers of one object: its last frame and when it was last helped.

    Attributes:
        state: as published with the last frame; PAUSED from the moment of pausing on.
        entropy: masked entropy on the last frame, as the tracker predicted it (a correction of
            that frame says nothing about the tracker's own certainty); None before the first.
        seen_stamp: the last time that it was in view, nanoseconds; None before the first frame.
        found_streak: frames in a row that a lost object has looked like itself again.
        operator_index: the last frame on which a person was asked or corrected it; None: never.
        pseudo_index: the same for the tracker's own corrections.
        trusted_index: the last frame on which its predicted IoU was at least `trusted_iou`, or on
            which a person showed it; None: not known.
        mistakable: whether it could be another one on the last frame.
        absences: how often in a row a person has said that it is not there, since it was last found
            or shown.
        open: its requests that are not answered yet: source -> stamp of the frame, nanoseconds.
    """

    state: TrackState = TrackState.TRACKED
    entropy: float | None = None
    seen_stamp: int | None = None
    found_streak: int = 0
    operator_index: int | None = None
    pseudo_index: int | None = None
    trusted_index: int | None = None
    mistakable: bool = False
    absences: int = 0
    open: tuple[tuple[Source, int], ...] = ()

    def is_open(self, source: Source) -> bool:
        """Whether a request of this source waits for its answer."""
        return any(source is other for other, _ in self.open)

    def asked(self, source: Source, index: int, stamp: int) -> ObjectHistory:
        """The history after a request on a frame."""
        changed = replace(self, open=(*self.open, (source, stamp)))
        return changed._helped(source, index)

    def corrected(self, source: Source, *, index: int, stamp: int, in_view: bool) -> ObjectHistory:
        """The history after a correction was applied to the newest frame (`index`, `stamp`).

        A person's correction answers every open request, the tracker's own only its own. One
        that shows the object (`in_view`) ends its being LOST; none ends its being PAUSED.
        """
        answered = self.closed(source)
        if source is Source.OPERATOR:
            absences = 0 if in_view else self.absences + 1
            answered = replace(self, open=(), trusted_index=index, absences=absences)
        helped = answered._helped(source, index)
        if not in_view or self.state is TrackState.PAUSED:
            return helped
        return replace(helped, state=TrackState.TRACKED, seen_stamp=stamp, found_streak=0)

    def paused(self) -> ObjectHistory:
        """The history of an object that from now on asks for nothing and waits for nothing."""
        return replace(self, state=TrackState.PAUSED, open=())

    def resumed(self) -> ObjectHistory:
        """The history once a pause has ended, as of an object that was just introduced; but when it
        was last right is known.
        """
        return ObjectHistory(trusted_index=self.trusted_index)

    def closed(self, source: Source) -> ObjectHistory:
        """The history without open requests of a source."""
        return replace(self, open=tuple(item for item in self.open if item[0] is not source))

    def _helped(self, source: Source, index: int) -> ObjectHistory:
        if source is Source.OPERATOR:
            return replace(self, operator_index=index)
        return replace(self, pseudo_index=index)


@dataclass(frozen=True)
class Decision:
    """What to do about one object on one frame.

    Attributes:
        state: to publish.
        rate: entropy less that of the frame before; None on the object's first frame.
        request: whom to ask, or None.
        reason: why, for people; "" where nothing is asked. Where `suppressed`, why it would
            have been asked and why not.
        suppressed: a condition was met, but cool-down, limit or an open request forbade asking.
        doubtful: its masked entropy is above `hold_entropy`.
        in_view: its mask is larger than `lost_area`.
        left_out: it is in view, but probably something else (`show_iou`).
        credible: it is in view, and its predicted IoU not below `hold_iou`.
    """

    state: TrackState
    rate: float | None
    request: Source | None
    reason: str
    suppressed: bool
    doubtful: bool
    in_view: bool
    left_out: bool
    credible: bool

    @property
    def has_say(self) -> bool:
        """Whether its doubt may keep the frame out of memory: that of a paused object may not, and
        that of a lost one only while something else is found of it.
        """
        return self.left_out or self.state not in (TrackState.LOST, TrackState.PAUSED)


def expire(
    config: LazyConfig, history: ObjectHistory, stamp: int, *, oldest: int = 0
) -> tuple[ObjectHistory, list[Source]]:
    """Gives up requests that are older than `request_timeout` at time `stamp` (ns), and those about
    frames before `oldest` (ns), which are forgotten. Returns the history and what was given up.
    """
    timeout = config.request_timeout
    late = [
        source
        for source, asked in history.open
        if asked < oldest or (timeout and stamp - asked > timeout)
    ]
    for source in late:
        history = history.closed(source)
    return history, late


def decide_together(
    config: LazyConfig,
    histories: Mapping[int, ObjectHistory],
    seen: Mapping[int, Observation],
    *,
    waiting: int,
) -> dict[int, tuple[Decision, ObjectHistory]]:
    """The decisions on objects of the newest frame, and their histories with it, by object id.

    The most uncertain object is first to ask a person. Where one asks, those that nearly would
    (`joint_margin`) ask with it, so that a person who looks at the frame says all there is to say.

    Args:
        config: thresholds and limits.
        histories: of the objects up to the frame before.
        seen: the newest frame, of the same objects.
        waiting: other frames about which persons have been asked and have not answered.
    """
    decided: dict[int, tuple[Decision, ObjectHistory]] = {}
    asked = 0

    def decide_on(object_id: int, config: LazyConfig) -> tuple[Decision, ObjectHistory]:
        return decide(
            config, histories[object_id], seen[object_id], waiting=waiting, together=asked
        )

    for object_id in sorted(seen, key=lambda i: (-seen[i].entropy, i)):
        decided[object_id] = decide_on(object_id, config)
        asked += decided[object_id][0].request is Source.OPERATOR
    if not asked or not config.joint_margin:
        return decided
    eased = _eased(config)
    for object_id, (decision, _) in decided.items():
        if decision.request is Source.OPERATOR:
            continue
        joined, history = decide_on(object_id, eased)
        if joined.request is Source.OPERATOR:
            reason = f"{joined.reason}, and this frame is asked about anyway"
            decided[object_id] = replace(joined, reason=reason), history
            asked += 1
    return decided


def decide(
    config: LazyConfig,
    history: ObjectHistory,
    seen: Observation,
    *,
    waiting: int = 0,
    together: int = 0,
    ask: bool = True,
) -> tuple[Decision, ObjectHistory]:
    """One object's decision on a frame, and its history with that frame.

    Args:
        config: thresholds and limits.
        history: of the object up to the frame before.
        seen: the frame.
        waiting: other frames about which persons have been asked and have not answered.
        together: other objects that a person is asked about on this frame.
        ask: whether anybody may be asked; nobody is about a frame that has passed.
    """
    rate = None if history.entropy is None else seen.entropy - history.entropy
    in_view = seen.area > config.lost_area
    trusted = seen.index if _trusted(config, seen) else history.trusted_index
    if history.state is TrackState.PAUSED:
        silent = Decision(
            state=TrackState.PAUSED,
            rate=rate,
            request=None,
            reason="",
            suppressed=False,
            doubtful=seen.entropy > config.hold_entropy,
            in_view=in_view,
            left_out=False,
            credible=in_view,
        )
        return silent, replace(history, entropy=seen.entropy, trusted_index=trusted)
    left_out = in_view and not seen.given and bool(_poor(seen, config.show_iou))
    shown = in_view and not left_out
    state, streak, seen_stamp = _follow(config, history, seen, shown)
    wanted, reason = _condition(config, seen, rate, first=history.entropy is None)
    settled = seen.entropy <= config.uncertain_entropy
    if state is TrackState.LOST and not (left_out and settled):
        wanted, reason = None, ""  # it would ask at every flicker, and for ever
    found = shown and wanted is not Source.OPERATOR and state is not TrackState.LOST
    if not ask:
        wanted, reason = None, ""
    refusal = "" if wanted is None else _refusal(config, history, wanted, seen, waiting, together)
    if refusal:
        reason = f"{reason}, but {refusal}"
    elif wanted is not None:
        history = history.asked(wanted, seen.index, seen.stamp)
    uncertain = wanted is not None or seen.entropy > config.uncertain_entropy or not shown
    if state is not TrackState.LOST:
        state = TrackState.UNCERTAIN if uncertain else TrackState.TRACKED
    decision = Decision(
        state=state,
        rate=rate,
        request=None if refusal else wanted,
        reason=reason,
        suppressed=bool(refusal),
        doubtful=seen.entropy > config.hold_entropy,
        in_view=in_view,
        left_out=left_out,
        credible=in_view and not _poor(seen, config.hold_iou),
    )
    after = replace(
        history,
        state=state,
        entropy=seen.entropy,
        seen_stamp=seen_stamp,
        found_streak=streak,
        trusted_index=trusted,
        mistakable=seen.mistakable,
        absences=0 if found else history.absences,
    )
    if seen.given:
        # A given mask is a person's word as much as a correction is: its entropy says nothing of
        # the tracker's, so the rise to the first predicted frame is no reason to ask.
        for source in Source:
            after = after._helped(source, seen.index)
    return decision, after


def doubted_since(
    config: LazyConfig, histories: Mapping[int, ObjectHistory], told: Iterable[int]
) -> dict[int, int]:
    """Object id -> the last frame on which it was right, as far as is known, for those of the
    objects that a person has `told` of; empty where memory is to drop nothing.
    """
    if not config.trusted_iou:
        return {}
    trusted = {i: histories[i].trusted_index for i in told if i in histories}
    return {i: index for i, index in trusted.items() if index is not None}


def hold_frame(config: LazyConfig, decisions: Iterable[Decision]) -> bool:
    """Whether the frame stays out of memory.

    That is so if the uncertainty-driven update withholds it, if it shows no object, or none that is
    credible, or if an object is about to correct itself on it and such corrections are not to be
    learnt.
    """
    items = list(decisions)
    if not config.update_from_pseudo and any(d.request is Source.PSEUDO for d in items):
        return True
    in_view = [d for d in items if d.in_view]
    if (in_view or config.hold_unseen) and items and not any(d.credible for d in in_view):
        return True
    heard = [d for d in items if d.has_say]
    if config.hold_rule is HoldRule.ALL:
        # An object out of view has no entropy, and nothing to learn either.
        visible = [d for d in heard if d.in_view]
        return bool(visible) and all(d.doubtful for d in visible)
    return any(d.doubtful for d in heard)


def _follow(
    config: LazyConfig, history: ObjectHistory, seen: Observation, shown: bool
) -> tuple[TrackState, int, int]:
    """Whether the object is LOST (else TRACKED), the streak towards found, when last in view.

    shown: it is in view, and probably itself.
    """
    if seen.given:
        return TrackState.TRACKED, 0, seen.stamp
    # One of a snapshot may be of a clock that was ahead of this one.
    seen_stamp = seen.stamp if history.seen_stamp is None else min(history.seen_stamp, seen.stamp)
    if history.state is TrackState.LOST:
        credible = shown and seen.entropy <= config.uncertain_entropy
        streak = history.found_streak + 1 if credible else 0
        if streak >= config.found_frames:
            return TrackState.TRACKED, 0, seen.stamp
        return TrackState.LOST, streak, seen_stamp
    if shown:
        return TrackState.TRACKED, 0, seen.stamp
    gone = seen.stamp - seen_stamp
    if config.lost_after and gone > config.lost_after:
        return TrackState.LOST, 0, seen_stamp
    return TrackState.TRACKED, 0, seen_stamp


def _condition(
    config: LazyConfig, seen: Observation, rate: float | None, *, first: bool
) -> tuple[Source | None, str]:
    """The correction that the thresholds call for, and why (Lazy-XMem, section 3)."""
    if first or seen.given:
        return None, ""
    rate = 0.0 if rate is None else rate
    if config.operator_corrections:
        reason = _exceeded(seen.entropy, config.operator_entropy, rate, config.operator_rate)
        reason = reason or _poor(seen, config.operator_iou)
        if reason:
            return Source.OPERATOR, f"{_impression(config, seen)}: {reason}"
        if seen.mistakable and config.operator_lookalikes:
            return Source.OPERATOR, f"{JUMPED}: there are two of them"
    if config.pseudo_corrections:
        reason = _exceeded(seen.entropy, config.pseudo_entropy, rate, config.pseudo_rate)
        reason = reason or _poor(seen, config.pseudo_iou)
        if reason:
            return Source.PSEUDO, reason
    return None, ""


def _eased(config: LazyConfig) -> LazyConfig:
    """The settings with a person's limits nearer by `joint_margin`; what is off stays off."""
    margin = config.joint_margin
    return replace(
        config,
        operator_entropy=max(config.operator_entropy - margin, 0.0),
        operator_rate=max(config.operator_rate - margin, 0.0),
        operator_iou=min(config.operator_iou + margin, 1.0) if config.operator_iou else 0.0,
    )


def _trusted(config: LazyConfig, seen: Observation) -> bool:
    return seen.given or seen.predicted_iou is None or seen.predicted_iou >= config.trusted_iou


def _impression(config: LazyConfig, seen: Observation) -> str:
    """What a person would see of the trouble, in words."""
    if seen.area <= config.lost_area or _poor(seen, config.show_iou):
        return "out of view?"
    if _nearly_hidden(config, seen):
        return "nearly hidden?"
    if seen.entropy > UNCLEAR * config.uncertain_entropy:
        return "its edge is unclear"
    return JUMPED


def _nearly_hidden(config: LazyConfig, seen: Observation) -> bool:
    return seen.share is not None and seen.share < config.least_view


def _poor(seen: Observation, limit: float) -> str:
    if seen.area and seen.predicted_iou is not None and seen.predicted_iou < limit:
        return f"the predicted IoU {seen.predicted_iou:.2f} is below {limit:.2f}"
    return ""


def _exceeded(entropy: float, entropy_limit: float, rate: float, rate_limit: float) -> str:
    if entropy > entropy_limit:
        return f"uncertainty {entropy:.2f} is above {entropy_limit:.2f}"
    if rate > rate_limit:
        return (
            f"uncertainty rose by {rate:.2f} to {entropy:.2f} within one frame "
            f"(limit {rate_limit:.2f})"
        )
    return ""


def _cooldown(config: LazyConfig, history: ObjectHistory) -> int:
    """Frames after help on which a person is not asked again: twice as many for each time in a row,
    after the first, that they said that it is not there.
    """
    doublings = min(max(history.absences - 1, 0), MOST_DOUBLINGS)
    return config.cooldown_frames << doublings


def _refusal(
    config: LazyConfig,
    history: ObjectHistory,
    source: Source,
    seen: Observation,
    waiting: int,
    together: int,
) -> str:
    """Why a correction that the thresholds call for is not asked for; "" if it is."""
    user = source is Source.OPERATOR
    if user and _nearly_hidden(config, seen):
        return "it is nearly hidden: little can be said of it now"
    if history.is_open(source):
        return "an earlier request is still open"
    cooldown = _cooldown(config, history) if user else config.pseudo_cooldown_frames
    last = history.operator_index if user else history.pseudo_index
    if user and seen.mistakable and not history.mistakable:
        last = None  # whatever was asked before, this is news
    if last is not None and seen.index - last <= cooldown:
        return f"the last one was {seen.index - last} frames ago (cool-down {cooldown})"
    if user and config.max_open_requests:
        if waiting >= config.max_open_requests:
            return f"{waiting} questions are open already (limit {config.max_open_requests})"
        if together >= OBJECTS_TOGETHER:
            return f"this frame is asked about {together} other objects already"
    return ""

# SPDX-License-Identifier: Apache-2.0
"""The settings of lazy tracking, each declared once (see `lazyxmem_ros.settings`)."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace

import numpy as np

from lazyxmem_ros.basics import SECOND, BoolMask
from lazyxmem_ros.settings import DAY, NOT_NEGATIVE, SHARE, Unit, check, setting

OFF = math.inf
"""A threshold that nothing exceeds."""


class Source(enum.Enum):
    """Who is asked for a correction, and who made one."""

    PSEUDO = "pseudo"
    """The correction service, with a click that the tracker suggests itself."""
    OPERATOR = "operator"
    """A person."""


class HoldRule(enum.Enum):
    """Which objects must be too uncertain for a frame to stay out of memory.

    Memory takes in whole frames, all objects at once, while the paper's rule is per object.
    """

    ANY = "any"
    """One is enough: nothing doubtful is ever learnt."""
    ALL = "all"
    """All in view: one difficult object does not keep the others from being learnt."""


PAPER_HOLD_ENTROPY = 0.8
"""tau_m of the paper's best run."""


@dataclass(frozen=True)
class LazyConfig:
    """The settings of lazy tracking. Raises ConfigError for a value outside its range.

    Thresholds are exceeded strictly; `OFF` (infinity) turns one off. A masked entropy is 0 where
    the tracker is certain, and about 1 or more where it knows nothing. Times are in nanoseconds,
    though the texts, which are for people, speak of seconds (see `lazyxmem_ros.settings`). The
    defaults of `operator_iou` and `hold_iou` are those that `training.calibrate` found for the
    embedded weights.
    """

    operator_corrections: bool = setting(
        True, "Whether a person may be asked at all.", heading="Asking a person"
    )
    operator_entropy: float = setting(
        OFF,
        "A person is asked above this masked entropy of an object (tau_u); infinity = never.",
        bounds=NOT_NEGATIVE,
    )
    operator_rate: float = setting(
        0.5,
        "A person is asked where an object's masked entropy rises by more than this from one frame "
        "to the next (delta_u); infinity = never.",
        bounds=NOT_NEGATIVE,
    )
    operator_iou: float = setting(
        0.5,
        "A person is asked below this predicted IoU of an object; 0 = never. Weights without a "
        "calibration predict none.",
        bounds=SHARE,
    )
    least_view: float = setting(
        0.0,
        "A person is not asked about an object of which less is to be seen than this share of its "
        "usual area: it is nearly hidden, and little can be said. 0 = asked all the same.",
        bounds=SHARE,
    )
    operator_lookalikes: bool = setting(
        True,
        "Whether a person is asked where the wrong one may be followed: an object has just come "
        "apart from its like, or was hidden, came back elsewhere, and now there are two.",
    )
    cooldown_frames: int = setting(
        30,
        "Frames after a request to a person, a person's correction or the mask that showed an "
        "object, on which a person is not asked about it again; 0 = none. They double, up to 64 "
        "times as many, each time that a person says once more that it is not there, until it is "
        "found or shown.",
        bounds=(0, 1_000_000),
        unit=Unit.FRAMES,
    )
    joint_margin: float = setting(
        0.1,
        "Where a person is asked about an object, they are asked about others of that frame, too, "
        "whose masked entropy, its rise or predicted IoU is this near to its limit; 0 = none.",
        bounds=SHARE,
    )
    max_open_requests: int = setting(
        3,
        "Questions to a person that may wait for an answer at once; one is about a frame and up to "
        "five of its objects. 0 = no limit, of objects neither.",
        bounds=(0, 1000),
    )
    request_timeout: int = setting(
        10 * SECOND,
        "Seconds by the images' stamps that a person has for an answer; 0 = until the frame is "
        "forgotten.",
        bounds=(0, DAY),
        unit=Unit.NANOSECONDS,
    )

    pseudo_corrections: bool = setting(
        True, "Whether the tracker may correct itself at all.", heading="Correcting itself"
    )
    pseudo_entropy: float = setting(
        OFF,
        "The tracker corrects itself above this masked entropy of an object (tau_p); "
        "infinity = never.",
        bounds=NOT_NEGATIVE,
    )
    pseudo_rate: float = setting(
        0.2,
        "The tracker corrects itself where an object's masked entropy rises by more than this from "
        "one frame to the next (delta_p); infinity = never.",
        bounds=NOT_NEGATIVE,
    )
    pseudo_iou: float = setting(
        0.0,
        "The tracker corrects itself below this predicted IoU of an object; 0 = never.",
        bounds=SHARE,
    )
    pseudo_cooldown_frames: int = setting(
        5,
        "Frames after the tracker asked to correct an object itself, or after the object's mask "
        "was given, on which it does not ask so again; 0 = none.",
        bounds=(0, 1_000_000),
        unit=Unit.FRAMES,
    )

    gate_radius: float = setting(
        0.25,
        "How far from where an object was on the last frame what looks like it may lie, as a share "
        "of the root of its area; what is farther away is a look-alike's, as long as the object is "
        "still there. 0 = anywhere.",
        bounds=(0.0, 100.0),
        heading="Look-alikes",
    )

    hold_entropy: float = setting(
        1.2,
        "A frame is withheld from memory above this masked entropy of its objects (tau_m); "
        "infinity = never. The paper's 0.8 suits the published weights; with more, the small "
        "embedded network learns from more frames.",
        bounds=NOT_NEGATIVE,
        heading="What memory learns",
    )
    hold_unseen: bool = setting(
        True,
        "Whether a frame on which no object is in view is withheld from memory. Memory would "
        "otherwise fill up, while something is hidden, with frames that show what it is not.",
    )
    hold_iou: float = setting(
        0.5,
        "A frame is withheld from memory if the predicted IoU of every object in view is below "
        "this; 0 = never.",
        bounds=SHARE,
    )
    hold_rule: HoldRule = setting(
        HoldRule.ANY,
        "Whether one object above hold_entropy is enough to withhold the frame (any), or all in "
        "view must be above it (all). Paused objects have no say, and lost ones only while a mask "
        "of theirs is left out (show_iou).",
    )
    update_from_operator: bool = setting(
        True, "Whether memory learns from a person's corrections (interaction-driven update)."
    )
    trusted_iou: float = setting(
        0.7,
        "With a person's correction memory drops what it learnt since the object's predicted IoU "
        "was last as high as this; 0 = it drops nothing.",
        bounds=SHARE,
    )
    update_from_pseudo: bool = setting(
        False, "Whether memory learns from the tracker's own corrections; in the paper this hurt."
    )

    uncertain_entropy: float = setting(
        0.8,
        "An object is UNCERTAIN above this masked entropy, and where it is out of view.",
        bounds=NOT_NEGATIVE,
        heading="What an object's state means",
    )
    lost_area: int = setting(
        16,
        "Pixels; an object whose mask is not larger than this is out of view.",
        bounds=(0, 100_000_000),
        unit=Unit.PIXELS,
    )
    lost_after: int = setting(
        2 * SECOND,
        "Seconds out of view after which an object is LOST: nobody is asked about it until "
        "something is found of it again; 0 = never.",
        bounds=(0, DAY),
        unit=Unit.NANOSECONDS,
    )
    found_frames: int = setting(
        3,
        "Frames in a row, in view and below uncertain_entropy, that make a lost object found.",
        bounds=(1, 1_000_000),
        unit=Unit.FRAMES,
    )
    show_iou: float = setting(
        0.35,
        "A mask whose predicted IoU is below this is not published, and counts as out of view: it "
        "is probably of something else. It is followed, asked about and corrected all the same, "
        "and published where it was given or corrected. 0 = every mask is published.",
        bounds=SHARE,
    )

    correction_horizon: int = setting(
        5 * SECOND,
        "Seconds for which frames can be gone through again, so that a late correction is applied "
        "to its own frame, exactly; 0 = never.",
        bounds=(0, DAY),
        unit=Unit.NANOSECONDS,
        heading="Late corrections",
    )
    correction_bytes: int = setting(
        1 << 30,
        "Bytes that these frames, copies of memory and the forks that catch up take at most, "
        "unless a catch-up needs more. Where they are short, the oldest frames keep their image "
        "alone, of which a correction computes the rest again, and copies lie further apart; only "
        "then the oldest frames go.",
        bounds=(0, 1 << 50),
        unit=Unit.BYTES,
    )
    state_period: int = setting(
        SECOND,
        "Seconds between the copies of memory that late corrections start from; every frame with "
        "a request gets one, too. Where correction_bytes would not hold the horizon so, copies lie "
        "further apart, and requests get none of their own.",
        bounds=(0, DAY),
        unit=Unit.NANOSECONDS,
    )
    catch_up_budget: float = setting(
        0.05,
        "Seconds per new frame for going through past frames again after a late correction. The "
        "node spends none where that would cost a frame.",
        bounds=(0.0, 3600.0),
        unit=Unit.SECONDS,
    )
    late_overlap: float = setting(
        0.7,
        "A correction of a frame whose features are gone is used on the newest frame if the "
        "object's masks on both overlap by more than this (IoU).",
        bounds=SHARE,
    )
    history_time: int = setting(
        10 * SECOND,
        "Seconds until a frame is forgotten: until then a correction may name it. A frame that "
        "still has its features is not forgotten.",
        bounds=(0, DAY),
        unit=Unit.NANOSECONDS,
    )
    history_frames: int = setting(
        600,
        "Frames that are not forgotten at most, with or without features.",
        bounds=(1, 1_000_000),
        unit=Unit.FRAMES,
    )

    def __post_init__(self) -> None:
        check(self)

    def is_in_view(self, mask: BoolMask) -> bool:
        """Whether an object with this mask [H, W] is in view: it is larger than `lost_area`."""
        return bool(np.count_nonzero(mask) > self.lost_area)

    def learns_from(self, source: Source) -> bool:
        """Whether memory takes in corrections that answer such requests."""
        return self.update_from_operator if source is Source.OPERATOR else self.update_from_pseudo

    @classmethod
    def paper(cls, **changes: object) -> LazyConfig:
        """The settings of the paper's best run, without what it does not have: cool-downs,
        limits, timeouts, lost objects and corrections of past frames. `changes` replaces single
        settings.
        """
        plain = cls(
            cooldown_frames=0,
            pseudo_cooldown_frames=0,
            operator_lookalikes=False,
            gate_radius=0.0,
            joint_margin=0.0,
            max_open_requests=0,
            request_timeout=0,
            lost_after=0,
            correction_horizon=0,
            hold_entropy=PAPER_HOLD_ENTROPY,
            hold_unseen=False,
            hold_iou=0.0,
            show_iou=0.0,
            operator_iou=0.0,
            trusted_iou=0.0,
        )
        return replace(plain, **changes)  # type: ignore[arg-type]

    def plain_xmem(self) -> LazyConfig:
        """These settings, but as XMem tracks by itself: nobody is asked, memory learns from every
        frame, every place counts and every mask is published.
        """
        return replace(
            self,
            operator_corrections=False,
            pseudo_corrections=False,
            update_from_operator=False,
            update_from_pseudo=False,
            gate_radius=0.0,
            hold_entropy=OFF,
            hold_unseen=False,
            hold_iou=0.0,
            show_iou=0.0,
        )

# SPDX-License-Identifier: Apache-2.0
"""The session on the network that comes with the package: what it tracks is of account here."""

from __future__ import annotations

import numpy as np
import pytest
from node_graph import FIRST_STAMP, STEP, header
from session_harness import Rig

from lazyxmem_ros.lazy import Correction, LazyConfig, Source, StepResult
from lazyxmem_ros.nodes.diagnostics import InputRefusedError
from lazyxmem_ros.nodes.tracker.session import LATE_S, GivenMasks

GOOD = 0.55


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_an_object_shown_late_begins_on_its_own_frame(rig: Rig) -> None:
    """Another is tracked, and goes on being tracked; then all is as if both had been shown."""
    at_once = Rig()
    for each in (rig, at_once):
        each.track(0)
        each.give(0, 1)
        each.track(1)
    at_once.give(1, 2)
    rig.track(2, 3, 4)
    at_once.track(2, 3, 4)
    published = list(rig.outputs.order)
    note = rig.give(1, 2)
    assert "shown 3 frames late, on the frame itself" in note
    assert rig.outputs.order == published  # nothing that was out goes out again
    assert rig.session.object_ids == (1, 2)
    assert rig.session.upkeep.frames_behind > 0
    assert rig.objects.reserve([0], 0).ids == (3,)
    shown = rig.received.find(FIRST_STAMP + STEP)
    assert shown is not None
    assert shown.labels is not None
    np.testing.assert_array_equal(shown.labels == 2, rig.scene.masks(1)[2])
    for each in (rig, at_once):
        each.track(*range(5, 12))
    assert rig.session.upkeep.frames_behind == 0
    assert [track.object_id for track in rig.session.published.tracks] == [1, 2]
    for index in (10, 11):
        stamp = FIRST_STAMP + index * STEP
        np.testing.assert_array_equal(rig.outputs.labels[stamp], at_once.outputs.labels[stamp])
    assert rig.overlap(11, 2) > GOOD
    assert rig.overlap(11, 1) > GOOD


@pytest.mark.parametrize(
    ("waited", "keeps_up", "sparing"),
    [(-60.0, True, False), (2 * LATE_S, True, True), (2 * LATE_S, False, False)],
)
def test_catching_up_is_spared_where_it_would_cost_a_frame(
    waited: float, keeps_up: bool, sparing: bool, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is where an image had to wait, while tracking alone is as fast as the camera."""
    rig.keeps_up = keeps_up
    rig.track(0)
    rig.give(0, 1)
    told = []
    step = rig.lazy.step

    def noted(*args: object, **settings: bool) -> StepResult:
        told.append(settings["sparing"])
        return step(*args, **settings)

    monkeypatch.setattr(rig.lazy, "step", noted)
    frame = rig.frame(1)
    frame.received_at -= waited
    assert rig.objects.process(frame)
    assert told == [sparing]


def test_the_only_other_object_may_go_while_one_arrives(rig: Rig) -> None:
    rig.track(0)
    rig.give(0, 1)
    rig.track(1, 2, 3)
    rig.give(1, 2)
    rig.objects.remove([1])
    assert rig.session.object_ids == (2,)
    rig.track(4, 5, 6)
    assert rig.overlap(6, 2) > GOOD
    assert rig.objects.remove([]) == (2,)
    assert rig.session.object_ids == ()


def test_a_free_id_for_a_past_frame_was_nobodys_since(rig: Rig) -> None:
    rig.track(0)
    rig.give(0, 1, 2)
    rig.track(1, 2)
    rig.objects.remove([2])
    rig.track(3)
    now = rig.objects.reserve([0], 0)
    assert now.ids == (2,)
    rig.objects.release(now)
    assert rig.objects.reserve([0], FIRST_STAMP + STEP).ids == (3,)


@pytest.fixture
def forgetful() -> Rig:
    """Without the features of past frames."""
    return Rig(correction_horizon=0)


def test_where_features_are_not_kept_it_is_found_on_the_newest_frame(forgetful: Rig) -> None:
    """Another is tracked, so time cannot be turned back: it is carried forward."""
    rig = forgetful
    rig.track(0)
    rig.give(0, 1)
    rig.track(1, 2, 3, 4)
    stale = rig.scene.masks(1)[2]
    truth = rig.scene.masks(4)[2]
    assert "features are not kept: the objects were found again" in rig.give(1, 2)
    assert rig.session.object_ids == (1, 2)
    assert rig.outputs.order[-1] == FIRST_STAMP + 4 * STEP  # the newest frame, published again
    unmoved = float((stale & truth).sum() / (stale | truth).sum())
    assert rig.overlap(4, 2) > GOOD > unmoved
    assert rig.overlap(4, 1) > GOOD
    rig.track(5)
    assert rig.overlap(5, 2) > GOOD
    assert rig.overlap(5, 1) > GOOD


def test_what_is_carried_forward_is_nobody_elses(forgetful: Rig) -> None:
    """Object 1's mask has spread over what is now shown as object 2."""
    rig = forgetful
    rig.track(0)
    both = rig.scene.masks(0)[1] | rig.scene.masks(0)[2]
    rig.objects.give_masks(GivenMasks(FIRST_STAMP, {1: both}, topic="init"))
    rig.track(1, 2, 3, 4)
    assert "the objects were found again" in rig.give(1, 2)
    assert rig.overlap(4, 2) > GOOD


def test_an_object_shown_on_a_frame_that_was_dropped_is_carried_forward(rig: Rig) -> None:
    rig.track(0)
    rig.give(0, 1)
    rig.receive(1)  # dropped for frame 2
    rig.track(2, 3)
    assert "was never tracked: the objects were found again" in rig.give(1, 2)
    assert rig.outputs.order[-1] == FIRST_STAMP + 3 * STEP
    assert rig.overlap(3, 2) > GOOD


def test_an_object_that_is_gone_by_now_is_refused(forgetful: Rig) -> None:
    rig = forgetful
    rig.track(0)
    rig.give(0, 1)
    rig.track(1)
    rig.scene.textures[1] = rig.scene.background  # the second disc is nowhere to be seen
    ghost = rig.frame(2)
    rig.received.add(ghost)
    rig.objects.process(ghost)
    with pytest.raises(InputRefusedError, match="object 2 was not found again"):
        rig.give(1, 2)
    assert rig.session.object_ids == (1,)


def test_the_first_object_may_be_shown_on_a_past_frame(rig: Rig) -> None:
    """Nothing is tracked yet, so tracking begins there."""
    rig.track(0, 1, 2)
    rig.give(1, 1)
    assert rig.outputs.order[-1] == FIRST_STAMP + STEP
    rig.track(3)
    assert rig.overlap(3, 1) > GOOD


def test_after_the_first_object_another_may_be_shown_on_a_later_frame(rig: Rig) -> None:
    """The camera rests, and both are shown on pictures that are out."""
    rig.track(*range(9))
    rig.give(2, 1)
    assert rig.objects.find_frame(0).stamp == FIRST_STAMP + 8 * STEP  # what everybody sees
    assert rig.give(5, 2) == ""
    assert rig.outputs.order[-1] == FIRST_STAMP + 5 * STEP
    assert rig.overlap(5, 2) == 1.0
    assert rig.overlap(5, 1) > GOOD
    rig.track(9)
    assert rig.overlap(9, 1) > GOOD
    assert rig.overlap(9, 2) > GOOD


def test_a_dropped_frame_that_a_mask_names_is_tracked_after_all(rig: Rig) -> None:
    rig.track(0)
    rig.give(2, 1)  # held until it comes
    rig.receive(1)
    rig.receive(2)  # dropped for frame 3
    rig.track(3)
    assert rig.outputs.order == [FIRST_STAMP + i * STEP for i in (0, 2, 3)]
    assert rig.overlap(2, 1) == 1.0
    assert rig.overlap(3, 1) > GOOD


def test_masks_may_come_before_the_worker_reaches_their_frame(rig: Rig) -> None:
    rig.track(0)
    slow = rig.receive(1)
    rig.give(1, 1)  # frame 1 was received, and waits
    assert rig.outputs.order[-1] == slow.stamp
    rig.objects.process(slow)  # it is not tracked twice
    assert rig.outputs.order == [FIRST_STAMP, slow.stamp]


def test_masks_whose_frame_got_lost_are_refused(rig: Rig) -> None:
    rig.track(0)
    rig.give(2, 1)
    rig.track(1, 3)
    [refused] = rig.outputs.refused
    assert refused.startswith("init: frame never came: ")
    assert str(FIRST_STAMP + 2 * STEP) in refused
    assert rig.session.object_ids == ()


def test_all_masks_that_were_held_for_a_frame_are_shown_on_it(rig: Rig) -> None:
    rig.track(0)
    rig.give(1, 1)
    rig.give(1, 2)
    small = {3: np.ones((4, 4), bool)}  # does not fit, and keeps no other out
    rig.objects.give_masks(GivenMasks(FIRST_STAMP + STEP, small, topic="init"))
    rig.track(1)
    assert rig.session.object_ids == (1, 2)
    assert [rig.overlap(1, i) for i in (1, 2)] == [1.0, 1.0]
    assert [text.split(":")[1] for text in rig.outputs.refused] == [" size"]


def test_masks_held_for_a_frame_that_others_were_shown_on_first(rig: Rig) -> None:
    rig.track(0)
    rig.give(1, 1)  # held
    rig.receive(1)
    rig.give(1, 2)  # the frame is there, and tracked at once
    rig.track(2)
    assert sorted(rig.session.object_ids) == [1, 2]
    assert rig.outputs.refused == []


def test_a_frame_that_a_newer_one_overtook_is_dropped(rig: Rig) -> None:
    rig.track(0)
    waiting = rig.receive(1)
    rig.receive(2)
    rig.give(2, 1)
    assert not rig.objects.process(waiting)
    assert rig.objects.process(rig.frame(3))


@pytest.mark.parametrize("late", [0, 3])
def test_a_correction_is_its_own_frames(rig: Rig, late: int) -> None:
    """The wrong object was shown; a person corrects it, at once or frames later."""
    rig.track(0)
    wrong = {1: rig.scene.masks(0)[2]}
    rig.objects.give_masks(GivenMasks(FIRST_STAMP, wrong))
    rig.track(1)
    rig.track(*range(2, 2 + late))
    stamp = FIRST_STAMP + STEP
    correction = Correction(stamp, {1: rig.scene.masks(1)[1]}, Source.OPERATOR)
    outcome = rig.corrections.apply(correction)
    assert outcome.applied, outcome.reason
    corrected = rig.received.find(stamp)
    assert corrected is not None
    assert corrected.labels is not None
    np.testing.assert_array_equal(corrected.labels == 1, rig.scene.masks(1)[1])
    assert rig.outputs.corrected == [(True, outcome.reason)]


def test_a_correction_that_cannot_be_applied_changes_nothing(rig: Rig) -> None:
    rig.track(0)
    rig.give(0, 1)
    before = rig.received.find(FIRST_STAMP)
    assert before is not None
    labels = before.labels
    mask = rig.scene.masks(0)[2]
    outcome = rig.corrections.apply(Correction(FIRST_STAMP + 5, {1: mask}, Source.OPERATOR))
    assert not outcome.applied
    outcome = rig.corrections.apply(Correction(FIRST_STAMP, {9: mask}, Source.OPERATOR))
    assert not outcome.applied
    assert before.labels is labels


def test_the_tracker_may_ask_again_after_the_service_failed(rig: Rig) -> None:
    rig.session.configure(
        LazyConfig(
            operator_corrections=False,
            pseudo_entropy=0.0,
            pseudo_rate=float("inf"),
            pseudo_cooldown_frames=0,
        ),
        0.0,
    )
    rig.track(0)
    rig.give(0, 1)
    rig.track(1, 2)
    assert rig.outputs.asked == [FIRST_STAMP + STEP]
    rig.corrections.give_up(header(1), 1, Source.PSEUDO, "failed")
    rig.track(3)
    assert rig.outputs.asked[1:] == [FIRST_STAMP + 3 * STEP]


def test_an_object_may_ask_again_once_its_request_is_declined(rig: Rig) -> None:
    rig.track(0)
    rig.give(0, 1)
    rig.ask_always(request_timeout=0, max_open_requests=1)
    rig.track(1, 2)
    assert rig.outputs.asked == [FIRST_STAMP + STEP]
    rig.corrections.dismiss([1])
    rig.track(3)
    assert rig.outputs.asked[1:] == [FIRST_STAMP + 3 * STEP]


def test_nobody_is_waited_for_while_no_frames_come(rig: Rig) -> None:
    rig.track(0)
    rig.give(0, 1)
    rig.ask_always(request_timeout=0, max_open_requests=1)
    rig.track(1)
    assert rig.corrections.open_requests == 1
    rig.session.pause()
    assert rig.corrections.open_requests == 0
    rig.track(2)
    assert rig.outputs.asked == [FIRST_STAMP + STEP, FIRST_STAMP + 2 * STEP]


def test_free_ids_are_the_lowest(rig: Rig) -> None:
    rig.track(0)
    rig.give(0, 2)
    assert rig.objects.reserve([0, 3, 0, 0], 0).ids == (1, 3, 4, 5)
    assert rig.objects.reserve([0], 0).ids == (6,)


def test_masks_that_came_before_one_frame_keep_the_limit_together() -> None:
    rig = Rig(max_objects=1)
    rig.give(2, 1)
    rig.give(2, 2)
    rig.track(2)
    assert rig.session.object_ids == (1,)
    assert any("too many objects" in refused for refused in rig.outputs.refused)


def test_an_object_that_was_shown_just_before_stamps_begin_again_is_kept(rig: Rig) -> None:
    """Nothing was tracked when the image came by which they do."""
    rig.track(3)
    rig.give(3, 1)
    rig.objects.begin_again()
    assert rig.session.object_ids == (1,)
    rig.track(0)
    assert [track.object_id for track in rig.session.published.tracks] == [1]

# SPDX-License-Identifier: Apache-2.0
"""What is asked of a session while a frame waits for its correction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from node_graph import FIRST_STAMP, STEP
from session_harness import WIDTH, Rig

from lazyxmem_ros.correction.base import box_of_mask
from lazyxmem_ros.lazy import Correction, Source
from lazyxmem_ros.nodes.tracker.session import GivenMasks


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_reset_forgets_the_frame_that_waits(rig: Rig) -> None:
    rig.track(0)
    rig.give(0, 1)
    rig.ask_always(rig.objects.reset)
    published = list(rig.outputs.order)
    assert not rig.track(9)
    assert rig.outputs.order == published
    assert rig.session.published.stamp == 0
    assert rig.track(2)  # any stamp may follow
    assert rig.outputs.order[-1] == FIRST_STAMP + 2 * STEP


def test_an_object_is_added_on_the_frame_that_waits(rig: Rig) -> None:
    rig.track(0)
    rig.give(0, 1)
    rig.ask_always(lambda: rig.give(1, 2))
    published = list(rig.outputs.order)
    rig.track(1)
    assert rig.outputs.order == [*published, FIRST_STAMP + STEP]  # once, with both
    assert [track.object_id for track in rig.session.published.tracks] == [1, 2]
    assert rig.overlap(1, 2) == 1.0


def test_an_object_is_shown_on_a_frame_after_the_one_that_waits(rig: Rig) -> None:
    rig.track(0)
    rig.give(0, 1)

    def show() -> None:
        rig.receive(2)
        rig.give(2, 2)

    rig.ask_always(show)
    rig.track(1)
    assert rig.outputs.order[-2:] == [FIRST_STAMP + STEP, FIRST_STAMP + 2 * STEP]
    assert rig.session.published.stamp == FIRST_STAMP + 2 * STEP
    assert rig.session.object_ids == (1, 2)


def test_a_removed_object_is_not_waited_for_and_not_on_the_frame(rig: Rig) -> None:
    rig.track(0)
    rig.give(0, 1, 2)
    later: list[int] = []
    rig.ask_always(lambda: rig.objects.remove([1, 2]), lambda: later.append(1))
    rig.track(1)
    assert later == []
    assert not rig.outputs.labels[FIRST_STAMP + STEP].any()
    assert rig.outputs.tracks[FIRST_STAMP + STEP] == []
    assert rig.session.published.tracks == ()


def test_the_tracks_are_those_of_the_corrected_mask(rig: Rig) -> None:
    rig.track(0)
    rig.give(0, 1)
    corrected = rig.scene.masks(1)[1] & (np.arange(WIDTH) < 90)
    answer = Correction(FIRST_STAMP + STEP, {1: corrected}, Source.OPERATOR)
    rig.ask_always(lambda: rig.corrections.apply(answer))
    rig.track(1)
    [track] = rig.outputs.tracks[FIRST_STAMP + STEP]
    shown = rig.outputs.labels[FIRST_STAMP + STEP] == 1
    np.testing.assert_array_equal(shown, corrected)
    assert track.area == shown.sum()
    assert track.box == box_of_mask(shown)
    assert rig.session.published.tracks == (track,)


def test_what_is_probably_something_else_is_not_published() -> None:
    rig = Rig(show_iou=1.0, predict_iou=True)
    rig.track(0)
    rig.give(0, 1)
    rig.track(1)
    stamp = FIRST_STAMP + STEP
    [track] = rig.outputs.tracks[stamp]
    assert not rig.outputs.labels[stamp].any()
    assert (track.area, track.box) == (0, None)
    assert 0.5 < track.predicted_iou < 1
    tracked = rig.received.find(stamp)
    assert tracked is not None
    assert tracked.labels is not None
    assert not tracked.labels.any(), "who answers without a question has seen nothing"
    assert (rig.outputs.labels[FIRST_STAMP] == 1).any(), "it was given there"


def test_what_was_not_published_stays_out_where_another_is_corrected() -> None:
    rig = Rig(show_iou=1.0, predict_iou=True)
    rig.track(0)
    rig.give(0, 1, 2)
    rig.track(1)
    stamp, corrected = FIRST_STAMP + STEP, rig.scene.masks(1)[2]
    assert rig.corrections.apply(Correction(stamp, {2: corrected}, Source.OPERATOR)).applied
    tracked = rig.received.find(stamp)
    assert tracked is not None
    assert tracked.labels is not None
    assert set(np.unique(tracked.labels)) == {0, 2}
    np.testing.assert_array_equal(tracked.labels == 2, corrected)


def masks_before_two_frames(rig: Rig, meanwhile: Callable[[], object]) -> None:
    """Masks came before two frames, of which the first one waits, and the second is in hand."""
    rig.track(0)
    rig.give(0, 1)
    for index, object_id in ((8, 2), (9, 3)):
        rig.objects.give_masks(given_early(rig, index, object_id))
    rig.receive(8)
    rig.ask_always(meanwhile)
    rig.track(9)
    assert "before the masks' frame came" in rig.outputs.refused[-1]


def test_masks_are_overtaken_while_a_frame_before_theirs_waits(rig: Rig) -> None:
    masks_before_two_frames(rig, lambda: rig.objects.remove(()))
    assert rig.session.object_ids == ()
    assert rig.outputs.order[-1] == FIRST_STAMP + 9 * STEP


@pytest.mark.parametrize(("order", "left"), [("begin_again", (1, 2)), ("reset", ())])
def test_frames_that_are_forgotten_while_one_waits_are_not_tracked_any_more(
    rig: Rig, order: str, left: tuple[int, ...]
) -> None:
    masks_before_two_frames(rig, getattr(rig.objects, order))
    assert FIRST_STAMP + 9 * STEP not in rig.outputs.order
    assert rig.session.object_ids == left
    assert rig.track(2)  # a stamp of the other clock
    assert rig.outputs.order[-1] == FIRST_STAMP + 2 * STEP


def given_early(rig: Rig, index: int, object_id: int) -> GivenMasks:
    """A mask of an object on a frame that has yet to come."""
    mask = rig.scene.masks(index)[1 + object_id % 2]
    return GivenMasks(FIRST_STAMP + index * STEP, {object_id: mask}, topic="init")

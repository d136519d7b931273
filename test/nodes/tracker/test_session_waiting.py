# SPDX-License-Identifier: Apache-2.0
"""What is asked of a session while a frame waits for its correction."""

from __future__ import annotations

import numpy as np
import pytest
from node_graph import FIRST_STAMP, STEP
from session_harness import WIDTH, Rig

from lazyxmem_ros.correction.base import box_of_mask
from lazyxmem_ros.lazy import Correction, Source


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

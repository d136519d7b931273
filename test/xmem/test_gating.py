# SPDX-License-Identifier: Apache-2.0
"""What looks like an object is the object's where that can have come to."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lazyxmem_ros.xmem import gating
from lazyxmem_ros.xmem.gating import PATIENCE, STEP, Place, gate, place_of

HEIGHT, WIDTH, RADIUS = 60, 120, 8
GATE = 0.25

Mask = NDArray[np.uint8]


def disc(x: float, y: float = 30, radius: float = RADIUS) -> Mask:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return ((rows - y) ** 2 + (columns - x) ** 2 < radius**2).astype(np.uint8)


def overlap(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / (one | other).sum())


def followed(masks: Iterable[Mask], place: Place) -> tuple[Mask, Place]:
    """What is the object's on the last one, and its place there."""
    mine = place.target.mask
    for mask in masks:
        place, mine = place.follow(mask, GATE)
    return mine, place


def test_something_alike_far_away_is_not_the_object() -> None:
    mine, place = followed([disc(22) | disc(80)], Place.of(disc(20)))
    assert (mine == disc(22)).all()
    assert place.rival is not None
    assert (place.rival.mask == disc(80)).all()


def test_a_piece_nearby_is_the_objects() -> None:
    pieces = disc(20) | disc(20, y=44, radius=5)
    mine, _ = followed([pieces], Place.of(disc(20)))
    assert (mine == pieces).all()


def test_an_object_that_is_gone_may_come_back_anywhere() -> None:
    empty = np.zeros((HEIGHT, WIDTH), np.uint8)
    mine, place = followed([*[empty] * 60, disc(90)], Place.of(disc(20)))
    assert (mine == disc(90)).all()
    assert place.rival is None


def test_an_object_of_which_little_is_left_may_have_jumped() -> None:
    left = disc(20, radius=3)
    mine, _ = followed([left | disc(90)], Place.of(disc(20)))
    assert (mine == (left | disc(90))).all()


@pytest.mark.parametrize("seen_before", [True, False])
def test_a_twin_crosses_and_the_object_is_followed(*, seen_before: bool) -> None:
    """Also where the twin is not taken for the object before it touches it."""
    place, doubted = Place.of(disc(20)), []
    for step in range(1, 41):
        own, twin = disc(20 + 2 * step), disc(100 - 2 * step)
        apart = not (own & twin).any()
        mask = own if apart and step < 20 and not seen_before else own | twin
        place, mine = place.follow(mask, GATE)
        doubted.append(place.mistakable)
        if apart:
            assert overlap(mine, own) > 0.9
    assert any(doubted[20:])
    assert not any(doubted[:15])


def test_what_was_denied_is_not_taken_again() -> None:
    """A correction says where the object is; its twin is elsewhere from then on."""
    both = disc(20) | disc(90)
    mine, _ = followed([both], Place.of(both))
    assert (mine == both).all()
    mine, _ = followed([both] * 5, Place.of(disc(90)))
    assert (mine == disc(90)).all()


def test_an_object_of_two_parts_keeps_both() -> None:
    parts = [disc(20 + n) | disc(90 + n) for n in range(20)]
    mine, place = followed(parts, Place.of(parts[0]))
    assert (mine == parts[-1]).all()
    assert not place.mistakable


def test_an_object_that_comes_nearer_and_is_cut_by_a_pole_keeps_its_parts() -> None:
    """They are not alike in size, so they are no twins."""
    nearer = [disc(40, radius=RADIUS * 1.15**n) for n in range(6)]
    cut = nearer[-1].copy()
    cut[:, 46:50] = 0
    mine, _ = followed([*nearer, cut], Place.of(disc(40)))
    assert (mine == cut).all()


def test_a_rival_that_is_not_seen_any_more_is_forgotten() -> None:
    _, place = followed([disc(20) | disc(80)], Place.of(disc(20)))
    _, still = followed([disc(20)] * PATIENCE, place)
    _, gone = followed([disc(20)] * (PATIENCE + 1), place)
    assert still.rival is not None
    assert gone.rival is None


def test_what_lies_outside_becomes_background() -> None:
    def at_full_size(mask: Mask) -> torch.Tensor:
        return torch.from_numpy(mask.repeat(STEP, 0).repeat(STEP, 1)).float()

    likely = 0.9 * at_full_size(disc(22) | disc(80))
    distribution = torch.stack([1 - likely, likely])
    places = {7: place_of(at_full_size(disc(20)))}
    gated, now = gate(distribution, likely[None], (7,), places, radius=GATE)
    torch.testing.assert_close(gated.sum(0), torch.ones(gated.shape[1:]))
    torch.testing.assert_close(gated[1], 0.9 * at_full_size(disc(22)))
    assert (now[7].target.mask == disc(22)).all()
    assert float(distribution[1].max()) == pytest.approx(0.9)
    again, _ = gate(gated, gated[1:], (7,), places, radius=GATE)
    assert again is gated


def test_an_object_that_came_back_elsewhere_may_be_another() -> None:
    """Once there are two of them; not before."""
    hidden = [np.zeros((HEIGHT, WIDTH), np.uint8)] * 5
    back = [disc(90)] * 5
    _, place = followed([*hidden, *back], Place.of(disc(20)))
    assert not place.mistakable
    _, two = followed([disc(90) | disc(22)], place)
    assert two.mistakable
    _, same = followed([*hidden, disc(22), disc(22) | disc(90)], Place.of(disc(20)))
    assert not same.mistakable


def test_the_first_view_of_an_object_that_was_not_to_be_seen_is_its_usual_area() -> None:
    """A person said that it is out of view, say; a crumb is no rival of it."""
    hidden = Place.of(np.zeros((HEIGHT, WIDTH), np.uint8))
    _, place = followed([disc(40), disc(40) | disc(90, radius=3)], hidden)
    assert place.usual_area == disc(40).sum()
    assert place.rival is None


def test_an_object_that_has_just_come_out_is_not_cut_where_a_crumb_lies_beside_it() -> None:
    """What it was like when little of it was to be seen is no measure of it."""
    growing = [disc(40, radius=2 + n) for n in range(12)]
    crumb = disc(66, radius=4)
    seen = [mask | crumb for mask in growing]
    _, place = followed(seen, Place.of(growing[0]))
    for x in range(60, 40, -2):
        whole = disc(40, radius=13) | disc(x, radius=4)
        mine, place = followed([whole], place)
        assert (mine & disc(40, radius=13)).sum() == disc(40, radius=13).sum()


def test_a_gate_may_be_as_large_as_it_likes() -> None:
    """What it costs does not rise with it."""
    place, mine = Place.of(disc(20)).follow(disc(90), 1e4)
    assert (mine == disc(90)).all()
    assert not place.jumped


@pytest.mark.parametrize("reach", [33, 45])
def test_a_large_gate_is_an_ellipse_as_a_small_one_is(
    reach: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = disc(60, radius=3)
    measured = gating._grown(mask, reach)
    monkeypatch.setattr(gating, "DILATED", reach)
    assert overlap(measured, gating._grown(mask, reach)) > 0.97
    assert not gating._grown(np.zeros_like(mask), reach).any()

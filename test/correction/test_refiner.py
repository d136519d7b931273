# SPDX-License-Identifier: Apache-2.0
"""The embedded corrector: windows, prompts, loading. Its quality is measured elsewhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lazyxmem_ros import weights
from lazyxmem_ros.correction import corrector_weights, make_corrector
from lazyxmem_ros.correction.base import (
    Corrector,
    CorrectorError,
    Prompt,
    PromptError,
    Refinement,
    mask_iou,
)
from lazyxmem_ros.correction.refiner import (
    FINE,
    RIM,
    RefinerCorrector,
    choose_parts,
    follow_colours,
    load_refiner,
    merge,
    moved_onto,
)
from lazyxmem_ros.correction.refiner_input import (
    SEARCH_SHARES,
    Window,
    choose_window,
    draw_clicks,
    network_input,
    overlap,
)
from lazyxmem_ros.correction.refiner_network import (
    BOX,
    CROP,
    POSITIVE,
    PRIOR,
    PRIOR_IOU,
    RefinerNetwork,
)

SIZE = (120, 200)


@pytest.fixture(scope="module")
def corrector() -> RefinerCorrector:
    torch.manual_seed(0)
    return RefinerCorrector(RefinerNetwork())


def mask_of(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_a_window_goes_there_and_back() -> None:
    mask = mask_of(40, 30, 90, 80)
    for window in (Window(20, 10, 90), Window(-30, -20, 200), Window(30, 20, 70)):
        crop = window.take(np.where(mask, 255, 0).astype(np.uint8))
        assert crop.shape == (CROP, CROP)
        back = window.put_back((crop > 127).astype(np.float32), SIZE) > 0.5
        assert (back & mask).sum() / (back | mask).sum() > 0.93


def test_the_window_holds_all_that_the_prompt_knows() -> None:
    prompt = Prompt(positive=[(150, 60)], box=(20, 20, 60, 60), mask=mask_of(30, 30, 80, 90))
    window = choose_window(prompt, SIZE)
    assert window.x <= 20
    assert window.y <= 20
    assert window.x + window.side >= 150
    assert window.y + window.side >= 90


@pytest.mark.parametrize("size", [(1, 640), (640, 1), (1, 1)])
def test_an_image_may_be_one_pixel_wide_or_high(
    size: tuple[int, int], corrector: RefinerCorrector
) -> None:
    (answer,) = corrector.refine(np.zeros((*size, 3), np.uint8), [Prompt(positive=[(0, 0)])])
    assert answer.mask.shape == size


def test_clicks_are_drawn_where_they_are() -> None:
    drawn = draw_clicks(np.array([[30, 50], [100, 20]], np.float32))
    assert drawn[50, 30] == drawn[20, 100] == 1
    assert drawn[100, 100] < 1e-3
    assert not draw_clicks(np.zeros((0, 2), np.float32)).any()


def test_no_prior_is_not_an_empty_prior() -> None:
    image = np.zeros((CROP, CROP, 3), np.uint8)
    none = np.zeros((0, 2), np.float32)
    without = network_input(image, None, none, none, None)
    empty = network_input(image, np.zeros((CROP, CROP), bool), none, none, (0, 0, 10, 10))
    assert (without[PRIOR] == -1).all()
    assert (empty[PRIOR] == 0).all()
    assert empty[BOX].sum() == 100


def test_the_network_is_told_how_good_the_prior_is() -> None:
    image, none = np.zeros((CROP, CROP, 3), np.uint8), np.zeros((0, 2), np.float32)
    prior = np.ones((CROP, CROP), bool)
    for told, seen in ((None, -1.0), (0.25, 0.25), (0.0, 0.0)):
        channels = network_input(image, prior, none, none, None, prior_iou=told)
        assert (channels[PRIOR_IOU] == seen).all()
    assert (network_input(image, None, none, none, None, prior_iou=0.5)[PRIOR_IOU] == -1).all()


def test_a_strange_expectation_is_refused() -> None:
    with pytest.raises(PromptError, match="prior_iou"):
        Prompt(positive=[(1, 1)], prior_iou=1.5)


def test_a_lone_click_is_looked_at_in_several_windows(
    corrector: RefinerCorrector, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides: list[list[int]] = []
    best = corrector._best

    def watched(image, prompt, windows):  # type: ignore[no-untyped-def]
        sides.append([window.side for window in windows])
        return best(image, prompt, windows)

    monkeypatch.setattr(corrector, "_best", watched)
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    corrector.refine(image, [Prompt(positive=[(60, 50)])])
    assert len(sides[0]) == len(SEARCH_SHARES)
    corrector.refine(image, [Prompt(positive=[(60, 50)], mask=mask_of(40, 30, 90, 80))])
    assert len(sides[-1]) == 1


@pytest.mark.parametrize(
    ("box", "count"),
    [
        ((100, 90, 200, 180), 1),
        ((0, 0, 100, 100), 1),
        ((10, 140, 300, 200), 2),
        ((150, 60, 200, 290), 2),
        ((60, 60, 260, 260), 4),
    ],
)
def test_parts_show_all_of_the_outline(box: tuple[int, int, int, int], count: int) -> None:
    x0, y0, x1, y1 = box
    found = np.zeros((FINE, FINE), bool)
    found[y0:y1, x0:x1] = True
    parts = choose_parts(found)
    assert len(parts) == count
    shown = np.zeros_like(found)
    for part in parts:
        x, y = part.x, part.y
        assert part.side == CROP
        assert 0 <= min(x, y) <= max(x, y) <= FINE - CROP
        shown[y : y + CROP, x : x + CROP] = True
    assert shown[max(0, y0 - RIM) : y1 + RIM, max(0, x0 - RIM) : x1 + RIM].all()


def test_without_an_outline_there_are_no_parts() -> None:
    assert choose_parts(np.zeros((FINE, FINE), bool)) == []
    assert choose_parts(np.ones((FINE, FINE), bool)) == []


def test_what_the_parts_show_replaces_the_first_answer(
    corrector: RefinerCorrector, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, columns = np.mgrid[:FINE, :FINE]
    truth = (rows - 170) ** 2 + (columns - 150) ** 2 < 90**2
    coarse = (abs(rows - 170) < 90) & (abs(columns - 150) < 90)
    picture = np.where(truth, 255, 0).astype(np.uint8)[..., None].repeat(3, -1)
    clicks = []

    def see(inputs):  # type: ignore[no-untyped-def]
        clicks.append(sum(float(x[POSITIVE].max()) for x in inputs))
        return np.stack([(x[0] > 0).astype(np.float32) for x in inputs]), np.ones(len(inputs))

    monkeypatch.setattr(corrector, "_see", see)
    point, none = np.array([[100, 120]], np.float32), np.empty((0, 2), np.float32)
    answer = corrector._in_parts(picture, coarse.astype(np.float32), point, none, 0.8)
    np.testing.assert_array_equal(answer > 0.5, truth)
    assert clicks[0] >= 0.99
    assert corrector._in_parts(picture, np.zeros_like(answer), point, none, 0.8).max() == 0
    assert len(clicks) == 1


def test_only_an_object_larger_than_the_crop_is_seen_in_parts(
    corrector: RefinerCorrector, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(corrector, "_in_parts", lambda *a: seen.append(a[0].shape) or a[1])
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    small, large = mask_of(40, 30, 90, 80), mask_of(20, 5, 170, 115)
    corrector.refine(image, [Prompt(mask=small, prior_iou=0.9)])
    assert seen == []
    corrector.refine(image, [Prompt(mask=large, prior_iou=0.9)])
    assert seen == [(FINE, FINE, 3)]


def test_windows_overlap_as_squares_do() -> None:
    assert overlap(Window(0, 0, 10), Window(0, 0, 10)) == 1
    assert overlap(Window(0, 0, 10), Window(10, 0, 10)) == 0
    assert overlap(Window(0, 0, 10), Window(5, 0, 10)) == pytest.approx(50 / 150)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(positive=[(60, 50)]),
        Prompt(positive=[(0, 0)], negative=[(199, 119)]),
        Prompt(box=(10, 10, 190, 110)),
        Prompt(mask=mask_of(0, 0, 200, 120), negative=[(5, 5)]),
    ],
)
def test_every_prompt_gets_a_mask_of_the_images_size(
    corrector: RefinerCorrector, prompt: Prompt
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    (answer,) = corrector.refine(image, [prompt])
    assert answer.mask.shape == SIZE
    assert answer.mask.dtype == np.bool_
    assert 0 <= answer.score <= 1
    (again,) = corrector.refine(image, [prompt])
    np.testing.assert_array_equal(answer.mask, again.mask)


def test_a_prompt_outside_is_refused(corrector: RefinerCorrector) -> None:
    assert isinstance(corrector, Corrector)
    with pytest.raises(PromptError, match="outside"):
        corrector.refine(np.zeros((*SIZE, 3), np.uint8), [Prompt(positive=[(500, 5)])])


def test_weights_load_and_strange_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorrectorError, match="no refiner weights"):
        load_refiner(tmp_path / "none.safetensors")
    path = tmp_path / "r.safetensors"
    path.write_bytes(b"nonsense")
    with pytest.raises(CorrectorError, match="cannot be read"):
        load_refiner(path)
    save_file({"other": torch.zeros(1)}, path)
    with pytest.raises(CorrectorError, match="no refiner: it has no entry"):
        load_refiner(path)
    network = RefinerNetwork()
    save_file({k: v / 0 for k, v in network.state_dict().items()}, path)
    with pytest.raises(CorrectorError, match="NaN or infinite numbers in"):
        load_refiner(path)
    save_file(
        {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}, path
    )
    loaded = load_refiner(path)
    torch.testing.assert_close(loaded.pred.weight, network.pred.weight, rtol=1e-3, atol=1e-3)


def test_colours_decide_where_the_network_is_unsure_and_nobody_clicked() -> None:
    """It takes a disc on the blue side, too, for the red object."""
    rows, columns = np.mgrid[:80, :80]
    red = columns < 40
    disc = (rows - 40) ** 2 + (columns - 60) ** 2 < 8**2
    crop = np.where(red[..., None], (200, 30, 30), (30, 30, 200)).astype(np.uint8)
    crop += np.random.default_rng(0).integers(0, 30, crop.shape, dtype=np.uint8)
    probability = np.where(red, 0.95, np.where(disc, 0.7, 0.05)).astype(np.float32)
    by_colour = follow_colours(crop, probability, np.empty((0, 2), np.float32)) > 0
    clicked = follow_colours(crop, probability, np.array([[60, 40]], np.float32)) > 0
    np.testing.assert_array_equal(by_colour, red)
    assert clicked[40, 60]
    assert clicked[disc].mean() > 0.5
    np.testing.assert_array_equal(clicked & ~disc, red)


def test_a_thin_outline_is_no_change_and_a_piece_is() -> None:
    prior = mask_of(40, 30, 100, 90)
    grown = mask_of(39, 29, 101, 91)
    click = Prompt(positive=[(70, 60)], mask=prior)
    np.testing.assert_array_equal(merge(prior, grown, click, radius=3), prior)
    halved = mask_of(40, 30, 65, 90)
    np.testing.assert_array_equal(merge(prior, halved, click, radius=3), halved)


def test_where_network_and_prior_agree_only_the_place_clicked_on_changes() -> None:
    prior = mask_of(40, 20, 120, 100)
    found = prior | mask_of(125, 40, 140, 55)  # another piece, which nobody pointed at
    found[20:40, 40:60] = False  # a corner less
    beside = Prompt(negative=[(50, 30)], mask=prior)
    merged = merge(prior, found, beside, radius=3)
    assert not merged[24:36, 44:56].any()
    assert not merged[40:55, 125:140].any()
    assert merged[60:90, 60:110].all()


def test_a_click_on_a_good_mask_changes_little() -> None:
    prior = mask_of(40, 20, 120, 100)
    found = prior.copy()
    found[20:100, 40:80] = False  # half of it
    for expected, harmed in ((0.97, False), (0.86, False), (0.8, True), (0.3, True)):
        click = Prompt(negative=[(60, 60)], mask=prior, prior_iou=expected)
        merged = merge(prior, found, click, radius=3)
        assert not merged[58:63, 58:63].any()
        assert (np.count_nonzero(merged) < 0.9 * np.count_nonzero(prior)) is harmed


def test_a_prior_that_lags_behind_is_moved_onto_what_was_found() -> None:
    here = mask_of(100, 20, 130, 100) | mask_of(130, 60, 170, 75)
    lagging = np.roll(here, -60, axis=1)
    found = here & ~mask_of(100, 35, 130, 55)
    moved, agreement = moved_onto(lagging, found)
    assert mask_iou(moved, here) > 0.95
    assert agreement == pytest.approx(mask_iou(here, found), abs=0.03)
    large, at = (np.kron(mask, np.ones((4, 4), bool)) for mask in (lagging, here))
    assert mask_iou(moved_onto(large, at)[0], at) > 0.95


def test_nothing_found_moves_no_prior() -> None:
    prior = mask_of(10, 10, 40, 40)
    moved, agreement = moved_onto(prior, np.zeros_like(prior))
    assert agreement == 0
    np.testing.assert_array_equal(moved, prior)


@pytest.mark.parametrize(("second", "kept"), [(0.9, "second"), (0.2, "first")])
def test_a_moved_prior_is_tried_and_the_better_answer_kept(
    corrector: RefinerCorrector, monkeypatch: pytest.MonkeyPatch, second: float, kept: str
) -> None:
    there = mask_of(100, 30, 150, 80)
    seen: list[Prompt] = []

    def look(image, prompt, size):  # type: ignore[no-untyped-def]
        seen.append(prompt)
        return Refinement(there, 0.5) if len(seen) == 1 else Refinement(there, second)

    monkeypatch.setattr(corrector, "_look", look)
    image = np.zeros((*SIZE, 3), np.uint8)
    lagging = Prompt(positive=[(140, 50)], mask=mask_of(60, 30, 110, 80), prior_iou=0.3)
    (answer,) = corrector.refine(image, [lagging])
    assert answer.score == (second if kept == "second" else 0.5)
    assert seen[1].mask is not None
    np.testing.assert_array_equal(seen[1].mask, there)
    assert seen[1].prior_iou == pytest.approx(1.0)
    # Where it is, is where it is best; or it is trusted to be; or nobody gave one.
    for prompt in (
        Prompt(positive=[(120, 50)], mask=mask_of(98, 30, 148, 80), prior_iou=0.3),
        dataclasses.replace(lagging, prior_iou=0.9),
        Prompt(positive=[(120, 50)]),
    ):
        seen.clear()
        corrector.refine(image, [prompt])
        assert len(seen) == 1


@pytest.mark.parametrize("name", ["refiner", "auto"])
def test_the_embedded_refiner_is_made_by_name_where_sam_hq_is_absent(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LAZYXMEM_WEIGHTS", str(tmp_path))
    assert make_corrector(name, device="cpu").name == "refiner"
    own = weights.find("refiner").path
    assert make_corrector(name, device="cpu", checkpoint=own).name == "refiner"
    assert corrector_weights(name) == weights.find("refiner").path


def test_which_weights_a_corrector_loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAZYXMEM_WEIGHTS", str(tmp_path))
    assert corrector_weights("grabcut") is None
    assert corrector_weights("sam_hq") is None
    assert corrector_weights("sam_hq", "sam.pth") == Path("sam.pth")
    assert corrector_weights("refiner", "~/mine.safetensors") == Path.home() / "mine.safetensors"
    published = weights.find("sam-hq-b").path
    published.write_bytes(b"downloaded")
    assert corrector_weights("auto") == published
    assert corrector_weights("refiner") == weights.find("refiner").path


def test_a_click_on_a_disc_finds_it() -> None:
    """The embedded weights, on a picture that any corrector should manage."""
    y, x = np.mgrid[0:240, 0:320]
    disc = (x - 170) ** 2 + (y - 110) ** 2 <= 45**2
    noise = np.random.default_rng(0).normal(0, 12, (240, 320, 1))
    image = np.where(disc[..., None], (200, 60, 40), (60, 90, 120)) + noise
    (answer,) = make_corrector("refiner", device="cpu").refine(
        image.clip(0, 255).astype(np.uint8), [Prompt(positive=[(170, 110)])]
    )
    assert (answer.mask & disc).sum() / (answer.mask | disc).sum() > 0.8

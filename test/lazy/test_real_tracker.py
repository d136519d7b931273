# SPDX-License-Identifier: Apache-2.0
"""LazyTracker over the real XMem: the golden run, and small networks for everything else."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scripted_tracker import FRAME_TIME

from lazyxmem_ros.correction import make_corrector
from lazyxmem_ros.lazy import (
    Correction,
    LazyConfig,
    LazyTracker,
    Source,
    TrackState,
)
from lazyxmem_ros.xmem import MemoryConfig, XMem, XMemTracker

DATA = Path(__file__).parents[1] / "data"
SIZE = (64, 96)
TOLERANCE = 2e-3
"""What the golden vectors promise for probabilities stored as float16."""


def stamp_of(index: int) -> int:
    return (1 + index) * FRAME_TIME


def moving_squares(frames: int, seed: int = 0):
    """Images uint8 [H, W, 3] of two textured squares on noise, and their masks."""
    generator = np.random.default_rng(seed)
    background = generator.integers(0, 90, (*SIZE, 3), dtype=np.uint8)
    textures = [generator.integers(100, 255, (20, 20, 3), dtype=np.uint8) for _ in range(2)]
    for index in range(frames):
        image, masks = background.copy(), {}
        for object_id, (x, y) in {1: (6 + 2 * index, 8), 5: (64 - 2 * index, 38)}.items():
            image[y : y + 20, x : x + 20] = textures[object_id % 2]
            masks[object_id] = np.zeros(SIZE, bool)
            masks[object_id][y : y + 20, x : x + 20] = True
        yield image, masks


def tracker_of(network: XMem) -> XMemTracker:
    config = MemoryConfig(
        memory_every=3, max_working_frames=5, min_working_frames=3, keep_first_frames=1
    )
    return XMemTracker(network, config)


def memory_config(text) -> MemoryConfig:
    published = ast.literal_eval(str(text))
    return MemoryConfig(
        memory_every=published["mem_every"],
        deep_update_every=published["deep_update_every"],
        long_term=published["enable_long_term"],
        max_working_frames=published["max_mid_term_frames"],
        min_working_frames=published["min_mid_term_frames"],
        keep_first_frames=1,
        told_frames=0,
        object_quota=0,
        prototypes=published["num_prototypes"],
        max_long_term_tokens=published["max_long_term_elements"],
        top_k=published["top_k"],
    )


class Watched(XMemTracker):
    """Lets the test see the frames."""

    def segment(self, *args, **options):
        self.last = super().segment(*args, **options)
        return self.last


def test_the_golden_run_with_holds_and_corrections(golden_network):
    """The policy's decisions reach memory as in the published run."""
    golden = np.load(DATA / "sequence_corrections.npz")
    video = np.load(DATA / "sequence_long_term.npz")
    held = set(golden["held_back"].tolist())
    corrected_at, frames = int(golden["corrected_at"]), int(golden["num_frames"])
    masks = {n + 1: video["first_masks"][n] > 0 for n in range(2)}
    tracker = Watched(golden_network, memory_config(golden["config"]))
    lazy = LazyTracker(tracker)
    quiet = {"operator_corrections": False, "pseudo_corrections": False}
    for index in range(frames):
        limit = 0.0 if index in held else math.inf
        lazy.config = LazyConfig.paper(hold_entropy=limit, **quiet)
        given = masks if index == 0 else None
        result = lazy.step(video["frames"][index], stamp_of(index), masks=given)
        assert result.held is (index in held)
        expected = golden["probs"][index].astype(np.float32)
        if index == corrected_at:
            answer = {n + 1: golden["corrected_masks"][n] > 0 for n in range(2)}
            outcome = lazy.apply(Correction(stamp_of(index), answer, Source.OPERATOR))
            assert outcome.applied
            expected = golden["corrected_probs"]
        if index < frames - 1:
            lazy.close()
        assert np.abs(tracker.last.probabilities.numpy() - expected).max() < TOLERANCE
        assert tracker.memory_tokens[0] == golden["work_memory_sizes"][index], f"frame {index}"


def test_without_conditions_it_is_plain_xmem(small_network):
    plain = tracker_of(small_network)
    lazy = LazyTracker(
        tracker_of(small_network),
        LazyConfig.paper(
            operator_corrections=False, pseudo_corrections=False, hold_entropy=math.inf
        ),
    )
    for index, (image, masks) in enumerate(moving_squares(12)):
        given = masks if index == 0 else None
        frame = plain.segment(image, given, stamp=stamp_of(index))
        result = lazy.step(image, stamp_of(index), masks=given)
        assert np.array_equal(result.labels, frame.labels())
        plain.memorize(frame)
    lazy.close()
    assert lazy.tracker.memory_tokens == plain.memory_tokens


def test_an_instant_correction_is_what_correct_does(small_network):
    """Applied to the open frame, it leaves the tracker as `correct` on that frame does."""
    plain, lazy = tracker_of(small_network), LazyTracker(tracker_of(small_network), QUIET)
    for index, (image, masks) in enumerate(moving_squares(14)):
        given = masks if index == 0 else None
        frame = plain.segment(image, given, stamp=stamp_of(index))
        result = lazy.step(image, stamp_of(index), masks=given)
        labels = result.labels
        if index in (4, 5, 9):
            answer = {5: masks[5]}
            plain.correct(frame, answer, told=answer)
            labels = lazy.apply(Correction(stamp_of(index), answer)).labels
        else:
            plain.memorize(frame)
        assert np.array_equal(labels, frame.labels()), f"frame {index}"


QUIET = LazyConfig.paper(
    operator_corrections=False, pseudo_corrections=False, hold_entropy=math.inf
)


def test_everything_at_once_on_the_real_tracker(small_network):
    """An untrained network is unsure all the time: requests, holds, corrections of both kinds,
    objects that come and go, in every order that a node may meet them.
    """
    corrector = make_corrector("grabcut")
    config = LazyConfig(
        operator_entropy=0.5, pseudo_entropy=0.0, cooldown_frames=2, late_overlap=0.0, lost_after=0
    )
    lazy = LazyTracker(tracker_of(small_network), config)
    asked = {Source.OPERATOR: 0, Source.PSEUDO: 0}
    late = []
    for index, (image, masks) in enumerate(moving_squares(20)):
        result = lazy.step(image, stamp_of(index), masks=masks if index == 0 else None)
        for request in result.requests:
            asked[request.source] += 1
            truth = masks[{9: 1}.get(request.object_id, request.object_id)]
            if request.source is Source.PSEUDO and len(request.prompt.positive):
                answer = corrector.refine(request.image, [request.prompt])[0].mask
                correction = Correction(request.stamp, {request.object_id: answer}, Source.PSEUDO)
            else:
                correction = Correction(request.stamp, {request.object_id: truth})
            if index % 3 == 2:
                late.append(correction)
            else:
                outcome = lazy.apply(correction)
                assert outcome.applied, outcome.reason
                assert outcome.labels.shape == SIZE
        if index % 5 == 4:
            for correction in late:
                outcome = lazy.apply(correction)
                assert outcome.applied or outcome.reason
            late.clear()
        if index == 7:
            lazy.remove_objects([1])
        if index == 11:
            lazy.add_objects({9: masks[1]}, labels={9: "again"})
    assert asked[Source.OPERATOR] > 0
    assert lazy.object_ids == (5, 9)
    assert result.tracks[1].label == "again"


def test_pausing_changes_nothing_of_the_masks(small_network):
    """A paused object goes on competing for pixels and being learnt; it only keeps silent."""
    config = LazyConfig.paper(operator_entropy=0.0, pseudo_corrections=False, hold_entropy=math.inf)
    plain, lazy = (LazyTracker(tracker_of(small_network), config) for _ in range(2))
    for index, (image, masks) in enumerate(moving_squares(12)):
        given = masks if index == 0 else None
        expected = plain.step(image, stamp_of(index), masks=given)
        result = lazy.step(image, stamp_of(index), masks=given)
        assert np.array_equal(result.labels, expected.labels)
        assert [t.uncertainty for t in result.tracks] == [t.uncertainty for t in expected.tracks]
        asked = {request.object_id for request in result.requests}
        # On its first frame an object, shown or resumed, has nothing to compare with.
        assert asked == (set() if index == 0 else {1} if 4 <= index <= 8 else {1, 5})
        for request in result.requests:
            for each in (plain, lazy):
                each.dismiss(request.object_id, request.source)
        states = {t.object_id: t.state is TrackState.PAUSED for t in result.tracks}
        assert states == {1: False, 5: 4 <= index < 8}
        if index == 3:
            lazy.pause_objects([5])
        if index == 7:
            lazy.resume_objects([5])
    assert lazy.tracker.memory_tokens == plain.tracker.memory_tokens


def test_a_bad_mask_never_reaches_the_tracker(small_network):
    lazy = LazyTracker(tracker_of(small_network), QUIET)
    (image, masks), *_ = moving_squares(1)
    lazy.step(image, stamp_of(0), masks=masks)
    tokens = lazy.tracker.memory_tokens
    for bad in (np.ones((3, 3), bool), np.ones((*SIZE, 2), bool), None):
        assert not lazy.apply(Correction(stamp_of(0), {1: bad})).applied
    assert lazy.tracker.memory_tokens == tokens
    lazy.close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_the_gpu(small_network):
    lazy = LazyTracker(XMemTracker(small_network, device="cuda"), LazyConfig.paper())
    for index, (image, masks) in enumerate(moving_squares(8)):
        result = lazy.step(image, stamp_of(index), masks=masks if index == 0 else None)
        if index == 4:
            assert lazy.apply(Correction(result.stamp, {1: masks[1]})).applied
    assert result.uncertainty_map().shape == SIZE

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.correction import Corrector, Prompt, Refinement, make_corrector
from lazyxmem_ros.data.bag_messages import StampedImage, StampedLabels
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.layouts.options import DatasetOptions
from lazyxmem_ros.data.samples import Sample, VideoSequence
from lazyxmem_ros.evaluation.errors import MethodError
from lazyxmem_ros.evaluation.methods import (
    MethodOptions,
    Trigger,
    all_methods,
    choose_methods,
)
from lazyxmem_ros.evaluation.offline import SequenceRunner
from lazyxmem_ros.evaluation.simulated_operator import Gesture, OperatorConfig, SimulatedOperator
from lazyxmem_ros.lazy import OFF, LazyConfig, LazyTracker, iou_predictor_of
from lazyxmem_ros.weights import locate
from lazyxmem_ros.xmem import XMemTracker, load_network

MakeTree = Callable[..., Path]
FRAMES = 12
ALONE = LazyConfig(pseudo_rate=OFF)
"""The tracker does not correct itself."""
ALL = {index: (1, 2) for index in range(FRAMES)}


@pytest.fixture
def sequence(make_tree: MakeTree) -> VideoSequence:
    return open_dataset(make_tree("walk", FRAMES, ALL))[0]


def runner(
    weights: Path,
    method: str,
    options: MethodOptions | None = None,
    *,
    delay: float = 0.0,
    schedule: dict[int, frozenset[int]] | None = None,
    strict: bool = False,
    corrector: Corrector | None = None,
    gesture: Gesture = Gesture.MASK,
    to_newest: bool = False,
    calibrated: bool = False,
) -> SequenceRunner:
    chosen = replace(all_methods(options or MethodOptions())[method], to_newest=to_newest)
    tracker = XMemTracker(load_network(weights), device="cpu")
    return SequenceRunner(
        LazyTracker(
            tracker,
            chosen.lazy,
            iou_predictor=iou_predictor_of(locate("")) if calibrated else None,
        ),
        corrector or make_corrector("grabcut"),
        SimulatedOperator(OperatorConfig(gesture, reaction_delay=delay)),
        chosen,
        schedule=schedule,
        strict=strict,
    )


def test_instant_answers_change_the_frame_they_are_about(
    tiny_weights: Path, sequence: VideoSequence
) -> None:
    run = runner(tiny_weights, "every", MethodOptions(ALONE, every=4))
    outcomes = list(run.run(sequence))
    assert [outcome.sample.index for outcome in outcomes] == list(range(FRAMES))
    corrected = {(event["index"], event["object"]) for event in run.log.events if event["applied"]}
    assert corrected == {(4, 1), (4, 2), (8, 1), (8, 2)}
    scores = {(row["index"], row["object"]): row for row in run.log.frames}
    assert all(scores[place]["j"] == 1.0 == scores[place]["f"] for place in corrected)
    assert all(event["delay"] == 0 and event["j_after"] == 1.0 for event in run.log.events)
    assert all(event["j_before"] < 1.0 and event["area_before"] > 0 for event in run.log.events)
    assert [scores[0, 1]["scored"], scores[1, 1]["scored"]] == [False, True]


def test_a_slow_operator_answers_later_and_one_by_one(
    tiny_weights: Path, sequence: VideoSequence
) -> None:
    run = runner(tiny_weights, "every", MethodOptions(ALONE, every=4), delay=1.5 / 24)
    list(run.run(sequence))
    # Both objects are asked about at frame 4; the second answer waits for the first.
    first, second = (event for event in run.log.events if event["index"] == 4)
    assert first["applied"]
    assert second["applied"]
    assert first["delay"] == pytest.approx(1 / 24, abs=1e-3)
    assert second["delay"] > first["delay"]
    rows = {(row["index"], row["object"]): row["j"] for row in run.log.frames}
    assert rows[4, 1] < 1.0
    assert {first["object"], second["object"]} == {1, 2}


def test_the_naive_way_puts_a_late_answer_on_the_frame_that_is_newest_then(
    tiny_weights: Path, sequence: VideoSequence
) -> None:
    options = MethodOptions(ALONE, every=4)
    run = runner(tiny_weights, "every", options, delay=1.5 / 24, to_newest=True)
    list(run.run(sequence))
    first, second = (event for event in run.log.events if event["index"] == 4)
    assert first["applied"]
    assert second["applied"]
    assert "late" not in first["outcome"], "the tracker takes it for the newest frame's"
    memory = run._tracker.tracker.state().memory
    assert memory is not None
    assert 5 in memory.told
    assert 4 not in memory.told


def test_a_question_that_the_end_overtakes_is_kept_as_not_answered(
    tiny_weights: Path, sequence: VideoSequence
) -> None:
    run = runner(tiny_weights, "every", MethodOptions(ALONE, every=4), delay=5 / 24)
    list(run.run(sequence))
    assert [(event["index"], event["object"]) for event in run.log.events] == [
        (4, 1),
        *[(4, 2), (8, 1), (8, 2)],
    ]
    given, *open_ones = run.log.events
    assert given["applied"]
    assert not any(event["applied"] for event in open_ones)
    assert {event["outcome"] for event in open_ones} == {"not answered"}
    assert all(np.isnan(event["delay"]) for event in open_ones)
    assert all(event["j_before"] < 1 for event in open_ones)


def test_an_answer_after_its_time_is_not_used(tiny_weights: Path, sequence: VideoSequence) -> None:
    """As on the robot: the request was given up, and another one may have been made."""
    eager = replace(ALONE, operator_entropy=0.0, operator_rate=0.0, cooldown_frames=0)
    for timeout, applied in ((2, False), (4, True)):
        options = MethodOptions(replace(eager, request_timeout=timeout * SECOND // 24))
        run = runner(tiny_weights, "lazy", options, delay=3 / 24)
        list(run.run(sequence))
        answered = [event for event in run.log.events if event["outcome"] != "not answered"]
        assert answered[0]["applied"] is applied
        if not applied:
            assert not any(event["applied"] for event in answered)
            assert {event["outcome"] for event in answered} == {"it came too late"}


def test_random_times_are_those_of_the_schedule(
    tiny_weights: Path, sequence: VideoSequence
) -> None:
    run = runner(
        tiny_weights,
        "random",
        MethodOptions(ALONE),
        schedule={1: frozenset({3, 7}), 2: frozenset()},
    )
    list(run.run(sequence))
    assert [(event["index"], event["object"]) for event in run.log.events] == [(3, 1), (7, 1)]


def test_the_oracle_asks_when_the_overlap_is_low_and_then_cools_down(
    tiny_weights: Path, sequence: VideoSequence
) -> None:
    options = MethodOptions(replace(ALONE, cooldown_frames=4), below=1.0)
    run = runner(tiny_weights, "oracle", options)
    list(run.run(sequence))
    asked = [event["index"] for event in run.log.events if event["object"] == 1]
    assert asked[0] == 1
    assert min(np.diff(asked)) == 5
    assert all(event["j_before"] < 1.0 for event in run.log.events)


def test_the_policy_is_the_trackers_own(tiny_weights: Path, sequence: VideoSequence) -> None:
    options = MethodOptions(
        replace(ALONE, operator_entropy=0.0, operator_rate=0.0, cooldown_frames=0)
    )
    assert all_methods(options)["lazy"].trigger is Trigger.POLICY
    run = runner(tiny_weights, "lazy", options)
    list(run.run(sequence))
    assert run.log.events
    assert {event["source"] for event in run.log.events} == {"operator"}
    assert all("above" in event["reason"] or "rose" in event["reason"] for event in run.log.events)
    quiet = runner(tiny_weights, "xmem", options)
    list(quiet.run(sequence))
    assert quiet.log.events == []
    assert not any(row["held"] for row in quiet.log.frames)


class Unable:
    """A corrector that fails at everything, as correctors say it."""

    name = "unable"

    def refine(
        self,
        image: np.ndarray,
        prompts: Sequence[Prompt],
        *,
        image_key: Hashable | None = None,
    ) -> list[Refinement]:
        return [Refinement(np.ones(image.shape[:2], bool), 0.0) for _ in prompts]


def test_a_corrector_that_finds_nothing_is_asked_again(
    tiny_weights: Path, sequence: VideoSequence
) -> None:
    eager = replace(ALONE, pseudo_entropy=0.0, pseudo_cooldown_frames=0, operator_corrections=False)
    run = runner(tiny_weights, "pseudo", MethodOptions(eager), corrector=Unable())
    list(run.run(sequence))
    asked = [event["index"] for event in run.log.events if event["object"] == 1]
    assert len(asked) > 2
    assert not any(event["applied"] for event in run.log.events)


class Keeping:
    """A corrector that keeps an image by its key, as SAM-HQ keeps what it has computed of one."""

    name = "keeping"

    def __init__(self) -> None:
        self.kept: dict[Hashable, np.ndarray] = {}
        self.mistaken = 0
        self._quick = make_corrector("grabcut")

    def refine(
        self,
        image: np.ndarray,
        prompts: Sequence[Prompt],
        *,
        image_key: Hashable | None = None,
    ) -> list[Refinement]:
        kept = self.kept.setdefault(image_key, image)
        self.mistaken += not np.array_equal(kept, image)
        return self._quick.refine(kept, prompts)


def test_a_corrector_that_outlives_a_run_sees_the_next_ones_images(
    tiny_weights: Path, make_tree: MakeTree
) -> None:
    """The stamps of files are the same in every sequence."""
    shared = Keeping()
    make_tree("one", 2, {index: (1, 2) for index in range(2)})
    for sequence in open_dataset(make_tree("other", 2, {index: (3,) for index in range(2)})):
        options = MethodOptions(ALONE, every=1)
        run = runner(tiny_weights, "every", options, corrector=shared, gesture=Gesture.CLICK)
        list(run.run(sequence))
        assert run.log.events
    assert shared.mistaken == 0
    assert None not in shared.kept
    assert len(shared.kept) == 2, "one for each sequence, whose second frame is corrected"


def test_faults_are_counted_or_stop_it(tiny_weights: Path, make_tree: MakeTree) -> None:
    root = make_tree("walk", 6, {index: (1,) for index in range(6)})
    (root / "JPEGImages/480p/walk/00003.jpg").write_bytes(b"")
    (sequence,) = open_dataset(root)
    run = runner(tiny_weights, "xmem")
    assert [outcome.sample.index for outcome in run.run(sequence)] == [0, 1, 2, 4, 5]
    assert len(run.log.faults) == 1
    strict = runner(tiny_weights, "xmem", strict=True)
    with pytest.raises(DatasetError, match=r"walk: .*00003\.jpg: the image cannot be read"):
        list(strict.run(sequence))
    assert len(strict.log.frames) == 3, "what was done before the fault is kept"


@pytest.mark.parametrize("kind", ["size", "stamp"])
def test_a_frame_that_the_tracker_refuses_is_left_out(
    kind: str, tiny_weights: Path, make_tree: MakeTree, tmp_path: Path
) -> None:
    """An object that would have begun there begins on the next frame."""
    shown = {index: (1, 2) if index > 1 else (1,) for index in range(5)}
    root = make_tree("walk", 5, shown)
    if kind == "size":
        for file in root.rglob("00002.*"):
            with Image.open(file) as picture:
                picture.resize((48, 32), Image.Resampling.NEAREST).save(file)
        (sequence,) = open_dataset(root)
        said = "frame 00002: the image is 48x32 pixels, the frame before 96x64"
    else:
        stamps = [100, 200, 200, 300, 400]
        with BagWriter(tmp_path / "walk") as bag:
            for sample, stamp in zip(open_dataset(root)[0].samples(), stamps, strict=True):
                bag.write_image("/camera", StampedImage(stamp, sample.image))
                if sample.index != 1:
                    bag.write_labels("/truth", StampedLabels(stamp, sample.truth))
        (sequence,) = open_dataset(tmp_path / "walk", DatasetOptions(truth_topic="/truth"))
        said = "frame 200: the frame's stamp 200 ns is not later"
    run = runner(tiny_weights, "xmem")
    outcomes = list(run.run(sequence))
    assert [outcome.sample.index for outcome in outcomes] == [0, 1, 3, 4]
    assert [fault.startswith(said) for fault in run.log.faults] == [True]
    assert {row["object"] for row in run.log.frames if row["index"] > 2} == {1, 2}
    with pytest.raises(DatasetError, match=f"walk: {said}"):
        list(runner(tiny_weights, "xmem", strict=True).run(sequence))


class Restamped:
    """A sequence with other stamps (ns)."""

    def __init__(self, sequence: VideoSequence, stamps: Sequence[int]) -> None:
        self.name, self.has_truth, self.files = sequence.name, sequence.has_truth, sequence.files
        self._sequence, self._stamps = sequence, stamps

    def __len__(self) -> int:
        return len(self._sequence)

    def samples(self) -> Iterator[Sample]:
        for sample, stamp in zip(self._sequence.samples(), self._stamps, strict=True):
            yield replace(sample, stamp=stamp)


@pytest.mark.parametrize("odd", [1, 3])
def test_one_stamp_far_ahead_costs_its_own_frame(
    odd: int, tiny_weights: Path, make_tree: MakeTree
) -> None:
    (sequence,) = open_dataset(make_tree("walk", 5, {index: (1,) for index in range(5)}))
    stamps = [100 * SECOND + index * SECOND for index in range(5)]
    stamps[odd] += 3600 * SECOND
    run = runner(tiny_weights, "xmem")
    outcomes = list(run.run(Restamped(sequence, stamps)))
    assert [outcome.sample.index for outcome in outcomes] == [n for n in range(5) if n != odd]
    said = f"frame 0000{odd}: its stamp is 3599.000 s after the next frame's; it is left out"
    assert run.log.faults == [said]


def test_nothing_to_track_is_an_error(tiny_weights: Path, make_tree: MakeTree) -> None:
    (sequence,) = open_dataset(make_tree("walk", 3, {}))
    with pytest.raises(DatasetError, match="no frame with both an image and a mask"):
        list(runner(tiny_weights, "xmem").run(sequence))


def test_methods_bring_what_they_need() -> None:
    assert [method.name for method in choose_methods(["random"])] == ["lazy", "random"]
    assert [method.name for method in choose_methods(["lazy", "xmem"])] == ["xmem", "lazy"]
    with pytest.raises(MethodError, match="unknown method best; known are xmem, udu"):
        choose_methods(["best"])
    for bad in ({"every": 0}, {"below": 0.0}):
        with pytest.raises(MethodError):
            MethodOptions(**bad)


def test_masks_of_something_else_are_not_scored_where_they_are_not_published(
    tiny_weights: Path, sequence: VideoSequence
) -> None:
    options = MethodOptions(replace(ALONE, show_iou=1.0))
    shown = {}
    for method in ("xmem", "udu"):
        run = runner(tiny_weights, method, options, calibrated=True)
        shown[method] = [bool(outcome.labels.any()) for outcome in run.run(sequence)]
    assert all(shown["xmem"]), "as it was published"
    assert shown["udu"] == [True] + [False] * (FRAMES - 1)


def test_the_oracle_judges_what_is_published(tiny_weights: Path, make_tree: MakeTree) -> None:
    """Nothing is where nothing is: there is nothing to ask."""
    walk = {index: (1,) if index < 4 else () for index in range(FRAMES)}
    (sequence,) = open_dataset(make_tree("walk", FRAMES, walk))
    asked = {}
    for show_iou in (0.0, 1.0):
        lazy = replace(ALONE, show_iou=show_iou, cooldown_frames=0)
        run = runner(tiny_weights, "oracle", MethodOptions(lazy), calibrated=True)
        list(run.run(sequence))
        asked[show_iou] = [event["index"] for event in run.log.events]
    assert asked[1.0] == [1, 2, 3]
    assert asked[0.0][-1] > 3


@pytest.mark.parametrize(
    ("lazy", "said"),
    [
        (LazyConfig(), "and doubtful masks left out"),
        (LazyConfig(show_iou=0.0), "XMem with UDU (uncertain frames kept out of memory) and gates"),
        (LazyConfig.paper(), "XMem with UDU (uncertain frames kept out of memory)"),
    ],
)
def test_a_method_is_described_as_it_is(lazy: LazyConfig, said: str) -> None:
    assert all_methods(MethodOptions(lazy))["udu"].description.endswith(said)


def test_switches_of_the_methods() -> None:
    methods = all_methods()
    switches = {
        name: (
            np.isfinite(method.lazy.hold_entropy),
            method.lazy.pseudo_corrections,
            method.lazy.operator_corrections,
            method.lazy.update_from_operator,
        )
        for name, method in methods.items()
    }
    assert switches["xmem"] == (False, False, False, False)
    assert switches["udu"] == (True, False, False, False)
    assert switches["pseudo"] == (True, True, False, False)
    assert switches["user"] == (True, True, True, False)
    assert switches["lazy"] == (True, True, True, True)
    for name in ("random", "every", "oracle"):
        assert switches[name] == (True, True, False, True)

# SPDX-License-Identifier: Apache-2.0
"""Views that are harder than the sequence: what they show, and that they always show the same."""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.label_maps import save_label_map
from lazyxmem_ros.data.layouts.options import DatasetOptions
from lazyxmem_ros.data.samples import Sample, VideoSequence, View
from lazyxmem_ros.data.stress import CutSequence
from lazyxmem_ros.images.files import write_video

MakeTree = Callable[..., Path]
RATE = 8.0
FRAMES = 12
BOTH = {index: (1, 2) for index in range(FRAMES)}
VIEWS = [
    DatasetOptions(every_nth_frame=3),
    DatasetOptions(twin=True),
    DatasetOptions(cut="sheep"),
    DatasetOptions(every_nth_frame=2, twin=True, cut="sheep", passes=2),
]


def view(root: Path, options: DatasetOptions) -> VideoSequence:
    """The cow, seen in one way."""
    (sequence,) = open_dataset(root, replace(options, rate=RATE, sequences=("cow",)))
    return sequence


@pytest.fixture
def root(make_tree: MakeTree) -> Path:
    make_tree("sheep", 5, {0: (1,)})
    return make_tree("cow", FRAMES, BOTH)


def same(a: Sample, b: Sample) -> bool:
    assert a.image is not None
    assert b.image is not None
    return (
        (a.index, a.key, a.stamp, a.given.keys()) == (b.index, b.key, b.stamp, b.given.keys())
        and np.array_equal(a.image, b.image)
        and np.array_equal(a.truth, b.truth)
    )


@pytest.mark.parametrize("options", VIEWS)
def test_a_view_is_the_same_again_and_in_another_process(
    root: Path, options: DatasetOptions
) -> None:
    sequence = view(root, options)
    samples = list(sequence.samples())
    again = list(pickle.loads(pickle.dumps(sequence)).samples())
    assert len(samples) == len(again) == len(sequence)
    assert all(same(a, b) for a, b in zip(samples, again, strict=True))
    assert sequence.name == "cow"
    assert [sample.index for sample in samples] == list(range(len(samples)))
    stamps = np.array([sample.stamp for sample in samples])
    assert (np.diff(stamps) > 0).all()
    assert len({sample.key for sample in samples}) == len(samples)


def test_every_nth_frame_keeps_its_time(root: Path) -> None:
    samples = list(view(root, DatasetOptions(every_nth_frame=3)).samples())
    assert [int(sample.key) for sample in samples] == [0, 3, 6, 9]
    assert [sample.stamp for sample in samples] == [round(n * 3 / RATE * SECOND) for n in range(4)]
    assert [sorted(sample.given) for sample in samples] == [[1, 2], [], [], []]


def test_an_object_that_begins_on_a_frame_left_out_begins_on_the_next(make_tree: MakeTree) -> None:
    root = make_tree("cow", FRAMES, {index: (1, 2) if index > 3 else (1,) for index in range(8)})
    samples = list(view(root, DatasetOptions(every_nth_frame=3)).samples())
    assert [sorted(sample.given) for sample in samples] == [[1], [], [2], []]
    assert samples[2].truth is not None
    assert np.array_equal(samples[2].given[2], samples[2].truth == 2)


def test_where_no_later_mask_shows_it_that_is_said(make_tree: MakeTree) -> None:
    root = make_tree("cow", FRAMES, {0: (1,), 4: (2,)}, resolution=".")
    (root / "test_meta.json").write_text("{}")
    with pytest.raises(DatasetError, match="choose another n"):
        list(view(root, DatasetOptions(every_nth_frame=3)).samples())


def test_faults_of_frames_that_are_read_stay_where_others_are_left_out(
    make_tree: MakeTree,
) -> None:
    """An image that is left out need not be read; a mask says what begins, and which have no frame.

    The last frame is left out, and the masks of no frame are named with it.
    """
    root = make_tree("cow", 8, {index: (1,) for index in range(8)})
    for broken in ("JPEGImages/480p/cow/00003", "JPEGImages/480p/cow/00004"):
        (root / f"{broken}.jpg").write_bytes(b"")
    (root / "Annotations/480p/cow/00005.png").write_bytes(b"")
    samples = list(view(root, DatasetOptions(every_nth_frame=3)).samples())
    faults = [[fault.partition(":")[0] for fault in sample.faults] for sample in samples]
    images, masks = root / "JPEGImages/480p/cow", root / "Annotations/480p/cow"
    assert faults == [[], [f"{images / '00003.jpg'}", f"{masks / '00005.png'}"], []]

    frames = [np.full((16, 24, 3), 60 * number, np.uint8) for number in range(4)]
    write_video(root / "walk.mp4", frames, rate=10)
    options = DatasetOptions(masks=root / "numbered", every_nth_frame=2)
    for number in (0, 2, 9):
        save_label_map(root / "numbered" / f"{number}.png", np.ones((16, 24), np.uint16))
    (walk,) = open_dataset(root / "walk.mp4", options)
    faults = [sample.faults for sample in walk.samples()]
    assert faults == [[], [f"{root / 'numbered/9.png'}: no frame has this number (from 0 on)"]]


def test_an_object_that_no_frame_that_is_read_shows_is_named(make_tree: MakeTree) -> None:
    root = make_tree("cow", 9, {0: (1,), 3: (1,), 4: (1, 2), 6: (1,)})
    samples = list(view(root, DatasetOptions(every_nth_frame=3)).samples())
    (fault,) = samples[-1].faults
    assert fault.startswith("frame 00004: object 2 begins on this frame, which is left out")
    assert not any(sample.faults for sample in samples[:-1])


def test_what_cannot_be_read_of_the_sequence_that_is_cut_in_is_named(root: Path) -> None:
    (root / "JPEGImages/480p/sheep/00001.jpg").write_bytes(b"")
    samples = list(view(root, DatasetOptions(cut="sheep")).samples())
    (fault,) = (fault for sample in samples for fault in sample.faults)
    assert fault.startswith("sheep: ")
    assert "sheep/00001.jpg: the image cannot be read" in fault


def test_a_cut_hides_the_objects_for_two_seconds(root: Path) -> None:
    whole = list(view(root, DatasetOptions()).samples())
    samples = list(view(root, DatasetOptions(cut="sheep")).samples())
    cut = int(2 * RATE)
    assert len(samples) == FRAMES + cut
    before, hidden, after = samples[:6], samples[6 : 6 + cut], samples[6 + cut :]
    assert all(same(a, b) for a, b in zip(before, whole[:6], strict=True))
    for sample in hidden:
        assert sample.truth is not None
        assert not sample.truth.any()
        assert not sample.given
    for sample, was in zip(after, whole[6:], strict=True):
        assert sample.stamp == was.stamp + 2 * SECOND
        assert np.array_equal(sample.image, was.image)
        assert np.array_equal(sample.truth, was.truth)
    (sheep,) = open_dataset(root, DatasetOptions(sequences=("sheep",)))
    shown = [sample.image for sample in sheep.samples()]
    order = [0, 1, 2, 3, 4, 3, 2, 1, 0, 1]
    for sample, place in zip(hidden, order, strict=False):
        assert np.array_equal(sample.image, shown[place])


@dataclass(frozen=True)
class Recorded(View):
    """A sequence with other stamps, as a recording has them: images are dropped."""

    whole: VideoSequence
    stamps: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.stamps)

    def samples(self) -> Iterator[Sample]:
        for sample, stamp in zip(self.whole.samples(), self.stamps, strict=True):
            yield replace(sample, stamp=stamp)


@pytest.mark.parametrize("dropped", [1, 6])
def test_a_cut_lasts_two_seconds_wherever_images_were_dropped(root: Path, dropped: int) -> None:
    period = round(SECOND / RATE)
    gap = 10 * period
    stamps = tuple(n * period + gap * (n >= dropped) for n in range(FRAMES))
    (sheep,) = open_dataset(root, DatasetOptions(sequences=("sheep",)))
    cut = CutSequence(Recorded(view(root, DatasetOptions()), stamps), sheep)
    samples = list(cut.samples())
    assert len(samples) == len(cut) == FRAMES + int(2 * RATE)
    hidden = samples[5 : 6 + int(2 * RATE)]
    assert hidden[-1].stamp - hidden[0].stamp == 2 * SECOND
    assert samples[-1].stamp == stamps[-1] + 2 * SECOND


def test_the_sequence_is_read_once_and_its_begin_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bag reads all of its ground truth each time."""
    (sheep,) = open_dataset(root, DatasetOptions(sequences=("sheep",)))
    stamps = tuple(n * round(SECOND / RATE) for n in range(FRAMES))
    cut = CutSequence(Recorded(view(root, DatasetOptions()), stamps), sheep)
    begun: list[Recorded] = []
    whole = Recorded.samples
    monkeypatch.setattr(Recorded, "samples", lambda self: begun.append(self) or whole(self))
    assert len(list(cut.samples())) == len(cut)
    assert len(begun) == 2


def test_an_image_that_is_missing_before_the_cut_costs_one_frame(root: Path) -> None:
    (root / "JPEGImages/480p/cow/00005.jpg").write_bytes(b"")
    samples = list(view(root, DatasetOptions(cut="sheep")).samples())
    assert [n for n, sample in enumerate(samples) if sample.image is None] == [5]
    assert len({sample.image.shape for sample in samples if sample.image is not None}) == 1


def test_a_frame_of_another_size_is_left_to_the_tracker(make_tree: MakeTree) -> None:
    """Neither the twin nor the frames of the cut take after it."""
    make_tree("sheep", 5, {0: (1,)})
    root = make_tree("cow", FRAMES, {index: (1,) for index in range(4)})
    odd = root / "JPEGImages/480p/cow/00005.jpg"
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(odd)
    for options in (DatasetOptions(twin=True), DatasetOptions(cut="sheep")):
        samples = view(root, options).samples()
        sizes = [sample.image.shape[:2] for sample in samples if sample.image is not None]
        assert sizes.count((32, 48)) == 1
        assert sizes.count((64, 96)) == len(sizes) - 1


def test_a_sequence_without_times_is_not_shown_uncut(root: Path) -> None:
    (sheep,) = open_dataset(root, DatasetOptions(sequences=("sheep",)))
    still = Recorded(view(root, DatasetOptions()), (0,) * FRAMES)
    with pytest.raises(DatasetError, match="cow: nothing can be cut into 12 frame"):
        list(CutSequence(still, sheep).samples())


def test_the_sequence_that_is_cut_into_others_is_left_out(root: Path) -> None:
    assert [s.name for s in open_dataset(root, DatasetOptions(cut="sheep"))] == ["cow"]
    with pytest.raises(DatasetError, match="into itself"):
        view(root, DatasetOptions(cut="cow"))
    with pytest.raises(DatasetError, match="no sequence goat; it has cow, sheep"):
        view(root, DatasetOptions(cut="goat"))


def test_a_twin_crosses_the_first_object(root: Path) -> None:
    whole = list(view(root, DatasetOptions()).samples())
    samples = list(view(root, DatasetOptions(twin=True)).samples())
    sides = []
    for sample, was in zip(samples, whole, strict=True):
        assert sample.image is not None
        assert sample.truth is not None
        assert was.image is not None
        changed = np.abs(sample.image.astype(int) - was.image).max(2) > 40
        changed_columns = np.flatnonzero(changed.any(0))
        columns = np.flatnonzero((was.truth == 1).any(0))
        if changed_columns.size:
            sides.append(float(np.sign(changed_columns.mean() - columns.mean())))
        assert not (sample.truth[changed] == 1).any()
        assert set(np.unique(sample.truth)) <= set(np.unique(was.truth))
    assert sides[0] == 1.0  # there is more room to the right of the object
    assert sides[-1] == -1.0
    covered = [np.sum(s.truth == 1) < np.sum(w.truth == 1) for s, w in zip(samples, whole)]
    assert any(covered)
    assert not covered[0]
    assert np.array_equal(samples[0].given[1], whole[0].given[1])


def test_a_twin_needs_masks(make_tree: MakeTree) -> None:
    root = make_tree("cow", 6, {0: (1,), 2: (2,)}, resolution=".")
    (root / "test_meta.json").write_text("{}")
    with pytest.raises(DatasetError, match="twin"):
        view(root, DatasetOptions(twin=True))


def test_n_is_at_least_one(root: Path) -> None:
    with pytest.raises(DatasetError, match="at least 1"):
        view(root, DatasetOptions(every_nth_frame=0))


def test_a_tree_may_have_another_resolution(make_tree: MakeTree) -> None:
    root = make_tree("cow", 3, {0: (1,)}, resolution="360p")
    assert [sequence.name for sequence in open_dataset(root)] == ["cow"]

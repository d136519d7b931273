# SPDX-License-Identifier: Apache-2.0
"""`lazyxmem track`: what its first mask means, and which of the corrector's masks it takes."""

import csv
from collections.abc import Hashable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lazyxmem_ros.cli import main
from lazyxmem_ros.correction import CorrectorError, Prompt, PromptError, Refinement
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.label_maps import read_label_map
from lazyxmem_ros.images.files import write_video
from lazyxmem_ros.lazy import Evidence, IouPredictor, LazyConfig, LazyTracker
from lazyxmem_ros.track import Video, track_frames
from lazyxmem_ros.xmem import XMem, XMemTracker

SIZE = (64, 96)


def square(value: int, dtype: type = np.uint8) -> NDArray[np.integer]:
    picture = np.zeros(SIZE, dtype)
    picture[20:44, 30:60] = value
    return picture


def pictures(count: int) -> list[NDArray[np.uint8]]:
    """The square on noise, standing still."""
    noise = np.random.default_rng(0).integers(0, 90, (*SIZE, 3), dtype=np.uint8)
    return [np.where(square(1)[..., None] > 0, noise + 150, noise).astype(np.uint8)] * count


# ---- the first mask


def ids(mask: Image.Image, folder: Path, *options: str) -> set[int]:
    """The objects that are tracked with this mask of the first frame."""
    frames = folder / "frames"
    frames.mkdir()
    for index, image in enumerate(pictures(2)):
        cv2.imwrite(str(frames / f"{index:05d}.png"), image)
    mask.save(folder / "first.png")
    command = ["track", str(frames), "--mask", str(folder / "first.png"), "--no-overlay"]
    assert main([*command, *options, "--device", "cpu", "--out", str(folder / "out")]) == 0
    with (folder / "out" / "tracks.csv").open() as file:
        return {int(row["id"]) for row in csv.DictReader(file)}


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "LA"])
def test_black_and_white_is_one_object(mode: str, tmp_path: Path) -> None:
    assert ids(Image.fromarray(square(255)).convert(mode), tmp_path) == {1}


def test_beside_ids_255_is_nothing(tmp_path: Path) -> None:
    labels = square(7)
    labels[:10] = 255
    assert ids(Image.fromarray(labels), tmp_path) == {7}


def test_with_16_bits_it_is_an_id(tmp_path: Path) -> None:
    labels = square(300, np.uint16)
    labels[:10] = 255
    assert ids(Image.fromarray(labels), tmp_path) == {255, 300}
    first = read_label_map(tmp_path / "out" / "masks" / "00000.png")
    np.testing.assert_array_equal(np.unique(first), [0, 255, 300])


def test_told_to_be_binary_everything_is_one_object(tmp_path: Path) -> None:
    labels = square(7)
    labels[:10] = 255
    assert ids(Image.fromarray(labels), tmp_path, "--binary") == {1}


# ---- the tracker's own corrections

EXPECTED = 0.5
ELSEWHERE = np.roll(square(1) > 0, (15, 20), (0, 1))


class Answering:
    """Answers every prompt with the same mask and score, or fails."""

    name = "answering"

    def __init__(self, answer: Refinement | Exception) -> None:
        self._answer = answer
        self.asked = 0

    def refine(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[Prompt],
        *,
        image_key: Hashable | None = None,
    ) -> list[Refinement]:
        self.asked += 1
        if isinstance(self._answer, Exception):
            raise self._answer
        return [self._answer for _ in prompts]


def expecting(iou: float) -> IouPredictor:
    """Predicts this IoU, whatever it sees."""
    names = Evidence.__dataclass_fields__
    zero, one = Evidence(**dict.fromkeys(names, 0.0)), Evidence(**dict.fromkeys(names, 1.0))
    return IouPredictor(mean=zero, scale=one, weight=zero, bias=float(np.log(iou / (1 - iou))))


ANSWERS = {
    "promises more": (Refinement(ELSEWHERE, 0.6), True),
    "promises no more": (Refinement(ELSEWHERE, EXPECTED), False),
    "failed": (Refinement(ELSEWHERE, 0.0), False),
    "found nothing": (Refinement(np.zeros(SIZE, bool), 0.9), False),
    "broke": (CorrectorError("no memory"), False),
    "refused the prompt": (PromptError("outside"), False),
}


def test_a_video_knows_its_times_and_a_rate_says_others(
    small_network: XMem, tmp_path: Path
) -> None:
    write_video(tmp_path / "walk.mp4", pictures(4), rate=10)
    video = Video.open(tmp_path / "walk.mp4")
    for rate, tenths in ((None, [0, 1, 2, 3]), (5.0, [0, 2, 4, 6])):
        lazy = LazyTracker(XMemTracker(small_network, device="cpu"), LazyConfig())
        frames = track_frames(video, lazy, {1: square(1) > 0}, rate=rate)
        assert [frame.result.stamp / 1e8 for frame in frames] == tenths
    with pytest.raises(DatasetError, match="frames per second"):
        track_frames(video, lazy, {1: square(1) > 0}, rate=0)


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("case", ANSWERS)
def test_only_a_mask_that_promises_more_is_taken(
    case: str, calibrated: bool, small_network: XMem
) -> None:
    answer, taken = ANSWERS[case]
    if case == "promises no more" and not calibrated:
        taken = True  # nothing is known of the tracker's own mask
    # Asks for a correction on every frame but the first, unless the last one is still open.
    config = LazyConfig(operator_corrections=False, pseudo_entropy=0, pseudo_cooldown_frames=0)
    tracker = XMemTracker(small_network, device="cpu")
    lazy = LazyTracker(tracker, config, iou_predictor=expecting(EXPECTED) if calibrated else None)
    corrector = Answering(answer)
    frames = [(str(index), image) for index, image in enumerate(pictures(4))]
    first = {1: square(1) > 0}
    for index, frame in enumerate(track_frames(frames, lazy, first, corrector=corrector)):
        np.testing.assert_array_equal(
            frame.labels, ELSEWHERE if taken and index > 0 else frame.result.labels, frame.name
        )
    assert corrector.asked == 3
    assert lazy.open_requests == []

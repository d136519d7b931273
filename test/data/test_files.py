# SPDX-License-Identifier: Apache-2.0
"""Which files of a folder count, in which order and by which name."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.files import image_files, natural_order
from lazyxmem_ros.data.layouts.options import DatasetOptions

LITTER = ("._frame1.jpg", ".hidden.png", "Thumbs.db", "desktop.ini", "notes.txt")
LITTER_FOLDERS = ("@eaDir", ".ipynb_checkpoints", "__MACOSX")


def save(path: Path, shade: int = 90, *, size: tuple[int, int] = (24, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB" if path.suffix.lower() != ".png" else "L", size, shade).save(path)


def strew(folder: Path) -> None:
    """What programs leave behind unasked."""
    for name in LITTER:
        (folder / name).write_bytes(b"litter")
    for name in LITTER_FOLDERS:
        save(folder / name / "frame1.jpg")


def test_frames_come_in_natural_order_whatever_the_case_of_their_suffix(tmp_path: Path) -> None:
    for number, suffix in ((0, "jpg"), (1, "JPG"), (2, "Jpeg"), (10, "jpg"), (9, "PNG")):
        save(tmp_path / f"{number}.{suffix}")
    strew(tmp_path)
    assert list(image_files(tmp_path)) == ["0", "1", "2", "9", "10"]


def test_names_that_differ_in_leading_zeros_alone_have_an_order(tmp_path: Path) -> None:
    """Not that in which a disk or a set happens to list them."""
    names = ["f001", "f01", "f1", "f002", "f02", "f2"]
    assert sorted(reversed(names), key=natural_order) == names
    assert sorted(names[::2] + names[1::2], key=natural_order) == names
    for name in reversed(names):
        save(tmp_path / f"{name}.png")
    (sequence,) = open_dataset(tmp_path)
    assert [sample.key for sample in sequence.samples()] == names


def test_two_files_of_one_name_are_refused_unless_one_is_known(tmp_path: Path) -> None:
    save(tmp_path / "00000.jpg")
    save(tmp_path / "00000.png")
    with pytest.raises(DatasetError, match=r"00000\.jpg and 00000\.png have one name"):
        image_files(tmp_path)
    found = image_files(tmp_path, besides=[tmp_path / "00000.png"])
    assert found == {"00000": tmp_path / "00000.jpg"}


def test_a_dataset_without_litter_and_with_suffixes_in_any_case(tmp_path: Path) -> None:
    for index in range(3):
        save(tmp_path / "walk" / "frames" / f"{index:05d}.JPG")
        mask = Image.new("L", (24, 16), 0)
        mask.paste(255, (4, 4, 12, 12))
        mask_file = tmp_path / "walk" / "masks" / f"{index:05d}.PNG"
        mask_file.parent.mkdir(exist_ok=True)
        mask.save(mask_file)
    strew(tmp_path / "walk" / "frames")
    strew(tmp_path / "walk" / "masks")
    (sequence,) = open_dataset(tmp_path / "walk")
    samples = list(sequence.samples())
    assert [sample.key for sample in samples] == ["00000", "00001", "00002"]
    assert [sample.faults for sample in samples] == [[], [], []]
    assert list(samples[0].given) == [1]


def test_a_tree_has_no_sequences_of_litter(tmp_path: Path) -> None:
    save(tmp_path / "JPEGImages" / "480p" / "walk" / "00000.jpg")
    save(tmp_path / "Annotations" / "480p" / "walk" / "00000.png")
    strew(tmp_path / "JPEGImages" / "480p")
    assert [sequence.name for sequence in open_dataset(tmp_path)] == ["walk"]


def test_a_first_mask_among_the_frames_is_no_frame(tmp_path: Path) -> None:
    for index in range(2):
        save(tmp_path / f"{index:05d}.jpg")
    save(tmp_path / "00000.png")
    (sequence,) = open_dataset(tmp_path, DatasetOptions(first_mask=tmp_path / "00000.png"))
    assert [sample.key for sample in sequence.samples()] == ["00000", "00001"]


def test_superscripts_in_names_are_no_numbers(tmp_path: Path) -> None:
    for name in ("5m\u00b2.png", "5\u00b2.png", "5\u00b21.png", "4.png"):
        save(tmp_path / name)
    assert next(iter(image_files(tmp_path))) == "4"
    assert len(image_files(tmp_path)) == 4

# SPDX-License-Identifier: Apache-2.0
"""What the values of a mask mean, and what is refused as none."""

from __future__ import annotations

from pathlib import Path
from zlib import compress, crc32

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lazyxmem_ros.data.errors import DatasetError, LabelMapError
from lazyxmem_ros.data.label_maps import (
    are_binary,
    is_binary,
    object_ids,
    read_label_map,
    save_label_map,
)


def save_packed(path: Path, values: NDArray[np.uint8], bits: int) -> None:
    """A grey PNG of 1, 2 or 4 bits, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + crc32(kind + data).to_bytes(4, "big")

    height, width = values.shape
    rows = np.unpackbits(values[..., None], axis=2, bitorder="big")[..., -bits:].reshape(height, -1)
    packed = np.pad(np.packbits(rows, axis=1), ((0, 0), (1, 0)))  # each row begins with its filter
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([bits, 0, 0, 0, 0])
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", compress(packed.tobytes()))
        + chunk(b"IEND", b"")
    )


def disc(value: int = 255) -> NDArray[np.uint8]:
    mask = np.zeros((120, 160), np.uint8)
    cv2.circle(mask, (80, 60), 30, value, -1)
    return mask


def cut_out(mode: str) -> Image.Image:
    """A photograph whose surroundings are transparent."""
    photo = np.random.default_rng(0).integers(20, 255, (120, 160, 3), dtype=np.uint8)
    picture = Image.fromarray(photo).convert(mode.removesuffix("A"))
    picture.putalpha(Image.fromarray(disc()))
    return picture


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_the_alpha_of_a_cut_out_is_the_mask(mode: str, tmp_path: Path) -> None:
    file = tmp_path / "cut_out.png"
    cut_out(mode).save(file)
    assert are_binary([file])
    for binary in (False, True):
        np.testing.assert_array_equal(read_label_map(file, binary=binary), disc() > 0)


SOFT = {
    "blurred": lambda mask: cv2.GaussianBlur(mask, (0, 0), 4),
    "scaled": lambda mask: cv2.resize(mask[::4, ::4], (160, 120), interpolation=cv2.INTER_CUBIC),
    "JPEG": lambda mask: cv2.imdecode(
        cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_GRAYSCALE
    ),
}


@pytest.mark.parametrize("kind", SOFT)
def test_a_soft_mask_is_refused_and_as_a_binary_one_cut_in_the_middle(
    kind: str, tmp_path: Path
) -> None:
    soft = SOFT[kind](disc())
    file = tmp_path / "soft.png"
    Image.fromarray(soft).save(file)
    assert not are_binary([file])
    with pytest.raises(DatasetError, match=r"soft\.png: a soft mask of \d+ greys .*--binary"):
        read_label_map(file)
    labels = read_label_map(file, binary=True)
    assert set(np.unique(labels)) == {0, 1}
    union, both = (labels | (disc() > 0)).sum(), (labels & (disc() > 0)).sum()
    assert both / union > 0.9


@pytest.mark.parametrize("name", ["mask.jpg", "mask.webp"])
def test_lossy_files_are_no_label_maps_however_few_their_greys(name: str, tmp_path: Path) -> None:
    """At high quality they have three greys, of which two would be objects of their own."""
    Image.fromarray(disc()).save(tmp_path / name, quality=100)
    with pytest.raises(DatasetError, match=rf"{name}: .* no label map.*--binary"):
        read_label_map(tmp_path / name)
    np.testing.assert_array_equal(read_label_map(tmp_path / name, binary=True), disc() > 0)


@pytest.mark.parametrize("colours", [8, 32, 255])
def test_an_indexed_cut_out_is_refused_unless_it_is_said_to_show_one_object(
    colours: int, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """Its numbers would be objects."""
    rows, columns = np.mgrid[:60, :80]
    disc = (rows - 30) ** 2 + (columns - 40) ** 2 < 20**2
    picture = np.dstack([100 + columns, 60 + rows, 200 - rows, 255 * disc]).astype(np.uint8)
    file = tmp_path / "cut.png"
    indexed = Image.fromarray(picture).quantize(colours, method=Image.Quantize.FASTOCTREE)
    indexed.save(file)
    with pytest.raises(DatasetError, match="may be a cut-out or a label map"):
        read_label_map(file)
    np.testing.assert_array_equal(read_label_map(file, binary=True), disc)
    assert not recwarn.list


@pytest.mark.parametrize("object_id", [1, 7])
def test_a_label_map_of_one_object_on_a_transparent_background_is_read(
    object_id: int, tmp_path: Path
) -> None:
    labels = np.zeros((20, 30), np.uint16)
    labels[5:15, 5:15] = object_id
    file = tmp_path / "labels.png"
    save_label_map(file, labels)
    with Image.open(file) as picture:
        picture.save(file, transparency=0)
    np.testing.assert_array_equal(read_label_map(file), labels)


@pytest.mark.parametrize("white", [0, 1, 255])
def test_a_palette_of_black_and_white_is_read_by_its_colours(white: int, tmp_path: Path) -> None:
    """Programs that save space number the colours as they like."""
    black = 1 if white == 0 else 0
    picture = Image.fromarray(np.where(disc() > 0, white, black).astype(np.uint8))
    colours = np.zeros((256, 3), np.uint8)
    colours[white] = 255
    picture.putpalette(colours.reshape(-1).tolist())
    picture.save(tmp_path / "mask.png")
    assert are_binary([tmp_path / "mask.png"])
    np.testing.assert_array_equal(read_label_map(tmp_path / "mask.png", binary=True), disc() > 0)


def test_a_palette_whose_first_colour_is_not_the_background_is_refused(tmp_path: Path) -> None:
    """Programs that count colours number them by how often, or how bright, they are."""
    red = np.where(disc()[..., None] > 0, np.uint8([200, 30, 30]), np.uint8(0))
    Image.fromarray(red).quantize(2).save(tmp_path / "mask.png")
    with pytest.raises(DatasetError, match=r"mask\.png: .* black is not number 0.*--binary"):
        read_label_map(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "mask.png", binary=True), disc() > 0)
    # Where there is no black, nothing says which is the background.
    red[disc() == 0] = 9
    Image.fromarray(red).quantize(2).save(tmp_path / "mask.png")
    read_label_map(tmp_path / "mask.png")


@pytest.mark.parametrize("white", [0, 1])
def test_an_empty_mask_of_black_and_white_shows_nothing_whatever_its_number(
    white: int, tmp_path: Path
) -> None:
    """As the first of a sequence it does not say what the next ones mean."""
    for name, shape in (("0.png", disc() * 0), ("1.png", disc())):
        picture = Image.fromarray(np.where(shape > 0, white, 1 - white).astype(np.uint8))
        picture.putpalette([*[255 * (white == 0)] * 3, *[255 * (white == 1)] * 3])
        picture.save(tmp_path / name)
    assert are_binary([tmp_path / "0.png", tmp_path / "1.png"])
    for binary in (False, True):
        assert not read_label_map(tmp_path / "0.png", binary=binary).any()
    np.testing.assert_array_equal(read_label_map(tmp_path / "1.png", binary=True), disc() > 0)
    # One object of a label map may be white, and fill the picture.
    picture = Image.fromarray(np.full((20, 30), 3, np.uint8))
    picture.putpalette([0, 0, 0, 90, 0, 0, 0, 90, 0, 255, 255, 255])
    picture.save(tmp_path / "full.png")
    assert not are_binary([tmp_path / "full.png"])
    assert (read_label_map(tmp_path / "full.png") == 3).all()


def test_a_label_map_of_many_objects_is_not_soft() -> None:
    """Neither with ids far apart, nor with some that are seen as a few pixels only."""
    labels = np.zeros((120, 160), np.uint8)
    for number in range(40):
        top, left = 20 * (number // 8), 20 * (number % 8)
        labels[top + 2 : top + 12, left + 2 : left + 12] = 6 * (number + 1)
    labels[119, 150:154] = (250, 251, 252, 253)
    assert len(np.unique(object_ids(labels, binary=False))) == 45
    indexed = cv2.GaussianBlur(disc(), (0, 0), 1)
    assert object_ids(indexed, binary=False, indexed=True).max() > 1


def test_more_objects_than_anybody_follows_are_refused_before_any_is_made() -> None:
    depth = np.arange(120 * 160, dtype=np.uint16).reshape(120, 160)
    with pytest.raises(LabelMapError, match=r"19199 different values .*up to 64 objects"):
        object_ids(depth, binary=False)
    assert object_ids(depth[:1, :11], binary=False, max_objects=10).max() == 10
    with pytest.raises(LabelMapError, match="up to 9 objects"):
        object_ids(depth[:1, :11], binary=False, max_objects=9)


def test_black_and_white_is_told_by_its_values() -> None:
    assert is_binary(disc())
    assert is_binary(disc() > 0)
    assert not is_binary(disc(7))
    assert not is_binary(disc().astype(np.uint16))
    assert not is_binary(np.zeros((3, 3), np.uint8))


@pytest.mark.parametrize(("top", "wide"), [(1, False), (254, False), (255, True), (40_000, True)])
def test_what_is_saved_is_read_back(top: int, wide: bool, tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.uint16)
    labels[3:9, 3:9], labels[10:15, 10:15] = 1, top
    file = tmp_path / "deep" / "labels.png"
    assert save_label_map(file, labels) is wide
    with Image.open(file) as picture:
        assert (picture.mode == "P") is not wide
    np.testing.assert_array_equal(read_label_map(file), labels)


def test_a_mask_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    Image.fromarray(disc()).save(tmp_path / "mask.png")
    with pytest.raises(DatasetError, match=r"mask\.png: .*160x120 pixels"):
        read_label_map(tmp_path / "mask.png", max_pixels=1000)


def test_label_maps_of_every_kind(tmp_path: Path) -> None:
    wide = np.array([[0, 300], [65535, 2]], np.uint16)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "wide.png"), wide)
    Image.fromarray(np.array([[0, 255], [3, 0]], np.uint8)).save(tmp_path / "void.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "void.png"), [[0, 0], [3, 0]])
    np.testing.assert_array_equal(
        read_label_map(tmp_path / "void.png", binary=True), [[0, 1], [1, 0]]
    )
    grey = np.array([[0, 255], [255, 0]], np.uint8)
    for name, channels in (("grey", 1), ("rgb", 3)):
        alpha = np.full((2, 2, 1), 255, np.uint8)
        opaque = np.concatenate([np.repeat(grey[..., None], channels, axis=2), alpha], axis=2)
        Image.fromarray(opaque).save(tmp_path / f"{name}.png")
        assert are_binary([tmp_path / f"{name}.png"])
        shown = read_label_map(tmp_path / f"{name}.png", binary=True)
        np.testing.assert_array_equal(shown, grey > 0)
    Image.fromarray(np.eye(3, dtype=np.uint8)[None] * 255).save(tmp_path / "colour.png")
    assert not are_binary([tmp_path / "colour.png"])
    with pytest.raises(DatasetError, match="RGB picture is no label map"):
        read_label_map(tmp_path / "colour.png")


@pytest.mark.parametrize(("bits", "ids"), [(2, [0, 1, 3]), (4, [0, 1, 9, 15])])
def test_the_greys_of_few_bits_are_ids(bits: int, ids: list[int], tmp_path: Path) -> None:
    values = np.repeat(np.array(ids, np.uint8), 5)[None].repeat(5, axis=0)
    save_packed(tmp_path / "few.png", values, bits)
    np.testing.assert_array_equal(read_label_map(tmp_path / "few.png"), values)
    assert not are_binary([tmp_path / "few.png"])
    shown = read_label_map(tmp_path / "few.png", binary=True)
    np.testing.assert_array_equal(shown, values > 0)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_black_and_white_mask_of_few_bits_shows_one_object(bits: int, tmp_path: Path) -> None:
    values = np.zeros((8, 12), np.uint8)
    values[2:6, 3:9] = 2**bits - 1
    save_packed(tmp_path / "few.png", values, bits)
    np.testing.assert_array_equal(read_label_map(tmp_path / "few.png"), values > 0)


@pytest.mark.parametrize("ids", [(1, 2), (128, 255), (1, 255)])
@pytest.mark.parametrize("wide", [False, True])
def test_a_map_of_several_objects_is_not_guessed_to_show_one(
    ids: tuple[int, int], wide: bool
) -> None:
    labels = disc(ids[0]).astype(np.uint16 if wide else np.uint8)
    labels[:20, :20] = ids[1]
    with pytest.raises(LabelMapError, match=f"several objects, of values up to {ids[1]}"):
        object_ids(labels, binary=True, guessed=True)
    np.testing.assert_array_equal(object_ids(labels, binary=True), labels > 0)


def test_a_mask_whose_edges_are_grey_is_guessed_to_show_one_object() -> None:
    """A few greys in thin lines, many of them, or one shade alone."""
    few, many = disc(), cv2.GaussianBlur(disc(), (0, 0), 3)
    cv2.circle(few, (80, 60), 30, 90, 1)
    for values in (few, disc(), disc(1)):
        np.testing.assert_array_equal(object_ids(values, binary=True, guessed=True), values > 0)
    np.testing.assert_array_equal(object_ids(many, binary=True, guessed=True), many >= 128)
    # Where a palette says that they are numbers, they are no shades.
    with pytest.raises(LabelMapError, match="several objects"):
        object_ids(few, binary=True, guessed=True, indexed=True)

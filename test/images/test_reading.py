# SPDX-License-Identifier: Apache-2.0
"""Image files and bytes: limits, what is cut short, orientation, and greys of 16 bits."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, PngImagePlugin

from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.label_maps import read_label_map
from lazyxmem_ros.images import MAX_PIXELS, ImageError, check_image, read_image
from lazyxmem_ros.images.files import read_image_file


def corners() -> NDArray[np.uint8]:
    """RGB [40, 64, 3] with a colour of its own in each corner."""
    image = np.full((40, 64, 3), 90, np.uint8)
    image[:16, :16], image[:16, -16:] = (230, 30, 30), (30, 230, 30)
    image[-16:, :16], image[-16:, -16:] = (30, 30, 230), (230, 230, 30)
    return image


def encoded(suffix: str, image: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]))
    assert done
    return data.tobytes()


def compressed(data: bytes, form: str = "") -> SimpleNamespace:
    return SimpleNamespace(format=form, data=data)


def claiming_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be of any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    parts = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


CLAIMING = {
    ".png": claiming_png(30_000, 30_000),
    ".gif": b"GIF89a" + struct.pack("<HHBBB", 30_000, 30_000, 0, 0, 0)
    + b"," + struct.pack("<HHHHB", 0, 0, 30_000, 30_000, 0) + b"\x02\x02\x44\x01\x00;",
    ".bmp": b"BM" + struct.pack("<IHHI", 70, 0, 0, 54)
    + struct.pack("<IiiHHIIiiII", 40, 30_000, 30_000, 1, 24, *[0] * 6) + bytes(16),
}  # fmt: skip


@pytest.mark.parametrize("reader", [check_image, read_image])
def test_a_huge_claim_is_refused_by_its_header(reader: object) -> None:
    message = compressed(claiming_png(30_000, 30_000), "png")
    with pytest.raises(
        ImageError, match=r"30000x30000 pixels, 900000000 in all; up to 67108864 are"
    ):
        reader(message)  # type: ignore[operator]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
def test_the_limit_on_pixels_holds_for_every_format(suffix: str) -> None:
    message = compressed(encoded(suffix, corners()))
    assert read_image(message, max_pixels=40 * 64).size == (40, 64)
    with pytest.raises(ImageError, match="64x40 pixels"):
        read_image(message, max_pixels=40 * 64 - 1)


@pytest.mark.parametrize("suffix", [".png", ".gif", ".bmp"])
def test_a_huge_file_is_refused_in_the_same_words_whatever_its_format(
    suffix: str, tmp_path: Path
) -> None:
    """Pillow has a limit of its own, which is another, and no file has a parameter."""
    file = tmp_path / f"huge{suffix}"
    file.write_bytes(CLAIMING[suffix])
    said = r"30000x30000 pixels, 900000000 in all; up to 67108864 are read; scale it down"
    with pytest.raises(ImageError, match=said) as caught:
        read_image_file(file)
    assert "max_pixels" not in str(caught.value)
    with pytest.raises(DatasetError, match=said):
        read_label_map(file)
    with pytest.raises(ImageError, match=r"up to 1000000 are read \(max_pixels\)"):
        read_image(compressed(CLAIMING[suffix]), max_pixels=1_000_000)
    assert Image.MAX_IMAGE_PIXELS == 89_478_485


def test_the_limit_holds_for_raw_images() -> None:
    side = 10_000
    assert side * side > MAX_PIXELS
    message = SimpleNamespace(
        height=side, width=side, encoding="mono8", step=side, is_bigendian=0, data=b""
    )
    with pytest.raises(ImageError, match="10000x10000 pixels"):
        read_image(message)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.995])
def test_what_is_cut_short_is_refused(suffix: str, share: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    data = encoded(suffix, cv2.GaussianBlur(noise, (0, 0), 3))
    file = tmp_path / f"half{suffix}"
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ImageError, match=f"{file}: the image cannot be read: "):
        read_image_file(file)
    file.write_bytes(data)
    assert read_image_file(file).shape == (120, 160, 3)


def test_what_follows_after_a_jpeg_does_no_harm() -> None:
    """Drivers pad, and phones append more pictures."""
    message = compressed(encoded(".jpg", corners()) + bytes(5000))
    assert read_image(message).size == (40, 64)


def test_a_thumbnail_in_a_cut_jpeg_is_not_its_end() -> None:
    data = encoded(".jpg", corners())
    thumbnail = b"\xff\xe1" + struct.pack(">H", 8) + b"ab\xff\xd9cd"
    with pytest.raises(ImageError, match="cut short"):
        check_image(compressed(data[:2] + thumbnail + data[2:-40]))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_pixels_are_decoded_once(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"plain{suffix}"
    about = PngImagePlugin.PngInfo()
    about.add_text("Software", "a program")
    Image.fromarray(corners()).save(file, pnginfo=about)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded by Pillow"))
    assert read_image_file(file).shape == corners().shape


def test_a_file_that_is_no_picture_of_any_size_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "huge.png"
    with file.open("wb") as written:
        written.truncate(4 << 40)  # it takes no room
    with pytest.raises(ImageError, match=r"huge\.png: .* more than any picture"):
        read_image_file(file)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_files_are_turned_as_their_exif_data_say(
    orientation: int, suffix: str, tmp_path: Path
) -> None:
    """As Pillow turns them, which is another implementation of the same table."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"turned.{suffix}"
    Image.fromarray(corners()).save(file, exif=exif)
    with Image.open(file) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    read = read_image_file(file)
    assert read.shape == expected.shape
    assert np.abs(read.astype(int) - expected).max() <= 6
    if suffix != "tiff":
        message = compressed(file.read_bytes())
        assert read_image(message).size == (40, 64), "a camera's messages stay as they are"


def grey16(low: int, high: int) -> SimpleNamespace:
    ramp = np.linspace(low, high, 200 * 100).round().astype("<u2").reshape(100, 200)
    return SimpleNamespace(
        height=100, width=200, encoding="mono16", step=400, is_bigendian=0, data=ramp.tobytes()
    )


@pytest.mark.parametrize(("low", "high"), [(7000, 8000), (0, 16_000), (100, 4095), (0, 300)])
def test_greys_of_a_part_of_16_bits_use_all_of_8(low: int, high: int) -> None:
    """A thermal camera of 14 bits showed four shades of grey."""
    shades = read_image(grey16(low, high)).data
    assert (int(shades.min()), int(shades.max())) == (0, 255)
    assert len(np.unique(shades)) >= 250
    assert (np.diff(shades.reshape(-1).astype(int)) >= 0).all(), "brighter stays brighter"


@pytest.mark.parametrize(("low", "high"), [(0, 65_535), (20_000, 50_000), (5000, 5010)])
def test_greys_of_16_bits_and_flat_ones_stay_as_they_are(low: int, high: int) -> None:
    shades = read_image(grey16(low, high)).data
    assert abs(int(shades.min()) - low / 257) <= 1
    assert abs(int(shades.max()) - high / 257) <= 1


def test_a_dead_pixel_does_not_decide_the_range() -> None:
    message = grey16(7000, 8000)
    values = np.frombuffer(message.data, "<u2").copy()
    values[5000] = 65_535
    message.data = values.tobytes()
    assert len(np.unique(read_image(message).data)) >= 250


def test_a_png_of_16_bits_is_read_as_the_raw_image_is(tmp_path: Path) -> None:
    message = grey16(7000, 8000)
    values = np.frombuffer(message.data, "<u2").reshape(100, 200)
    Image.fromarray(values).save(tmp_path / "thermal.png")
    raw = read_image(message).rgb()
    np.testing.assert_array_equal(read_image_file(tmp_path / "thermal.png"), raw)
    data = io.BytesIO()
    Image.fromarray(values).save(data, "png")
    packed = read_image(compressed(data.getvalue(), "mono16; png compressed "))
    np.testing.assert_array_equal(packed.rgb(), raw)

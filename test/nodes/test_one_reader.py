# SPDX-License-Identifier: Apache-2.0
"""The node and a bag show the same pixels: every encoding, padded or not, in both byte orders."""

from __future__ import annotations

import array
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from lazyxmem_ros.data.bag_messages import message_types
from lazyxmem_ros.data.bag_reader import BagReader
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.images import ENCODINGS, ImageError, read_image
from lazyxmem_ros.images.raw import DIRECT, PACKED, PLANAR

HEIGHT, WIDTH = 16, 24
STAMP = 1_700_000_000_000_000_000


def picture() -> NDArray[np.uint8]:
    """A smooth RGB picture, so that colour that is stored for several pixels is still right."""
    down, right = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [60 + 6 * right, 200 - 8 * down, 100 + 3 * right + 2 * down]
    return np.clip(np.dstack(planes), 0, 255).astype(np.uint8)


def values_of(encoding: str) -> NDArray[np.integer]:
    """The picture's bytes or 16-bit values in an encoding, [rows, values per row]."""
    rgb = picture()
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    depth = 257 if "16" in encoding else 1
    name = encoding.removeprefix("bayer_").rstrip("0123456789")
    if encoding.startswith("bayer_"):
        channel = np.array(["rgb".index(c) for c in name]).reshape(2, 2)
        down, right = np.mgrid[0:HEIGHT, 0:WIDTH]
        plane = rgb[down, right, channel[down % 2, right % 2]]
        return plane.astype(np.uint16) * depth if depth > 1 else plane
    if encoding in ("mono8", "8UC1", "mono16", "16UC1"):
        return grey.astype(np.uint16) * depth if depth > 1 else grey
    if encoding in PLANAR or encoding in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv"):
        return yuv_of(encoding, rgb)
    channels = {"8UC3": "bgr", "8UC4": "bgra", "16UC3": "bgr", "16UC4": "bgra"}.get(encoding, name)
    rgba = np.concatenate([rgb, alpha], axis=2)
    values = rgba[..., ["rgba".index(c) for c in channels]].reshape(HEIGHT, -1)
    return values.astype(np.uint16) * depth if depth > 1 else values


def yuv_of(encoding: str, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    planes = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
    luma = planes[:HEIGHT]
    u, v = planes[HEIGHT:].reshape(2, HEIGHT // 2, WIDTH // 2)
    wide_u, wide_v = (np.repeat(plane, 2, axis=1) for plane in (u, v))
    if encoding in ("yuv420", "i420", "yv12"):
        first, second = (v, u) if encoding == "yv12" else (u, v)
        chroma = np.stack([first, second]).reshape(HEIGHT // 2, WIDTH)
        return np.vstack([luma, chroma])
    if encoding in ("nv12", "nv21"):
        pair = (u, v) if encoding == "nv12" else (v, u)
        return np.vstack([luma, np.dstack(pair).reshape(HEIGHT // 2, WIDTH)])
    tall_u, tall_v = (np.repeat(plane, 2, axis=0) for plane in (u, v))
    if encoding in ("nv24", "nv42"):
        full = [np.repeat(plane, 2, axis=1) for plane in (tall_u, tall_v)]
        pair = full if encoding == "nv24" else full[::-1]
        return np.vstack([luma, np.dstack(pair).reshape(2 * HEIGHT, WIDTH)])
    assert wide_u.shape == wide_v.shape
    even, odd = luma[:, ::2], luma[:, 1::2]
    order = [tall_u, even, tall_v, odd] if encoding in ("yuv422", "uyvy") else []
    order = order or [even, tall_u, odd, tall_v]
    return np.dstack(order).reshape(HEIGHT, -1)


def padded(values: NDArray[np.integer], encoding: str, padding: int) -> NDArray[np.integer]:
    """Each row longer by `padding` values; half of it for planes of half the width."""
    if encoding in ("yuv420", "i420", "yv12"):
        luma, chroma = values[:HEIGHT], values[HEIGHT:].reshape(HEIGHT, WIDTH // 2)
        luma, chroma = padded(luma, "", padding), padded(chroma, "", padding // 2)
        return np.concatenate([luma.reshape(-1), chroma.reshape(-1)]).reshape(-1, WIDTH + padding)
    if encoding in ("nv24", "nv42"):
        luma, chroma = values[:HEIGHT], values[HEIGHT:].reshape(HEIGHT, 2 * WIDTH)
        luma, chroma = padded(luma, "", padding), padded(chroma, "", 2 * padding)
        return np.concatenate([luma.reshape(-1), chroma.reshape(-1)]).reshape(-1, WIDTH + padding)
    return np.pad(values, ((0, 0), (0, padding)), constant_values=201)


def message_of(encoding: str, *, padding: int = 0, big: bool = False) -> Image:
    values = padded(values_of(encoding), encoding, padding)
    wide = values.dtype == np.uint16
    data = values.astype(">u2" if big else "<u2") if wide else values
    return Image(
        height=HEIGHT,
        width=WIDTH,
        encoding=encoding,
        is_bigendian=int(big),
        step=values.shape[1] * values.itemsize,
        data=array.array("B", data.tobytes()),
    )


def from_bag(message: Image | CompressedImage, folder: Path) -> NDArray[np.uint8]:
    """What a bag with the message as its only one shows."""
    types = message_types().types
    path = folder / "bag"
    compressed = isinstance(message, CompressedImage)
    kind = types[f"sensor_msgs/msg/{'CompressedImage' if compressed else 'Image'}"]
    names = ("format",) if compressed else ("height", "width", "encoding", "is_bigendian", "step")
    with BagWriter(path) as bag:
        data = np.frombuffer(bytes(message.data), np.uint8)
        fields = {name: getattr(message, name) for name in names}
        bag.write("/camera", kind(header=bag._header(STAMP, "c"), data=data, **fields), STAMP)
    with BagReader(path) as read:
        (frame,) = read.images("/camera")
    return frame.image


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_raw_images(encoding: str, padding: int, big: bool, tmp_path: Path) -> None:
    message = message_of(encoding, padding=padding, big=big)
    node = read_image(message).rgb()
    np.testing.assert_array_equal(node, from_bag(message, tmp_path))
    rgb = picture()
    if encoding in ("mono8", "8UC1", "mono16", "16UC1"):
        rgb = np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    exact = encoding in (*DIRECT, *PACKED) and not encoding.startswith(("bayer", "yu", "uyvy"))
    tolerance = 1 if exact else 12  # of colour that several pixels share
    inner = np.abs(node.astype(int) - rgb)[2:-2, 2:-2]
    assert inner.max() <= tolerance, encoding


@pytest.mark.parametrize("encoding", sorted(PLANAR))
def test_a_step_of_all_planes_together(encoding: str) -> None:
    """Some drivers give the bytes of all planes per row of the image."""
    message = message_of(encoding)
    expected = read_image(message).rgb()
    message.step = len(message.data) // HEIGHT
    np.testing.assert_array_equal(read_image(message).rgb(), expected)
    message.step = WIDTH - 2
    with pytest.raises(ImageError, match=f"the data does not fit: .*{WIDTH}x{HEIGHT} pixels"):
        read_image(message)


@pytest.mark.parametrize("encoding", ["nv12", "yuv420", "yuv422"])
def test_odd_sizes_of_shared_colour_are_named(encoding: str) -> None:
    message = Image(height=5, width=7, encoding=encoding, step=14 if encoding == "yuv422" else 7)
    message.data = array.array("B", bytes(70 if encoding == "yuv422" else 52))
    with pytest.raises(ImageError, match="7x5 pixels"):
        read_image(message)


FORMS = {
    "rgb8; jpeg compressed bgr8": (".jpg", "bgr"),
    "rgb8; png compressed bgr8": (".png", "bgr"),
    "rgb8; png compressed rgb8": (".png", "rgb"),
    "bgr8; png compressed rgb8": (".png", "rgb"),
    "png": (".png", "bgr"),
    "webp": (".webp", "bgr"),
    "bmp": (".bmp", "bgr"),
    "mono8; png compressed ": (".png", "mono"),
    "bayer_grbg8; png compressed ": (".png", "bayer"),
    "bayer_grbg8; jpeg compressed bayer_grbg8": (".jpg", "bayer"),
}


@pytest.mark.parametrize("form", FORMS)
def test_compressed_images(form: str, tmp_path: Path) -> None:
    suffix, kind = FORMS[form]
    rgb = picture()
    stored = {
        "bgr": rgb[..., ::-1],
        "rgb": rgb,
        "mono": cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY),
        "bayer": values_of("bayer_grbg8"),
    }[kind]
    options = [cv2.IMWRITE_JPEG_QUALITY, 100] if suffix == ".jpg" else []
    _, data = cv2.imencode(suffix, np.ascontiguousarray(stored), options)
    message = CompressedImage(format=form, data=array.array("B", data.tobytes()))
    node = read_image(message).rgb()
    np.testing.assert_array_equal(node, from_bag(message, tmp_path))
    expected = np.repeat(stored[..., None], 3, axis=2) if kind == "mono" else rgb
    tolerance = 24 if suffix in (".jpg", ".webp") else 8 if kind == "bayer" else 0
    assert np.abs(node.astype(int) - expected)[2:-2, 2:-2].max() <= tolerance

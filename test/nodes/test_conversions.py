# SPDX-License-Identifier: Apache-2.0
"""Messages to arrays and back, and what is refused."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from lazyxmem_ros.basics import stamp_of
from lazyxmem_ros.images import ENCODINGS, ChannelOrder, ImageError, check_image, read_image
from lazyxmem_ros.images.raw import PACKED, PLANAR
from lazyxmem_ros.nodes.conversions import (
    image_message,
    labels_message,
    mask_message,
    masks_of_labels,
    point_messages,
    read_labels,
    read_mask,
    read_object_masks,
    read_points,
    read_region,
    region_message,
    time_message,
)

HEIGHT, WIDTH = 6, 8
DIRECT = {
    "rgb8": ChannelOrder.RGB,
    "bgr8": ChannelOrder.BGR,
    "mono8": ChannelOrder.MONO,
    "8UC1": ChannelOrder.MONO,
    "8UC3": ChannelOrder.BGR,
}
CONVERTED = sorted(set(ENCODINGS) - set(DIRECT) - set(PLANAR))
PIXEL_BYTES = {"rgb8": 3, "bgr8": 3, "8UC3": 3, "mono8": 1, "8UC1": 1}


def raw_image(encoding: str, pixel_bytes: int, *, padding: int = 0, seed: int = 0) -> Image:
    step = WIDTH * pixel_bytes + padding
    data = np.random.default_rng(seed).integers(0, 256, HEIGHT * step, dtype=np.uint8)
    return Image(
        height=HEIGHT,
        width=WIDTH,
        encoding=encoding,
        step=step,
        data=array.array("B", data.tobytes()),
    )


def pixel_bytes(encoding: str) -> int:
    return PIXEL_BYTES.get(encoding) or PACKED[encoding].pixel_bytes


@pytest.mark.parametrize("encoding", DIRECT)
@pytest.mark.parametrize("padding", [0, 5])
def test_direct_encodings_are_views_of_the_message(encoding: str, padding: int) -> None:
    message = raw_image(encoding, PIXEL_BYTES[encoding], padding=padding)
    pixels = read_image(message)
    assert pixels.order is DIRECT[encoding]
    assert pixels.size == (HEIGHT, WIDTH)
    assert np.shares_memory(pixels.data, np.frombuffer(message.data, np.uint8))
    rows = np.frombuffer(message.data, np.uint8).reshape(HEIGHT, message.step)
    expected = rows[:, : WIDTH * PIXEL_BYTES[encoding]].reshape(HEIGHT, WIDTH, -1)
    if pixels.order is ChannelOrder.BGR:
        expected = expected[..., ::-1]
    if pixels.order is ChannelOrder.MONO:
        expected = np.repeat(expected, 3, axis=2)
    rgb = pixels.rgb()
    assert rgb.flags.c_contiguous
    np.testing.assert_array_equal(rgb, expected)


@pytest.mark.parametrize("encoding", CONVERTED)
def test_row_padding_makes_no_difference(encoding: str) -> None:
    tight = raw_image(encoding, pixel_bytes(encoding))
    rows = np.frombuffer(tight.data, np.uint8).reshape(HEIGHT, -1)
    padded = np.pad(rows, ((0, 0), (0, 6)), constant_values=77)
    loose = raw_image(encoding, pixel_bytes(encoding), padding=6)
    loose.data = array.array("B", padded.tobytes())
    np.testing.assert_array_equal(read_image(tight).rgb(), read_image(loose).rgb())


def known_colors(encoding: str) -> tuple[Image, np.ndarray, int]:
    """An image of one colour in that encoding, the RGB it must give, and the tolerance."""
    red, green, blue, alpha = 200, 100, 50, 255
    channels = {"r": red, "g": green, "b": blue, "a": alpha}
    name = encoding.rstrip("0123456789")
    expected = (red, green, blue)
    if encoding.startswith("bayer"):
        first, second = name[-4:-2], name[-2:]
        tile = [[channels[c] for c in first], [channels[c] for c in second]]
        plane = np.tile(np.array(tile), (HEIGHT // 2, WIDTH // 2))
        deep = encoding.endswith("16")
        values = (plane * 257).astype("<u2") if deep else plane.astype(np.uint8)
        return image_message(values, encoding, Header()), np.array(expected), 1
    if encoding in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv"):
        luma, u, v = 120, 128, 128  # no colour: R = G = B
        pair = [u, luma, v, luma] if encoding in ("yuv422", "uyvy") else [luma, u, luma, v]
        values = np.tile(np.array(pair, np.uint8), (HEIGHT, WIDTH // 2))
        message = image_message(values, encoding, Header())
        message.width = WIDTH
        grey = round((luma - 16) * 255 / 219)
        return message, np.array([grey] * 3), 2
    if encoding in ("mono16", "16UC1"):
        values = np.full((HEIGHT, WIDTH), red * 257, "<u2")
        return image_message(values, encoding, Header()), np.array([red] * 3), 1
    name = {"8UC": "bgra", "16UC": "bgra"[: int(encoding[-1])]}.get(name, name)
    order = [channels[c] for c in name]
    values = np.tile(np.array(order), (HEIGHT, WIDTH, 1))
    deep = "16" in encoding
    values = (values * 257).astype("<u2") if deep else values.astype(np.uint8)
    return image_message(values, encoding, Header()), np.array(expected), 1


@pytest.mark.parametrize("encoding", CONVERTED)
def test_colors_come_out_right(encoding: str) -> None:
    message, expected, tolerance = known_colors(encoding)
    rgb = read_image(message).rgb()
    assert rgb.shape == (HEIGHT, WIDTH, 3)
    # The outer pixels of a Bayer pattern are guesses.
    inner = rgb[2:-2, 2:-2].astype(int)
    assert np.abs(inner - expected).max() <= tolerance


@pytest.mark.parametrize("encoding", CONVERTED)
def test_conversion_is_that_of_opencv(encoding: str) -> None:
    message = raw_image(encoding, pixel_bytes(encoding), seed=3)
    expected = opencv_rgb(message)
    got = read_image(message).rgb()
    assert got.dtype == np.uint8
    # One step for the rounding of 16 bits.
    assert np.abs(got.astype(int) - expected.astype(int)).max() <= 1, encoding


def opencv_rgb(message: Image) -> np.ndarray:
    codes = {
        "rgba8": cv2.COLOR_RGBA2RGB,
        "bgra8": cv2.COLOR_BGRA2RGB,
        "8UC4": cv2.COLOR_BGRA2RGB,
        "mono16": cv2.COLOR_GRAY2RGB,
        "16UC1": cv2.COLOR_GRAY2RGB,
        "16UC3": cv2.COLOR_BGR2RGB,
        "16UC4": cv2.COLOR_BGRA2RGB,
        "rgb16": None,
        "bgr16": cv2.COLOR_BGR2RGB,
        "rgba16": cv2.COLOR_RGBA2RGB,
        "bgra16": cv2.COLOR_BGRA2RGB,
        "bayer_rggb8": cv2.COLOR_BayerBG2RGB,
        "bayer_bggr8": cv2.COLOR_BayerRG2RGB,
        "bayer_gbrg8": cv2.COLOR_BayerGR2RGB,
        "bayer_grbg8": cv2.COLOR_BayerGB2RGB,
        "bayer_rggb16": cv2.COLOR_BayerBG2RGB,
        "bayer_bggr16": cv2.COLOR_BayerRG2RGB,
        "bayer_gbrg16": cv2.COLOR_BayerGR2RGB,
        "bayer_grbg16": cv2.COLOR_BayerGB2RGB,
        "yuv422": cv2.COLOR_YUV2RGB_UYVY,
        "uyvy": cv2.COLOR_YUV2RGB_UYVY,
        "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUYV,
        "yuyv": cv2.COLOR_YUV2RGB_YUYV,
    }
    deep = "16" in message.encoding
    values = np.frombuffer(message.data, "<u2" if deep else np.uint8)
    values = values.reshape(HEIGHT, WIDTH, -1)
    code = codes[message.encoding]
    rgb = values if code is None else cv2.cvtColor(values, code)
    return np.round(rgb * (255 / 65535)) if deep else rgb


def test_big_endian_is_read_as_such() -> None:
    message = image_message(np.full((4, 4), 0x1234, ">u2"), "mono16", Header())
    message.is_bigendian = 1
    assert (read_labels(message) == 0x1234).all()
    assert (read_image(message).rgb() == 0x12).all()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_compressed_images(suffix: str) -> None:
    image = np.zeros((16, 24, 3), np.uint8)
    image[:, 12:] = (200, 30, 90)  # RGB
    _, data = cv2.imencode(suffix, image[..., ::-1])
    pixels = read_image(CompressedImage(format="rgb8; " + suffix[1:], data=data.tobytes()))
    assert np.abs(pixels.rgb().astype(int) - image)[:, [2, 20]].max() <= 3


def test_grey_compressed_image_is_three_channels() -> None:
    _, data = cv2.imencode(".png", np.full((5, 7), 90, np.uint8))
    assert (read_image(CompressedImage(format="png", data=data.tobytes())).rgb() == 90).all()


def broken(**fields: object) -> Image:
    message = raw_image("rgb8", 3)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (broken(step=10), "row step 10 is too small: 8 pixels of rgb8 take 24 bytes"),
        (broken(encoding="rgb9"), "encoding 'rgb9' is not a colour or grey image"),
        (broken(encoding=""), "encoding '' is not"),
        (broken(encoding="32FC1"), "encoding '32FC1' is not"),
        (broken(height=0), "the image is empty: 8x0"),
        (broken(width=0), "the image is empty: 0x6"),
        (broken(data=array.array("B", bytes(100))), "too short: 100 bytes, but step 24 x height 6"),
        (broken(data=array.array("B", bytes(145))), "too long: 145 bytes"),
        (broken(encoding="bgra8"), "row step 24 is too small"),
        (broken(encoding="mono16", step=16), "too long"),
        (CompressedImage(format="jpeg"), "the compressed image is empty"),
        (CompressedImage(format="16UC1; compressedDepth png", data=b"x" * 40), "depth image"),
    ],
)
def test_malformed_images_say_what_is_wrong(message: Image, fault: str) -> None:
    for function in (check_image, read_image):
        with pytest.raises(ImageError) as caught:
            function(message)
        assert fault in str(caught.value)


def test_compressed_nonsense_says_so() -> None:
    with pytest.raises(ImageError, match="9 bytes of format 'jpeg' did not decode"):
        read_image(CompressedImage(format="jpeg", data=b"nonsense!"))


@pytest.mark.parametrize(("top", "encoding"), [(254, "mono8"), (255, "mono16"), (65535, "mono16")])
def test_label_maps_go_both_ways(top: int, encoding: str) -> None:
    labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    labels[2:4, 3:6] = top
    labels[0, 0] = 1
    message = labels_message(labels, Header(frame_id="camera"))
    assert message.encoding == encoding
    assert message.header.frame_id == "camera"
    assert message.step * message.height == len(message.data)
    assert isinstance(message.data, array.array)
    np.testing.assert_array_equal(read_labels(message), labels)
    assert set(read_object_masks(message)) == {1, top}  # also where a mask is given back as it is
    masks = masks_of_labels(labels)
    assert set(masks) == {1, top}
    np.testing.assert_array_equal(masks[top], labels == top)


def test_label_map_with_padded_rows() -> None:
    message = raw_image("mono16", 2, padding=4)
    rows = np.frombuffer(message.data, np.uint8).reshape(HEIGHT, message.step)
    expected = np.ascontiguousarray(rows[:, : WIDTH * 2]).view("<u2")
    np.testing.assert_array_equal(read_labels(message), expected)


def test_a_colour_image_is_no_label_map() -> None:
    with pytest.raises(ImageError, match="encoding 'rgb8' is not one of a label map"):
        read_labels(raw_image("rgb8", 3))


@pytest.mark.parametrize(
    ("values", "encoding", "ids"),
    [
        ([0, 0, 255], "mono8", {1}),  # black and white
        ([7, 0, 255], "mono8", {7}),  # 255 is nothing
        ([300, 0, 255], "mono16", {300, 255}),  # 16 bits: every value is an id
    ],
)
def test_255_means_what_it_does_in_files(values: list[int], encoding: str, ids: set[int]) -> None:
    kind = "<u2" if encoding == "mono16" else np.uint8
    message = image_message(np.array([values] * 2, kind), encoding, Header())
    assert set(read_object_masks(message)) == ids


def test_a_depth_image_is_no_label_map() -> None:
    depth = np.arange(400 * 300, dtype="<u2").reshape(300, 400)
    message = image_message(depth, "16UC1", Header())
    with pytest.raises(ImageError, match=r"65535 different values .* depth image .*up to 64"):
        read_object_masks(message)
    few = image_message(depth[:1, :9].astype("<u2"), "mono16", Header())
    with pytest.raises(ImageError, match="8 different values"):
        read_object_masks(few, max_objects=7)


def test_masks_go_both_ways() -> None:
    mask = np.random.default_rng(0).random((HEIGHT, WIDTH)) > 0.5
    message = mask_message(mask, Header())
    assert set(message.data) == {0, 255}
    np.testing.assert_array_equal(read_mask(message), mask)


def test_boxes_points_and_stamps_go_both_ways() -> None:
    assert read_region(region_message((3, 4, 10, 6))) == (3, 4, 10, 6)
    assert region_message(None).width == 0
    points = np.array([[1.5, 2.0], [7.0, 0.25]], np.float32)
    np.testing.assert_array_equal(read_points(point_messages(points)), points)
    assert read_points([]).shape == (0, 2)
    stamp = 1_700_000_000_123_456_789
    assert time_message(stamp) == Time(sec=1_700_000_000, nanosec=123_456_789)
    assert stamp_of(time_message(stamp)) == stamp

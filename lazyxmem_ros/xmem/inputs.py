# SPDX-License-Identifier: Apache-2.0
"""Images and masks from outside: whether they can be taken, and how they come in and out.

Outside, pixels have the size of the image as given. Inside, they are scaled down to the internal
size (where there is a limit) and padded to multiples of the network's stride.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from typing import TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lazyxmem_ros.basics import MAX_OBJECT_ID, BoolMask, by_width, whole_number
from lazyxmem_ros.xmem.errors import FrameError, MaskError, UnknownObjectError
from lazyxmem_ros.xmem.network import IMAGE_MEAN, IMAGE_STD, STRIDE

MaskT = TypeVar("MaskT")
AnyT = TypeVar("AnyT", bound=np.generic)
Size = tuple[int, int]
"""Height and width, pixels."""
SHOWN_SHARE = 0.5
"""Of a pixel inside, which an object wins by if it has more of it."""


class Inputs:
    """Brings images and masks to the form that the network takes, on its device."""

    def __init__(self, device: torch.device, max_internal_size: int) -> None:
        """`max_internal_size`: longest allowed short side inside, pixels; 0: no limit."""
        if max_internal_size < 0 or 0 < max_internal_size < STRIDE:
            raise FrameError(
                f"max_internal_size must be 0 (off) or at least {STRIDE}, not {max_internal_size}"
            )
        self._device = device
        self._max_internal_size = max_internal_size
        self._mean = torch.tensor(IMAGE_MEAN, device=device)[:, None, None]
        self._std = torch.tensor(IMAGE_STD, device=device)[:, None, None]

    def image(self, pixels: Tensor) -> tuple[Tensor, Size]:
        """RGB uint8 [H, W, 3] -> normalised [1, 3, H', W'] and the size without padding."""
        scaled = pixels.to(self._device).permute(2, 0, 1).float()
        size = pixels.shape[0], pixels.shape[1]
        inner = inner_size(size, self._max_internal_size)
        if inner != size:
            scaled = F.interpolate(scaled[None], inner, mode="area")[0]
        # Normalised after scaling, which is linear: there are fewer pixels then.
        padded = pad((scaled / 255 - self._mean) / self._std)[None]
        return padded.contiguous(memory_format=torch.channels_last), inner

    def mask(self, mask: BoolMask) -> Tensor:
        """Bool [H, W] -> float [H', W'] in 0..1.

        Of a mask that is smaller than a pixel inside, those stay which show most of it: else what
        somebody showed would be nowhere.
        """
        pixels = tensor_of(mask).to(self._device).float()
        size = mask.shape[0], mask.shape[1]
        inner = inner_size(size, self._max_internal_size)
        if inner != size:
            pixels = F.interpolate(pixels[None, None], inner, mode="area")[0, 0]
            most = pixels.max()
            if 0 < most <= SHOWN_SHARE:
                pixels = (pixels == most).float()
        return pad(pixels)


def inner_size(size: Size, max_internal_size: int) -> Size:
    """The size, without padding, that an image has inside; max_internal_size: as for `Inputs`."""
    scale = max_internal_size / min(size) if max_internal_size else 1.0
    if scale >= 1:
        return size
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def outputs(inside: Tensor, inner_size: Size, size: Size) -> Tensor:
    """[K, H', W'] inside -> [K, H, W], the image's `size`; `inner_size` is that without padding."""
    (top, left), (height, width) = _padding(inner_size), inner_size
    cropped = inside[:, top : top + height, left : left + width]
    if inner_size == size:
        return cropped
    if cropped.device.type != "cpu":
        return F.interpolate(cropped[None], size, mode="bilinear", align_corners=False)[0]
    # OpenCV's bilinear is the same but for rounding (4e-5), in a fraction of the time.
    wide = [cv2.resize(plane.numpy(), size[::-1]) for plane in cropped]
    return torch.from_numpy(np.stack(wide))


def pad(x: Tensor) -> Tensor:
    """[..., H, W] -> [..., H', W']: zeros all around, the larger half at the bottom and right."""
    height, width = x.shape[-2:]
    top, left = _padding((height, width))
    return F.pad(x, (left, -width % STRIDE - left, top, -height % STRIDE - top))


def _padding(size: Size) -> tuple[int, int]:
    """Rows above and columns left of an image that is padded to multiples of the stride."""
    return (-size[0] % STRIDE) // 2, (-size[1] % STRIDE) // 2


def image_size(image: NDArray[np.uint8]) -> Size:
    """Height and width of an image; raises `FrameError` where it is none."""
    dtype = getattr(image, "dtype", type(image))
    shape: tuple[int, ...] = getattr(image, "shape", ())
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3:
        raise FrameError(f"an image must be RGB uint8 [H, W, 3], not {dtype} {list(shape)}")
    height, width = shape[:2]
    if not height or not width:
        raise FrameError(f"the image is empty: {width}x{height} pixels")
    return height, width


def checked_masks(
    masks: Mapping[int, BoolMask], size: Size, *, known: Container[int]
) -> dict[int, BoolMask]:
    """The masks {id: bool [H, W]}, their ids as Python's integers.

    `known`: ids of the objects that there are; the first mask of any other must not be empty.
    Raises `MaskError` where a mask does not fit an image of this size.
    """
    checked = by_id(masks)
    for object_id, mask in checked.items():
        if not 1 <= object_id <= MAX_OBJECT_ID:
            raise MaskError(f"object id {object_id} is not in 1..{MAX_OBJECT_ID}")
        dtype, shape = getattr(mask, "dtype", type(mask)), getattr(mask, "shape", ())
        if dtype != np.bool_ or shape != size:
            raise MaskError(
                f"the mask of object {object_id} must be bool of {by_width(size)} pixels like "
                f"the image, not {dtype} of {by_width(shape)}"
            )
        if object_id not in known and not mask.any():
            raise MaskError(f"the first mask of object {object_id} is empty")
    return checked


def by_id(masks: Mapping[int, MaskT]) -> dict[int, MaskT]:
    """Masks by their ids as Python's integers, whatever whole numbers these are (a label map's are
    uint16); raises `MaskError` for other ids, and for masks without.
    """
    if not isinstance(masks, Mapping):
        raise MaskError(
            f"masks must come by object id, as {{1: mask}}, not as {type(masks).__name__}"
        )
    plain: dict[int, MaskT] = {}
    for object_id, mask in masks.items():
        try:
            plain[whole_number(object_id)] = mask
        except TypeError as error:
            raise MaskError(f"an object id must be a whole number, not {object_id!r}") from error
    return plain


def tensor_of(array: NDArray[AnyT]) -> Tensor:
    """An array as a tensor on the CPU, its memory shared where that can be.

    One that must not be written to, such as Pillow's, is copied: PyTorch would warn.
    """
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def check_known(object_ids: Iterable[int], *, known: Collection[int]) -> None:
    """Raise `UnknownObjectError` where an object is none of those that there are."""
    unknown = [i for i in object_ids if i not in known]
    if unknown:
        raise UnknownObjectError(
            f"no object {', '.join(map(str, unknown))} is tracked; "
            f"there is {', '.join(map(str, known)) or 'none'}"
        )

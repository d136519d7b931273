# SPDX-License-Identifier: Apache-2.0
"""Label maps that people and other programs made, and what their values mean.

The same holds for `~/init_mask`, for `lazyxmem track` and for ground truth in files and bags:

- A black and white mask (0 and 255 only, no palette) shows one object, number 1. So does the
  alpha channel of a cut-out, a picture whose surroundings are transparent.
  So does a palette of nothing but black and white, whichever comes first in it.
- An indexed cut-out of several colours is refused, unless it is said that it shows one object: it
  might be a label map whose background is transparent.
- In any other map a value is an object's id. Of 8 bits, 255 marks pixels that belong to nothing;
  of 16 bits it is an id like others.
- A palette in which black is not number 0, the background, is refused: its numbers are no ids.
- Of a sequence's maps the first that shows anything says what they all are. Where that is black
  and white, and a later one shows several objects, the later one is refused: they would become one.
- A soft mask, whose edges fade through many greys (scaling, a network's output), is refused: each
  grey would be an object. So is a file whose compression changes values (JPEG, lossy WebP), and a
  map of more than MAX_OBJECTS objects, such as a depth image.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lazyxmem_ros.data.errors import DatasetError, LabelMapError
from lazyxmem_ros.images.compressed import opened_by_pillow
from lazyxmem_ros.images.drawing import davis_palette, object_ids_in
from lazyxmem_ros.images.files import check_regular, write_whole
from lazyxmem_ros.images.pixels import ImageError, check_size

VOID = 255
MAX_OBJECTS = 64
"""Maps of more objects are refused, before a mask is made of any: hardly one is a label map."""
OPAQUE = 128
"""From this value on a soft mask, or an alpha channel, is taken to show the object."""
SOFT_VALUES = 4
"""A map of 8 bits is soft where so many of its values, and most of them, occur in thin lines."""
_BINARY_HINT = "pass --binary if it shows one object, whatever is not black"
_STEPS = {"L;2": 85, "L;4": 17}
"""Of greys of 2 and 4 bits, by Pillow's names: it stretches them to 8 bits."""
_THICK = np.ones((3, 3), np.uint8)
_LOSSY_FORMATS = ("JPEG", "MPO", "WEBP")
_LOSSLESS_WEBP = b"VP8L"
_HEADER_BYTES = 64
"""Within so many a WebP file says how it is compressed."""


class _Picture(NamedTuple):
    """A mask file's values, uint8, uint16 or bool [H, W], or [H, W, 3] of a colour picture and of
    an indexed one whose numbers are no ids.

    mode: Pillow's. cut_out: the values are an alpha channel. lossy: values near to each other were
    one. step: how far apart Pillow has set the values of a grey picture of 2 or 4 bits. opaque:
    what an indexed picture of several colours shows, bool [H, W], where its surroundings are
    transparent.
    """

    values: NDArray[Any]
    mode: str
    cut_out: bool = False
    lossy: bool = False
    step: int = 1
    opaque: NDArray[np.bool_] | None = None

    @property
    def indexed(self) -> bool:
        """Whether a palette says that the values are numbers, not shades."""
        return self.mode == "P"


def read_label_map(
    path: Path,
    *,
    binary: bool | None = None,
    guessed: bool = False,
    max_objects: int | None = None,
    max_pixels: int | None = None,
) -> NDArray[np.uint16]:
    """A label map uint16 [H, W] from an indexed, grey or 16-bit picture, or a cut-out.

    binary: every pixel that is not black is object 1; of a soft mask, every pixel from OPAQUE on.
    None: so it is where the mask itself, which stands alone, is a black and white one. guessed: see
    `object_ids`. max_objects, max_pixels: at most; None: MAX_OBJECTS, MAX_PIXELS. Raises
    DatasetError for an unreadable file, for colour pictures that are not indexed, and where
    `object_ids` refuses the values.
    """
    picture = _read(path, max_pixels)
    binary = _is_binary(picture) if binary is None else binary
    values = picture.values
    if picture.opaque is not None:
        if not binary:
            raise DatasetError(
                f"{path}: an indexed picture with transparent surroundings may be a cut-out or a "
                f"label map; save a label map without transparency, or {_BINARY_HINT}"
            )
        return picture.opaque.astype(np.uint16)
    if values.ndim == 3:
        if not binary:
            kind = f"an {picture.mode} picture"
            if picture.indexed:
                kind = "an indexed picture in which black is not number 0, the background,"
            raise DatasetError(
                f"{path}: {kind} is no label map; save it indexed, grey or 16-bit, or "
                f"{_BINARY_HINT}"
            )
        values = np.asarray(values.max(axis=2))
    if not binary and picture.step > 1:
        values = values // picture.step
    try:
        return object_ids(
            values,
            binary=binary or picture.cut_out,
            guessed=guessed and not picture.cut_out,
            indexed=picture.indexed,
            lossy=picture.lossy,
            max_objects=max_objects,
        )
    except LabelMapError as error:
        raise DatasetError(f"{path}: {error}; or {_BINARY_HINT}") from error


def object_ids(
    values: NDArray[Any],
    *,
    binary: bool,
    guessed: bool = False,
    indexed: bool = False,
    lossy: bool = False,
    max_objects: int | None = None,
) -> NDArray[np.uint16]:
    """Object ids uint16 [H, W] from a map's values, bool, uint8 or uint16 [H, W].

    binary: the map shows one object. guessed: nobody says so, but another map of its sequence is
    black and white. indexed: a palette says that values are ids, not shades. lossy: its file's
    compression changes values. Raises LabelMapError for a soft mask, for lossy values, for several
    objects where one was guessed, and for more than `max_objects` objects; None: MAX_OBJECTS, where
    there is no parameter of that name.
    """
    narrow = values.dtype == np.uint8
    if binary:
        soft = lossy or (narrow and not indexed and is_soft(values))
        if guessed and not soft:
            _check_single(values, indexed=indexed)
        return np.asarray(values >= OPAQUE if soft else values != 0, np.uint16)
    present = object_ids_in(values)
    ids = [value for value in present if not (narrow and value == VOID)]
    if lossy:
        raise LabelMapError(
            "a file whose compression changes values (JPEG, lossy WebP) is no label map: save it "
            "as PNG"
        )
    if narrow and not indexed and is_soft(values):
        raise LabelMapError(
            f"a soft mask of {len(present)} greys is no label map, of which each value is an "
            f"object: make it black and white, and the object where it is {OPAQUE} or more; or, "
            "where each is an object indeed, save it indexed or with 16 bits"
        )
    limit = MAX_OBJECTS if max_objects is None else max_objects
    if len(ids) > limit:
        raise LabelMapError(
            f"a map of {len(ids)} different values up to {ids[-1]} is taken for a depth image or "
            f"a photograph, not for a label map: up to {limit} objects are read"
            + ("" if max_objects is None else " (max_objects)")
        )
    labels = values.astype(np.uint16)
    if narrow:
        labels[labels == VOID] = 0
    return labels


def is_binary(values: NDArray[Any]) -> bool:
    """Whether values [H, W], not all of them 0, are those of a black and white mask."""
    if values.dtype == np.bool_:
        return True
    return values.dtype == np.uint8 and set(object_ids_in(values)) == {VOID}


def are_binary(masks: Iterable[Path]) -> bool:
    """Whether the masks of a sequence are binary, as DAVIS 2016's: no palette, 0 and 255 only.

    The first that shows anything says it: objects may come later.
    """
    for mask in masks:
        try:
            picture = _read(mask, None)
        except DatasetError:
            continue  # named when its frame is read
        if picture.cut_out or picture.values.any():
            return _is_binary(picture)
    return False


def save_label_map(path: Path, labels: NDArray[np.uint16]) -> bool:
    """Write a label map [H, W] as PNG that `read_label_map` reads back; returns whether it is wide.

    As DAVIS does it, indexed with 8 bits, the pixel being the object's id; with 16 bits (wide)
    where an id is VOID or above. Raises WriteError.
    """
    wide = int(labels.max(initial=0)) >= VOID
    picture = Image.fromarray(labels if wide else labels.astype(np.uint8))
    if not wide:
        picture.putpalette(davis_palette().reshape(-1).tolist())
    data = io.BytesIO()
    picture.save(data, "PNG")
    write_whole(path, data.getvalue())
    return wide


def _is_binary(picture: _Picture) -> bool:
    """Whether a mask that shows anything is a black and white one, or a cut-out."""
    values = picture.values
    grey = values if values.ndim == 2 else values[..., 0]
    return picture.cut_out or (not picture.indexed and _is_grey(values) and is_binary(grey))


def is_soft(values: NDArray[np.uint8]) -> bool:
    """Whether the greys between black and white are taken for the fading edges of a mask.

    An object is an area, of which some pixels have neighbours of its own value all around; a grey
    of an edge occurs in thin lines and specks.
    """
    greys = {value for value in object_ids_in(values) if value != VOID}
    if len(greys) < SOFT_VALUES:
        return False
    # All greys at once: a photograph has 254, and comes from a topic as often as it likes.
    thin = len(greys.difference(_areas_in(values)))
    return thin >= SOFT_VALUES and 2 * thin > len(greys)


def _areas_in(values: NDArray[np.uint8]) -> list[int]:
    """Those values of [H, W], but 0, which some pixel has all around it, too."""
    inner = np.s_[1:-1, 1:-1]
    even = cv2.erode(values, _THICK)[inner] == cv2.dilate(values, _THICK)[inner]
    return object_ids_in(np.where(even, values[inner], np.uint8(0)))


def _check_single(values: NDArray[Any], *, indexed: bool) -> None:
    """Raises LabelMapError for a map of several objects, but not for a mask with grey edges."""
    shown = object_ids_in(values)
    if len(shown) < 2:
        return
    are_shades = values.dtype == np.uint8 and not indexed
    if are_shades and not set(_areas_in(values)) - {VOID}:
        return
    raise LabelMapError(
        f"it shows several objects, of values up to {shown[-1]}, but the first map of its sequence "
        "that shows anything is black and white, as are masks of one object: save that one indexed "
        "or with 16 bits where 255 is an object's id, and without it where it marks what belongs "
        "to nothing"
    )


def _is_grey(values: NDArray[Any]) -> bool:
    """Whether a picture [H, W] or [H, W, 3] has no colours, each of which may be an object."""
    return values.ndim == 2 or bool((values == values[..., :1]).all())


def _read(path: Path, max_pixels: int | None) -> _Picture:
    try:
        check_regular(path)
        with opened_by_pillow(path) as opened:
            check_size(opened.width, opened.height, max_pixels)
            lossy = opened.format in _LOSSY_FORMATS and not _is_lossless_webp(path)
            step = _step_of(opened)
            picture = ImageOps.exif_transpose(opened)
            picture.load()
    except ImageError as error:
        raise DatasetError(f"{path}: the mask cannot be read: {error}") from error
    except Exception as error:  # each of Pillow's formats has errors of its own
        raise DatasetError(f"{path}: the mask cannot be read: {error}") from error
    if picture.mode in ("LA", "RGBA", "PA"):
        alpha = np.asarray(picture.getchannel("A"))
        if picture.mode != "PA" and int(alpha.min()) < OPAQUE:
            cut = np.where(alpha >= OPAQUE, np.uint8(255), np.uint8(0))
            return _Picture(cut, "L", cut_out=True)
        picture = picture.convert({"LA": "L", "RGBA": "RGB", "PA": "P"}[picture.mode])
    if picture.mode in ("I", "I;16B", "I;16L"):
        values = np.asarray(picture)
        if int(values.min()) < 0 or int(values.max()) > np.iinfo(np.uint16).max:
            raise DatasetError(f"{path}: the mask cannot be read: ids above 65535")
        return _Picture(values.astype(np.uint16), picture.mode)
    if picture.mode not in ("1", "L", "P", "RGB", "I;16"):
        raise DatasetError(
            f"{path}: the mask cannot be read: save it as indexed, grey or 16-bit PNG, not as "
            f"{picture.mode}"
        )
    if picture.mode == "P" and "transparency" in picture.info:
        opaque = _opaque_part(picture)
        if opaque is not None:
            return _Picture(np.asarray(picture), picture.mode, opaque=opaque)
    # What is left of transparency says nothing, and Pillow would warn of it at each conversion.
    picture.info.pop("transparency", None)
    if picture.mode == "P" and _is_black_and_white(picture):
        picture = picture.convert("L")
    if picture.mode == "P" and _has_black_later(picture):
        return _Picture(np.asarray(picture.convert("RGB")), picture.mode, lossy=lossy)
    return _Picture(np.asarray(picture), picture.mode, lossy=lossy, step=step)


def _opaque_part(picture: Image.Image) -> NDArray[np.bool_] | None:
    """Where an indexed picture is opaque, if not everywhere and of several colours: its numbers are
    hardly ids.
    """
    opaque = np.asarray(picture.convert("RGBA").getchannel("A")) >= OPAQUE
    several = len(np.unique(np.asarray(picture)[opaque])) > 1
    return opaque if several and not opaque.all() else None


def _step_of(opened: Image.Image) -> int:
    """How far apart Pillow will set the values of a picture, which has not been loaded yet."""
    tiles: Any = getattr(opened, "tile", None)  # only a picture of a file has them
    about = tiles[0][3] if tiles else None
    packed = about[0] if isinstance(about, tuple) and about else about
    return _STEPS.get(str(packed), 1)


def _is_lossless_webp(path: Path) -> bool:
    with path.open("rb") as file:
        return _LOSSLESS_WEBP in file.read(_HEADER_BYTES)


def _is_black_and_white(picture: Image.Image) -> bool:
    """Whether an indexed picture is of black and white: its numbers may be either way.

    It has both colours and no other, or one of them and a palette of both.
    """
    both = {(0, 0, 0), (255, 255, 255)}
    used = {colour for _, colour in picture.convert("RGB").getcolors(maxcolors=2) or ()}
    palette = picture.getpalette() or []
    return used == both or (used < both and set(zip(*[iter(palette)] * 3, strict=True)) == both)


def _has_black_later(picture: Image.Image) -> bool:
    """Whether an indexed picture has black, and not as number 0."""
    colours = np.array(picture.getpalette() or [0, 0, 0], np.uint8).reshape(-1, 3)
    if not colours[0].any():
        return False
    used = np.array(object_ids_in(np.asarray(picture)), np.intp)
    return not colours[used[used < len(colours)]].any(1).all()

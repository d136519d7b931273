# SPDX-License-Identifier: Apache-2.0
"""Files of pictures in a folder: which count, in which order, and under which name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from lazyxmem_ros.data.errors import DatasetError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""In any case: .JPG is one of them."""
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
ROS1_SUFFIX = ".bag"
ROS2_SUFFIXES = (".mcap", ".db3")
ZSTD_SUFFIXES = (".zstd", ".zst")
"""Of packed bags that are read; the recorders of ROS 2 pack with zstd alone."""
BAG_METADATA = "metadata.yaml"
"""Of a bag that is a folder."""
BAG_SUFFIXES = (ROS1_SUFFIX, *ROS2_SUFFIXES, *ZSTD_SUFFIXES)
_LITTER = frozenset(
    {"thumbs.db", "desktop.ini", "__macosx", "lost+found", "system volume information"}
)
_LITTER_BEGINS = (".", "@", "$")
"""`.ipynb_checkpoints`, `._00000.jpg` of macOS, `@eaDir` of a NAS, `$RECYCLE.BIN`."""


def suffix_of(path: Path) -> str:
    """A path's suffix in lower case, such as ".mcap": cameras and disks write it in either."""
    return path.suffix.lower()


def natural_order(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """A key to sort by that puts frame2 before frame10, and 01 before 1: no two names are alike."""
    parts = enumerate(re.split(r"([0-9]+)", name))  # every second one is a number
    return tuple((0, int(x), "") if place % 2 else (1, 0, x) for place, x in parts), name


def children(folder: Path) -> list[Path]:
    """What lies in a folder, in natural order, without what programs leave behind unasked."""
    found = (path for path in folder.iterdir() if not _is_litter(path.name))
    return sorted(found, key=lambda path: natural_order(path.name))


def is_bag(path: Path) -> bool:
    """Whether a path is a folder that is a bag, or a ROS 1 bag's file; what may not be looked into
    is none.
    """
    if not path.is_dir():
        return suffix_of(path) == ROS1_SUFFIX
    try:
        return (path / BAG_METADATA).is_file() or any(
            suffix_of(child) in ROS2_SUFFIXES for child in children(path)
        )
    except PermissionError:
        return False


def image_files(folder: Path, *, besides: Iterable[Path] = ()) -> dict[str, Path]:
    """The image files of a folder by their stems, in natural order of these.

    besides: files that are something else though they lie there, such as the first mask. Raises
    DatasetError where two files have one stem: only one of them can be the frame.
    """
    others = {os.path.realpath(path) for path in besides}
    found: dict[str, Path] = {}
    for path in children(folder):
        if suffix_of(path) not in IMAGE_SUFFIXES or (others and os.path.realpath(path) in others):
            continue
        check_name(folder, path.name)
        if path.stem in found:
            raise DatasetError(
                f"{folder}: {found[path.stem].name} and {path.name} have one name, and only one of "
                "them can be the frame; move masks into a folder of their own"
            )
        found[path.stem] = path
    return dict(sorted(found.items(), key=lambda item: natural_order(item[0])))


def check_name(where: Path, name: str) -> None:
    """Raise DatasetError for the name of a frame or sequence that is not in UTF-8."""
    if not is_text(name):
        raise DatasetError(
            f"{where}: the name of {name!a} is not in UTF-8, and the results could not be named "
            "after it; rename it (`convmv -f latin1 -t utf8` does it for many files)"
        )


def is_text(name: str) -> bool:
    """Whether a name is in UTF-8; Python keeps the bytes of others as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_litter(name: str) -> bool:
    return name.startswith(_LITTER_BEGINS) or name.lower() in _LITTER

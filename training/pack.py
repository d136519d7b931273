# SPDX-License-Identifier: Apache-2.0
"""What training reads, small enough to travel: `python -m training.pack DESTINATION`.

Every picture is brought to half its rows, in the same folders under the same names; `--data
DESTINATION` trains on it. The sequences kept for tuning come along.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from lazyxmem_ros.data.location import add_data_argument
from lazyxmem_ros.entry import run_to_the_end
from training.material import DAVIS_TRAIN, PHOTOGRAPH_FOLDERS, MaterialError

FACTOR = 0.5
QUALITY = 80  # of JPEG, per cent


def pack(data: Path, destination: Path) -> int:
    """Writes the small copy and returns its bytes; what breaks off leaves no copy.

    Raises MaterialError where a picture cannot be read or nothing is there.
    """
    folders = (DAVIS_TRAIN, *PHOTOGRAPH_FOLDERS)
    pictures = [path for folder in folders for path in sorted((data / folder).rglob("*.*g"))]
    if not pictures:
        raise MaterialError(f"{data} holds none of {', '.join(folders)}; name its folder by --data")
    destination.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    # Photographs that are not there are not missed: an incomplete copy would be trained on.
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=destination.parent) as folder:
        partial = Path(folder) / destination.name
        for path in pictures:
            target = partial / path.relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            written += target.write_bytes(_smaller(path))
        os.rename(partial, destination)
    return written


def _smaller(path: Path) -> bytes:
    """A JPEG's pixels averaged; of a PNG, which holds labels, every other one."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise MaterialError(f"cannot read the image {path}; check that the file is complete")
    labels = path.suffix == ".png"
    method = cv2.INTER_NEAREST if labels else cv2.INTER_AREA
    small = cv2.resize(image, None, fx=FACTOR, fy=FACTOR, interpolation=method)
    settings = [] if labels else [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    _, encoded = cv2.imencode(path.suffix, small, settings)
    return np.asarray(encoded).tobytes()


def main(given: Sequence[str] | None = None) -> int:
    """The command line; what is wrong with the input ends as one sentence and status 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("destination", type=Path, help="a folder that does not exist yet")
    add_data_argument(parser)
    arguments = parser.parse_args(given)
    destination = arguments.destination
    if destination.exists():
        parser.error(f"{destination} exists already; name a folder that does not")

    def program() -> None:
        size = pack(arguments.data, destination)
        print(f"{destination}: {size / 2**20:.0f} MiB")

    return run_to_the_end(program, "pack", "nothing was written")


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Where data sets lie: whoever runs a program says it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from lazyxmem_ros.basics import path_argument

VARIABLE = "LAZYXMEM_DATA"
DEFAULT_FOLDER = "data"


def data_folder() -> Path:
    """The folder that the environment variable names; without it `data` in the working folder."""
    return Path(os.environ.get(VARIABLE) or DEFAULT_FOLDER)


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """Declare `--data`, the folder that data sets lie in."""
    parser.add_argument(
        "--data",
        type=path_argument,
        default=data_folder(),
        help=f"folder of data sets (default: ${VARIABLE}, else {DEFAULT_FOLDER}/)",
    )

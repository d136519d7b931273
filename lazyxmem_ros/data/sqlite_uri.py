# SPDX-License-Identifier: Apache-2.0
"""Paths as SQLite's URIs hold them."""

from __future__ import annotations

import os
from pathlib import PosixPath
from urllib.parse import quote


class UriPath(PosixPath):
    """A path whose text can be put into a URI, as `rosbags` does with the text of any path.

    There %, ? and # mean something else: the database would be sought, or made, elsewhere.
    """

    def __str__(self) -> str:
        return quote(os.fsencode(super().__str__()))

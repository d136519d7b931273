# SPDX-License-Identifier: Apache-2.0
"""What people ask for and do not get."""

from __future__ import annotations


class RefusedError(ValueError):
    """Something that a person asked for and does not get. `code`: for the page's texts."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(detail or code)
        self.code = code
        self.detail = detail

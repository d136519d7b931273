# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the evaluation's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def two_walks(make_tree: Callable[..., Path]) -> Path:
    make_tree("walk", 10, {index: (1, 2) for index in range(10)})
    return make_tree("run", 8, {index: (1,) for index in range(8)})

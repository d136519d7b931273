# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the evaluation's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lazyxmem_ros.evaluation import report


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports have nothing in the place of their curves, which take longer than the tracking."""
    monkeypatch.setattr(report, "to_png", lambda figure: b"")


@pytest.fixture
def two_walks(make_tree: Callable[..., Path]) -> Path:
    make_tree("walk", 10, {index: (1, 2) for index in range(10)})
    return make_tree("run", 8, {index: (1,) for index in range(8)})

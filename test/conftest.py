# SPDX-License-Identifier: Apache-2.0
"""Fixtures for every room's tests."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def data() -> Path:
    """The small vectors that come with the project."""
    return ROOT / "test" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The neighbour folder with real sequences; a test that needs it is skipped without it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared (real sequences beside the checkout), which is not here")
    return folder

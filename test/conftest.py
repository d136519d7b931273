# SPDX-License-Identifier: Apache-2.0
"""Fixtures for every room's tests."""

import signal
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Background jobs of a script are started with SIGINT ignored, and so would be the processes
    # whose Ctrl-C is tested here.
    signal.signal(signal.SIGINT, signal.default_int_handler)

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

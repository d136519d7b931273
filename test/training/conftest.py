# SPDX-License-Identifier: Apache-2.0
"""What the tests of training share."""

from __future__ import annotations

import pytest

from training.material import Material, load_material


@pytest.fixture(scope="session")
def material() -> Material:
    """What is always there: no data beside the project."""
    return load_material(None)

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from lazyxmem_ros.evaluation import pictures
from lazyxmem_ros.evaluation.errors import EvaluationError


def test_contact_sheet_holds_every_picture() -> None:
    tiles = [np.full((30, 40, 3), 20 * number, np.uint8) for number in range(5)]
    sheet = pictures.contact_sheet(tiles, columns=3, width=40)
    assert sheet.shape == (2 * 34 + 4, 3 * 44 + 4, 3)
    for number in range(5):
        row, column = divmod(number, 3)
        assert (sheet[4 + 34 * row + 15, 4 + 44 * column + 20] == 20 * number).all()
    with pytest.raises(EvaluationError, match="at least one picture"):
        pictures.contact_sheet([], columns=3, width=40)

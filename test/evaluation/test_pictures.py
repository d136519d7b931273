# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from lazyxmem_ros.evaluation import pictures
from lazyxmem_ros.evaluation.errors import EvaluationError
from lazyxmem_ros.evaluation.figures import balance_figure, method_colour


def test_a_method_has_the_same_colour_in_the_figure_and_in_the_table() -> None:
    """Also where two methods before it share a point."""
    rows = {"method": ["xmem", "udu", "lazy"], "per_1000_frames": [0.0, 0.0, 9.0]}
    figure = balance_figure(pd.DataFrame(rows | {"jf": [0.8, 0.8, 0.9]}))
    shown = {text.get_text(): to_hex(text.get_color()) for text in figure.axes[0].texts}
    assert shown == {"xmem, udu": method_colour(0), "lazy": method_colour(2)}


def test_contact_sheet_holds_every_picture() -> None:
    tiles = [np.full((30, 40, 3), 20 * number, np.uint8) for number in range(5)]
    sheet = pictures.contact_sheet(tiles, columns=3, width=40)
    assert sheet.shape == (2 * 34 + 4, 3 * 44 + 4, 3)
    for number in range(5):
        row, column = divmod(number, 3)
        assert (sheet[4 + 34 * row + 15, 4 + 44 * column + 20] == 20 * number).all()
    with pytest.raises(EvaluationError, match="at least one picture"):
        pictures.contact_sheet([], columns=3, width=40)

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.evaluation.intervals import interval
from lazyxmem_ros.evaluation.merit import (
    add_gains,
    after_answers,
    quiet_failure_count,
    quiet_failures,
)
from lazyxmem_ros.evaluation.rows import EVENT_COLUMNS

PERIOD = SECOND // 10


def frames(scores: list[float], *, sequence: str = "walk", first: int = 0) -> pd.DataFrame:
    """Rows of one object at ten frames a second, the first one not scored."""
    return pd.DataFrame(
        {
            **{"method": "lazy", "repeat": 0, "sequence": sequence, "object": 1},
            "index": range(first, first + len(scores)),
            "stamp": [n * PERIOD for n in range(len(scores))],
            "scored": [n > 0 for n in range(len(scores))],
            "j": scores,
            "predicted_iou": 0.6,
        }
    )


def asked(*indices: int, delay: float = 0.0, applied: bool = True) -> pd.DataFrame:
    rows = [
        {
            **{"method": "lazy", "repeat": 0, "sequence": "walk", "object": 1},
            **{"index": index, "stamp": index * PERIOD, "source": "operator"},
            **{"applied": applied, "delay": delay},
        }
        for index in indices
    ]
    return pd.DataFrame(rows, columns=EVENT_COLUMNS)


def test_a_failure_of_a_second_about_which_nobody_was_asked_is_quiet() -> None:
    scores = [1.0] * 5 + [0.2] * 10 + [0.9] * 5 + [0.4] * 9 + [0.8]
    (found,) = quiet_failures(frames(scores), asked()).to_dict("records")
    assert (found["first"], found["last"]) == (5, 14)
    assert found["seconds"] == pytest.approx(1.0)
    assert found["j"] == pytest.approx(0.2)
    assert found["predicted_iou"] == pytest.approx(0.6)


def test_without_ground_truth_quiet_failures_are_not_known() -> None:
    rows = frames([1.0] * 5 + [0.2] * 10)
    assert quiet_failure_count(rows, asked()) == 1
    assert math.isnan(quiet_failure_count(rows.assign(scored=False, j=math.nan), asked()))


@pytest.mark.parametrize("rate", [6, 12, 24, 30, 60])
def test_a_second_is_a_second_wherever_it_begins(rate: int) -> None:
    """Stamps are whole nanoseconds, of which a third of a second has no whole number."""
    for before in range(1, 5):
        scores = [1.0] * before + [0.2] * rate + [0.9]
        rows = frames(scores)
        rows["stamp"] = [round(n / rate * SECOND) for n in range(len(scores))]
        assert len(quiet_failures(rows, asked())) == 1
        rows.loc[before, "j"] = 0.9
        assert quiet_failures(rows, asked()).empty


@pytest.mark.parametrize(("index", "quiet"), [(4, 1), (5, 0), (14, 0), (15, 1)])
@pytest.mark.parametrize("applied", [True, False])
def test_asking_while_it_lasts_is_what_counts(index: int, quiet: int, applied: bool) -> None:
    """Whatever became of the answer; asking before it began or after it ended is no excuse."""
    scores = [1.0] * 5 + [0.2] * 10 + [0.9] * 5
    found = quiet_failures(frames(scores), asked(index, applied=applied))
    assert len(found) == quiet


def test_failures_are_of_one_object_in_one_run() -> None:
    halves = [frames([0.1] * 7), frames([0.1] * 7, sequence="run", first=7)]
    assert quiet_failures(pd.concat(halves), asked()).empty
    assert len(quiet_failures(frames([0.1] * 14), asked())) == 1
    # Frames that are not annotated neither end nor lengthen a stretch.
    gappy = frames([0.1] * 14)
    gappy.loc[gappy["index"] % 2 == 1, ["scored", "j"]] = [False, math.nan]
    assert len(quiet_failures(gappy, asked())) == 1


def test_nothing_of_nothing() -> None:
    assert quiet_failures(frames([1.0]), asked()).empty
    assert math.isnan(after_answers(frames([1.0]), asked()))


def test_what_follows_an_answer() -> None:
    scores = [1.0] * 10 + [0.5] * 20 + [0.0] * 10
    assert after_answers(frames(scores), asked(9)) == pytest.approx(0.5)
    assert after_answers(frames(scores), asked(9, delay=1.0)) == pytest.approx(0.25)
    assert after_answers(frames(scores), asked(9, 39)) == pytest.approx(0.5)
    assert math.isnan(after_answers(frames(scores), asked(9, applied=False)))


def test_gains_are_counted_from_plain_xmem_and_set_beside_the_oracles() -> None:
    dataset = pd.DataFrame(
        {
            "method": ["xmem", "lazy", "oracle", "every"],
            "jf": [0.50, 0.56, 0.60, 0.58],
            "corrections": [0.0, 5.0, 10.0, 20.0],
        }
    )
    table = add_gains(dataset).set_index("method")
    assert table.loc["lazy", "gain_per_correction"] == pytest.approx(0.012)
    assert table.loc["lazy", "oracle_share"] == pytest.approx(1.2)  # 0.06 of 0.05
    assert table.loc["every", "oracle_share"] == pytest.approx(0.8)
    assert table.loc["oracle", "oracle_share"] == pytest.approx(1.0)
    assert table.loc["xmem"].isna().sum() == 2
    alone = add_gains(dataset.iloc[1:2])
    assert alone[["gain_per_correction", "oracle_share"]].isna().all(axis=None)


def test_the_interval_is_over_sequences_not_over_objects() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.1, 40)
    apart = interval(values, range(40))
    together = interval(np.repeat(values[:4], 10), np.repeat(range(4), 10))
    assert apart[0] < values.mean() < apart[1]
    assert apart[1] - apart[0] == pytest.approx(2 * 1.645 * 0.1 / math.sqrt(40), rel=0.3)
    assert together == pytest.approx(interval(values[:4], range(4)))
    assert interval(values, range(40)) == apart
    assert all(math.isnan(bound) for bound in interval([0.3, 0.4], ["one", "one"]))
    assert interval([0.2, math.nan, 0.4], [1, 1, 2]) == pytest.approx((0.2, 0.4))

# SPDX-License-Identifier: Apache-2.0
"""What questions are worth: gains per correction, what follows an answer, and quiet failures.

`frames` and `events` are the tables that `rows` describes.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.evaluation.rows import asked_of_people, given_corrections

RUN = ["method", "repeat", "sequence", "object"]
FAILED_IOU = 0.5
"""An object has failed on frames below this IoU."""
QUIET_SECONDS = 1.0
"""A failure of so long is noticed by a person."""
STAMP_STEPS = 3e-9
"""Seconds by which a stretch's duration may be rounded off: stamps are whole nanoseconds."""
AFTER_SECONDS = 2.0
"""For so long after an answer its effect is looked at."""
PLAIN = "xmem"
"""Name of the method whose J&F gains are counted from."""
ORACLE = "oracle"
"""Name of the method that asks where the truth says so."""


def quiet_failures(frames: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    """The stretches of QUIET_SECONDS and more with an IoU below FAILED_IOU on every scored frame,
    about none of whose frames a person was asked.

    Returns a row each: the columns of RUN; `first` and `last`, the frames' numbers; `seconds`; the
    mean of `j` and of `predicted_iou`.
    """
    found = []
    scored = frames[frames["scored"].astype(bool)]
    asked = _by_run(asked_of_people(events))
    for keys, rows in scored.groupby(RUN, sort=False):
        ordered = rows.sort_values("index")
        failed = ordered["j"] < FAILED_IOU
        for _, stretch in ordered[failed].groupby((~failed).cumsum()[failed]):
            seconds = _duration(stretch["stamp"], ordered["stamp"])
            first, last = int(stretch["index"].iloc[0]), int(stretch["index"].iloc[-1])
            noticed = keys in asked and asked[keys]["index"].between(first, last).any()
            if seconds < QUIET_SECONDS - STAMP_STEPS or noticed:
                continue
            found.append(
                {
                    **dict(zip(RUN, keys, strict=True)),
                    "first": first,
                    "last": last,
                    "seconds": seconds,
                    "j": float(stretch["j"].mean()),
                    "predicted_iou": float(stretch["predicted_iou"].mean()),
                }
            )
    columns = [*RUN, "first", "last", "seconds", "j", "predicted_iou"]
    return pd.DataFrame(found, columns=columns)


def quiet_failure_count(frames: pd.DataFrame, events: pd.DataFrame) -> float:
    """How many there are; NaN where no frame is scored, and nothing can be known of them."""
    if not frames["scored"].astype(bool).any():
        return float("nan")
    return float(len(quiet_failures(frames, events)))


def after_answers(frames: pd.DataFrame, events: pd.DataFrame) -> float:
    """The mean J of an object over the AFTER_SECONDS after a person's answer, the answered frame
    left out, in the mean over all answers; NaN without one.
    """
    answers = given_corrections(events)
    answers = answers.assign(delay=answers["delay"].fillna(0.0))
    scored = _by_run(frames[frames["scored"].astype(bool)])
    means = []
    for answer in answers.itertuples(index=False):
        came = answer.stamp + round(answer.delay * SECOND)
        mine = scored.get(tuple(getattr(answer, name) for name in RUN))
        if mine is None:
            continue
        age = mine["stamp"] - came
        following = mine[(age > 0) & (age <= AFTER_SECONDS * SECOND)]
        if len(following):
            means.append(float(following["j"].mean()))
    return float(np.mean(means)) if means else float("nan")


def add_gains(dataset: pd.DataFrame) -> pd.DataFrame:
    """The table with `gain_per_correction`, J&F gained over PLAIN for each correction, and
    `oracle_share`, the gain as a share of that of ORACLE with as many corrections.

    ORACLE's gain with fewer corrections than it took is taken to be in proportion to them, with
    more to be the same. NaN where a method without corrections or a gain of 0 stands below a line.
    """
    by_name = dataset.set_index("method")
    gain = _gain(dataset, by_name, PLAIN)
    taken = dataset["corrections"].to_numpy(float)
    share: NDArray[np.float64] = np.full(len(dataset), np.nan)
    if {PLAIN, ORACLE} <= set(by_name.index):
        most = float(by_name.loc[ORACLE, "corrections"])
        best = float(by_name.loc[ORACLE, "jf"] - by_name.loc[PLAIN, "jf"])
        if most > 0 and best > 0:
            with np.errstate(divide="ignore", invalid="ignore"):
                share = np.where(taken > 0, gain / (best * np.minimum(1, taken / most)), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(taken > 0, gain / taken, np.nan)
    return dataset.assign(gain_per_correction=each, oracle_share=share)


def _gain(dataset: pd.DataFrame, by_name: pd.DataFrame, plain: str) -> NDArray[np.float64]:
    """J&F gained over a method by name, per row; NaN where it was not run."""
    start = float(by_name.loc[plain, "jf"]) if plain in by_name.index else float("nan")
    return dataset["jf"].to_numpy(float) - start


def _by_run(table: pd.DataFrame) -> dict[tuple[object, ...], pd.DataFrame]:
    """The rows of each object in each run, by the values of RUN."""
    return {tuple(keys): rows for keys, rows in table.groupby(RUN, sort=False)}


def _duration(stretch: pd.Series, stamps: pd.Series) -> float:
    """Seconds that frames of these stamps (ns) last, the newest of them one period long."""
    period = float(stamps.diff().median()) if len(stamps) > 1 else 0.0
    return float((stretch.iloc[-1] - stretch.iloc[0] + period) / SECOND)

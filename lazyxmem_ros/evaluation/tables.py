# SPDX-License-Identifier: Apache-2.0
"""Figures per object, per sequence and per dataset, made from the rows of runs.

`frames` and `events` are the tables that `rows` describes, of any number of runs. A figure that
nothing speaks for is NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from lazyxmem_ros.evaluation import merit, metrics
from lazyxmem_ros.evaluation.intervals import intervals
from lazyxmem_ros.evaluation.rows import asked_of_people, given_corrections

RUN_COLUMNS = ["method", "repeat"]
LOST_IOU = 0.5
"""Below this IoU an object counts as lost where the uncertainty's honesty is measured."""
AVERAGED = (
    *("jf", "j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay"),
    *(f"r_{threshold:g}" for threshold in metrics.ROBUSTNESS_THRESHOLDS),
    *("coverage", "stability", "uncertainty", "held"),
)
"""Figures of an object whose means over objects are figures of a group."""
CALIBRATION_BINS = 10
"""Bins of equal width into which predicted IoUs are sorted."""


def object_table(frames: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    """One row per run, sequence and object."""
    rows = []
    for keys, group in frames.groupby([*RUN_COLUMNS, "sequence", "object"], sort=False):
        method, repeat, sequence, object_id = keys
        mine = _events_of(events, method, repeat, sequence)
        mine = mine[mine["object"] == object_id]
        row = {"method": method, "repeat": repeat, "sequence": sequence, "object": object_id}
        rows.append({**row, **_object_figures(group.sort_values("index"), mine)})
    return pd.DataFrame(rows)


def sequence_table(
    objects: pd.DataFrame, frames: pd.DataFrame, events: pd.DataFrame
) -> pd.DataFrame:
    """One row per run and sequence: the means over its objects, and the help that it took."""
    rows = []
    for keys, group in objects.groupby([*RUN_COLUMNS, "sequence"], sort=False):
        method, repeat, sequence = keys
        mine = frames[
            (frames["method"] == method)
            & (frames["repeat"] == repeat)
            & (frames["sequence"] == sequence)
        ]
        row = {"method": method, "repeat": repeat, "sequence": sequence, "objects": len(group)}
        help_given = _events_of(events, method, repeat, sequence)
        rows.append({**row, **_group_figures(group, mine, help_given)})
    return pd.DataFrame(rows)


def dataset_table(
    objects: pd.DataFrame, frames: pd.DataFrame, events: pd.DataFrame
) -> pd.DataFrame:
    """One row per method: the means over all objects of all sequences, then over repeats.

    Beside the means of AVERAGED stand the bounds of their intervals (see `intervals`).
    """
    rows = []
    for keys, group in objects.groupby(RUN_COLUMNS, sort=False):
        method, repeat = keys
        mine = frames[(frames["method"] == method) & (frames["repeat"] == repeat)]
        helped = events[(events["method"] == method) & (events["repeat"] == repeat)]
        row = {"method": method, "repeat": repeat, "sequences": group["sequence"].nunique()}
        row["objects"] = len(group)
        bounds = intervals(group, AVERAGED)
        rows.append({**row, **_group_figures(group, mine, helped), **bounds})
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    averaged = table.groupby("method", sort=False).mean(numeric_only=True).drop(columns="repeat")
    averaged.insert(0, "repeats", table.groupby("method", sort=False)["repeat"].count())
    return merit.add_gains(averaged.reset_index())


def honesty(uncertainty: pd.Series, score: pd.Series) -> float:
    """Area under the ROC curve of `uncertainty` as a detector of frames whose IoU is below 0.5.

    It is 1 where every lost frame is more uncertain than every good one, 0.5 where uncertainty says
    nothing, and NaN where no frame, or every frame, is lost.
    """
    known = uncertainty.notna() & score.notna()
    lost = (score[known] < LOST_IOU).to_numpy()
    if not lost.any() or lost.all():
        return float("nan")
    ranks = rankdata(uncertainty[known].to_numpy())
    positives, negatives = int(lost.sum()), int((~lost).sum())
    return float((ranks[lost].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def as_measured(frames: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    """The scored rows by which uncertainty and predicted IoU are judged, with `j` and `area` of the
    mask that both are of: where a correction came at once, of the one before it.

    Rows without a mask are left out: of one that is not published (`LazyConfig.show_iou`) no IoU is
    known, nor, through the ROS graph, of one that was corrected at once.
    """
    place = [*merit.RUN, "index"]
    scored = frames[frames["scored"].astype(bool)]
    instant = events[events["applied"].astype(bool) & (events["delay"] == 0)]
    # The tracker's own correction comes first, and the operator's is of what that made of the mask.
    before = instant.drop_duplicates(place).set_index(place)[["j_before", "area_before"]]
    found = pd.MultiIndex.from_frame(scored[place])
    corrected = found.isin(before.index)
    told = before.reindex(found)
    measured = scored.assign(
        j=np.where(corrected, told["j_before"], scored["j"]).astype(float),
        area=np.where(corrected, told["area_before"], scored["area"]).astype(float),
    )
    return measured[(measured["area"] > 0) & measured["j"].notna()]


def calibration_error(predicted: pd.Series, score: pd.Series) -> float:
    """Expected calibration error of predicted IoUs, 0..1; NaN where nothing was predicted.

    It is the distance between the mean prediction and the mean IoU of each of CALIBRATION_BINS
    bins, averaged over the bins with their numbers of frames as weights.
    """
    known = predicted.notna() & score.notna()
    if not known.any():
        return float("nan")
    gap = (predicted[known] - score[known]).groupby(calibration_bins(predicted[known])).sum()
    return float(gap.abs().sum() / known.sum())


def calibration_bins(predicted: pd.Series) -> NDArray[np.intp]:
    """The bin, 0 to CALIBRATION_BINS - 1, of each predicted IoU (0..1, none of them NaN)."""
    bins = (predicted.to_numpy(float) * CALIBRATION_BINS).astype(np.intp)
    return np.minimum(bins, CALIBRATION_BINS - 1)


def _events_of(
    events: pd.DataFrame, method: object, repeat: object, sequence: object
) -> pd.DataFrame:
    return events[
        (events["method"] == method)
        & (events["repeat"] == repeat)
        & (events["sequence"] == sequence)
    ]


def _interactions(frames: pd.Series, corrected: pd.Series) -> metrics.ObjectInteractions:
    """The corrections of an object. frames: the numbers of its frames, ascending.

    A corrected frame without a row, because the run broke off on it or its mask was not recorded,
    counts as the next one.
    """
    places = np.searchsorted(frames.to_numpy(int), corrected.to_numpy(int))
    last = len(frames) - 1
    return metrics.ObjectInteractions(len(frames), tuple(min(int(p), last) for p in places))


def _honesty_figures(frames: pd.DataFrame, events: pd.DataFrame) -> dict[str, float]:
    measured = as_measured(frames, events)
    return {
        "honesty": honesty(measured["uncertainty"], measured["j"]),
        "iou_honesty": honesty(-measured["predicted_iou"], measured["j"]),
        "iou_error": calibration_error(measured["predicted_iou"], measured["j"]),
    }


def _object_figures(frames: pd.DataFrame, events: pd.DataFrame) -> dict[str, Any]:
    scored = frames[frames["scored"].astype(bool)]
    region = metrics.sequence_statistics(scored["j"].to_numpy(float))
    boundary = metrics.sequence_statistics(scored["f"].to_numpy(float))
    given = given_corrections(events)
    interactions = _interactions(frames["index"], given["index"])
    gaps = np.diff(np.sort(interactions.corrected_at)).astype(float)
    return {
        "frames": len(frames),
        "scored": len(scored),
        "jf": (region.mean + boundary.mean) / 2,
        "j_mean": region.mean,
        "j_recall": region.recall,
        "j_decay": region.decay,
        "f_mean": boundary.mean,
        "f_recall": boundary.recall,
        "f_decay": boundary.decay,
        **{
            f"r_{threshold:g}": metrics.robustness(scored["j"].to_numpy(float), threshold)
            for threshold in metrics.ROBUSTNESS_THRESHOLDS
        },
        "asked": len(asked_of_people(events)),
        "corrections": len(given),
        "pseudo_corrections": int(
            ((events["source"] == "pseudo") & events["applied"].astype(bool)).sum()
        ),
        "aci": metrics.average_cumulative_interactions(interactions),
        "interval_mean": float(gaps.mean()) if gaps.size else float("nan"),
        "coverage": float((frames["area"] > 0).mean()),
        "stability": float(frames["stability"].mean()),
        "uncertainty": float(frames["uncertainty"].mean()),
        **_honesty_figures(frames, events),
        "held": float(frames["held"].astype(float).mean()),
    }


def _group_figures(
    objects: pd.DataFrame, frames: pd.DataFrame, events: pd.DataFrame
) -> dict[str, Any]:
    """Means over objects; the help over all of them; frames counted once each."""
    once = frames.drop_duplicates(["sequence", "index"])
    given = given_corrections(events)
    interactions = []
    for keys, group in frames.groupby(["sequence", "object"], sort=False):
        sequence, object_id = keys
        mine = given[(given["sequence"] == sequence) & (given["object"] == object_id)]
        interactions.append(_interactions(group["index"].sort_values(), mine["index"]))
    helped = metrics.interaction_statistics(interactions, sequence_frames=len(once))
    corrected_frames = len(given.drop_duplicates(["sequence", "index"]))
    return {
        "frames": len(once),
        **{column: float(objects[column].mean()) for column in AVERAGED},
        "quiet_failures": merit.quiet_failure_count(frames, events),
        "after_answers": merit.after_answers(frames, events),
        "asked": int(objects["asked"].sum()),
        "corrections": helped.corrections,
        "corrected_share": corrected_frames / len(once) if len(once) else float("nan"),
        "per_1000_frames": helped.per_1000_frames,
        "interval_mean": helped.interval_mean,
        "interval_median": helped.interval_median,
        "aci_mean": helped.aci_mean,
        "aci_sum": helped.aci_sum,
        "pseudo_corrections": int(objects["pseudo_corrections"].sum()),
        **_honesty_figures(frames, events),
        "seconds_per_frame": float(once["seconds"].mean()),
        "latency": float(once["latency"].mean()),
    }

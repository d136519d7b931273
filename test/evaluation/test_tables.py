# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lazyxmem_ros.evaluation import tables
from lazyxmem_ros.evaluation.rows import EVENT_COLUMNS


def frame_rows(method: str, repeat: int, scores: dict[int, list[float]]) -> list[dict[str, object]]:
    return [
        {
            "sequence": "walk",
            "method": method,
            "repeat": repeat,
            "index": index + 3,
            "key": str(index),
            "stamp": index,
            "object": object_id,
            "scored": index > 0,
            "visible": True,
            "j": score,
            "f": score / 2,
            "area": 0 if score == 0 else 10,
            "stability": np.nan if index == 0 else 0.5,
            "uncertainty": 1 - score,
            "uncertainty_rate": 0.0,
            "predicted_iou": 0.5,
            "state": "tracked",
            "held": index == 1,
            "seconds": 0.1,
            "latency": np.nan,
        }
        for object_id, values in scores.items()
        for index, score in enumerate(values)
    ]


def event_row(method: str, index: int, object_id: int, **changes: object) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(EVENT_COLUMNS, "")
    row.update(sequence="walk", method=method, repeat=0, index=index, object=object_id)
    row.update(stamp=index - 3)
    row.update(source="operator", applied=True, delay=0.0, j_before=0.1, j_after=0.9)
    row.update(area_before=10)
    return {**row, **changes}


@pytest.fixture
def frames() -> pd.DataFrame:
    return pd.DataFrame(
        frame_rows("lazy", 0, {1: [1, 0.8, 0.0, 0.4], 2: [1, 1.0, 1.0, 1.0]})
        + frame_rows("random", 0, {1: [1, 0.2, 0.2, 0.2]})
        + frame_rows("random", 1, {1: [1, 0.6, 0.6, 0.6]})
    )


@pytest.fixture
def events() -> pd.DataFrame:
    return pd.DataFrame(
        [
            event_row("lazy", 4, 1, j_before=0.8),
            event_row("lazy", 6, 1),
            event_row("lazy", 6, 2, j_before=0.9),
            event_row("lazy", 5, 1, applied=False),
            event_row("lazy", 5, 2, source="pseudo", j_before=0.9),
        ]
    )


def test_objects(frames: pd.DataFrame, events: pd.DataFrame) -> None:
    table = tables.object_table(frames, events).set_index(["method", "repeat", "object"])
    first = table.loc[("lazy", 0, 1)]
    assert (first["frames"], first["scored"]) == (4, 3)
    assert first["j_mean"] == pytest.approx(0.4)
    assert first["jf"] == pytest.approx(0.3)
    assert first["r_0.25"] == pytest.approx(2 / 3)
    assert (first["asked"], first["corrections"], first["pseudo_corrections"]) == (3, 2, 0)
    # Its corrections came on its second and fourth frame: (0 + 1 + 1 + 2) / 4.
    assert first["aci"] == pytest.approx(1.0)
    assert first["interval_mean"] == 2
    assert first["coverage"] == 0.75
    assert first["honesty"] == 1.0
    assert table.loc[("lazy", 0, 2), "pseudo_corrections"] == 1
    assert np.isnan(table.loc[("lazy", 0, 2), "honesty"])


def test_sequences_and_dataset(frames: pd.DataFrame, events: pd.DataFrame) -> None:
    objects = tables.object_table(frames, events)
    sequences = tables.sequence_table(objects, frames, events)
    lazy = sequences[sequences["method"] == "lazy"].iloc[0]
    assert lazy["j_mean"] == pytest.approx((0.4 + 1.0) / 2)
    assert lazy["frames"] == 4, "a frame counts once, however many objects"
    assert lazy["corrections"] == 3
    assert lazy["corrected_share"] == 0.5
    assert lazy["per_1000_frames"] == 750
    assert lazy["aci_sum"] == pytest.approx(1.0 + 0.25)
    dataset = tables.dataset_table(objects, frames, events).set_index("method")
    assert dataset.loc["random", "repeats"] == 2
    assert dataset.loc["random", "j_mean"] == pytest.approx(0.4)
    assert dataset.loc["random", "corrections"] == 0
    assert dataset.loc["lazy", "j_mean"] == pytest.approx(0.7)


def test_what_the_ros_graph_does_not_tell_is_not_known(events: pd.DataFrame) -> None:
    rows = pd.DataFrame(frame_rows("lazy", 0, {1: [1, 0.8, 0.0, 0.4]}))
    objects = tables.object_table(rows, events)
    offline = tables.dataset_table(objects, rows, events).iloc[0]
    assert (offline["held"], offline["seconds_per_frame"]) == (0.25, pytest.approx(0.1))
    assert np.isnan(offline["latency"])
    rows = rows.assign(held=None, seconds=np.nan, latency=0.3)
    objects = tables.object_table(rows, events)
    graph = tables.dataset_table(objects, rows, events).iloc[0]
    assert np.isnan(graph["held"])
    assert np.isnan(graph["seconds_per_frame"])
    assert graph["latency"] == pytest.approx(0.3)


def test_honesty_is_the_share_of_well_ordered_pairs() -> None:
    uncertainty = pd.Series([0.9, 0.2, 0.5, 0.1, np.nan])
    score = pd.Series([0.1, 0.3, 0.8, 0.9, 0.0])
    # Lost: 0.9 and 0.2; kept: 0.5 and 0.1. Of four pairs, three are ordered right.
    assert tables.honesty(uncertainty, score) == pytest.approx(0.75)
    assert np.isnan(tables.honesty(uncertainty, pd.Series([0.9] * 5)))


def test_uncertainty_and_predicted_iou_are_judged_where_there_is_a_mask() -> None:
    """Of what is left out, or not there, both say that it is bad, and the score may be 1."""
    frames = pd.DataFrame(frame_rows("lazy", 0, {1: [1, 0.8, 0.0, 0.4]}))
    assert list(tables.as_measured(frames, pd.DataFrame(columns=EVENT_COLUMNS))["index"]) == [4, 6]


def test_uncertainty_and_predicted_iou_are_of_the_mask_before_an_instant_correction() -> None:
    """Or every question that was well placed, and answered at once, would be a false alarm."""
    frames = pd.DataFrame(frame_rows("lazy", 0, {1: [1, 0.9, 0.9, 0.9, 0.9, 0.0, 0.9]}))
    frames["uncertainty"] = [0.1, 0.8, 0.2, 0.2, 0.9, 0.7, 0.6]
    frames["predicted_iou"] = 1 - frames["uncertainty"]
    events = pd.DataFrame(
        [
            event_row("lazy", 4, 1, j_before=0.2),
            event_row("lazy", 5, 1, applied=False),
            event_row("lazy", 6, 1, delay=1.0),
            # The tracker's own correction came before the operator's, and changed little.
            event_row("lazy", 7, 1, source="pseudo", j_before=0.3),
            event_row("lazy", 7, 1, j_before=0.4),
            # The object was not in view, which an empty mask says.
            event_row("lazy", 8, 1, j_before=0.0),
            # There was no mask before, and nothing that could be judged.
            event_row("lazy", 9, 1, j_before=0.0, area_before=0),
        ]
    )
    measured = tables.as_measured(frames, events)
    assert dict(zip(measured["index"], measured["j"], strict=True)) == pytest.approx(
        {4: 0.2, 5: 0.9, 6: 0.9, 7: 0.3, 8: 0.0}
    )
    figures = tables.object_table(frames, events).iloc[0]
    assert (figures["honesty"], figures["iou_honesty"]) == (1.0, 1.0)
    assert figures["iou_error"] == pytest.approx((0.0 + 0.1 + 0.1 + 0.2 + 0.3) / 5)
    unknown = events.assign(j_before=np.nan, area_before=np.nan)
    assert list(tables.as_measured(frames, unknown)["index"]) == [5, 6], "through the ROS graph"


def test_a_correction_of_a_frame_without_a_row_still_counts(
    frames: pd.DataFrame, events: pd.DataFrame
) -> None:
    """A run may break off on the very frame, and a recording may lack its mask."""
    kept = frames[(frames["method"] == "lazy") & (frames["index"] != 5)]
    for index in (5, 7):
        one = pd.DataFrame([event_row("lazy", index, 1)])
        objects = tables.object_table(kept, one)
        assert objects["corrections"].sum() == 1
        dataset = tables.dataset_table(objects, kept, one)
        assert dataset["corrections"].sum() == 1
        # It counts as one of the next frame, or of the last: of three both are the third.
        assert objects["aci"].max() == pytest.approx(1 / 3)

# SPDX-License-Identifier: Apache-2.0
"""Draws the figures of a report: what happened over time, and how the methods compare.

`frames` and `events` are tables of rows (see `rows`); `dataset` has a row per method (see
`tables`). `size` is in inches.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.evaluation.rows import asked_of_people
from lazyxmem_ros.evaluation.tables import CALIBRATION_BINS, calibration_bins

INK = "#1f2933"
MUTED = "#9aa5b1"
BLUE = "#2b6cb0"
AMBER = "#d97706"
GREEN = "#15803d"
RED = "#b91c1c"
HIDDEN = "#e4e7eb"
BEHIND = ((MUTED, (4, 2)), (RED, (1, 1.5)))
"""Colour and dashes of the runs behind another one."""
METHOD_COLOURS = (
    *("#64748b", "#0e7490", "#6d28d9", "#b45309"),
    *("#15803d", "#9aa5b1", "#be185d", "#1d4ed8"),
)
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.facecolor": "white",
}
ROBUSTNESS_STEPS = 101
"""Thresholds of the robustness curve."""
FIGURE_SIZE = (6.4, 4.2)
UNCERTAINTY_EDGES = np.array([0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, np.inf])
UNCERTAINTY_BINS = ("<.05", ".05-.1", ".1-.2", ".2-.3", ".3-.5", ".5-.8", ".8-1.2", ">1.2")


def method_colour(place: int) -> str:
    """The colour of the method at this place of a table or figure."""
    return METHOD_COLOURS[place % len(METHOD_COLOURS)]


def timeline_figure(
    frames: pd.DataFrame,
    events: pd.DataFrame,
    *,
    title: str,
    name: str = "IoU",
    compared: Mapping[str, pd.DataFrame] = MappingProxyType({}),
    size: tuple[float, float] = (9.0, 4.4),
) -> Figure:
    """Draw IoU and uncertainty of one object over time, with every request and correction.

    frames, events: of one run and object, called `name`. compared: name -> frames of another run,
    drawn behind; two at most. Where the ground truth says that the object is hidden, the background
    is grey.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        seconds = _seconds(frames, frames)
        for axes in (upper, lower):
            _shade_hidden(axes, frames, seconds)
            axes.margins(x=0.01)
        for (behind, others), (colour, dashes) in zip(compared.items(), BEHIND, strict=False):
            upper.plot(
                _seconds(others, frames),
                _visible_scores(others),
                color=colour,
                linewidth=1.2,
                linestyle=(0, dashes),
                label=behind,
            )
        upper.plot(seconds, _visible_scores(frames), color=BLUE, linewidth=1.6, label=name)
        lower.plot(seconds, frames["uncertainty"], color=INK, linewidth=1.2, label="uncertainty")
        _mark_events(upper, lower, events, frames)
        upper.set(ylabel="IoU", ylim=(-0.03, 1.06), title=title)
        lower.set(ylabel="uncertainty", xlabel="time (s)")
        lower.set_ylim(bottom=0)
        handles = {
            label: handle
            for axes in (upper, lower)
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside lower center",
            ncols=min(4, len(handles)),
            frameon=False,
            fontsize=8,
        )
    return figure


def strip_figure(
    frames: pd.DataFrame, events: pd.DataFrame, *, pixels: tuple[int, int]
) -> tuple[NDArray[np.uint8], list[int]]:
    """Draw a timeline small enough for the foot of a video.

    pixels: (width, height). Returns the picture, uint8 [height, width, 3], and the pixel column of
    each row of `frames`.
    """
    resolution = 100
    with mpl.rc_context({**STYLE, "font.size": 7}):
        figure = Figure(figsize=(pixels[0] / resolution, pixels[1] / resolution), dpi=resolution)
        axes = figure.add_axes((0.055, 0.2, 0.93, 0.74))
        seconds = _seconds(frames, frames)
        _shade_hidden(axes, frames, seconds)
        axes.fill_between(seconds, frames["uncertainty"], color=INK, alpha=0.18, linewidth=0)
        axes.plot(seconds, frames["uncertainty"], color=INK, linewidth=0.9)
        axes.plot(seconds, _visible_scores(frames), color=BLUE, linewidth=1.4)
        _mark_events(axes, axes, events, frames)
        top = max(1.08, float(frames["uncertainty"].max(skipna=True)) * 1.05)
        axes.set_ylim(0, min(top, 2.0))
        axes.margins(x=0.005)
        picture = to_array(figure)
        points = axes.transData.transform(np.column_stack([seconds, np.zeros(len(seconds))]))
    return picture, [round(float(x)) for x in points[:, 0]]


def balance_figure(dataset: pd.DataFrame, *, size: tuple[float, float] = FIGURE_SIZE) -> Figure:
    """Draw J&F against the corrections given per 1000 frames, one point per method.

    Methods at the same place share their point, in the first one's colour.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.grid(color=HIDDEN, linewidth=0.8)
        axes.set_axisbelow(True)
        places: dict[tuple[float, float], list[str]] = {}
        colours: dict[tuple[float, float], str] = {}
        for number, row in enumerate(dataset.itertuples(index=False)):
            place = round(row.per_1000_frames, 1), round(100 * row.jf, 1)
            places.setdefault(place, []).append(str(row.method))
            colours.setdefault(place, method_colour(number))
        for place, methods in places.items():
            colour = colours[place]
            axes.scatter(*place, s=60, color=colour, zorder=3)
            axes.annotate(
                ", ".join(methods),
                place,
                (6, 5),
                textcoords="offset points",
                color=colour,
                fontweight="bold",
            )
        axes.margins(0.16)
        axes.set(
            xlabel="corrections by the operator per 1000 frames",
            ylabel="J&F (%)",
            title="What a correction buys",
        )
    return figure


def robustness_figure(frames: pd.DataFrame, *, size: tuple[float, float] = FIGURE_SIZE) -> Figure:
    """Draw R@τ over τ: the share of frames with at least that IoU, averaged over objects."""
    thresholds = np.linspace(0, 1, ROBUSTNESS_STEPS)
    scored = frames[frames["scored"].astype(bool)]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.grid(color=HIDDEN, linewidth=0.8)
        for number, (method, rows) in enumerate(scored.groupby("method", sort=False)):
            curves = [
                (group["j"].to_numpy()[None, :] >= thresholds[:, None]).mean(axis=1)
                for _, group in rows.groupby(["repeat", "sequence", "object"], sort=False)
            ]
            colour = method_colour(number)
            mean = 100 * np.mean(curves, axis=0)
            axes.plot(thresholds, mean, color=colour, linewidth=1.5, label=str(method))
        axes.set(xlabel="IoU threshold τ", ylabel="R@τ (%)", title="Robustness", xlim=(0, 1))
        axes.set_ylim(0, 101)
        axes.legend(frameon=False, fontsize=8)
    return figure


def honesty_figure(frames: pd.DataFrame, *, size: tuple[float, float] = FIGURE_SIZE) -> Figure:
    """Draw the mean IoU in bins of uncertainty, per method; it falls where that is honest.

    frames: `tables.as_measured`.
    """
    known = frames[frames["uncertainty"].notna()]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.grid(color=HIDDEN, linewidth=0.8, axis="y")
        for number, (method, rows) in enumerate(known.groupby("method", sort=False)):
            bins = np.digitize(rows["uncertainty"], UNCERTAINTY_EDGES) - 1
            means = [
                rows["j"].to_numpy()[bins == place].mean() if (bins == place).any() else np.nan
                for place in range(len(UNCERTAINTY_BINS))
            ]
            colour = method_colour(number)
            axes.plot(means, "o-", color=colour, markersize=4, label=str(method))
        axes.set(
            xticks=range(len(UNCERTAINTY_BINS)),
            xticklabels=UNCERTAINTY_BINS,
            xlabel="uncertainty (masked entropy)",
            ylabel="mean IoU",
            title="Is the uncertainty honest?",
            ylim=(0, 1),
        )
        axes.legend(frameon=False, fontsize=8)
    return figure


def reliability_figure(frames: pd.DataFrame, *, size: tuple[float, float] = FIGURE_SIZE) -> Figure:
    """Draw the mean IoU in bins of predicted IoU, per method, and how many frames each has.

    frames: `tables.as_measured`, or others with `method`, `predicted_iou` and `j`.
    """
    known = frames[frames["predicted_iou"].notna()]
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes, counts = figure.subplots(2, sharex=True, height_ratios=(4, 1))
        axes.grid(color=HIDDEN, linewidth=0.8)
        axes.plot([0, 1], [0, 1], color=HIDDEN, linewidth=1.5)
        for number, (method, rows) in enumerate(known.groupby("method", sort=False)):
            colour = method_colour(number)
            places = calibration_bins(rows["predicted_iou"])
            scores = rows["j"].to_numpy()
            means = [
                scores[places == place].mean() if (places == place).any() else np.nan
                for place in range(CALIBRATION_BINS)
            ]
            axes.plot(middles, means, "o-", color=colour, markersize=4, label=str(method))
            share = np.bincount(places, minlength=CALIBRATION_BINS) / max(1, len(places))
            counts.step(middles, 100 * share, where="mid", color=colour, linewidth=1.2)
        axes.set(ylabel="mean IoU", title="Is the predicted IoU right?", xlim=(0, 1), ylim=(0, 1))
        counts.set(xlabel="predicted IoU", ylabel="frames (%)")
        if len(known):
            axes.legend(frameon=False, fontsize=8)
    return figure


def to_array(figure: Figure) -> NDArray[np.uint8]:
    """The figure's pixels, uint8 RGB [H, W, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba(), dtype=np.uint8)[..., :3].copy()


def save_figure(path: Path, figure: Figure, *, resolution: int = 140) -> None:
    """Write a figure; the suffix decides the format. resolution: dots per inch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=resolution)


def to_png(figure: Figure, *, resolution: int = 110) -> bytes:
    """The figure as PNG bytes. resolution: dots per inch."""
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=resolution)
    return target.getvalue()


def _seconds(frames: pd.DataFrame, origin: pd.DataFrame) -> NDArray[np.float64]:
    """Seconds of each row since the first row of `origin`."""
    start = int(origin["stamp"].iloc[0]) if len(origin) else 0
    return (frames["stamp"].to_numpy(np.int64) - start) / SECOND


def _visible_scores(frames: pd.DataFrame) -> NDArray[np.float64]:
    """IoU while the object is visible; NaN interrupts the line while it is hidden."""
    hidden = frames["visible"].map(lambda value: value is not None and value is False)
    scores = frames["j"].to_numpy(float).copy()
    scores[hidden.to_numpy(bool)] = np.nan
    return scores


def _shade_hidden(axes: Axes, frames: pd.DataFrame, seconds: NDArray[np.float64]) -> None:
    hidden = frames["visible"].map(lambda value: value is False or value == 0).to_numpy(bool)
    if len(seconds) < 2:
        return
    step = float(np.median(np.diff(seconds)))
    starts = np.flatnonzero(hidden & ~np.r_[False, hidden[:-1]])
    stops = np.flatnonzero(hidden & ~np.r_[hidden[1:], False])
    for start, stop in zip(starts, stops, strict=True):
        axes.axvspan(
            seconds[start] - step / 2,
            seconds[stop] + step / 2,
            color=HIDDEN,
            linewidth=0,
            label="object hidden",
        )


def _mark_events(upper: Axes, lower: Axes, events: pd.DataFrame, frames: pd.DataFrame) -> None:
    """Draw requests as amber lines, corrections as triangles at the time they took effect."""
    if not len(events) or not len(frames):
        return
    asked = asked_of_people(events)
    for second in _seconds(asked, frames):
        for axes in {upper, lower}:
            axes.axvline(second, color=AMBER, linewidth=1, label="asked a person", zorder=1)
    kinds: Sequence[tuple[str, bool, str, str, str]] = (
        ("operator", True, "^", GREEN, "corrected by the person"),
        ("operator", False, "x", RED, "answer not used"),
        ("pseudo", True, "v", "#6d28d9", "corrected itself"),
    )
    for source, applied, marker, colour, label in kinds:
        rows = events[(events["source"] == source) & (events["applied"].astype(bool) == applied)]
        if len(rows):
            times = _seconds(rows, frames) + rows["delay"].fillna(0).to_numpy(float)
            lower.plot(
                times,
                np.full(len(times), 0.04),
                marker,
                color=colour,
                markersize=6,
                label=label,
                clip_on=False,
                zorder=4,
            )

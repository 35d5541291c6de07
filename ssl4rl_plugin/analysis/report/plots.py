"""Draw the charts of a report as SVG with matplotlib, in the colours of the page.

Every colour is a placeholder, which becomes a CSS variable of the page (templates/base.html.j2). So charts follow the page's
light and dark modes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ssl4rl_plugin.analysis.report.page import readable
from ssl4rl_plugin.analysis.runlog import Accuracy

SERIES = tuple(f"#0a0b{number:02x}" for number in range(1, 9))
INK, MUTED, GRID = "#0a0c01", "#0a0c02", "#0a0c03"
_VARIABLES = {colour: f"var(--series-{n})" for n, colour in enumerate(SERIES, start=1)} | {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
}

SMOOTH_FROM = 40
"""Minimum number of points of a curve that is drawn pale, with its moving average on top."""
HEIGHT = 2.9
"""Height in inches of a chart with a legend of at most two rows."""
MAX_BARS = 60
"""Maximum number of bars; with more steps, several share a bar."""

Curve = tuple[Sequence[float], Sequence[float]]
"""Steps and values."""


@dataclass(frozen=True)
class Drawing:
    """One chart of the page."""

    title: str
    svg: Markup
    note: str
    """Caption: what the chart shows and how to read it."""


@contextmanager
def _canvas(title: str, note: str, drawings: list[Drawing], percent: bool = False) -> Iterator[Any]:
    """Axes to draw on; the finished drawing is added to `drawings`."""
    title = readable(title, 120)
    settings = {
        "svg.fonttype": "none",  # real text in the page's own font
        "svg.hashsalt": title,  # ids that are stable, and differ between the figures of a page
        "text.parse_math": False,  # names may hold dollar signs
        "font.size": 9.5,
        "text.color": INK,
        "axes.edgecolor": GRID,
        "axes.labelcolor": MUTED,
        "xtick.color": GRID,
        "ytick.color": GRID,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=(5.4, HEIGHT), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="y", color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.set_xlabel("step")
        yield axes
        left, right = axes.get_xlim()
        if right - left < 1:  # a single step: no fractions of steps beside it
            axes.set_xlim(round(left) - 1, round(right) + 1)
        if percent:
            axes.set_ylim(0, 1.03)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        handles, labels = axes.get_legend_handles_labels()
        if len(labels) > 1:
            columns = 2 if max(map(len, labels)) > 20 else 3
            figure.set_figheight(HEIGHT + 0.18 * max(0, -(-len(labels) // columns) - 2))  # long legends take no room
            figure.legend(
                handles, [readable(label, 60) for label in labels], loc="outside upper left", ncols=columns,
                frameon=False, handlelength=1.4, columnspacing=1.4, borderpad=0.1,
            )  # fmt: skip
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawings.append(Drawing(title, _inline(buffer.getvalue(), title), note))


def _inline(svg: str, title: str) -> Markup:
    """SVG text for use inside of HTML: no prolog, no metadata, sized by the page, coloured by its variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return Markup(svg.replace("<svg", Markup('<svg role="img" aria-label="{}"').format(title), 1))


@dataclass(frozen=True)
class AccuracyCurve:
    """One curve of accuracies."""

    name: str
    points: Sequence[Accuracy[Any]]
    chance: float | None


def accuracy(title: str, curves: Sequence[AccuracyCurve], at_most: int = 4) -> list[Drawing]:
    """Accuracy by step, in several charts if there are more than `at_most` curves."""
    drawings: list[Drawing] = []
    for start in range(0, len(curves), at_most):
        chosen = curves[start : start + at_most]
        counted = any(point.rate.n for curve in chosen for point in curve.points)
        note = "Dotted: chance. " if any(curve.chance is not None for curve in chosen) else ""
        note += "With 95 % intervals." if counted else "verl's metrics only: no intervals."
        numbered = f"{title} ({start // at_most + 1})" if start else title
        with _canvas(numbered, note, drawings, percent=True) as axes:
            for colour, curve in zip(SERIES, chosen, strict=False):
                steps = [point.step for point in curve.points]
                rates = [point.rate for point in curve.points]
                axes.plot(steps, [rate.mean for rate in rates], color=colour, marker="o", ms=3.5, label=curve.name)
                low, high = [rate.low for rate in rates], [rate.high for rate in rates]
                if counted and len(steps) > 2:
                    axes.fill_between(steps, low, high, color=colour, alpha=0.16, linewidth=0)
                elif counted:
                    axes.vlines(steps, low, high, color=colour, linewidth=1.6, alpha=0.6)
            chances: dict[float, str] = {}
            for colour, curve in zip(SERIES, chosen, strict=False):
                if curve.chance is not None:
                    # A chance level shared by several curves is drawn in grey.
                    chances[curve.chance] = MUTED if curve.chance in chances else colour
            for chance, colour in chances.items():
                axes.axhline(chance, color=MUTED if len(chosen) == 1 else colour, linestyle=":", linewidth=1.4)
    return drawings


def lines(
    title: str, note: str, curves: Mapping[str, Curve], percent: bool = False, hue: int | None = None
) -> list[Drawing]:
    """Curves over the steps, without those that have no points; no drawing if none is left.

    NaN is a gap. With `hue`, the number of a colour, all curves have that colour, from pale (first) to full (last).
    """
    drawings: list[Drawing] = []
    curves = {name: curve for name, curve in curves.items() if curve[0]}
    if curves:
        with _canvas(title, note, drawings, percent) as axes:
            strengths = [1.0] * len(curves) if hue is None else _strengths(len(curves))
            colours = SERIES if hue is None else (_hue(hue),) * len(curves)
            for colour, alpha, (name, (steps, values)) in zip(colours, strengths, curves.items(), strict=False):
                marker = "o" if len(steps) <= 12 or any(map(math.isnan, values)) else None
                if len(steps) >= SMOOTH_FROM:
                    axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.35 * alpha)
                    values = moving_average(values)
                size = 3.5 if len(steps) <= 12 else 2.2
                axes.plot(steps, values, color=colour, linewidth=1.6, marker=marker, ms=size, alpha=alpha, label=name)
            if not percent:
                axes.margins(y=0.12)
    return drawings


def _hue(number: int) -> str:
    return SERIES[number % len(SERIES)]


def _strengths(count: int) -> list[float]:
    """Opacities of `count` steps of one hue, from pale to full."""
    return [1.0] if count == 1 else [0.3 + 0.7 * k / (count - 1) for k in range(count)]


def moving_average(values: Sequence[float]) -> list[float]:
    """Centred mean over about a twentieth of the points on either side, fewer at the ends; NaN stays NaN."""
    reach = max(1, len(values) // 20)
    means = []
    for i, value in enumerate(values):
        window = [v for v in values[max(0, i - reach) : i + reach + 1] if not math.isnan(v)]
        means.append(math.nan if math.isnan(value) else sum(window) / len(window))
    return means


def areas(
    title: str, note: str, steps: Sequence[int], groups: Sequence[Mapping[str, Sequence[float]]]
) -> list[Drawing]:
    """Stacked shares by step: one hue for each group, from pale (first) to full (last)."""
    drawings: list[Drawing] = []
    if steps and groups:
        with _canvas(title, note, drawings, percent=True) as axes:
            base = [0.0] * len(steps)
            for number, group in enumerate(groups):
                for alpha, (name, values) in zip(_strengths(len(group)), group.items(), strict=True):
                    top = [below + value for below, value in zip(base, values, strict=True)]
                    colour = _hue(number)
                    if len(steps) == 1:
                        axes.bar(steps, values, bottom=base, color=colour, alpha=alpha, label=name, linewidth=0)
                    else:
                        axes.fill_between(steps, base, top, color=colour, alpha=alpha, label=name, linewidth=0)
                    base = top
    return drawings


def stacked(title: str, note: str, steps: Sequence[int], parts: Mapping[str, Sequence[float]]) -> list[Drawing]:
    """Stacked bars of seconds by step, one colour for each part. Many steps share bars."""
    drawings: list[Drawing] = []
    if not steps:
        return drawings
    width = -(-len(steps) // MAX_BARS)
    groups = [range(start, min(start + width, len(steps))) for start in range(0, len(steps), width)]
    places = [sum(steps[i] for i in group) / len(group) for group in groups]
    gap = min((b - a for a, b in pairwise(places)), default=1.0)
    with _canvas(title, note, drawings) as axes:
        base = [0.0] * len(groups)
        for colour, (name, values) in zip(SERIES, parts.items(), strict=False):
            heights = [sum(values[i] for i in group) / len(group) for group in groups]
            axes.bar(places, heights, width=0.8 * gap, bottom=base, color=colour, label=name, linewidth=0)
            base = [below + height for below, height in zip(base, heights, strict=True)]
        axes.set_ylabel("seconds")
    return drawings

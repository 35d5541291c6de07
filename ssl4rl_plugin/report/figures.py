"""The figures of a report: matplotlib's SVG, with colours that follow the page into light and dark.

Each colour that is drawn is a placeholder that becomes a CSS variable of the page (templates/base.html.j2).
"""

from __future__ import annotations

import io
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

from ssl4rl_plugin.runlog import Accuracy, ArmKey

SERIES = tuple(f"#0a0b{number:02x}" for number in range(1, 9))
INK, MUTED, GRID = "#0a0c01", "#0a0c02", "#0a0c03"
_VARIABLES = {colour: f"var(--series-{n})" for n, colour in enumerate(SERIES, start=1)} | {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
}

SMOOTH_FROM = 40
"""Curves of so many points are drawn pale, with their moving average on top."""
MAX_BARS = 60
"""Steps beyond this share a bar."""

Curve = tuple[Sequence[float], Sequence[float]]
"""Steps and values."""


@dataclass(frozen=True)
class Drawing:
    """One figure of the page."""

    title: str
    svg: Markup
    note: str
    """What is drawn and how to read it."""


@contextmanager
def _canvas(title: str, note: str, drawings: list[Drawing], percent: bool = False) -> Iterator[Any]:
    """Axes to draw on; the finished drawing is added to `drawings`."""
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
        figure = Figure(figsize=(5.4, 2.9), layout="constrained")
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
            figure.legend(
                handles, labels, loc="outside upper left", ncols=2 if max(map(len, labels)) > 20 else 3,
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


def accuracy(curves: Mapping[ArmKey, Sequence[Accuracy]], levels_per_figure: int = 4) -> list[Drawing]:
    """Held-out accuracy by step, one figure for each task (more, if it has many levels)."""
    drawings: list[Drawing] = []
    for task in dict.fromkeys(arm.task for arm in curves):
        arms = [arm for arm in curves if arm.task == task]
        for start in range(0, len(arms), levels_per_figure):
            chosen = arms[start : start + levels_per_figure]
            counted = any(point.rate.n for arm in chosen for point in curves[arm])
            note = "Dotted: chance. " + ("Band: 95 % interval." if counted else "verl's metrics only: no intervals.")
            title = f"Held-out accuracy: {task}" + (f" ({start // levels_per_figure + 1})" if start else "")
            with _canvas(title, note, drawings, percent=True) as axes:
                for colour, arm in zip(SERIES, chosen, strict=False):
                    points = curves[arm]
                    steps = [point.step for point in points]
                    means = [point.rate.mean for point in points]
                    axes.plot(steps, means, color=colour, marker="o", ms=3.5, label=arm.level or task)
                    low, high = [p.rate.low for p in points], [p.rate.high for p in points]
                    if counted and len(points) > 2:
                        axes.fill_between(steps, low, high, color=colour, alpha=0.16, linewidth=0)
                    elif counted:
                        axes.vlines(steps, low, high, color=colour, linewidth=1.6, alpha=0.6)
                chances: dict[float, str] = {}
                for colour, arm in zip(SERIES, chosen, strict=False):
                    if arm.chance is not None:
                        # Where levels share their chance, the line belongs to none of them.
                        chances[arm.chance] = MUTED if arm.chance in chances else colour
                for chance, colour in chances.items():
                    axes.axhline(chance, color=MUTED if len(chosen) == 1 else colour, linestyle=":", linewidth=1.4)
    return drawings


def lines(title: str, note: str, curves: Mapping[str, Curve], percent: bool = False) -> list[Drawing]:
    """Curves over the steps, those without points left out; no drawing if that leaves none."""
    drawings: list[Drawing] = []
    curves = {name: curve for name, curve in curves.items() if curve[0]}
    if curves:
        with _canvas(title, note, drawings, percent) as axes:
            for colour, (name, (steps, values)) in zip(SERIES, curves.items(), strict=False):
                marker = "o" if len(steps) <= 12 else None
                if len(steps) >= SMOOTH_FROM:
                    axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.35)
                    values = moving_average(values)
                axes.plot(steps, values, color=colour, linewidth=1.6, marker=marker, ms=3.5, label=name)
            if not percent:
                axes.margins(y=0.12)
    return drawings


def moving_average(values: Sequence[float]) -> list[float]:
    """Centred mean over about a twentieth of the points on either side, fewer at the ends."""
    reach = max(1, len(values) // 20)
    windows = (values[max(0, i - reach) : i + reach + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def stacked(title: str, note: str, steps: Sequence[int], parts: Mapping[str, Sequence[float]]) -> list[Drawing]:
    """Bars of seconds by step, one colour for each part; steps share bars where there are many."""
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

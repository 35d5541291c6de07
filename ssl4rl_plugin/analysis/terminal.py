"""Tables for the terminal."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ssl4rl_plugin.analysis.runlog import ABOVE, BELOW, COLLAPSED, UNREADABLE, Accuracy, Headline, LoggedArm


def table(*columns: str) -> Table:
    """An empty table in the style of the package."""
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def show(shown: Table) -> None:
    """Print a table to stdout. If stdout is no terminal, lines are up to 240 characters wide."""
    console = Console(emoji=False)
    console.print(shown) if console.is_terminal else Console(width=240, emoji=False).print(shown)


def show_json(value: Any) -> None:
    """Print one JSON value to stdout. What JSON has no form for, as in another package's level, becomes text."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write("\n")


COLOURS = {ABOVE: "green", BELOW: "red", COLLAPSED: "yellow", UNREADABLE: "yellow"}
"""Colours of verdicts."""


def headline_table(rows: Iterable[Headline[LoggedArm]]) -> Table:
    """The result of a run (`RunLog.headline()`): held-out accuracy before and after against chance, with its interval, the
    number of questions and of groups of items (photographs) that they are about, and the most frequent answer."""
    made = table(
        "task", "level", "chance", "before (95 %)", "after (95 %)", "n", "groups", "most frequent answer", "verdict"
    )
    for row in rows:
        rate = row.last.rate if row.last else None
        made.add_row(
            escape(row.kind.task),
            escape(row.kind.level or "all"),
            "?" if row.chance is None else f"{row.chance:.3f}",
            _cell(row.before),
            _cell(row.after),
            str(rate.n) if rate and rate.n else "?",
            "?" if rate is None or rate.groups is None else str(rate.groups),
            escape(_most_frequent(row)),
            f"[{COLOURS.get(row.verdict, 'default')}]{row.verdict}[/]" if row.verdict else "",
        )
    return made


def _cell(point: Accuracy[LoggedArm] | None) -> str:
    if point is None:
        return "not recorded"
    rate = point.rate
    return f"{rate.mean:.3f} ({rate.low:.3f} to {rate.high:.3f})" if rate.n else f"{rate.mean:.3f}"


def _most_frequent(row: Headline[LoggedArm]) -> str:
    """`top-left: 31 % → 94 %`: the most frequent answer of the last validation, with the shares at both ends."""
    tops = [point.top for point in (row.before, row.after) if point and point.top]
    return f"{tops[-1].text or 'none'}: " + " → ".join(f"{100 * top.share:.0f} %" for top in tops) if tops else ""


BARS = "▁▂▃▄▅▆▇█"
PLAIN_BARS = "_.:-=+*#"
"""The same for a terminal without Unicode."""


def sparkline(values: Sequence[float], bars: str = BARS, low: float = 0.0, high: float = 1.0) -> str:
    """Values as a row of bars, the lowest for `low` or less and the highest for `high` or more; a space for NaN."""
    steps = [
        -1 if math.isnan(value) else int((min(max(value, low), high) - low) / (high - low) * (len(bars) - 1) + 0.5)
        for value in values
    ]
    return "".join(" " if step < 0 else bars[step] for step in steps)


def shortened(values: Sequence[float], most: int) -> list[float]:
    """At most `most` values: means of equal stretches, if there are more."""
    if len(values) <= most:
        return list(values)
    ends = [round(k * len(values) / most) for k in range(most + 1)]
    return [math.fsum(values[start:end]) / (end - start) for start, end in pairwise(ends)]

"""Tables for the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ssl4rl_plugin.analysis.runlog import Accuracy, Headline, LoggedArm


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


def headline_table(rows: Iterable[Headline[LoggedArm]]) -> Table:
    """The result of a run (`RunLog.headline()`): task, level, chance, held-out accuracy before and after, with n."""
    made = table("task", "level", "chance", "before (95 %)", "after (95 %)", "n", "")
    colours = {"above chance": "green", "below chance": "red"}
    for row in rows:
        last = row.last
        made.add_row(
            escape(row.kind.task),
            escape(row.kind.level or "all"),
            "?" if row.chance is None else f"{row.chance:.3f}",
            _cell(row.before),
            _cell(row.after),
            str(last.rate.n) if last and last.rate.n else "?",
            f"[{colours.get(row.verdict, 'default')}]{row.verdict}[/]" if row.verdict else "",
        )
    return made


def _cell(point: Accuracy[LoggedArm] | None) -> str:
    if point is None:
        return "not recorded"
    rate = point.rate
    return f"{rate.mean:.3f} ({rate.low:.3f} to {rate.high:.3f})" if rate.n else f"{rate.mean:.3f}"

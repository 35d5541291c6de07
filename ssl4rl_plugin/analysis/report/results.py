"""The result tables of a report: accuracy before and after, for one run or for several side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl4rl_plugin.analysis.report.page import percent, readable
from ssl4rl_plugin.analysis.runlog import Accuracy, AccuracyChange, Headline, KindT, RunLog, difference


def task_lines(logs: Mapping[str, RunLog]) -> list[dict[str, Any]]:
    """The table of pretext tasks: arms, and within each the runs."""
    rows = {name: {row.kind: row for row in log.headline()} for name, log in logs.items()}
    outcomes = {name: log.outcomes for name, log in logs.items()}
    return [
        line | _named(kind.task, kind.level or "all", "" if kind.options == "{}" else kind.options)
        for kind, line in _lines(rows, outcomes)
    ]


def source_lines(logs: Mapping[str, RunLog]) -> list[dict[str, Any]]:
    """The table of tasks on each source, for runs with several sources; empty if there is none."""
    rows = {name: {row.kind: row for row in log.source_headline()} for name, log in logs.items()}
    outcomes = {name: log.source_outcomes for name, log in logs.items()}
    return [
        line | _named(kind.source, kind.label, "" if kind.options == "{}" else kind.options)
        for kind, line in sorted(_lines(rows, outcomes), key=lambda found: (found[0].source, found[0]))
    ]


def benchmark_lines(logs: Mapping[str, RunLog]) -> list[dict[str, Any]]:
    """The table of benchmarks: all questions, then the l2-categories, then the categories."""
    rows = {name: {row.kind: row for row in log.benchmark_headline()} for name, log in logs.items()}
    outcomes = {name: log.benchmark_outcomes for name, log in logs.items()}
    scopes = {"overall": "all questions", "l2_category": "l2-category", "category": "category"}
    return [
        line
        | _named(
            kind.benchmark,
            kind.name or "all questions",
            (scopes[kind.scope] if kind.name else "") + (" circular" if kind.circular else ""),
        )
        for kind, line in _lines(rows, outcomes)
    ]


def _named(group: str, item: str, options: str) -> dict[str, str]:
    return {"group": readable(group, 80), "item": readable(item, 80), "options": readable(options, 200)}


def _lines(
    rows: Mapping[str, Mapping[KindT, Headline[KindT]]],
    outcomes: Mapping[str, Mapping[int, Mapping[KindT, Mapping[str, float]]]],
) -> list[tuple[KindT, dict[str, Any]]]:
    """Lines ordered by kind, then by run. Each later run is compared with the first one that has the kind."""
    found = []
    for kind in sorted({kind for kinds in rows.values() for kind in kinds}):
        first = next(name for name, kinds in rows.items() if kind in kinds)
        for number, (name, kinds) in enumerate(rows.items(), start=1):
            if kind not in kinds:
                continue
            row, against = kinds[kind], None
            if name != first and row.last and (base := rows[first][kind].last):
                mine = outcomes[name].get(row.last.step, {}).get(kind, {})
                against = difference(outcomes[first].get(base.step, {}).get(kind, {}), mine)
            line = {
                "run": name if len(rows) > 1 else "",
                "number": number,
                "first": name == first,
                "chance": row.chance,
                "before": _cell(row.before),
                "after": _cell(row.after),
                "change": _change(row.change, row),
                "against": _change(against),
                "verdict": row.verdict,
            }
            found.append((kind, line))
    return found


def _cell(point: Accuracy[Any] | None) -> dict[str, Any] | None:
    """An accuracy, with the positions of its marks on a scale from 0 to 100."""
    if point is None:
        return None
    rate = point.rate
    return {
        "step": point.step,
        "mean": percent(rate.mean),
        "interval": f"{100 * rate.low:.1f} to {100 * rate.high:.1f}" if rate.n else "",
        "n": rate.n,
        "groups": rate.groups,
        "top": (readable(point.top.text, 40), percent(point.top.share)) if point.top else None,
        "low": round(100 * rate.low, 2),
        "width": round(100 * (rate.high - rate.low), 2) if rate.n else 0,
        "at": round(100 * rate.mean, 2),
    }


def _change(found: AccuracyChange | None, row: Headline[Any] | None = None) -> dict[str, Any] | None:
    """A difference in percentage points. Without single answers: of the means, without interval."""
    if found is None:
        if row is None or row.before is None or row.after is None:
            return None
        return {"mean": _points(row.after.rate.mean - row.before.rate.mean), "interval": "", "state": "", "small": ""}
    low, high = found.change.low, found.change.high
    known = low == low  # a single question has no interval
    return {
        "mean": _points(found.change.mean),
        "interval": f"{_points(low)} to {_points(high)}" if known else "",
        "state": "above" if known and low > 0 else "below" if known and high < 0 else "",
        "small": f"{found.gained:,} gained, {found.lost:,} lost" + ("" if found.p is None else f", p = {found.p:.2g}"),
    }


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")

"""The end of the demo: what it has learnt, as a table, a picture, a sentence, numbers (summary.json) and a page."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ssl4rl_plugin.analysis.runlog import ABOVE, COLLAPSED, Accuracy, Headline, LoggedArm, RunLog
from ssl4rl_plugin.analysis.terminal import BARS, PLAIN_BARS, headline_table, shortened, show, sparkline
from ssl4rl_plugin.tasks import get_task, registry

Row = Headline[LoggedArm]
WIDE = 40
"""Most characters of a curve."""
PATH_ONLY = ("cpu_videos", "graph_cpu_demo")
"""Recipes with so few steps that nothing can be learnt."""
DRIFT = ("rollout_corr/k3_kl", "actor/rollout_corr/k3_kl")
"""Distance between rollout and actor; the second name is that of rollout_correction.bypass_mode."""
THINGS = {"image": "photographs", "rgbd": "scenes", "video": "videos", "graph": "nodes"}
"""Kind of item -> what a group of such items is, in the plural."""


def show_result(log: RunLog, rows: Sequence[Row], recipe: str, console: Console) -> None:
    """Print table, curves and the sentence."""
    show(headline_table(rows))
    for line in [*pictures(log, rows, unicode=console.encoding.lower().startswith("utf")), sentence(log, rows, recipe)]:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def pictures(log: RunLog, rows: Sequence[Row], unicode: bool = True) -> list[str]:
    """For each arm, its held-out accuracy over the validations and its training accuracy over the steps, from 0 to 1."""
    bars = BARS if unicode else PLAIN_BARS
    wide = max((len(row.kind.label) for row in rows), default=0)
    lines = []
    for row in rows:
        held_out = [point.rate.mean for point in log.arms[row.kind]]
        trained = trained_accuracy(log, row.kind)[1]
        if not held_out:
            continue
        ends = f"{held_out[0]:.2f} to {held_out[-1]:.2f}"
        mark = f", chance {row.chance:.2f} = {sparkline([row.chance], bars)}" if row.chance is not None else ""
        lines.append(f"{row.kind.label:{wide}}  held-out {sparkline(shortened(held_out, WIDE), bars)}  {ends}{mark}")
        if trained:
            lines.append(f"{'':{wide}}  training {sparkline(shortened(trained, WIDE), bars)}")
    return lines


def trained_accuracy(log: RunLog, kind: LoggedArm) -> tuple[list[int], list[float]]:
    """Steps, and accuracy of an arm's training rollouts."""
    return log.possible(f"curriculum/{kind.task}/{kind.level}/accuracy")


def sentence(log: RunLog, rows: Sequence[Row], recipe: str) -> str:
    """What was learnt, and what so small a model cannot show."""
    if recipe in PATH_ONLY:
        return (
            "So few steps prove the path (samples, rollouts, rewards, updates, weight sync, checkpoint), not learning: "
            "`make learn` runs until the model has learnt."
        )
    things = _things(rows)
    risen = [row for row in rows if row.verdict == ABOVE and _risen(row)]
    if risen:
        learnt = f"learnt, on held-out {things}: " + ", ".join(
            f"{row.kind.label} from {row.before.rate.mean:.2f} to {row.after.rate.mean:.2f} (chance {row.chance:.2f})"
            for row in risen
            if row.before and row.after
        )
    else:
        learnt = "no task has risen above both its start and chance"
    if collapsed := [row.kind.label for row in rows if row.verdict == COLLAPSED]:
        learnt += f"; collapsed onto one answer: {', '.join(collapsed)}"
    groups = [row.last.rate.groups for row in rows if row.last and row.last.rate.groups]
    tested = f", tested on {max(groups)} {things}," if groups else ""
    return (
        f"{learnt[0].upper()}{learnt[1:]}; so small a model{tested} shows that the training works, and cannot show what a "
        "pretrained model gains on benchmarks: that takes a GPU recipe."
    )


def _things(rows: Sequence[Row]) -> str:
    """What the items of the tasks are, in the plural."""
    kinds = {get_task(row.kind.task).kind for row in rows if row.kind.task in registry.names()}
    return THINGS[kinds.pop()] if len(kinds) == 1 else "items"


def _risen(row: Row) -> bool:
    """Whether accuracy rose, with an interval of the change above 0."""
    return row.change is not None and row.change.change.low > 0


def summary(
    log: RunLog, rows: Sequence[Row], recipe: str, seed: int, seconds: float, parts: Mapping[str, float]
) -> dict[str, Any]:
    """The content of summary.json: every number that docs and README need.

    Args:
        log: the run.
        rows: its headline.
        recipe: of the run.
        seed: of the run.
        seconds: of this start, in all.
        parts: part -> seconds of this start (`progress.PARTS`).
    """
    steps, rewards = log.curve("critic/score/mean")
    drift = [value for name in DRIFT for value in log.curve(name)[1]]
    return {
        "recipe": recipe,
        "seed": seed,
        "cores": os.cpu_count(),
        "seconds": round(seconds),
        "parts": {name: round(took, 1) for name, took in parts.items()},
        "steps": max(steps, default=0),
        "reward": {"steps": steps, "mean": _rounded(rewards)},
        "largest_k3_kl": max(drift, default=None),
        "tasks": {row.kind.label: _task(log, row) for row in rows},
        "sentence": sentence(log, rows, recipe),
    }


def _task(log: RunLog, row: Row) -> dict[str, Any]:
    points = log.arms[row.kind]
    steps, trained = trained_accuracy(log, row.kind)
    change = row.change.change if row.change else None
    return {
        "chance": row.chance,
        **{name: _point(one) for name, one in (("before", row.before), ("after", row.after)) if one},
        "change": {"mean": change.mean, "low": _known(change.low), "high": _known(change.high)} if change else None,
        "p": row.p,
        "verdict": row.verdict,
        "validation": {
            "steps": [point.step for point in points],
            "accuracy": _rounded([point.rate.mean for point in points]),
            "low": _rounded([point.rate.low for point in points]),
            "high": _rounded([point.rate.high for point in points]),
            "most_frequent": _rounded([point.top.share if point.top else math.nan for point in points]),
        },
        "training": {"steps": steps, "accuracy": _rounded(trained)},
    }


def _point(one: Accuracy[LoggedArm]) -> dict[str, Any]:
    rate = one.rate
    return {
        "step": one.step,
        "accuracy": rate.mean,
        "low": rate.low,
        "high": rate.high,
        "n": rate.n,
        "groups": rate.groups,
        "interval_over": "questions" if rate.effective is None else "groups",
        "most_frequent": {"answer": one.top.text, "share": one.top.share} if one.top else None,
    }


def _rounded(values: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(value) else round(value, 4) for value in values]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def write_summary(file: Path, content: Mapping[str, Any]) -> None:
    """Write summary.json."""
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

"""Which tasks and levels a run drew at each step, their accuracy, and the curriculum's reasons for its next draws.

From the metrics `curriculum/<task>/<level>/<figure>`, which runs without a curriculum also have, and from the curriculum's
journal (`curriculum.jsonl`) if there is one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ssl4rl_plugin.analysis.report.page import readable
from ssl4rl_plugin.analysis.report.plots import Drawing, areas, lines
from ssl4rl_plugin.analysis.runlog import RunLog
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.tasks import get_task

_METRIC = re.compile(r"curriculum/([^/]+)/([^/]+)/share")
ACCURACY_NOTE = "0 is chance, 1 is perfect. A gap: the level was not drawn. Paler: easier level."
"""Caption of the charts of chance-corrected accuracy."""


@dataclass(frozen=True)
class ArmCurve:
    """The course of one task and level."""

    task: str
    level: str
    share: dict[int, float]
    """Step -> share of the step's prompts, in [0, 1]; 0 if it was not drawn."""
    corrected: dict[int, float]
    """Step -> chance-corrected accuracy, at the steps that drew it."""
    accuracy: dict[int, float]
    """Step -> accuracy, at the steps that drew it."""
    effective: dict[int, float]
    """Step -> share of its prompt groups whose rewards differ."""
    probability: float | None
    """Probability of the next draw, in [0, 1]; None without a curriculum."""
    prompts: float | None
    """Total number of prompts; None if the config does not give the batch size."""

    @property
    def drawn(self) -> list[int]:
        """The steps that drew it."""
        return [step for step, share in self.share.items() if share > 0]


def arms_of(log: RunLog) -> list[ArmCurve]:
    """The arms of a run, by task, from easy to hard; none if the run did not log them."""
    found = [match.groups() for name in log.names("curriculum/") if (match := _METRIC.fullmatch(name))]
    batch = log.setting("data.train_batch_size")
    arms = []
    for task, level in sorted(found, key=lambda arm: (_first(found, arm[0]), _rung(*arm), _first(found, *arm))):

        def figure(name: str, task: str = task, level: str = level) -> dict[int, float]:
            read = log.curve if name == "corrected" else log.possible  # the others are shares
            return dict(zip(*read(f"curriculum/{task}/{level}/{name}"), strict=True))

        share, wanted = figure("share"), figure("probability")
        arms.append(
            ArmCurve(
                task=task,
                level=level,
                share=share,
                corrected=figure("corrected"),
                accuracy=figure("accuracy"),
                effective=figure("effective"),
                probability=wanted[max(wanted)] if wanted else None,
                prompts=sum(share.values()) * batch if isinstance(batch, int) else None,
            )
        )
    return arms


def _first(found: Sequence[tuple[str, ...]], *start: str) -> int:
    """Index of the first arm with this task, or this task and level."""
    return next(place for place, arm in enumerate(found) if arm[: len(start)] == start)


def _rung(task: str, level: str) -> int:
    """Index of the level in its task's ladder; 0 if the task is not installed."""
    try:
        levels = list(get_task(task).levels)
    except UserError:
        return 0
    name = re.split(r"[{#]", level)[0]
    return levels.index(name) if name in levels else len(levels)


def draw(arms: Sequence[ArmCurve]) -> list[Drawing]:
    """A chart of the shares of all arms, and for each task one of the chance-corrected accuracy of its levels."""
    if not arms:
        return []
    steps = sorted({step for arm in arms for step in arm.share})
    tasks = list(dict.fromkeys(arm.task for arm in arms))
    groups = [
        {f"{arm.task}:{arm.level}": [arm.share.get(step, 0.0) for step in steps] for arm in arms if arm.task == task}
        for task in tasks
    ]
    note = "Share of each step's prompts. One colour for each task. Paler: easier level."
    drawings = areas("What was drawn", note, steps, groups)
    for task in tasks:
        curves = {
            arm.level: (steps, [arm.corrected.get(step, float("nan")) for step in steps])
            for arm in arms
            if arm.task == task and arm.corrected
        }
        drawings += lines(f"Training accuracy above chance: {task}", ACCURACY_NOTE, curves, hue=tasks.index(task))
    return drawings


def table(log: RunLog, arms: Sequence[ArmCurve]) -> list[dict[str, Any]]:
    """A line for each arm: its draws, its last accuracy, its next probability, and the reason for it."""
    reasons = latest_reasons(log)
    return [
        {
            "task": readable(arm.task, 80),
            "level": readable(arm.level, 120),
            "first": min(arm.drawn, default=None),
            "last": max(arm.drawn, default=None),
            "prompts": None if arm.prompts is None else f"{arm.prompts:,.0f}",
            "share": sum(arm.share.values()) / len(arm.share),
            "accuracy": arm.accuracy[max(arm.accuracy)] if arm.accuracy else None,
            "effective": arm.effective[max(arm.effective)] if arm.effective else None,
            "probability": arm.probability,
            "reason": readable(reasons.get(f"{arm.task}:{arm.level}", ""), 200),
        }
        for arm in arms
    ]


def latest_reasons(log: RunLog) -> dict[str, str]:
    """`task:level` -> the journal's latest reason for its probability; empty without a journal.

    An arm with options has two keys, with and without them: the metrics name the options only if two arms need them.
    """
    found: dict[str, str] = {}
    for line in log.journal():
        arms = line.get("arms")
        if "step" in line and isinstance(arms, dict):
            for key, value in arms.items():
                if isinstance(value, dict) and value.get("reason"):
                    found[key] = found[key.split("{")[0]] = str(value["reason"])
    return found

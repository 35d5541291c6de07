"""Which tasks and levels a run drew when, how well they were answered, and, with a curriculum, why they are drawn next.

From the step log (`curriculum/<task>/<level>/<figure>`, which runs without a curriculum have as well) and, where it is
there, the curriculum's journal (`curriculum.jsonl`).
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
ACCURACY_NOTE = "0 is chance, 1 perfect; gaps where a level was not drawn. The paler, the easier the level."


@dataclass(frozen=True)
class ArmCurve:
    """What became of one task and level."""

    task: str
    level: str
    share: dict[int, float]
    """Step -> share of the step's prompts, in [0, 1]; 0 where it was not drawn."""
    corrected: dict[int, float]
    """Step -> chance-corrected accuracy, at the steps that drew it."""
    accuracy: dict[int, float]
    effective: dict[int, float]
    """Step -> share of its prompt groups whose rewards differ."""
    probability: float | None
    """What the curriculum wants next, in [0, 1]; None without one."""
    prompts: float | None
    """How many were drawn in all; None if the config does not say how many a step has."""

    @property
    def drawn(self) -> list[int]:
        """The steps that drew it."""
        return [step for step, share in self.share.items() if share > 0]


def arms_of(log: RunLog) -> list[ArmCurve]:
    """What a run drew from, by task, from easy to hard; nothing if it did not log it."""
    found = [match.groups() for name in log.names("curriculum/") if (match := _METRIC.fullmatch(name))]
    batch = log.setting("data.train_batch_size")
    arms = []
    for task, level in sorted(found, key=lambda arm: (_first(found, arm[0]), _rung(*arm), _first(found, *arm))):

        def figure(name: str, task: str = task, level: str = level) -> dict[int, float]:
            return dict(zip(*log.curve(f"curriculum/{task}/{level}/{name}"), strict=True))

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
    """The place of the first arm that begins so."""
    return next(place for place, arm in enumerate(found) if arm[: len(start)] == start)


def _rung(task: str, level: str) -> int:
    """The level's place in its task's ladder; 0 for all where the task is not installed."""
    try:
        levels = list(get_task(task).levels)
    except UserError:
        return 0
    name = re.split(r"[{#]", level)[0]
    return levels.index(name) if name in levels else len(levels)


def draw(arms: Sequence[ArmCurve]) -> list[Drawing]:
    """Shares of all arms over the steps, stacked, and for each task the chance-corrected accuracy of its levels."""
    if not arms:
        return []
    steps = sorted({step for arm in arms for step in arm.share})
    tasks = list(dict.fromkeys(arm.task for arm in arms))
    groups = [
        {f"{arm.task}:{arm.level}": [arm.share.get(step, 0.0) for step in steps] for arm in arms if arm.task == task}
        for task in tasks
    ]
    note = "Share of each step's prompts. A colour for each task; the paler, the easier the level."
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
    """A line for each arm: when and how often it was drawn, its last accuracy, what the policy wants next, and why."""
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
    """`task:level` -> why the latest decision in the journal draws it as often as it does; empty without a journal.

    The step log names an arm without its options, unless two arms differ in nothing else; so does this.
    """
    found: dict[str, str] = {}
    for line in log.journal():
        arms = line.get("arms")
        if "step" in line and isinstance(arms, dict):
            for key, value in arms.items():
                if isinstance(value, dict) and value.get("reason"):
                    found[key] = found[key.split("{")[0]] = str(value["reason"])
    return found

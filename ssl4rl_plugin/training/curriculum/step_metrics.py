"""Metrics of each arm and each task in a step's log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ssl4rl_plugin.training.curriculum.evidence import CurriculumArm, Evidence


def figures(
    arms: Sequence[CurriculumArm], shown: Mapping[int, Evidence], probabilities: npt.NDArray[np.float64] | None
) -> dict[str, float]:
    """Metrics of one step.

    `curriculum/<task>/<level>/...` for each arm, `curriculum/<task>/...` for each task; all but share and probability only
    if it was drawn:

    - share: of the step's prompt groups, in [0, 1] (0 for an arm that was not drawn)
    - accuracy: share of right answers, in [0, 1]
    - corrected: accuracy corrected for chance, (p - c) / (1 - c); below 0 for less than chance
    - effective: share of its groups whose rewards differ, and which so have an advantage
    - probability: its probability in the next decision (arms only, and only with a curriculum)
    - level: mean rung, 0 for the task's easiest level (tasks only)

    `curriculum/unscored`: number of rollouts without a usable reward; no other metric counts them.
    """
    total = sum(evidence.groups for evidence in shown.values())
    found = {"curriculum/unscored": float(sum(evidence.unscored for evidence in shown.values()))}
    tasks: dict[str, list[tuple[CurriculumArm, Evidence]]] = {}
    for number, arm in enumerate(arms):
        evidence = shown.get(number, Evidence())
        tasks.setdefault(arm.task, []).append((arm, evidence))
        name = f"curriculum/{arm.label}"
        found[f"{name}/share"] = evidence.groups / total if total else 0.0
        if probabilities is not None:
            found[f"{name}/probability"] = float(probabilities[number])
        if evidence.groups:
            found |= {f"{name}/{key}": value for key, value in _rates([(arm, evidence)]).items()}
    for task, members in tasks.items():
        groups = sum(evidence.groups for _, evidence in members)
        found[f"curriculum/{task}/share"] = groups / total if total else 0.0
        if groups:
            found |= {f"curriculum/{task}/{key}": value for key, value in _rates(members).items()}
            found[f"curriculum/{task}/level"] = sum(arm.rung * one.groups for arm, one in members) / groups
    return found


def source_figures(arms: Sequence[CurriculumArm], shown: Mapping[str, Mapping[int, Evidence]]) -> dict[str, float]:
    """Metrics of one step for each source of a run with several: `ssl4rl/source/<name>/...`.

    `shown` is each source's evidence by arm number; empty for one that was not drawn. The metrics are share, and if it was
    drawn accuracy, corrected and effective, as in `figures`.
    """
    total = sum(evidence.groups for of in shown.values() for evidence in of.values())
    found: dict[str, float] = {}
    for source, of in shown.items():
        members = [(arms[number], evidence) for number, evidence in sorted(of.items()) if evidence.groups]
        name = f"ssl4rl/source/{source}"
        found[f"{name}/share"] = sum(evidence.groups for _, evidence in members) / total if total else 0.0
        if members:
            found |= {f"{name}/{key}": value for key, value in _rates(members).items()}
    return found


def _rates(members: Sequence[tuple[CurriculumArm, Evidence]]) -> dict[str, float]:
    """Accuracy, accuracy corrected for chance, and the share of groups with an advantage."""
    groups = sum(evidence.groups for _, evidence in members)
    return {
        "accuracy": sum(evidence.correct for _, evidence in members) / groups,
        "corrected": sum((one.correct - arm.chance * one.groups) / (1 - arm.chance) for arm, one in members) / groups,
        "effective": sum(evidence.effective for _, evidence in members) / groups,
    }

"""Rewards of several tasks on one scale, for advantage estimators that do not divide by the group's standard deviation.

GRPO divides a group's advantages by the standard deviation of its rewards, so every task has the same weight. RLOO,
REINFORCE++ and GRPO with `norm_adv_by_std_in_grpo=false` (Dr. GRPO, arXiv:2503.20783) do not: a task with all-or-nothing
rewards then has larger advantages than one with graded rewards, and dominates the update. Multiplying a task's rewards by
a factor multiplies its advantages by the same factor and keeps the order within a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ssl4rl_plugin.training.curriculum.evidence import CurriculumArm, Evidence

DISCOUNT = 0.95
"""Factor on old evidence in each step."""
LIMIT = 4.0
"""Largest factor up or down."""


class Balance:
    """The spread of each task's rewards, and the factors that make them equal.

    Args:
        arms: the run's arms.
    """

    def __init__(self, arms: Sequence[CurriculumArm]) -> None:
        self.arms = arms
        self.spread = {arm.task: 0.0 for arm in arms}
        self.groups = {arm.task: 0.0 for arm in arms}

    def observe(self, shown: Mapping[int, Evidence]) -> None:
        """Add one step. Groups whose rewards are all equal have no advantages and do not count."""
        for task in self.spread:
            self.spread[task] *= DISCOUNT
            self.groups[task] *= DISCOUNT
        for number, evidence in shown.items():
            self.spread[self.arms[number].task] += evidence.spread
            self.groups[self.arms[number].task] += evidence.effective

    def scales(self) -> dict[str, float]:
        """Task -> factor for its rewards: mean spread of all tasks over its own, clipped to [1 / LIMIT, LIMIT]."""
        known = {task: self.spread[task] / self.groups[task] for task in self.spread if self.groups[task] >= 1}
        known = {task: spread for task, spread in known.items() if spread > 0}
        if not known:
            return dict.fromkeys(self.spread, 1.0)
        mean = sum(known.values()) / len(known)
        return {task: min(LIMIT, max(1 / LIMIT, mean / known[task])) if task in known else 1.0 for task in self.spread}

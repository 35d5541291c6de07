"""The results of an arm in a training step, and accuracy corrected for chance."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class CurriculumArm:
    """What a policy knows of an arm before the first step."""

    key: str
    """`task:level`, with options if there are any; identifies the arm."""
    label: str
    """`task/level`: the arm's name in metrics."""
    task: str
    rung: int
    """Place among the task's levels, 0 for the easiest; after `ladder`, among the run's arms of the task."""
    chance: float
    """Accuracy of the best blind guesser, in [0, 1)."""
    weight: float
    """The weight that `ssl4rl.tasks` gives it, 0 or more."""


def ladder(arms: Sequence[CurriculumArm]) -> tuple[CurriculumArm, ...]:
    """The same arms, with rungs renumbered 0, 1, 2, ... within each task; their order stays."""
    rungs: dict[int, int] = {}
    for task in {arm.task for arm in arms}:
        same = sorted((arm.rung, number) for number, arm in enumerate(arms) if arm.task == task)
        rungs |= {number: rung for rung, (_, number) in enumerate(same)}
    return tuple(replace(arm, rung=rungs[number]) for number, arm in enumerate(arms))


@dataclass(frozen=True)
class ScoredRollout:
    """One scored rollout."""

    reward: float
    """The reward; NaN if there is none."""
    correct: float
    """1.0 or 0.0."""
    answer: str
    """The answer in canonical form; empty for none."""
    failed: bool
    """The response could not be scored at all."""


@dataclass(frozen=True)
class Evidence:
    """Results of one arm in one step, summed over its prompt groups."""

    groups: int = 0
    """Prompts with at least one scored rollout."""
    answers: int = 0
    """Scored rollouts."""
    correct: float = 0.0
    """Sum over groups of the share of right answers; `correct / groups` is the accuracy."""
    effective: int = 0
    """Groups whose rewards are not all equal: only these have an advantage other than zero."""
    spread: float = 0.0
    """Sum over groups of the standard deviation of rewards."""
    diversity: float = 0.0
    """Sum over groups of the entropy of their answers, as a share of the largest possible one (see `diversity`)."""
    unscored: int = 0
    """Rollouts that failed or have no finite reward; no other field counts them."""

    @classmethod
    def of_group(cls, answers: Iterable[ScoredRollout]) -> Evidence:
        """The evidence of one prompt's rollouts."""
        answers = list(answers)
        scored = [one for one in answers if math.isfinite(one.reward) and math.isfinite(one.correct) and not one.failed]
        unscored = len(answers) - len(scored)
        if not scored:
            return cls(unscored=unscored)
        rewards = np.array([one.reward for one in scored])
        return cls(
            groups=1,
            answers=len(scored),
            correct=sum(one.correct for one in scored) / len(scored),
            effective=int(np.ptp(rewards) > 1e-9),
            spread=float(rewards.std()),
            diversity=diversity([one.answer for one in scored]),
            unscored=unscored,
        )

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def times(self, count: int) -> Evidence:
        """The evidence of `count` copies of these groups."""
        return Evidence(*(count * value for value in vars(self).values()))


def corrected(accuracy: npt.ArrayLike, chance: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Accuracy as a share of the way from chance to perfect: (p - c) / (1 - c), clipped to [0, 1]; element-wise."""
    p, c = np.asarray(accuracy, float), np.asarray(chance, float)
    return np.clip((p - c) / (1 - c), 0.0, 1.0)


def diversity(answers: Sequence[Hashable]) -> float:
    """Shannon entropy of the answers over that of all-different answers, in [0, 1]; 1 for a single answer."""
    if len(answers) < 2:
        return 1.0
    counts = np.unique(np.array([str(answer) for answer in answers]), return_counts=True)[1]
    shares = counts / len(answers)
    return float(max(0.0, -(shares * np.log(shares)).sum()) / math.log(len(answers)))

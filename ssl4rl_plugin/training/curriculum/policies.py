"""Policies: the weight of each arm, from the evidence so far.

Policies use accuracy corrected for chance, called skill: an arm at chance has skill 0. Old evidence fades (by `discount`
each step), so an arm that is not drawn becomes uncertain, is drawn again, and returns if it was forgotten. The prior of a
level comes from the level below it: half of that level's skill. The prior counts for more the more evidence that level
has. So a task starts easy, and a hard level gets few prompts until an easier one is learnt.

A new policy is a subclass of `Policy` and one entry point in the group `ssl4rl.policies`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.registry import Registry
from ssl4rl_plugin.training.curriculum.evidence import CurriculumArm, Evidence, corrected

Array = npt.NDArray[np.float64]

HANDED_UP = 0.2
"""Share of a level's evidence that is added to the weight of the next level's prior."""
HARDER = 0.99
"""Largest skill of a level without evidence, as a share of the skill of the level below."""
DRAWS = 512
"""Thompson draws for one decision: shares are multiples of 1/512."""


class PolicyError(UserError):
    """An unknown policy or option, or a wrong value in `ssl4rl.curriculum`."""


class Policy(ABC):
    """Weights the arms for the next prompts.

    Args:
        arms: the run's arms.
        rollouts: rollouts of a prompt (verl's `rollout.n`).
        options: the policy's own options; `defaults` lists them.

    Raises:
        PolicyError: an option is not one of `defaults`, or is not a number where the default is one.
    """

    defaults: ClassVar[dict[str, Any]] = {}
    """Options with their default values."""
    revisits: ClassVar[bool] = True
    """Whether the director also spreads some prompts evenly over all arms (`ssl4rl.curriculum.revisit`)."""

    def __init__(self, arms: Sequence[CurriculumArm], rollouts: int, options: Mapping[str, Any] | None = None) -> None:
        given = dict(options or {})
        if unknown := sorted(set(given) - set(self.defaults)):
            known = ", ".join(self.defaults) or "none"
            raise PolicyError(f"{type(self).__name__} has no option {', '.join(map(repr, unknown))}; it has: {known}")
        for name, value in given.items():
            if isinstance(self.defaults[name], float) and (
                isinstance(value, bool) or not isinstance(value, int | float)
            ):
                raise PolicyError(f"{type(self).__name__}: {name} must be a number, got {value!r}")
        self.arms = tuple(arms)
        self.rollouts = rollouts
        self.options = {**self.defaults, **given}
        self.chance = np.array([arm.chance for arm in self.arms])
        below = {(arm.task, arm.rung): number for number, arm in enumerate(self.arms)}
        self.below = [below.get((arm.task, arm.rung - 1)) for arm in self.arms]
        """Number of the next easier arm of the same task; None for the easiest."""
        self.order = sorted(range(len(self.arms)), key=lambda number: self.arms[number].rung)
        """Arm numbers, from easy to hard."""

    def observe(self, shown: Mapping[int, Evidence]) -> None:
        """Add one step: the evidence of the arms that it drew, by number. Called once per step."""
        return

    @abstractmethod
    def weights(self, rng: np.random.Generator) -> Array:
        """The weight of each arm, shape (arms,), 0 or more; if all are 0, the weights of `ssl4rl.tasks` hold.

        All randomness comes from `rng`.
        """

    def reasons(self) -> list[str]:
        """The reason for each arm's last weight, in a few words."""
        return [""] * len(self.arms)


class Fixed(Policy):
    """The weights of `ssl4rl.tasks`, always."""

    revisits = False

    def weights(self, rng: np.random.Generator) -> Array:
        return np.array([arm.weight for arm in self.arms])

    def reasons(self) -> list[str]:
        return [f"weight {arm.weight:g}" for arm in self.arms]


class Tracking(Policy):
    """Base of policies that track each arm's accuracy: groups seen and groups solved, both with fading memory."""

    defaults = {"discount": 0.9, "prior": 2.0}
    # discount: factor on old evidence in each step, in (0, 1); 0.9 is a memory of about ten steps.
    # prior: weight of the prior, in prompt groups.

    def __init__(self, arms: Sequence[CurriculumArm], rollouts: int, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(arms, rollouts, options)
        if not 0 < self.options["discount"] < 1 or not self.options["prior"] > 0:
            raise PolicyError(
                f"{type(self).__name__}: discount must be in (0, 1) and prior above 0, got {self.options}"
            )
        self.groups = np.zeros(len(self.arms))
        self.solved = np.zeros(len(self.arms))

    def observe(self, shown: Mapping[int, Evidence]) -> None:
        self.groups *= self.options["discount"]
        self.solved *= self.options["discount"]
        for number, evidence in shown.items():
            self.groups[number] += evidence.groups
            self.solved[number] += evidence.correct

    def beliefs(self) -> tuple[Array, Array]:
        """Parameters (a, b) of a Beta distribution over each arm's raw accuracy.

        Evidence counts by the group, not by the rollout: the rollouts of one prompt are not independent.
        """
        a, b = np.zeros(len(self.arms)), np.zeros(len(self.arms))
        for number in self.order:
            prior, skill = self.options["prior"], 1.0
            if (easier := self.below[number]) is not None:
                known = a[easier] + b[easier]
                prior += HANDED_UP * known
                skill = float(corrected(a[easier] / known, self.chance[easier]))
            guess = self.chance[number] + (1 - self.chance[number]) * skill / 2
            a[number] = self.solved[number] + prior * guess
            b[number] = self.groups[number] - self.solved[number] + prior * (1 - guess)
        return a, b

    def draws(self, rng: np.random.Generator) -> Array:
        """Thompson draws of each arm's skill, shape (DRAWS, arms).

        A level's skill is at most `HARDER` times that of the level below, unless its own evidence shows more. So of levels
        without evidence the easiest comes first, and not the most uncertain one.
        """
        a, b = self.beliefs()
        skill = corrected(rng.beta(a, b, size=(DRAWS, len(self.arms))), self.chance)
        shown = corrected(self.solved / (self.groups + self.options["prior"]), self.chance)
        for number in self.order:
            if (easier := self.below[number]) is not None:
                skill[:, number] = np.maximum(np.minimum(skill[:, number], HARDER * skill[:, easier]), shown[number])
        return skill

    def skill(self) -> Array:
        """Each arm's accuracy, corrected for chance, shape (arms,)."""
        a, b = self.beliefs()
        return corrected(a / (a + b), self.chance)

    def reasons(self) -> list[str]:
        return [
            f"skill {skill:.2f} from {groups:.0f} groups"
            for skill, groups in zip(self.skill(), self.groups, strict=True)
        ]


def _shares_of_best(values: Array) -> Array:
    """Share of the Thompson draws in which each arm is the best; `values` has shape (draws, arms). Ties are split."""
    best = values == values.max(axis=1, keepdims=True)
    return (best / best.sum(axis=1, keepdims=True)).mean(axis=0)


class Goldilocks(Tracking):
    """Thompson sampling on the distance of the skill to `target`: neither too easy nor too hard.

    The target is 1/2 by default. A group's advantages are largest if half of its rollouts succeed (the variance p(1 - p) of
    a Bernoulli reward), as in Foster et al. 2025 (arXiv:2502.12272, learnability), Bae et al. 2025 (arXiv:2504.03380, a
    bound of the improvement by the variance of success) and Florensa et al. 2018 (arXiv:1705.06366, goals of intermediate
    difficulty). A lower target prefers arms with more left to learn. Thompson sampling: Thompson 1933; with fading
    evidence: Raj & Kalyani 2017 (arXiv:1707.09727). Each draw samples the skill of every arm from its belief, and the arm
    nearest to the target wins. An arm's weight is the share of the draws that it wins.
    """

    defaults = {**Tracking.defaults, "target": 0.5}
    # target: skill of the arms that are drawn most, in (0, 1).

    def __init__(self, arms: Sequence[CurriculumArm], rollouts: int, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(arms, rollouts, options)
        if not 0 < self.options["target"] < 1:
            raise PolicyError(f"{type(self).__name__}: target must be in (0, 1), got {self.options['target']}")

    def weights(self, rng: np.random.Generator) -> Array:
        return _shares_of_best(-np.abs(self.draws(rng) - self.options["target"]))


class GradientSignal(Tracking):
    """Weights an arm by the expected share of its groups that have a gradient: 1 - p^n - (1 - p)^n for n rollouts.

    A group whose rollouts all succeed or all fail has no advantage, and DAPO (arXiv:2503.14476) drops it. p is the skill,
    corrected for chance: a blind guesser's groups have advantages too, but nothing to learn from. The expectation is over
    the belief about p.
    """

    def weights(self, rng: np.random.Generator) -> Array:
        skill = self.draws(rng)
        return (1.0 - skill**self.rollouts - (1.0 - skill) ** self.rollouts).mean(axis=0)


class DiversityAware(Goldilocks):
    """Goldilocks with lower weights for arms whose answers have collapsed.

    An arm's weight is multiplied by the mean entropy of the answers within its groups, with the same fading memory as the
    accuracy. PuzzleCraft (arXiv:2512.14944) introduced the diversity of answers as a signal for a curriculum; this measure
    is ours and works for any kind of answer.
    """

    defaults = {**Goldilocks.defaults, "floor": 0.1}
    # floor: smallest factor, for a collapsed arm, in (0, 1].

    def __init__(self, arms: Sequence[CurriculumArm], rollouts: int, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(arms, rollouts, options)
        if not 0 < self.options["floor"] <= 1:
            raise PolicyError(f"DiversityAware: floor must be in (0, 1], got {self.options['floor']}")
        self.spread_out = np.zeros(len(self.arms))

    def observe(self, shown: Mapping[int, Evidence]) -> None:
        super().observe(shown)
        self.spread_out *= self.options["discount"]
        for number, evidence in shown.items():
            self.spread_out[number] += evidence.diversity

    def variety(self) -> Array:
        """Mean entropy of each arm's answers, in [0, 1]; 1 without evidence."""
        prior = self.options["prior"]
        return (self.spread_out + prior) / (self.groups + prior)

    def weights(self, rng: np.random.Generator) -> Array:
        return super().weights(rng) * np.maximum(self.variety(), self.options["floor"])

    def reasons(self) -> list[str]:
        return [
            f"{reason}, variety {variety:.2f}"
            for reason, variety in zip(super().reasons(), self.variety(), strict=True)
        ]


class LearningProgress(Tracking):
    """Thompson sampling on the absolute slope of the skill: arms that change fastest, up or down.

    A slope means that an arm is being learnt or forgotten; an arm that is solved or too hard has none (Oudeyer et al. 2007,
    doi:10.1109/TEVC.2006.890271; Graves et al. 2017, arXiv:1704.03003; Matiisen et al. 2017, arXiv:1707.00183). The slope
    comes from a Bayesian linear regression over the remembered steps, with a normal prior around 0. The prior is narrower
    above levels with low skill. An arm's weight is the share of the draws in which its slope is largest. The unit of a
    slope is the change over the memory of 1 / (1 - discount) steps.
    """

    defaults = {**Tracking.defaults, "width": 0.3}
    # width: standard deviation of the prior on the change over the memory, for the easiest level of a task.

    def __init__(self, arms: Sequence[CurriculumArm], rollouts: int, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(arms, rollouts, options)
        if not self.options["width"] > 0:
            raise PolicyError(f"LearningProgress: width must be above 0, got {self.options['width']}")
        # Sums over remembered steps of weight times 1, t, t^2, y, t y; t is 0 now and -1 one memory ago.
        self.sums = np.zeros((5, len(self.arms)))

    def observe(self, shown: Mapping[int, Evidence]) -> None:
        super().observe(shown)
        discount = self.options["discount"]
        one, t, tt, y, ty = self.sums
        step = 1 - discount
        # Each new step makes every t smaller by `step`.
        self.sums = discount * np.stack([one, t - step * one, tt - 2 * step * t + step**2 * one, y, ty - step * y])
        for number, evidence in shown.items():
            if evidence.groups:
                skill = float((evidence.correct / evidence.groups - self.chance[number]) / (1 - self.chance[number]))
                self.sums[:, number] += [evidence.groups, 0.0, 0.0, evidence.groups * skill, 0.0]

    def slopes(self) -> tuple[Array, Array]:
        """Mean and standard deviation of each arm's slope, shape (arms,)."""
        one, t, tt, y, ty = self.sums
        total = np.maximum(one, 1e-9)
        across = np.maximum(tt - t * t / total, 0.0)
        along = ty - t * y / total
        skill = self.skill()
        raw = self.chance + (1 - self.chance) * skill
        # Variance of one group's accuracy; bounded below, because an estimate of 0 or 1 is uncertain too.
        noise = np.maximum(raw * (1 - raw), 0.02) / (1 - self.chance) ** 2
        ready = np.array([1.0 if easier is None else max(float(skill[easier]), 0.05) for easier in self.below])
        precision = across / noise + 1 / (self.options["width"] * ready) ** 2
        return along / noise / precision, precision**-0.5

    def weights(self, rng: np.random.Generator) -> Array:
        mean, deviation = self.slopes()
        return _shares_of_best(np.abs(rng.normal(mean, deviation, size=(DRAWS, len(self.arms)))))

    def reasons(self) -> list[str]:
        return [
            f"{reason}, change {mean:+.2f} +- {deviation:.2f}"
            for reason, mean, deviation in zip(super().reasons(), *self.slopes(), strict=True)
        ]


class Staged(Tracking):
    """A hand-written curriculum: stages with thresholds. The next stage starts when the skill reaches the threshold.

    Without `stages`, every task moves through its own levels, and the tasks share the prompts evenly. `stages` is a list of
    {arms: [task:level, ...], until: skill}. `until`, here and as an option, is an accuracy corrected for chance. A stage
    draws its arms evenly. Arms of earlier stages share `review` of its prompts. The last stage does not end.
    """

    defaults = {**Tracking.defaults, "stages": None, "until": 0.8, "review": 0.2}

    def __init__(self, arms: Sequence[CurriculumArm], rollouts: int, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(arms, rollouts, options)
        if not 0 <= self.options["review"] < 1:
            raise PolicyError(f"Staged: review must be in [0, 1), got {self.options['review']}")
        self.ladders = self._ladders(self.options["stages"])
        """Independent sequences of stages: arm numbers and threshold of each."""
        self.reached = [0] * len(self.ladders)
        """The stage that each ladder is in."""

    def _ladders(self, given: Any) -> list[list[tuple[list[int], float]]]:
        if given is None:
            until = float(self.options["until"])
            tasks = sorted({arm.task for arm in self.arms})
            return [[([k], until) for k in self.order if self.arms[k].task == task] for task in tasks]
        if not isinstance(given, Sequence) or isinstance(given, str) or not given:
            raise PolicyError(f"Staged: stages must be a list of {{arms: [...], until: ...}}, got {given!r}")
        numbers = {arm.key: number for number, arm in enumerate(self.arms)}
        stages = []
        for stage in given:
            if not isinstance(stage, Mapping) or set(stage) - {"arms", "until"} or not stage.get("arms"):
                raise PolicyError(f"Staged: a stage is {{arms: [...], until: ...}}, got {stage!r}")
            if unknown := [key for key in stage["arms"] if key not in numbers]:
                raise PolicyError(f"Staged: the run has no arm {unknown[0]!r}; it has: {', '.join(numbers)}")
            until = stage.get("until", self.options["until"])
            if isinstance(until, bool) or not isinstance(until, int | float) or not 0 < until <= 1:
                raise PolicyError(f"Staged: until must be in (0, 1], got {until!r}")
            stages.append(([numbers[key] for key in stage["arms"]], float(until)))
        return [stages]

    def observe(self, shown: Mapping[int, Evidence]) -> None:
        super().observe(shown)
        skill = self.skill()
        for number, stages in enumerate(self.ladders):
            arms, until = stages[self.reached[number]]
            seen = all(self.groups[arm] >= self.options["prior"] for arm in arms)
            if seen and self.reached[number] + 1 < len(stages) and float(skill[arms].mean()) >= until:
                self.reached[number] += 1

    def weights(self, rng: np.random.Generator) -> Array:
        found = np.zeros(len(self.arms))
        for stages, reached in zip(self.ladders, self.reached, strict=True):
            now = stages[reached][0]
            past = sorted({arm for arms, _ in stages[:reached] for arm in arms} - set(now))
            review = self.options["review"] if past else 0.0
            found[now] += (1 - review) / len(now)
            if past:
                found[past] += review / len(past)
        return found


policies: Registry[type[Policy]] = Registry("ssl4rl.policies", "policy", base=Policy)
"""All policies by name, from the entry-point group `ssl4rl.policies`."""

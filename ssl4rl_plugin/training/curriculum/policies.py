"""Policies: how much each arm is worth, from what was seen of it.

A policy sees accuracies corrected for chance, so an arm at chance counts as not learnt, whatever its raw accuracy. Old
evidence fades (by `discount` each step), so an arm that is not drawn becomes uncertain again, is looked at again, and
returns if it was forgotten. What is not known is guessed from the ladder: a level is expected to be half as well learnt as
the level below it, the more firmly the more is known of that one; so a task starts easy, and nothing hard is tried for long
before something easier works.

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
"""Of what is known of a level, the share that the guess about the next one counts for."""
HARDER = 0.99
"""How much of the skill of the level below a level has at most, where nothing is known of it."""
DRAWS = 512
"""Thompson draws for one decision: shares are multiples of 1/512."""


class PolicyError(UserError):
    """A policy was given an option that it does not know, or a value that makes no sense."""


class Policy(ABC):
    """Decides by how much each arm is drawn next.

    Args:
        arms: the run's arms.
        rollouts: rollouts of a prompt (verl's `rollout.n`).
        options: the policy's own options; `defaults` lists them.

    Raises:
        PolicyError: an option is not one of `defaults`, or no number where the default is one.
    """

    defaults: ClassVar[dict[str, Any]] = {}
    """Options with their default values."""
    revisits: ClassVar[bool] = True
    """Whether some prompts go to all arms evenly besides (`ssl4rl.curriculum.revisit`)."""

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
        """Take in one step: the evidence of the arms that it drew, by number. Called once a step."""
        return

    @abstractmethod
    def weights(self, rng: np.random.Generator) -> Array:
        """How much each arm is worth now, shape (arms,), 0 or more; all 0 means that nothing is worth more than the rest.

        All randomness comes from `rng`.
        """

    def reasons(self) -> list[str]:
        """Why each arm is worth what `weights` last said, in a few words."""
        return [""] * len(self.arms)


class Fixed(Policy):
    """The weights of `ssl4rl.tasks`, always."""

    revisits = False

    def weights(self, rng: np.random.Generator) -> Array:
        return np.array([arm.weight for arm in self.arms])

    def reasons(self) -> list[str]:
        return [f"weight {arm.weight:g}" for arm in self.arms]


class Tracking(Policy):
    """A policy that keeps an account of each arm's accuracy: groups seen and groups solved, both fading."""

    defaults = {"discount": 0.9, "prior": 2.0}
    # discount: what is left of old evidence after a step, in (0, 1); 0.9 is a memory of about ten steps.
    # prior: prompt groups that the guess from the ladder counts for.

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
        """Thompson draws of each arm's accuracy, corrected for chance, shape (DRAWS, arms).

        A level is taken to be harder than the one below it, unless it has shown otherwise itself: of levels that have shown
        nothing yet, the easiest comes first, and not the one of which least is known.
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
    """How often each arm is the best of a Thompson draw; `values` has shape (draws, arms). Ties are shared."""
    best = values == values.max(axis=1, keepdims=True)
    return (best / best.sum(axis=1, keepdims=True)).mean(axis=0)


class Goldilocks(Tracking):
    """Neither too easy nor too hard: Thompson sampling on the distance of the success rate to 1/2.

    A group's advantages are largest where half of its rollouts succeed (the variance p(1 - p) of a Bernoulli reward), as
    in Foster et al. 2025 (arXiv:2502.12272, learnability) and Florensa et al. 2018 (arXiv:1705.06366, goals of
    intermediate difficulty). Thompson sampling: Thompson 1933; with fading evidence: Raj & Kalyani 2017
    (arXiv:1707.09727). Each draw takes an accuracy of every arm from its belief, and the arm whose chance-corrected accuracy
    is nearest to 1/2 wins; an arm's worth is how often it wins.
    """

    def weights(self, rng: np.random.Generator) -> Array:
        return _shares_of_best(-np.abs(self.draws(rng) - 0.5))


class GradientSignal(Tracking):
    """In proportion to the share of prompt groups that have a gradient at all: 1 - p^n - (1 - p)^n for n rollouts.

    A group whose rollouts all succeed or all fail has no advantage, and DAPO (arXiv:2503.14476) drops it. p is corrected for
    chance here: a blind guesser's groups have advantages too, but there is nothing in them. The mean is
    taken over what is believed of p.
    """

    def weights(self, rng: np.random.Generator) -> Array:
        skill = self.draws(rng)
        return (1.0 - skill**self.rollouts - (1.0 - skill) ** self.rollouts).mean(axis=0)


class DiversityAware(Goldilocks):
    """Goldilocks, with arms worth less whose answers have collapsed onto few.

    An arm's worth is multiplied by the entropy of the answers within its groups, relative to where all arms stand, with a
    memory like that of the accuracy. The idea to steer a curriculum by the diversity of answers and not by accuracy alone
    is PuzzleCraft's (arXiv:2512.14944); the measure is ours and knows nothing of permutations.
    """

    defaults = {**Tracking.defaults, "floor": 0.1}
    # floor: what a collapsed arm keeps of its worth, in (0, 1].

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
        """Mean entropy of each arm's answers, in [0, 1]; 1 where nothing was seen."""
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
    """Where accuracy changes fastest, up or down: Thompson sampling on the slope.

    The absolute slope of an arm's accuracy says that it is being learnt, or being forgotten; an arm that is solved or too
    hard has none (Oudeyer et al. 2007, doi:10.1109/TEVC.2006.890271; Graves et al. 2017, arXiv:1704.03003; Matiisen et al.
    2017, arXiv:1707.00183). The slope is that of a Bayesian linear regression over the remembered steps with a normal prior
    around 0, whose width follows the ladder as in `Tracking`; an arm's worth is how often its draw is the largest. Slopes
    are changes over the memory of 1 / (1 - discount) steps.
    """

    defaults = {**Tracking.defaults, "width": 0.3}
    # width: standard deviation of the prior on the change over the memory, for the easiest level of a task.

    def __init__(self, arms: Sequence[CurriculumArm], rollouts: int, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(arms, rollouts, options)
        if not self.options["width"] > 0:
            raise PolicyError(f"LearningProgress: width must be above 0, got {self.options['width']}")
        # Sums over remembered steps of weight times 1, t, t^2, y, t y, with t = 0 now and -1 a memory ago.
        self.sums = np.zeros((5, len(self.arms)))

    def observe(self, shown: Mapping[int, Evidence]) -> None:
        super().observe(shown)
        discount = self.options["discount"]
        one, t, tt, y, ty = self.sums
        step = 1 - discount
        # A step later every t is smaller by `step`.
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
        # Of one group's accuracy; never 0, since an accuracy of 0 or 1 so far proves nothing.
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
    """Stages with thresholds, the curriculum that most people write by hand: the next stage starts when this one is learnt.

    Without `stages`, every task climbs its own levels, and the tasks share the prompts evenly. `stages` is a list of
    {arms: [task:level, ...], until: skill}; `until`, here and as an option, is an accuracy corrected for chance.
    A stage draws its arms evenly; arms of earlier stages share `review` of its prompts; the last stage does not end.
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

"""Synthetic learners: compare policies in seconds instead of days.

A learner has one ability for each task, and each level has a difficulty, as in item response theory (Rasch 1960): accuracy
is `c + (1 - c) * sigmoid(ability - difficulty)` with chance c. A prompt group raises the ability by `rate` times its signal
4 q (1 - q), where q is the chance-corrected accuracy; the signal is in proportion to the variance of the reward beyond
guessing, which a policy gradient learns from. Part of the gain reaches other tasks (`transfer`), abilities decay towards
their start (`forgetting`), and a task can be unlearnable. The model is crude: it tests whether a policy finds and follows
the frontier under noise, and does not predict the gain for a real model.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ssl4rl_plugin.training.curriculum.director import CurriculumSettings, Director
from ssl4rl_plugin.training.curriculum.evidence import CurriculumArm, Evidence, ScoredRollout, corrected, ladder
from ssl4rl_plugin.training.curriculum.policies import Array
from ssl4rl_plugin.training.curriculum.schedule import Schedule


@dataclass(frozen=True)
class SimulatedTask:
    """One task of a synthetic world."""

    name: str
    difficulties: tuple[float, ...]
    """Difficulty of each level, from easy to hard, in logits."""
    chance: float = 0.25
    ability: float = 0.0
    """The learner's ability at the start, in logits."""
    rate: float = 0.002
    """Logits gained from a prompt group with full signal; 0 for an unlearnable task."""


@dataclass(frozen=True)
class World:
    """Tasks, and how learning one changes the others."""

    tasks: tuple[SimulatedTask, ...]
    transfer: float = 0.1
    """Share of a gain that every other learnable task gets."""
    forgetting: float = 0.001
    """Share of the gained ability that is lost in each step."""
    prompts: int = 64
    """Prompts per step."""
    rollouts: int = 8
    """Rollouts per prompt."""

    def arms(self) -> tuple[CurriculumArm, ...]:
        """The arms, task by task, from easy to hard."""
        return ladder(
            [
                CurriculumArm(f"{task.name}:{level}", f"{task.name}/{level}", task.name, level, task.chance, 1.0)
                for task in self.tasks
                for level in range(len(task.difficulties))
            ]
        )


MIXED = World(
    tasks=(
        SimulatedTask("solved", (-6.0, -5.0), ability=1.0),
        SimulatedTask("near", (0.0, 2.0, 4.0, 6.0)),
        SimulatedTask("far", (3.0, 5.0, 7.0, 9.0), rate=0.003),
        SimulatedTask("steep", (1.0, 6.0), chance=0.5),
        SimulatedTask("impossible", (8.0, 12.0), rate=0.0),
    )
)
"""One task of each kind: solved from the start, starting near, starting far, with a gap between levels, unlearnable."""


class Learner:
    """A synthetic learner in a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.task = np.array([k for k, task in enumerate(world.tasks) for _ in task.difficulties])
        self.difficulty = np.array([d for task in world.tasks for d in task.difficulties])
        self.chance = np.array([task.chance for task in world.tasks])[self.task]
        self.start = np.array([task.ability for task in world.tasks])
        self.rate = np.array([task.rate for task in world.tasks])
        self.ability = self.start.copy()

    def accuracy(self, ability: Array | None = None) -> Array:
        """Accuracy on every arm, shape (arms,)."""
        ability = self.ability if ability is None else ability
        return self.chance + (1 - self.chance) / (1 + np.exp(self.difficulty - ability[self.task]))

    def skill(self, ability: Array | None = None) -> float:
        """Mean chance-corrected accuracy over all arms."""
        return float(corrected(self.accuracy(ability), self.chance).mean())

    def after(self, groups: Array) -> Array:
        """Abilities after a step with `groups` prompt groups of each arm (shape (arms,))."""
        skill = corrected(self.accuracy(), self.chance)
        signal = np.bincount(self.task, groups * 4 * skill * (1 - skill), len(self.rate))
        gain = self.rate * signal
        shared = self.world.transfer * (gain.sum() - gain) * (self.rate > 0)
        learnt: Array = self.ability + gain + shared
        return learnt - self.world.forgetting * (learnt - self.start)

    def train(self, groups: Array) -> None:
        """One training step."""
        self.ability = self.after(groups)


@dataclass(frozen=True)
class Simulated:
    """One simulated run."""

    skill: Array
    """Mean chance-corrected accuracy before training and after each step, shape (steps + 1,)."""
    shares: Array
    """Share of the prompts of each arm in each step, shape (steps, arms)."""
    arms: tuple[CurriculumArm, ...] = field(default=())

    def steps_to(self, skill: float) -> float:
        """Steps until the skill is first reached; infinity if never."""
        reached = np.flatnonzero(self.skill >= skill)
        return float(reached[0]) if len(reached) else float("inf")


def simulate(world: World, settings: CurriculumSettings, steps: int, seed: int, lag: int = 0) -> Simulated:
    """Train a learner with a policy, using the director and schedule of real runs.

    Args:
        world: the tasks.
        settings: the curriculum.
        steps: training steps.
        seed: seed of policy and learner.
        lag: steps until a decision takes effect, as with a data loader's workers.
    """
    arms, learner = world.arms(), Learner(world)
    director = Director(settings, arms, world.rollouts, seed)
    schedule = Schedule(len(arms), seed)
    schedule.announce(0, director.probabilities())
    rng = np.random.default_rng([seed, 1])
    skill, shares = [learner.skill()], []
    for step in range(steps):
        rows = range(step * world.prompts, (step + 1) * world.prompts)
        drawn = np.bincount([schedule.draw(row).arm for row in rows], minlength=len(arms))
        accuracy = learner.accuracy()
        shown = {}
        for number in np.flatnonzero(drawn):
            right = rng.binomial(world.rollouts, accuracy[number], drawn[number])
            shown[int(number)] = _evidence(right, world.rollouts)
        learner.train(drawn.astype(float))
        director.observe(shown)
        schedule.announce((step + 1 + lag) * world.prompts, director.probabilities())
        skill.append(learner.skill())
        shares.append(drawn / world.prompts)
    return Simulated(np.array(skill), np.array(shares), arms)


def _evidence(right: Array, rollouts: int) -> Evidence:
    """Evidence of groups; `right` is the number of right answers in each."""
    counts = np.bincount(right.astype(int), minlength=rollouts + 1)
    parts = (group.times(int(count)) for group, count in zip(_groups(rollouts), counts, strict=True) if count)
    return sum(parts, start=Evidence())


@functools.lru_cache
def _groups(rollouts: int) -> tuple[Evidence, ...]:
    """Evidence of one group with 0, 1, ... right answers."""
    return tuple(
        Evidence.of_group(
            ScoredRollout(float(k < n), float(k < n), "right" if k < n else "wrong", False) for k in range(rollouts)
        )
        for n in range(rollouts + 1)
    )


def oracle(world: World, steps: int, ahead: int = 40) -> Simulated:
    """A greedy reference policy that knows the learner's state.

    Each step trains one level: of the task that would raise the mean skill most if trained alone for `ahead` steps, the
    level with the largest signal.
    """
    learner, trial, arms = Learner(world), Learner(world), world.arms()
    one_hot = np.eye(len(arms))

    def best_level(of: Learner, task: int) -> int:
        skill = corrected(of.accuracy(), of.chance)
        return int(np.argmax(np.where(of.task == task, skill * (1 - skill), -1.0)))

    skill, shares = [learner.skill()], []
    for _ in range(steps):
        gains = []
        for task in range(len(world.tasks)):
            trial.ability = learner.ability
            for _ in range(ahead):
                trial.train(world.prompts * one_hot[best_level(trial, task)])
            gains.append(trial.skill())
        best = one_hot[best_level(learner, int(np.argmax(gains)))]
        learner.train(world.prompts * best)
        skill.append(learner.skill())
        shares.append(best)
    return Simulated(np.array(skill), np.array(shares), arms)


def rollouts_to_target(runs: Sequence[Simulated], target: float, world: World) -> Array:
    """Rollouts until each run reaches the skill `target`, shape (runs,); infinity if never."""
    return np.array([run.steps_to(target) for run in runs]) * world.prompts * world.rollouts

"""From a policy's weights to the probabilities that arms are drawn with: warm-up, revisiting, floors and ceilings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass

from ssl4rl_plugin.core.registry import RegistryError
from ssl4rl_plugin.core.seeding import digest
from ssl4rl_plugin.training.config_model import STRICT, explained
from ssl4rl_plugin.training.curriculum.evidence import CurriculumArm, Evidence
from ssl4rl_plugin.training.curriculum.policies import Array, Policy, PolicyError, policies

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=STRICT)
class CurriculumSettings:
    """`ssl4rl.curriculum`; `Director` checks it against the run's tasks."""

    policy: str
    """A name from the entry-point group `ssl4rl.policies`."""
    options: dict[str, Any] = field(default_factory=dict)
    """The policy's own options."""
    warm_up: Annotated[int, Field(ge=0)] = 0
    """Steps at the start in which arms are drawn by the weights of `ssl4rl.tasks`."""
    revisit: Share = 0.1
    """Share of the prompts that all arms get evenly with every policy, in [0, 1], so that no arm goes unobserved."""
    floors: dict[str, Share] = field(default_factory=dict)
    """Task -> least share of the prompts."""
    ceilings: dict[str, Share] = field(default_factory=dict)
    """Task -> greatest share of the prompts."""
    balance: bool = False
    """Scale each task's rewards so that all tasks have the same spread within groups (see `balance`)."""

    @classmethod
    def from_config(cls, value: Any) -> CurriculumSettings | None:
        """Read `ssl4rl.curriculum`: null, a policy's name, or a mapping with `policy` and what differs from the defaults.

        Keys other than the fields above are the policy's options. Raises PolicyError.
        """
        if value is None:
            return None
        if isinstance(value, str):
            value = {"policy": value}
        if not isinstance(value, Mapping) or not isinstance(value.get("policy"), str):
            raise PolicyError(
                f"ssl4rl.curriculum must be a policy's name ({', '.join(policies.names())}) or a mapping with `policy`, "
                f"got {value!r}"
            )
        own = {"policy", "warm_up", "revisit", "floors", "ceilings", "balance"}
        section = {key: entry for key, entry in value.items() if key in own and entry is not None}
        try:
            return cls(**section, options={key: entry for key, entry in value.items() if key not in own})
        except ValidationError as error:
            raise PolicyError(explained(error, "ssl4rl.curriculum")) from None


class Director:
    """Turns each step's evidence into the probabilities of the next prompts' arms.

    Its state depends only on the settings and on the calls of `observe`, so replaying a run's journal restores it. A
    single arm always has probability 1.

    Args:
        settings: which policy, and its bounds.
        arms: the run's arms.
        rollouts: rollouts of a prompt.
        seed: of the run.

    Raises:
        PolicyError: an unknown policy or option, or floors and ceilings that contradict each other.
    """

    def __init__(self, settings: CurriculumSettings, arms: Sequence[CurriculumArm], rollouts: int, seed: int) -> None:
        try:
            policy: type[Policy] = policies.get(settings.policy)
        except RegistryError as error:
            raise PolicyError(f"ssl4rl.curriculum: {error}") from error
        self.settings = settings
        self.arms = tuple(arms)
        self.seed = seed
        self.steps = 0
        """Steps observed so far."""
        self.policy = policy(self.arms, rollouts, settings.options)
        self.tasks = sorted({arm.task for arm in self.arms})
        for name in ("floors", "ceilings"):
            if unknown := sorted(set(getattr(settings, name)) - set(self.tasks)):
                raise PolicyError(
                    f"ssl4rl.curriculum.{name}: the run has no task {unknown[0]!r}; it has: {', '.join(self.tasks)}"
                )
        floors, ceilings = self._bounds()
        if floors.sum() > 1 + 1e-9 or ceilings.sum() < 1 - 1e-9 or np.any(floors > ceilings):
            raise PolicyError(
                f"ssl4rl.curriculum: floors {dict(settings.floors)} and ceilings {dict(settings.ceilings)} cannot all be "
                "kept: floors must add up to 1 at most, ceilings (1 where none is given) to 1 at least"
            )

    def observe(self, shown: Mapping[int, Evidence]) -> None:
        """Add one step: evidence by arm number, for the arms that it drew."""
        self.policy.observe(shown)
        self.steps += 1

    def probabilities(self) -> Array:
        """Probability of each arm for the next prompts, shape (arms,), sum 1. Constant between two calls of `observe`."""
        given = np.array([arm.weight for arm in self.arms])
        weights = given
        if self.steps >= self.settings.warm_up:
            seed = int.from_bytes(digest(self.seed, "curriculum", self.steps)[:8], "big")
            weights = np.asarray(self.policy.weights(np.random.Generator(np.random.PCG64(seed))), float)
            if weights.shape != given.shape or not np.all(np.isfinite(weights)) or np.any(weights < 0):
                raise PolicyError(
                    f"policy {self.settings.policy!r} gave weights {weights}, not {len(given)} numbers from 0"
                )
        if weights.sum() <= 0:
            weights = given
        shares = weights / weights.sum()
        if self.steps >= self.settings.warm_up and self.policy.revisits:
            shares = (1 - self.settings.revisit) * shares + self.settings.revisit / len(self.arms)
        return self._bounded(shares)

    def reasons(self) -> list[str]:
        """The reason for each arm's last probability, in a few words."""
        if self.steps < self.settings.warm_up:
            return [f"warm-up, step {self.steps + 1} of {self.settings.warm_up}"] * len(self.arms)
        return self.policy.reasons()

    def _bounds(self) -> tuple[Array, Array]:
        floors = np.array([float(self.settings.floors.get(task, 0.0)) for task in self.tasks])
        ceilings = np.array([float(self.settings.ceilings.get(task, 1.0)) for task in self.tasks])
        return floors, ceilings

    def _bounded(self, shares: Array) -> Array:
        """Shares with each task's sum clipped to its floor and ceiling; within a task, proportions stay."""
        if not self.settings.floors and not self.settings.ceilings:
            return shares / shares.sum()
        floors, ceilings = self._bounds()
        member = np.array([self.tasks.index(arm.task) for arm in self.arms])
        wanted = np.bincount(member, shares, len(self.tasks))
        # The sum of clip(scale * wanted) grows with the scale: find the one that makes it 1.
        wanted = np.maximum(wanted, 1e-12)
        low, high = 0.0, 1.0 / wanted.min()
        for _ in range(200):
            scale = (low + high) / 2
            low, high = (scale, high) if np.clip(scale * wanted, floors, ceilings).sum() < 1 else (low, scale)
        totals = np.clip(high * wanted, floors, ceilings)
        before = np.bincount(member, shares, len(self.tasks))
        size = np.bincount(member, minlength=len(self.tasks))
        within = np.where(before[member] > 0, shares / np.where(before > 0, before, 1)[member], 1 / size[member])
        found: Array = totals[member] * within
        return found / found.sum()

"""Training rows whose arms a curriculum chooses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ssl4rl_plugin.training.curriculum import schedule
from ssl4rl_plugin.training.curriculum.director import CurriculumSettings, Director
from ssl4rl_plugin.training.curriculum.schedule import Schedule
from ssl4rl_plugin.training.settings import curriculum_arms

if TYPE_CHECKING:
    from ssl4rl_plugin.data.rows import OnlineRows, Row
    from ssl4rl_plugin.training.stored_rows import StoredRows


class SteeredRows:
    """Rows whose arms come from a schedule.

    Args:
        rows: the run's own rows, made on the fly or built.
        settings: the curriculum, saved in checkpoints.
        decisions: the schedule.
    """

    def __init__(self, rows: OnlineRows | StoredRows, settings: CurriculumSettings, decisions: Schedule) -> None:
        self.rows = rows
        self.settings = settings
        self.schedule = decisions

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        drawn = self.schedule.draw(index)
        return self.rows.of_arm(index, drawn.arm, drawn.use)

    def probes(self) -> Iterator[Row]:
        """A few rows, drawn as without a curriculum."""
        return self.rows.probes()

    def state(self) -> dict[str, Any]:
        return {**self.rows.state(), "curriculum": asdict(self.settings)}


def steered(rows: OnlineRows | StoredRows, settings: CurriculumSettings, seed: int) -> SteeredRows:
    """Rows that follow the schedule of this process's sampler.

    Without a sampler (outside of a training run), they follow the curriculum's first decision.
    """
    decisions = schedule.current()
    if decisions is None:
        arms = curriculum_arms(rows.arms)
        decisions = Schedule(len(arms), seed)
        decisions.announce(0, Director(settings, arms, rollouts=1, seed=seed).probabilities())
    return SteeredRows(rows, settings, decisions)

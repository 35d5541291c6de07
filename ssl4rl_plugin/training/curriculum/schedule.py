"""The director's decisions for the dataset: probabilities of the arms, each from some row on.

Row i of the training stream belongs to the last decision that starts at or before i. Its arm depends only on that decision
and on i. A decision starts behind every row that a data loader's worker may already have fetched, so the arms are the same
after a restart. More workers only delay decisions.

Within a decision the arms follow a Kronecker sequence (multiples of the golden ratio, modulo 1). Any stretch of rows then
has each arm in nearly its share, with less scatter than independent draws.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ssl4rl_plugin.core.seeding import unit_for

GOLDEN = (5**0.5 - 1) / 2
CAPACITY = 4096
"""Decisions in the table. A loader can be only two decisions per worker behind."""
BLOCK = 4096
"""Rows of a decision whose arms are cached."""


class ScheduleError(RuntimeError):
    """The decision for a row is not in the table: a bug, since a loader is never that far behind."""


@dataclass(frozen=True)
class ScheduledArm:
    """The arm of a row."""

    arm: int
    """Number of the arm."""
    use: int
    """Number of earlier rows with the same arm."""


class Schedule:
    """The decisions so far, in memory shared with the data loader's worker processes.

    Args:
        arms: number of arms.
        seed: of the run.
    """

    def __init__(self, arms: int, seed: int) -> None:
        self.arms = arms
        self.seed = seed
        # Each row of the table: first row of the stream, probability of each arm, earlier uses of each arm.
        self._table = torch.zeros((CAPACITY, 1 + 2 * arms), dtype=torch.float64).share_memory_()
        self._count = torch.zeros(1, dtype=torch.int64).share_memory_()

    def announce(self, start: int, probabilities: npt.ArrayLike) -> None:
        """From row `start` on, draw arms with these probabilities (shape (arms,), sum 1).

        Raises ValueError if they are no probabilities, or if `start` is before the last decision's start.
        """
        shares = np.asarray(probabilities, float)
        if shares.shape != (self.arms,) or not (np.all(shares >= 0) and abs(shares.sum() - 1) < 1e-6):
            raise ValueError(f"not probabilities of {self.arms} arms: {shares.tolist()}")
        count = self._decisions
        uses = np.zeros(self.arms)
        if count:
            last, _, uses = self._entry(count - 1)
            if start < last:
                raise ValueError(f"a decision from row {start} after one from row {last}")
            drawn = self._arms(count - 1, start - last)
            uses = uses + np.bincount(drawn, minlength=self.arms)
        self._table.numpy()[count % CAPACITY] = np.concatenate([[start], shares, uses])
        self._count.numpy()[0] += 1  # last, so that readers see complete decisions only

    def draw(self, row: int) -> ScheduledArm:
        """The arm of row `row` of the stream. Raises ScheduleError if its decision is not known."""
        count = self._decisions
        for number in range(count - 1, max(-1, count - 1 - CAPACITY), -1):
            if self._start(number) <= row:
                break
        else:
            raise ScheduleError(f"no decision for row {row} (of {count} decisions the last {CAPACITY} are kept)")
        start, _, uses = self._entry(number)
        place = row - start
        arms = self._arms(number, place + 1)
        arm = int(arms[place])
        return ScheduledArm(arm, int(uses[arm]) + int((arms[:place] == arm).sum()))

    @property
    def _decisions(self) -> int:
        return int(self._count.numpy()[0])

    def _start(self, number: int) -> int:
        return int(self._table.numpy()[number % CAPACITY, 0])

    def _entry(self, number: int) -> tuple[int, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        values = self._table.numpy()[number % CAPACITY].copy()
        return int(values[0]), values[1 : 1 + self.arms], values[1 + self.arms :]

    def _arms(self, number: int, rows: int) -> npt.NDArray[np.int64]:
        """The arms of the first `rows` rows of a decision."""
        return self._sequence(number, BLOCK)[:rows] if rows <= BLOCK else self._sequence(number, rows)

    @functools.lru_cache(maxsize=8)  # noqa: B019 -- the schedule lives as long as its run
    def _sequence(self, number: int, rows: int) -> npt.NDArray[np.int64]:
        start, shares, _ = self._entry(number)
        points = (unit_for(self.seed, "curriculum", start) + GOLDEN * np.arange(rows)) % 1.0
        # Only arms with a share can be drawn, even if rounding puts a point behind the last end.
        possible = np.flatnonzero(shares > 0)
        ends = np.cumsum(shares[possible])
        return possible[np.minimum(np.searchsorted(ends, points, side="right"), len(possible) - 1)]


_current: Schedule | None = None


def publish(schedule: Schedule | None) -> None:
    """Make `schedule` visible to the dataset: verl creates the sampler first, then the dataset, in the same process."""
    global _current
    _current = schedule


def current() -> Schedule | None:
    """The schedule published by this process's sampler; None if there is none."""
    return _current

"""Answers that are one or several small whole numbers."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ssl4rl_plugin.core import Grader
from ssl4rl_plugin.grading.text import MAX_ANSWER_CHARS, strip_form


@dataclass(frozen=True)
class Counts(Grader[tuple[int, ...]]):
    """How many there are of each of `kinds` things, in that order: `3` or `2, 0, 5`.

    Every count is uniform in `low`..`high` (whole numbers from 0) and independent of the others. A partly right answer
    is graded by the mean of 1 - |a - b| / max(a, b), as counting rewards of VideoSSR (arXiv 2511.06281) use the
    relative error; two zeros agree.
    """

    kinds: int
    low: int
    high: int

    def __post_init__(self) -> None:
        if not (1 <= self.kinds <= 6 and 0 <= self.low < self.high <= 99):
            raise ValueError(f"expected 1 to 6 kinds and 0 <= low < high <= 99, got {self}")

    @property
    def chance_accuracy(self) -> float:
        return (self.high - self.low + 1.0) ** -self.kinds

    @property
    def chance_similarity(self) -> float:
        return self._best[0]

    @cached_property
    def _best(self) -> tuple[float, int]:
        """Mean similarity of the best constant count, and that count: the kinds are alike and independent."""
        numbers = range(self.low, self.high + 1)
        return max((sum(_alike(guess, n) for n in numbers) / len(numbers), guess) for guess in numbers)

    @property
    def best_guess(self) -> tuple[int, ...]:
        return (self._best[1],) * self.kinds

    def parse(self, text: str) -> tuple[int, ...] | None:
        if len(text) > MAX_ANSWER_CHARS:
            return None
        parts = [part for part in re.split(r"[\s,;]+", strip_form(text)) if part]
        if len(parts) != self.kinds or not all(re.fullmatch("[0-9]{1,2}", part) for part in parts):
            return None
        numbers = tuple(int(part) for part in parts)
        return numbers if all(self.low <= n <= self.high for n in numbers) else None

    def equal(self, value: tuple[int, ...], truth: Any) -> bool:
        return value == tuple(truth)

    def similarity(self, value: tuple[int, ...], truth: Any) -> float:
        return sum(map(_alike, value, truth)) / self.kinds

    def render(self, truth: Any) -> str:
        return ", ".join(map(str, truth))

    @property
    def is_choice(self) -> bool:
        return self.kinds == 1

    def values(self) -> Iterator[tuple[int, ...]]:
        return itertools.product(range(self.low, self.high + 1), repeat=self.kinds)

    def draw(self, rng: random.Random) -> tuple[int, ...]:
        return tuple(rng.randint(self.low, self.high) for _ in range(self.kinds))

    def parts(self, value: Any) -> dict[str, int]:
        return {f"count {number}": count for number, count in enumerate(value, 1)}


def _alike(a: int, b: int) -> float:
    return 1.0 if a == b else 1.0 - abs(a - b) / max(a, b)

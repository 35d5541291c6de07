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
from ssl4rl_plugin.grading.text import normalise


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
    names: tuple[str, ...] = ()
    """What is counted, in the order of the answer; an answer that names every count may give them in another order."""

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
        plain = normalise(text)
        pairs = _numbers_and_names(plain) if plain else None
        if pairs is None or len(pairs) != self.kinds:
            return None
        names = [_singular(name) for _, name in pairs]
        if any(names):
            if self.kinds == 1 and names[0] in UNITS:
                pass
            elif self.names and sorted(names) == sorted(map(_singular, self.names)):
                pairs = [pairs[names.index(_singular(name))] for name in self.names]
            else:
                return None  # an unknown name, or names that say nothing about the order
        numbers = tuple(number for number, _ in pairs)
        return numbers if all(self.low <= n <= self.high for n in numbers) else None

    def equal(self, value: tuple[int, ...], truth: Any) -> bool:
        return value == tuple(truth)

    def similarity(self, value: tuple[int, ...], truth: Any) -> float:
        return sum(map(_alike, value, truth)) / self.kinds

    def render(self, truth: Any) -> str:
        return ", ".join(map(str, truth))

    def forms(self, value: Any) -> dict[str, str]:
        found = {"as the prompt asks": self.render(value), "list": f"[{self.render(value)}]"}
        if self.kinds == 1:
            return found | {"unit": f"{value[0]} objects"}
        found |= {
            "semicolons": "; ".join(map(str, value)),
            "and": " and ".join((", ".join(map(str, value[:-1])), str(value[-1]))),
        }
        if self.names:
            pairs = list(zip(value, self.names, strict=True))
            behind = [f"{count} {name}" for count, name in pairs]
            found |= {"names behind": ", ".join(behind), "names in another order": ", ".join(behind[::-1])}
            found |= {"names in front": ", ".join(f"{name}: {count}" for count, name in pairs)}
        return found

    @property
    def is_choice(self) -> bool:
        return self.kinds == 1

    def values(self) -> Iterator[tuple[int, ...]]:
        return itertools.product(range(self.low, self.high + 1), repeat=self.kinds)

    def draw(self, rng: random.Random) -> tuple[int, ...]:
        return tuple(rng.randint(self.low, self.high) for _ in range(self.kinds))

    def parts(self, value: Any) -> dict[str, int]:
        return {f"count {number}": count for number, count in enumerate(value, 1)}


UNITS = frozenset((
    "object", "item", "thing", "shape", "circle", "square", "triangle", "star", "cross", "node", "vertex",
    "vertice", "edge", "link", "step", "hop", "neighbour", "neighbor", "component", "group", "part", "piece",
    "time", "appearance",
))  # fmt: skip
"""Names, in the singular, that may stand beside a single count."""

_PAIR = re.compile(
    r"[ ]*(?:(?P<before>[A-Za-z]{1,20})[ ]?[:=][ ]?)?(?P<number>[0-9]{1,2})(?![\w.])(?:[ ](?P<behind>[A-Za-z]{1,20}))?[ ]*"
)


def _singular(name: str) -> str:
    return name.casefold().removesuffix("s") if not name.casefold().endswith("ss") else name.casefold()


def _numbers_and_names(text: str) -> list[tuple[int, str]] | None:
    """`2 circles, 0` as [(2, "circles"), (0, "")]; None for any other text."""
    found = []
    parts = re.split(r"[,;\n]|(?:,[ ]*)?\band\b", text)
    if len(parts) == 1 and re.fullmatch(r"[0-9]{1,2}(?:[ ]+[0-9]{1,2})*", text):
        parts = text.split()
    for part in (part for part in parts if part.strip()):
        match = _PAIR.fullmatch(part)
        if match is None or (match["before"] and match["behind"]):
            return None
        found.append((int(match["number"]), match["before"] or match["behind"] or ""))
    return found


def _alike(a: int, b: int) -> float:
    return 1.0 if a == b else 1.0 - abs(a - b) / max(a, b)

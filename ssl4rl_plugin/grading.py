"""Graders: how the text of an answer becomes a value, and how close that value is to the truth.

A task picks one of these and says no more about scoring. Every grader first decides whether the text is a possible
answer at all (`parse` returns None if not: a permutation that is no permutation is worth nothing), is forgiving about
form only (case, spaces, brackets, `90°`, `Top Left`), and knows what a guesser who sees nothing gets, so that rewards
of different tasks can be put on one scale.

All of them assume that the truth is drawn uniformly from the possible answers; a test over the whole registry checks
that no constant answer does better than `chance_accuracy` and `chance_similarity` say.
"""

from __future__ import annotations

import itertools
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

ValueT = TypeVar("ValueT")

MAX_ANSWER_CHARS = 1000
"""Longer answer texts are invalid unread: no task needs them, and a hostile one must not cost time."""

_BRACKETS = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'", "`": "`", "$": "$", "*": "*"}


def strip_form(text: str) -> str:
    r"""Remove what is form and not content: outer white space, matched outer brackets, quotes or emphasis, a final stop,
    and the LaTeX of `90^\circ` and `\text{center}`."""
    text = text[: MAX_ANSWER_CHARS + 1].strip()
    text = text.replace(r"^{\circ}", "°").replace(r"^\circ", "°")
    if text.endswith("}") and text.startswith((r"\text{", r"\mathrm{")):
        text = text[text.index("{") + 1 : -1].strip()
    for _ in range(8):  # a bounded number of layers keeps hostile input linear
        if len(text) >= 2 and _BRACKETS.get(text[0]) == text[-1]:
            text = text[1:-1].strip()
        elif text.endswith((".", ",", ";")):
            text = text[:-1].rstrip()
        else:
            break
    return text


class Grader(ABC, Generic[ValueT]):
    """Reads and grades the answers of one task at one level."""

    @property
    @abstractmethod
    def chance_accuracy(self) -> float:
        """Share of questions that the best blind guesser answers correctly, in (0, 1]."""

    @property
    @abstractmethod
    def chance_similarity(self) -> float:
        """Mean similarity of the best blind guesser, in [0, 1)."""

    @abstractmethod
    def parse(self, text: str) -> ValueT | None:
        """The value that the text states, or None if it states no possible answer. Never raises."""

    @abstractmethod
    def similarity(self, value: ValueT, truth: Any) -> float:
        """Closeness of a valid value to the truth, in [0, 1]."""

    @abstractmethod
    def render(self, truth: Any) -> str:
        """The truth as answer text; `parse(render(truth))` equals it."""

    @abstractmethod
    def values(self) -> Iterator[ValueT]:
        """Every possible answer, in a fixed order (lazily: there are 16! orders of 16 tiles)."""

    def equal(self, value: ValueT, truth: Any) -> bool:
        """Whether the value is the truth."""
        return bool(value == truth)


@dataclass(frozen=True)
class Choice(Grader[str]):
    """Exactly one of a few labels; no partial credit.

    Args:
        labels: the possible answers, as they are written in prompts, e.g. `("top-left", "top-right")`.
        aliases: other spellings of a label, e.g. `{"upper left": "top-left"}`. Case, hyphens, underscores and repeated
            spaces never matter.
    """

    labels: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)

    @cached_property
    def _lookup(self) -> dict[str, str]:
        table = {self._normal(label): label for label in self.labels}
        if len(table) != len(self.labels) or len(table) < 2:
            raise ValueError(f"labels must be at least two and distinct, got {self.labels}")
        return table | {self._normal(alias): label for alias, label in self.aliases.items()}

    @staticmethod
    def _normal(text: str) -> str:
        return " ".join(text.casefold().replace("-", " ").replace("_", " ").split())

    @property
    def chance_accuracy(self) -> float:
        return 1.0 / len(self.labels)

    @property
    def chance_similarity(self) -> float:
        return self.chance_accuracy

    def parse(self, text: str) -> str | None:
        if len(text) > MAX_ANSWER_CHARS:
            return None
        text = strip_form(text)
        found = self._lookup.get(self._normal(text))
        if found is None and text.endswith((")", ":")):  # a list marker: "B)" or "B:"
            found = self._lookup.get(self._normal(text[:-1]))
        return found

    def similarity(self, value: str, truth: Any) -> float:
        return 1.0 if value == truth else 0.0

    def render(self, truth: Any) -> str:
        return str(truth)

    def values(self) -> Iterator[str]:
        return iter(self.labels)


@dataclass(frozen=True)
class Angle(Grader[int]):
    """An angle in whole degrees, a multiple of `step`, graded by circular distance: s = 1 - d / 180.

    `-90` and `450` mean the same turns as `270` and `90`.
    """

    step: int

    def __post_init__(self) -> None:
        if self.step <= 0 or 360 % self.step or 180 % self.step:
            raise ValueError(f"step must divide 180 degrees, got {self.step}")

    @property
    def chance_accuracy(self) -> float:
        return self.step / 360

    @property
    def chance_similarity(self) -> float:
        return 0.5  # the mean circular distance to a uniform multiple of the step is 90 degrees

    def parse(self, text: str) -> int | None:
        if len(text) > MAX_ANSWER_CHARS:
            return None
        match = _ANGLE.fullmatch(strip_form(text))
        if match is None:
            return None
        degrees = int(match[1]) % 360
        return degrees if degrees % self.step == 0 else None

    def similarity(self, value: int, truth: Any) -> float:
        apart = abs(value - int(truth)) % 360
        return 1.0 - min(apart, 360 - apart) / 180

    def render(self, truth: Any) -> str:
        return str(truth)

    def values(self) -> Iterator[int]:
        return iter(range(0, 360, self.step))


_ANGLE = re.compile(r"([+-]?[0-9]{1,4})(?:\.0{1,6})?\s{0,3}(?:°|º|deg\.?|degrees?)?", re.IGNORECASE)


@dataclass(frozen=True)
class Permutation(Grader[tuple[int, ...]]):
    """The order of the tiles of a `rows` x `cols` grid, as 1-based numbers in reading order of the places.

    The one convention of the package: **entry p of the list is the number of the shown tile that belongs at place p**,
    places counted from 1 in reading order. A partly right answer is graded s = (slots + neighbours) / 2, where slots
    is the share of places with the right tile, and neighbours the share of adjacent places of the answered
    arrangement whose two tiles are adjacent in the same direction in the original. (Neighbours credit a block that
    is right but shifted, as Jigsaw-R1, arXiv 2505.23590, does with its connection score.)
    """

    rows: int
    cols: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1 or self.tiles < 2:
            raise ValueError(f"a jigsaw needs at least two tiles, got {self.rows} x {self.cols}")

    @property
    def tiles(self) -> int:
        """Number of tiles K."""
        return self.rows * self.cols

    @cached_property
    def _pairs(self) -> list[tuple[int, int, int]]:
        """Adjacent places (a, b, direction), 0-based; direction 0 is b right of a, 1 is b below a."""
        places = [(r, c) for r in range(self.rows) for c in range(self.cols)]
        right = [(r * self.cols + c, r * self.cols + c + 1, 0) for r, c in places if c + 1 < self.cols]
        below = [(r * self.cols + c, (r + 1) * self.cols + c, 1) for r, c in places if r + 1 < self.rows]
        return right + below

    @property
    def chance_accuracy(self) -> float:
        return 1.0 / math.factorial(self.tiles)

    @property
    def chance_similarity(self) -> float:
        # Under a uniform truth, truth^-1 after answer is a uniform permutation for every constant answer: each slot is
        # right with 1/K, and each adjacent pair lands on one of the n pairs of its direction with n / (K (K - 1)).
        k = self.tiles
        by_direction = [sum(1 for *_, d in self._pairs if d == direction) for direction in (0, 1)]
        neighbours = sum(n * n for n in by_direction) / (k * (k - 1)) / len(self._pairs)
        return (1.0 / k + neighbours) / 2

    def parse(self, text: str) -> tuple[int, ...] | None:
        if len(text) > MAX_ANSWER_CHARS:
            return None
        parts = [part for part in re.split(r"[\s,;]+", strip_form(text)) if part]
        if len(parts) != self.tiles or not all(re.fullmatch("[0-9]{1,3}", part) for part in parts):
            return None
        numbers = tuple(int(part) for part in parts)
        return numbers if sorted(numbers) == list(range(1, self.tiles + 1)) else None

    def equal(self, value: tuple[int, ...], truth: Any) -> bool:
        return value == tuple(truth)  # JSON turns tuples into lists

    def similarity(self, value: tuple[int, ...], truth: Any) -> float:
        slots = sum(a == b for a, b in zip(value, truth, strict=True)) / self.tiles
        original = {tile: place for place, tile in enumerate(truth)}
        pairs = set(self._pairs)
        kept = sum((original[value[a]], original[value[b]], d) in pairs for a, b, d in self._pairs)
        return (slots + kept / len(pairs)) / 2

    def render(self, truth: Any) -> str:
        return ", ".join(str(number) for number in truth)

    def values(self) -> Iterator[tuple[int, ...]]:
        return itertools.permutations(range(1, self.tiles + 1))


def letters(count: int) -> Sequence[str]:
    """The first `count` capital letters, the labels of options and cells; at most 26."""
    if not 2 <= count <= 26:
        raise ValueError(f"between 2 and 26 letters, got {count}")
    return [chr(ord("A") + i) for i in range(count)]

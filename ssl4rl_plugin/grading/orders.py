"""Answers that are several items at once: the order of tiles, an order along a scale, a set."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ssl4rl_plugin.core import Grader
from ssl4rl_plugin.grading.text import list_forms, normalise, read_items, read_labels, read_rows


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

    @property
    def is_choice(self) -> bool:
        return self.tiles == 2

    @property
    def item_count(self) -> int:
        return self.tiles

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
        plain = normalise(text)
        if not plain:
            return None
        rows = read_rows(plain)
        if rows is not None:
            if len(rows) != self.rows or any(len(row) != self.cols for row in rows):
                return None
            parts = [part for row in rows for part in row]
        else:
            parts = read_items(plain) or []
        if len(parts) != self.tiles or not all(re.fullmatch("[0-9]{1,3}", part) for part in parts):
            return None
        numbers = tuple(int(part) for part in parts)
        return numbers if sorted(numbers) == list(range(1, self.tiles + 1)) else None

    def equal(self, value: tuple[int, ...], truth: Any) -> bool:
        return value == tuple(truth)  # JSON turns tuples into lists

    def similarity(self, value: tuple[int, ...], truth: Any) -> float:
        original = {tile: place for place, tile in enumerate(truth)}
        pairs = set(self._pairs)
        kept = sum((original[value[a]], original[value[b]], d) in pairs for a, b, d in self._pairs)
        return (self.right_places(value, truth) + kept / len(pairs)) / 2

    def right_places(self, value: tuple[int, ...], truth: Any) -> float:
        return sum(a == b for a, b in zip(value, truth, strict=True)) / self.tiles

    def render(self, truth: Any) -> str:
        return ", ".join(str(number) for number in truth)

    def forms(self, value: Any) -> dict[str, str]:
        found = list_forms(tuple(map(str, value)), "Tile", self.render(value))
        if self.rows > 1 and self.cols > 1:
            rows = [list(value[r * self.cols : (r + 1) * self.cols]) for r in range(self.rows)]
            found["row by row"] = str(rows)
        return found

    def values(self) -> Iterator[tuple[int, ...]]:
        return itertools.permutations(range(1, self.tiles + 1))

    def draw(self, rng: random.Random) -> tuple[int, ...]:
        return tuple(rng.sample(range(1, self.tiles + 1), self.tiles))

    def parts(self, value: Any) -> dict[str, int]:
        return {"first": value[0], "last": value[-1]}


@dataclass(frozen=True)
class Ordering(Grader[tuple[str, ...]]):
    """Labelled things in order along a scale, e.g. `B, A, C`: each label once.

    A partly right order is graded by the share of pairs in the right order, s = (1 + tau) / 2 with Kendall's tau
    (Kendall, "A new measure of rank correlation", Biometrika 30, 1938).
    """

    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len({label.casefold() for label in self.labels}) < len(self.labels):
            raise ValueError(f"labels must be at least two and distinct, got {self.labels}")

    @property
    def is_choice(self) -> bool:
        return len(self.labels) == 2

    @property
    def item_count(self) -> int:
        return len(self.labels)

    @property
    def chance_accuracy(self) -> float:
        return 1.0 / math.factorial(len(self.labels))

    @property
    def chance_similarity(self) -> float:
        return 0.5  # in a uniform order every pair is as likely one way as the other

    def parse(self, text: str) -> tuple[str, ...] | None:
        found = read_labels(text, self.labels)
        return found if found is not None and len(found) == len(self.labels) else None

    def equal(self, value: tuple[str, ...], truth: Any) -> bool:
        return value == tuple(truth)

    def similarity(self, value: tuple[str, ...], truth: Any) -> float:
        place = {label: number for number, label in enumerate(truth)}
        pairs = list(itertools.combinations(value, 2))
        return sum(place[a] < place[b] for a, b in pairs) / len(pairs)

    def right_places(self, value: tuple[str, ...], truth: Any) -> float:
        return sum(a == b for a, b in zip(value, truth, strict=True)) / len(self.labels)

    def render(self, truth: Any) -> str:
        return ", ".join(truth)

    def forms(self, value: Any) -> dict[str, str]:
        found = list_forms(tuple(value), "Picture", self.render(value))
        return found | ({"run together": "".join(value)} if all(len(label) == 1 for label in self.labels) else {})

    def values(self) -> Iterator[tuple[str, ...]]:
        return itertools.permutations(self.labels)

    def draw(self, rng: random.Random) -> tuple[str, ...]:
        return tuple(rng.sample(self.labels, len(self.labels)))

    def parts(self, value: Any) -> dict[str, int]:
        return {"first": self.labels.index(value[0]), "last": self.labels.index(value[-1])}


@dataclass(frozen=True)
class LabelSet(Grader[tuple[str, ...]]):
    """Exactly `size` of the labels, in any order, e.g. `B, D`; graded by F1.

    Precision and recall are equal for sets of equal size, so F1 is the share of right members. A longer or shorter list
    is invalid: naming everything is no answer. Values are in the order of the labels.
    """

    labels: tuple[str, ...]
    size: int

    def __post_init__(self) -> None:
        if len({label.casefold() for label in self.labels}) < len(self.labels) or not 0 < self.size < len(self.labels):
            raise ValueError(
                f"size must be in 1..{len(self.labels) - 1} of distinct labels, got {self.size}, {self.labels}"
            )

    @property
    def is_choice(self) -> bool:
        return self.size == 1

    @property
    def item_count(self) -> int:
        return len(self.labels)

    def members(self, truth: Any) -> tuple[bool, ...]:
        return tuple(label in truth for label in self.labels)

    @property
    def chance_accuracy(self) -> float:
        return 1.0 / math.comb(len(self.labels), self.size)

    @property
    def chance_similarity(self) -> float:
        return self.size / len(self.labels)  # each guessed member is in a uniform truth with this probability

    def parse(self, text: str) -> tuple[str, ...] | None:
        found = read_labels(text, self.labels, ordered=False)
        return self._in_order(found) if found is not None and len(found) == self.size else None

    def equal(self, value: tuple[str, ...], truth: Any) -> bool:
        return set(value) == set(truth)

    def similarity(self, value: tuple[str, ...], truth: Any) -> float:
        return len(set(value) & set(truth)) / self.size

    def render(self, truth: Any) -> str:
        return ", ".join(self._in_order(truth))

    def forms(self, value: Any) -> dict[str, str]:
        found = list_forms(tuple(value), "Tile", self.render(value))
        kept = {
            name: text for name, text in found.items() if name not in ("arrows", "dashes", "chain", "numbered lines")
        }
        kept |= {"another order": ", ".join(reversed(value))}
        return kept | ({"pair": " <-> ".join(value), "&": " & ".join(value)} if len(value) == 2 else {})

    def _in_order(self, members: Iterable[str]) -> tuple[str, ...]:
        """A set has one form: its members in the order of the labels."""
        return tuple(sorted(members, key=self.labels.index))

    def values(self) -> Iterator[tuple[str, ...]]:
        return itertools.combinations(self.labels, self.size)

    def draw(self, rng: random.Random) -> tuple[str, ...]:
        return self._in_order(rng.sample(self.labels, self.size))

    def parts(self, value: Any) -> dict[str, int]:
        return {f"contains {label}": int(label in value) for label in self.labels}

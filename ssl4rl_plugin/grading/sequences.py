"""Answers that are several labels in order, of which more than one can be right, and rankings with one right first place."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from ssl4rl_plugin.core import Grader
from ssl4rl_plugin.grading.text import letters, list_forms, normalise, read_labels


@dataclass(frozen=True)
class Sequences(Grader[tuple[str, ...]]):
    """Distinct labels in order, e.g. the nodes of a path: `1, 7, 4`. Every sequence of the truth is right.

    The truth is a list of all right sequences, at most `most` of them and all of one length; the first is the one that is
    rendered. A sequence is right or wrong: how near a wrong path is to a right one says little.

    Args:
        labels: what a sequence is made of.
        length: how long the right ones are.
        most: maximum number of right ones; chance is stated for this number.
        shortest: length of the shortest possible answer; `length` unless a guess may be of another length.
        ends: first and last label of every possible answer; None leaves them open.
    """

    labels: tuple[str, ...]
    length: int
    most: int = 1
    shortest: int = 0
    ends: tuple[str, str] | None = None
    uniform: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if len({label.casefold() for label in self.labels}) < len(self.labels):
            raise ValueError(f"labels must be distinct, got {self.labels}")
        if not (1 <= (self.shortest or self.length) <= self.length <= len(self.labels) and self.most >= 1):
            raise ValueError(f"expected 1 <= shortest <= length <= {len(self.labels)} and most from 1, got {self}")
        if self._count() <= self.most:
            raise ValueError(f"{self._count()} possible answers, of which up to {self.most} are right, are too few")

    def _count(self) -> int:
        """Possible answers of the right length."""
        fixed = 2 if self.ends else 0
        return math.perm(len(self.labels) - fixed, self.length - fixed)

    @property
    def chance_accuracy(self) -> float:
        return self.most / self._count()

    @property
    def chance_similarity(self) -> float:
        return self.chance_accuracy

    def parse(self, text: str) -> tuple[str, ...] | None:
        found = read_labels(text, self.labels)
        if found is None or len(found) < (self.shortest or self.length):
            return None
        if not self.shortest and len(found) != self.length:
            return None
        return found if self.ends is None or (found[0], found[-1]) == self.ends else None

    def equal(self, value: tuple[str, ...], truth: Any) -> bool:
        return list(value) in [list(right) for right in truth]

    def similarity(self, value: tuple[str, ...], truth: Any) -> float:
        return float(self.equal(value, truth))

    def render(self, truth: Any) -> str:
        one = truth if isinstance(truth[0], str) else truth[0]
        return ", ".join(one)

    def forms(self, value: Any) -> dict[str, str]:
        return list_forms(tuple(value), "Node", ", ".join(value))

    def values(self) -> Iterator[tuple[str, ...]]:
        inner = [label for label in self.labels if self.ends is None or label not in self.ends]
        first, last = ((self.ends[0],), (self.ends[1],)) if self.ends else ((), ())
        for middle in itertools.permutations(inner, self.length - len(first) - len(last)):
            yield (*first, *middle, *last)

    def draw(self, rng: random.Random) -> Any:
        """As many right sequences as there can be."""
        inner = [label for label in self.labels if self.ends is None or label not in self.ends]
        first, last = ((self.ends[0],), (self.ends[1],)) if self.ends else ((), ())
        found: dict[tuple[str, ...], None] = {}
        while len(found) < self.most:
            drawn = (*first, *rng.sample(inner, self.length - len(first) - len(last)), *last)
            found[drawn] = None
        return [list(sequence) for sequence in found]

    def parts(self, value: Any) -> dict[str, int]:
        one = value if isinstance(value[0], str) else value[0]
        place = 1 if self.ends else 0
        return {"first": self.labels.index(one[place])}


@dataclass(frozen=True)
class Ranking(Grader[tuple[str, ...]]):
    """Candidates from the likeliest to the least likely, e.g. `B, A, D, C`: each once, one of them right.

    The truth is the right candidate. The answer is correct if that comes first, and otherwise graded by its reciprocal
    rank, as link prediction is measured (mean reciprocal rank). A first place alone, `B`, counts as a ranking whose other
    places are as bad as can be.
    """

    count: int
    uniform: ClassVar[bool] = False

    @property
    def labels(self) -> tuple[str, ...]:
        """The candidates' letters."""
        return tuple(letters(self.count))

    @property
    def chance_accuracy(self) -> float:
        return 1.0 / self.count

    @property
    def chance_similarity(self) -> float:
        return sum(1.0 / rank for rank in range(1, self.count + 1)) / self.count

    def parse(self, text: str) -> tuple[str, ...] | None:
        found = read_labels(text, self.labels)
        return found if found is not None and len(found) in (1, self.count) else None

    def equal(self, value: tuple[str, ...], truth: Any) -> bool:
        return value[0] == self._right(truth)

    def similarity(self, value: tuple[str, ...], truth: Any) -> float:
        right = self._right(truth)
        return 1.0 / (value.index(right) + 1) if right in value else 1.0 / self.count

    def render(self, truth: Any) -> str:
        right = self._right(truth)
        return ", ".join([right, *(label for label in self.labels if label != right)])

    def forms(self, value: Any) -> dict[str, str]:
        return list_forms(tuple(value), "Candidate", ", ".join(value)) | {"run together": "".join(value)}

    def _right(self, truth: Any) -> str:
        return str(truth if isinstance(truth, str) else truth[0])

    def values(self) -> Iterator[tuple[str, ...]]:
        return itertools.permutations(self.labels)

    def draw(self, rng: random.Random) -> Any:
        return rng.choice(self.labels)

    def parts(self, value: Any) -> dict[str, int]:
        return {"first": self.labels.index(self._right(value))}


@dataclass(frozen=True)
class OpenWord(Grader[str]):
    """One word, written freely; case does not matter.

    What a blind guesser gets is not known exactly: it is put at one in `common`, which no single word of ordinary texts
    reaches once function words are left aside.
    """

    common: int = 20
    uniform: ClassVar[bool] = False

    @property
    def chance_accuracy(self) -> float:
        return 1.0 / self.common

    @property
    def chance_similarity(self) -> float:
        return self.chance_accuracy

    def parse(self, text: str) -> str | None:
        words = (normalise(text) or "").split()
        alone = len(words) == 1 and len(text) <= 200 and not words[0].endswith("?")  # a question is no answer
        return words[0].casefold() if alone else None

    def spans(self, text: str) -> Iterator[str]:
        return iter(())  # a free word cannot be told from any other

    def equal(self, value: str, truth: Any) -> bool:
        return value == str(truth).casefold()

    def similarity(self, value: str, truth: Any) -> float:
        return float(self.equal(value, truth))

    def render(self, truth: Any) -> str:
        return str(truth)

    def values(self) -> Iterator[str]:
        """Stand-ins: any word is possible."""
        return (f"word{number}" for number in range(self.common))

    def parts(self, value: Any) -> dict[str, int]:
        return {}  # how words are distributed is a matter of the texts

"""What all graders share: the interface, and the reading of an answer's text."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
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

    @property
    def best_guess(self) -> ValueT:
        """The constant answer with the largest mean similarity; where the truth is uniform, any answer will do."""
        return next(self.values())

    def draw(self, rng: random.Random) -> ValueT:
        """A ground truth, drawn as the task draws it at this level: uniform, if the grader does not say otherwise."""
        return rng.choice(list(self.values()))

    def parts(self, value: Any) -> dict[str, int]:
        """The value as one or more categories, each of which a blind guesser may try to predict (see the audit)."""
        return {"answer": list(self.values()).index(value)}


def letters(count: int) -> Sequence[str]:
    """The first `count` capital letters, the labels of options and cells; at most 26."""
    if not 2 <= count <= 26:
        raise ValueError(f"between 2 and 26 letters, got {count}")
    return [chr(ord("A") + i) for i in range(count)]

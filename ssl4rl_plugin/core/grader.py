"""The interface of a grader, and what an answer is worth. The graders themselves are in `ssl4rl_plugin.grading`."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args

from ssl4rl_plugin.core.spans import item_spans

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class Score:
    """What an answer is worth, before the format of the response is considered."""

    value: float
    """Accuracy part of the reward in [0, 1]; exactly 1.0 if and only if the answer is correct."""
    correct: bool
    """The answer equals the truth."""
    valid: bool
    """The answer is a possible one (a permutation, one of the choices, ...)."""
    similarity: float
    """Raw graded closeness to the truth in [0, 1], before chance correction; 0 for an invalid answer."""


class Grader(ABC, Generic[ValueT]):
    """Reads and grades the answers of one task at one level.

    A subclass implements the abstract methods. The others have defaults that suit most answers; the audit, the exports
    and the log ask a grader through them, so no other place has to know its class.
    """

    uniform: ClassVar[bool] = True
    """Truths are uniform over `values()`. A grader that draws them otherwise overrides `draw`."""

    @property
    def is_choice(self) -> bool:
        """One of `values()` is right and every other one is wrong: the question can be asked as multiple choice."""
        return False

    @property
    def item_count(self) -> int:
        """How many things, such as tiles, an answer puts in order or selects from; 0 for any other answer."""
        return 0

    def members(self, truth: Any) -> tuple[bool, ...] | None:
        """For an answer that selects some of several things: for each thing, whether it belongs. Otherwise None."""
        return None

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

    def spans(self, text: str) -> Iterator[str]:
        """Parts of a reasoning that may name an answer, the last one first; `parse` decides. In time linear in the text.

        By default lists of numbers or single capital letters. Empty where an answer cannot be told from other words.
        """
        return item_spans(text)

    def forms(self, value: Any) -> dict[str, str]:
        """Ways of writing a value inside the answer block, by name. `parse` reads each of them as that value.

        The docs list them and the tests try them. A subclass adds its own to those of `render`.
        """
        return {"as the prompt asks": self.render(value)}

    def right_places(self, value: ValueT, truth: Any) -> float:
        """Share of places with the right thing, in [0, 1], for a valid answer that puts things in order.

        Any other answer has one part: 1.0 if it is correct, else 0.0.
        """
        return float(self.equal(value, truth))

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


Credit = Literal["similarity", "places"]
"""What a close but wrong answer is paid by; see `grade`."""


def grade(
    grader: Grader[Any], answer: str, truth: Any, partial_credit: float = 0.5, credit_by: Credit = "similarity"
) -> Score:
    """What the text of one answer (without the tags around it) is worth.

    The value is 1 if the answer is correct, 0 if it is not valid, and `partial_credit` times a closeness if it is valid
    and wrong. By `similarity`, the closeness is `max(0, (s - c) / (1 - c))`, with s the similarity of the answer and c
    the best s that a blind guesser averages. By `places`, it is the share of places with the right thing (`right_places`),
    without correction for chance.

    Raises:
        ValueError: `credit_by` is neither.
    """
    if credit_by not in get_args(Credit):
        raise ValueError(f"credit is paid by {' or '.join(get_args(Credit))}, not by {credit_by!r}")
    value = grader.parse(answer)
    if value is None:
        return Score(0.0, correct=False, valid=False, similarity=0.0)
    if grader.equal(value, truth):
        return Score(1.0, correct=True, valid=True, similarity=1.0)
    similarity = grader.similarity(value, truth)
    if credit_by == "places":
        closeness = grader.right_places(value, truth)
    else:
        chance = grader.chance_similarity
        closeness = max(0.0, (similarity - chance) / (1.0 - chance)) if chance < 1.0 else 0.0
    return Score(partial_credit * closeness, correct=False, valid=True, similarity=similarity)

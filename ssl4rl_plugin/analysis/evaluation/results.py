"""Figures from predictions: by benchmark, its categories and their parents, with intervals, and against a base model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssl4rl_plugin.analysis.benchmark_results import OVERALL, SCOPES, AnsweredQuestion, answered, circular_accuracy
from ssl4rl_plugin.analysis.benchmark_results import benchmark_results as results_of_benchmarks
from ssl4rl_plugin.analysis.evaluation.predictions import Prediction
from ssl4rl_plugin.analysis.statistics import ConfidenceInterval, Proportion, bootstrap, mcnemar, proportion
from ssl4rl_plugin.core.errors import UserError

MEANS = ("score", "format", "valid", "lenient", "lenient_only", "consistent", "inconsistent", "degenerate")
"""Figures of `compute_score` that are averaged beside the accuracy."""


class ResultsError(UserError):
    """Predictions cannot be compared; the message says why."""


@dataclass(frozen=True)
class QuestionResult:
    """One question with all its answers: in every order of its options that was asked, and all draws."""

    kind: str
    """Benchmark, or task and level."""
    lines: Sequence[Prediction]
    answers: Sequence[AnsweredQuestion]
    """The same predictions as answers to a benchmark's question; empty for a pretext task."""

    def name(self, scope: str) -> str | None:
        """Its category in a scope; empty overall, None if it has none."""
        return "" if scope == OVERALL else self.lines[0].get(scope)

    def pictures(self, alike: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
        """Key shared by all questions about the same pictures; the question's id if it has no pictures.

        `alike` is that of `groups_of`.
        """
        known = alike.get(self.lines[0]["kind"], {})
        return tuple(known.get(ref, ref) for ref in self.lines[0]["images"]) or (self.lines[0]["id"],)

    @property
    def accuracy(self) -> float:
        """1.0 if it is right; the mean over several answers. A question that was asked in every order of its options is
        right if all its answers are (`benchmark_results.circular_accuracy`)."""
        if self.answers:
            return circular_accuracy(self.answers) or 0.0
        return math.fsum(line["acc"] for line in self.lines) / len(self.lines)


@dataclass(frozen=True)
class ModelComparison:
    """A model against a base model on the same questions. Uses the circular accuracy if there is one."""

    base: Proportion
    change: ConfidenceInterval
    """Accuracy minus the base's. Questions about the same pictures are resampled together."""
    gained: int
    """Questions that the model answered correctly, or more often correctly, than the base."""
    lost: int
    """The opposite."""
    p: float | None
    """p-value of McNemar's exact test; None with several answers to each question, for which it is not defined."""


@dataclass(frozen=True)
class GroupResult:
    """The results of one benchmark, task or category: a line of the table."""

    kind: str
    """Benchmark, or task and level."""
    scope: str
    """One of `benchmark_results.SCOPES`; `overall` for tasks."""
    name: str
    """The category; empty overall."""
    accuracy: Proportion
    """With the Wilson interval, which treats questions as independent; several answers to one question count as one. In a
    circular evaluation, of the benchmark's own order of options."""
    circular: Proportion | None
    """Circular accuracy; None if only one order of options was asked."""
    by_picture: ConfidenceInterval
    """The mean accuracy (circular if there is one) with the bootstrap interval. Questions about the same pictures are
    resampled together."""
    means: Mapping[str, float]
    """Means of `MEANS` over all answers."""
    errors: int
    """Answers that count as wrong because of an error."""
    chance: float | None
    """Accuracy of the best blind guesser; None if it is unknown."""
    against: ModelComparison | None
    """Against the base model; None without one."""


def questions_of(lines: Iterable[Prediction]) -> dict[tuple[str, str], QuestionResult]:
    """Kind and id -> question, in the order of the predictions."""
    found: dict[tuple[str, str], list[tuple[Prediction, AnsweredQuestion | None]]] = {}
    for line in lines:
        answer = answered(line["ground_truth"], line["acc"])
        key = (line["kind"], line["id"]) if answer is None else (answer.benchmark, answer.question)
        found.setdefault(key, []).append((line, answer))
    return {
        key: QuestionResult(key[0], [line for line, _ in of], [answer for _, answer in of if answer is not None])
        for key, of in found.items()
    }


def groups_of(
    lines: Iterable[Prediction],
    base: Iterable[Prediction] | None = None,
    chances: Mapping[str, float] | None = None,
    draws: int = 1,
    alike: Mapping[str, Mapping[str, str]] | None = None,
) -> list[GroupResult]:
    """The table: each kind of question, then its l2-categories, then its categories, sorted by name.

    Args:
        lines: the model's predictions.
        base: the base model's predictions of the same evaluation; None for no comparison.
        chances: kind -> accuracy of the best blind guesser.
        draws: answers to each question.
        alike: kind of row -> reference of a picture -> its group in the manifest, which near-duplicates share. A picture
            that is not in it is a group of its own.

    Raises:
        ResultsError: the base model was asked other questions.
    """
    mine = questions_of(lines)
    theirs = None if base is None else questions_of(base)
    if theirs is not None:
        _check_same(mine, theirs)
    members: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for key, question in mine.items():
        for scope in SCOPES:
            if (name := question.name(scope)) is not None:
                members.setdefault((question.kind, scope, name), []).append(key)
    kinds = list(dict.fromkeys(question.kind for question in mine.values()))
    order = sorted(members, key=lambda key: (kinds.index(key[0]), SCOPES.index(key[1]), key[2]))
    published = {
        (result.benchmark, result.scope, result.name): result
        for result in results_of_benchmarks(answer for question in mine.values() for answer in question.answers)
    }
    found = []
    for place in order:
        chosen = [mine[key] for key in members[place]]
        result = published.get(place)
        old = None if theirs is None else [theirs[key] for key in members[place]]
        every = [line for question in chosen for line in question.lines]
        pictures = [question.pictures(alike or {}) for question in chosen]
        found.append(
            GroupResult(
                *place,
                accuracy=result.plain if result else proportion(question.accuracy for question in chosen),
                circular=result.circular if result else None,
                by_picture=bootstrap([question.accuracy for question in chosen], pictures),
                means={name: math.fsum(line.get(name, 0.0) for line in every) / len(every) for name in MEANS},
                errors=sum(bool(line["error"]) for line in every),
                chance=(chances or {}).get(place[0]),
                against=None if old is None else _difference(chosen, old, pictures, draws),
            )
        )
    return found


def _check_same(
    mine: Mapping[tuple[str, str], QuestionResult], theirs: Mapping[tuple[str, str], QuestionResult]
) -> None:
    if mine.keys() != theirs.keys():
        raise ResultsError(
            f"the base model answered {len(theirs)} questions, and this one {len(mine)}: evaluate it again"
        )
    for key, question in mine.items():
        for name in ("prompt", "ground_truth"):
            if question.lines[0][name] != theirs[key].lines[0][name]:
                raise ResultsError(
                    f"question {key[1]} of {key[0]} has another {name} for the base model: evaluate it again"
                )


def _difference(
    new: Sequence[QuestionResult], old: Sequence[QuestionResult], pictures: Sequence[tuple[str, ...]], draws: int
) -> ModelComparison:
    pairs = [(one.accuracy, other.accuracy) for one, other in zip(new, old, strict=True)]
    gained, lost = sum(one > other for one, other in pairs), sum(one < other for one, other in pairs)
    return ModelComparison(
        base=proportion(other for _, other in pairs),
        change=bootstrap([one - other for one, other in pairs], pictures),
        gained=gained,
        lost=lost,
        p=mcnemar(gained, lost) if draws == 1 else None,
    )


def as_value(group: GroupResult) -> dict[str, Any]:
    """A line of the table as JSON: NaN becomes null."""
    value: dict[str, Any] = {
        "kind": group.kind,
        "scope": group.scope,
        "name": group.name,
        "questions": group.accuracy.n,
        "accuracy": group.accuracy.mean,
        "interval": [group.accuracy.low, group.accuracy.high],
        "circular": group.circular and group.circular.mean,
        "circular_interval": group.circular and [group.circular.low, group.circular.high],
        "interval_by_picture": [_number(group.by_picture.low), _number(group.by_picture.high)],
        "pictures": group.by_picture.groups,
        **group.means,
        "errors": group.errors,
        "chance": group.chance,
    }
    if group.against is not None:
        change = group.against.change
        value["base"] = {
            "accuracy": group.against.base.mean,
            "interval": [group.against.base.low, group.against.base.high],
        }
        value["difference"] = {
            "accuracy": change.mean,
            "interval": [_number(change.low), _number(change.high)],
            "gained": group.against.gained,
            "lost": group.against.lost,
            "p": group.against.p,
        }
    return value


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

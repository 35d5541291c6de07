"""Figures from predictions: by benchmark, its categories and their parents, with intervals, and against a base model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssl4rl_plugin.evaluation.predictions import Line
from ssl4rl_plugin.stats import Interval, Proportion, bootstrap, mcnemar, proportion

BY = ("all", "l2_category", "category")
"""What questions of one kind are grouped by, in the order of the table."""
MEANS = ("score", "format", "valid")
"""Figures of `compute_score` that are averaged beside the accuracy."""


class ResultsError(ValueError):
    """Predictions that cannot be compared; the message says why."""


@dataclass(frozen=True)
class Question:
    """All answers to one question."""

    row: int
    line: Line
    """The first of its lines; they differ in the answer alone."""
    accuracy: float
    """Share of its answers that are right."""
    means: Mapping[str, float]
    """The other figures, each the mean over its answers."""

    @property
    def group(self) -> tuple[str, ...]:
        """What it shares with other questions about the same pictures; itself where there are none."""
        return tuple(self.line["images"]) or (self.line["id"],)


@dataclass(frozen=True)
class Difference:
    """A model against a base model, on the questions that both were asked."""

    base: Proportion
    change: Interval
    """Accuracy minus the base's: resampled by picture."""
    gained: int
    """Questions that the base got wrong and the model right; with several answers to each, more often right."""
    lost: int
    p: float | None
    """McNemar's exact test; None with several answers to each question, which it does not know."""


@dataclass(frozen=True)
class Group:
    """One line of the table."""

    kind: str
    """Benchmark, or task and level."""
    by: str
    """One of `BY`."""
    name: str
    """The category; empty for all."""
    accuracy: Proportion
    """With the Wilson interval, which takes questions as independent; several answers to one question count as one."""
    by_picture: Interval
    """The same mean with the bootstrap interval, questions about the same pictures resampled together."""
    means: Mapping[str, float]
    errors: int
    """Questions that were not asked or not scored."""
    chance: float | None
    """Of the best blind guesser; None where it is unknown."""
    against: Difference | None


def questions_of(lines: Iterable[Line]) -> dict[int, Question]:
    """Row number -> question, in order."""
    found: dict[int, list[Line]] = {}
    for line in lines:
        found.setdefault(line["row"], []).append(line)

    def mean(lines: Sequence[Line], name: str) -> float:
        return math.fsum(float(line[name]) for line in lines) / len(lines)

    return {
        row: Question(row, of[0], mean(of, "acc"), {name: mean(of, name) for name in MEANS})
        for row, of in sorted(found.items())
    }


def groups_of(
    lines: Iterable[Line],
    base: Iterable[Line] | None = None,
    chances: Mapping[str, float] | None = None,
    draws: int = 1,
) -> list[Group]:
    """The table: each kind of question with its categories.

    Args:
        lines: the model's predictions.
        base: the base model's, of the same evaluation; None for no comparison.
        chances: kind -> accuracy of the best blind guesser.
        draws: answers to each question.

    Raises:
        ResultsError: the base model was asked something else.
    """
    mine = questions_of(lines)
    theirs = None if base is None else questions_of(base)
    if theirs is not None:
        _check_same(mine, theirs)
    members: dict[tuple[str, str, str], list[int]] = {}
    for row, question in mine.items():
        for by in BY:
            name = "" if by == "all" else question.line.get(by)
            if name is not None:
                members.setdefault((question.line["kind"], by, name), []).append(row)
    kinds = list(dict.fromkeys(kind for kind, _, _ in members))
    order = sorted(members, key=lambda key: (kinds.index(key[0]), BY.index(key[1]), key[2]))
    return [_group(key, members[key], mine, theirs, (chances or {}).get(key[0]), draws) for key in order]


def _check_same(mine: Mapping[int, Question], theirs: Mapping[int, Question]) -> None:
    if mine.keys() != theirs.keys():
        raise ResultsError(
            f"the base model answered {len(theirs)} questions, and this one {len(mine)}: evaluate it anew"
        )
    for row, question in mine.items():
        for key in ("id", "prompt", "truth"):
            if question.line[key] != theirs[row].line[key]:
                raise ResultsError(
                    f"question {question.line['id']} has another {key} for the base model: evaluate it anew"
                )


def _group(
    key: tuple[str, str, str],
    rows: Sequence[int],
    mine: Mapping[int, Question],
    theirs: Mapping[int, Question] | None,
    chance: float | None,
    draws: int,
) -> Group:
    chosen = [mine[row] for row in rows]
    pictures = [question.group for question in chosen]
    against = None
    if theirs is not None:
        pairs = [(mine[row].accuracy, theirs[row].accuracy) for row in rows]
        gained, lost = sum(new > old for new, old in pairs), sum(new < old for new, old in pairs)
        against = Difference(
            base=proportion(old for _, old in pairs),
            change=bootstrap([new - old for new, old in pairs], pictures),
            gained=gained,
            lost=lost,
            p=mcnemar(gained, lost) if draws == 1 else None,
        )
    return Group(
        *key,
        accuracy=proportion(question.accuracy for question in chosen),
        by_picture=bootstrap([question.accuracy for question in chosen], pictures),
        means={name: math.fsum(question.means[name] for question in chosen) / len(chosen) for name in MEANS},
        errors=sum(bool(question.line["error"]) for question in chosen),
        chance=chance if key[1] == "all" else None,
        against=against,
    )


def as_value(group: Group) -> dict[str, Any]:
    """A line of the table as JSON: NaN becomes null."""
    value: dict[str, Any] = {
        "kind": group.kind,
        "by": group.by,
        "name": group.name,
        "questions": group.accuracy.n,
        "accuracy": group.accuracy.mean,
        "interval": [group.accuracy.low, group.accuracy.high],
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

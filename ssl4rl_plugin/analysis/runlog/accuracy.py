"""Accuracies from single responses: by kind of question and step, and their change over training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Generic

from ssl4rl_plugin.analysis.benchmark_results import AnsweredQuestion, circular_accuracy
from ssl4rl_plugin.analysis.runlog.responses import BenchmarkKey, KindT, LoggedArm, Response
from ssl4rl_plugin.analysis.statistics import ConfidenceInterval, Proportion, bootstrap, mcnemar, proportion

Outcomes = Mapping[str, float]
"""Question -> share of its answers that are right."""


@dataclass(frozen=True)
class Accuracy(Generic[KindT]):
    """Share of right answers of one kind of question in one validation."""

    step: int
    kind: KindT
    rate: Proportion
    """Its interval treats questions as independent, and several answers to one question as one. Without a count (verl's
    metrics only), n is 0 and the interval [0, 1]."""


@dataclass(frozen=True)
class AccuracyChange:
    """How accuracy changed between two sets of answers to the same questions."""

    change: ConfidenceInterval
    """Second minus first, with the bootstrap interval over questions."""
    gained: int
    """Questions that were answered better the second time."""
    lost: int
    """Questions that were answered worse the second time."""
    p: float | None
    """McNemar's exact test; None if a question has several answers."""


@dataclass(frozen=True)
class Headline(Generic[KindT]):
    """A line of the result table: one kind of question before and after training."""

    kind: KindT
    chance: float | None
    """None if it is unknown."""
    before: Accuracy[KindT] | None
    """The run's first validation, if it came before the first update (step 0)."""
    after: Accuracy[KindT] | None
    """The last validation, if it came after an update."""
    change: AccuracyChange | None
    """After against before on the same questions; None if single answers were not recorded."""

    @property
    def last(self) -> Accuracy[KindT] | None:
        """The latest known accuracy."""
        return self.after or self.before

    @property
    def verdict(self) -> str:
        """The last interval against chance: `above chance`, `at chance`, `below chance`; empty if one is unknown."""
        if self.last is None or self.chance is None or not self.last.rate.n:
            return ""
        if self.last.rate.low > self.chance:
            return "above chance"
        return "below chance" if self.last.rate.high < self.chance else "at chance"


def difference(first: Outcomes, second: Outcomes) -> AccuracyChange | None:
    """The change from the first to the second answers, on the questions that both have; None if there are none."""
    pairs = [(first[key], second[key]) for key in first.keys() & second.keys()]
    if not pairs:
        return None
    gained, lost = sum(new > old for old, new in pairs), sum(new < old for old, new in pairs)
    single = all(value in (0.0, 1.0) for pair in pairs for value in pair)
    changes = sorted(new - old for old, new in pairs)  # sorted: the order of a set varies between processes
    return AccuracyChange(bootstrap(changes), gained, lost, mcnemar(gained, lost) if single else None)


def curves(outcomes: Mapping[int, Mapping[KindT, Outcomes]]) -> dict[KindT, list[Accuracy[KindT]]]:
    """The accuracy curve of every kind of question."""
    found: dict[KindT, list[Accuracy[KindT]]] = {}
    for step, kinds in outcomes.items():
        for kind, questions in kinds.items():
            found.setdefault(kind, []).append(Accuracy(step, kind, proportion(questions.values())))
    return found


def headline(
    kind: KindT, chance: float | None, points: list[Accuracy[KindT]], outcomes: Mapping[int, Mapping[KindT, Outcomes]]
) -> Headline[KindT]:
    """The line of one kind of question, from its curve and the outcomes of all steps."""
    before = points[0] if points[0].step == 0 else None
    after = points[-1] if points[-1].step > 0 else None
    change = None
    if before and after and {before.step, after.step} <= outcomes.keys():
        change = difference(outcomes[before.step].get(kind, {}), outcomes[after.step].get(kind, {}))
    return Headline(kind, chance, before, after, change)


def task_outcomes(rows: Iterable[Response], by_source: bool = False) -> dict[LoggedArm, Outcomes]:
    """Accuracy of every question, by arm. A question is a sample with its truth, so that runs can be compared.

    `by_source`: by arm and source, for rows that name one; the others are left out.
    """
    found: dict[LoggedArm, dict[str, list[float]]] = {}
    for number, row in enumerate(rows):
        acc = row.figures.get("acc")
        if row.arm and acc is not None and (row.source or not by_source):
            question = f"{row.sample} {row.truth}" if row.sample else f"row {number}"
            arm = replace(row.arm, source=row.source) if by_source else row.arm
            found.setdefault(arm, {}).setdefault(question, []).append(acc)
    return {arm: {key: math.fsum(of) / len(of) for key, of in questions.items()} for arm, questions in found.items()}


def benchmark_outcomes(rows: Iterable[Response]) -> dict[BenchmarkKey, Outcomes]:
    """Accuracy of every question, by benchmark and category, plain and circular (see `benchmark_results`)."""
    by_question: dict[tuple[str, str], list[AnsweredQuestion]] = {}
    for row in rows:
        if row.answered:
            by_question.setdefault((row.answered.benchmark, row.answered.question), []).append(row.answered)
    found: dict[BenchmarkKey, dict[str, float]] = {}
    for (benchmark, question), answers in by_question.items():
        plain = [answer.acc for answer in answers if answer.rotation == 0]
        figures = {False: math.fsum(plain) / len(plain) if plain else None}
        if any(answer.rotations > 1 for answer in answers):
            figures[True] = circular_accuracy(answers)
        for place, name in enumerate(("", answers[0].l2_category, answers[0].category)):
            for circular, figure in figures.items():
                if name is not None and figure is not None:
                    found.setdefault(BenchmarkKey(benchmark, place, name, circular), {})[question] = figure
    return dict(found)

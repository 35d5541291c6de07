"""Accuracies from single responses: by kind of question and step, their change over training, and verdicts on them."""

from __future__ import annotations

import ast
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

from ssl4rl_plugin.analysis.benchmark_results import AnsweredQuestion, circular_accuracy
from ssl4rl_plugin.analysis.runlog.responses import BenchmarkKey, KindT, LoggedArm, Response
from ssl4rl_plugin.analysis.statistics import (
    FEWEST_GROUPS,
    ConfidenceInterval,
    Proportion,
    bootstrap,
    clustered,
    holm,
    mcnemar,
    proportion,
)
from ssl4rl_plugin.tasks import resolve

Outcomes = Mapping[str, float]
"""Question -> share of its answers that are right."""

ABOVE, AT, BELOW, COLLAPSED = "above chance", "at chance", "below chance", "collapsed onto one answer"
UNREADABLE = "answers not readable"
COLLAPSED_FROM = 0.75
"""Share of one answer from which a model at or below chance counts as collapsed. Where k answers are right equally often, a
model that gives one answer in a share s of the cases is right in at most 1 - s + 1/k of them: at 0.75, in half of the
questions with four answers."""
ALPHA = 0.05


@dataclass(frozen=True)
class TopAnswer:
    """The answer that the model gave most often to one kind of question."""

    text: str
    """As the prompt asks for it; empty if most responses hold no possible answer."""
    share: float
    """Share of the responses that give it, in [0, 1]."""
    most_right: float
    """Share of the questions with the most frequent truth, in (0, 1]."""

    @property
    def collapsed(self) -> bool:
        """Nearly all answers are one, and the truths are not."""
        return bool(self.text) and self.share >= COLLAPSED_FROM > self.most_right

    @property
    def unreadable(self) -> bool:
        """Nearly all responses hold no possible answer."""
        return not self.text and self.share >= COLLAPSED_FROM


@dataclass(frozen=True)
class Accuracy(Generic[KindT]):
    """Share of right answers of one kind of question in one validation."""

    step: int
    kind: KindT
    rate: Proportion
    """Several answers to one question count as one. The interval is over groups of items (photographs), if they are known
    and there are `FEWEST_GROUPS`; otherwise it treats questions as independent. Without a count (verl's metrics only), n is
    0 and the interval [0, 1]."""
    top: TopAnswer | None = None
    """None if single answers were not recorded."""


@dataclass(frozen=True)
class AccuracyChange:
    """How accuracy changed between two sets of answers to the same questions."""

    change: ConfidenceInterval
    """Second minus first, with the bootstrap interval over questions, or over groups of items as for `Accuracy.rate`."""
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
    p: float | None = None
    """Of the score test of the last accuracy against chance, with Holm's correction (`judged`); None if one is unknown."""
    verdict: str = ""
    """`ABOVE`, `AT`, `BELOW`, `COLLAPSED` or `UNREADABLE`, given by `judged`; empty if accuracy or chance is unknown."""

    @property
    def last(self) -> Accuracy[KindT] | None:
        """The latest known accuracy."""
        return self.after or self.before


def judged(rows: Sequence[Headline[KindT]]) -> list[Headline[KindT]]:
    """The rows with verdicts: the last accuracy of each against its chance.

    `above chance` and `below chance` if the score test says so at 5 % after Holm's correction over all rows: of five tasks
    at chance, one looks unusual in every fifth run. The interval then leaves chance out. Otherwise `at chance`; or in place
    of the last two, `collapsed onto one answer` or `answers not readable` (see `TopAnswer`). Empty if accuracy
    or chance is unknown.
    """
    known = [row for row in rows if row.last and row.last.rate.n and row.chance is not None]
    corrected = holm([row.last.rate.p_against(row.chance) for row in known if row.last and row.chance is not None])
    p_of = {row.kind: p for row, p in zip(known, corrected, strict=True)}
    return [
        replace(row, p=p_of[row.kind], verdict=_verdict(row, p_of[row.kind])) if row.kind in p_of else row
        for row in rows
    ]


def _verdict(row: Headline[Any], p: float) -> str:
    assert row.last is not None and row.chance is not None
    if p < ALPHA and row.last.rate.mean > row.chance:
        return ABOVE
    if row.last.top and row.last.top.collapsed:
        return COLLAPSED
    if row.last.top and row.last.top.unreadable:
        return UNREADABLE
    return BELOW if p < ALPHA else AT


def difference(first: Outcomes, second: Outcomes, groups: Mapping[str, str] | None = None) -> AccuracyChange | None:
    """The change from the first to the second answers, on the questions that both have; None if there are none.

    `groups`: question -> group of its item, for the interval; see `Accuracy.rate`.
    """
    shared = first.keys() & second.keys()
    if not shared:
        return None
    groups = groups or {}
    # Sorted: the order of a set varies between processes.
    changes = sorted((second[key] - first[key], groups.get(key, key)) for key in shared)
    values, of = zip(*changes, strict=True)
    few = len(set(of)) < FEWEST_GROUPS
    gained, lost = sum(value > 0 for value in values), sum(value < 0 for value in values)
    single = all(value in (0.0, 1.0) for key in shared for value in (first[key], second[key]))
    return AccuracyChange(
        bootstrap(values, None if few else of), gained, lost, mcnemar(gained, lost) if single else None
    )


def rate_of(questions: Outcomes, groups: Mapping[str, str]) -> Proportion:
    """The accuracy on some questions, with its interval; `groups` as for `difference`."""
    if questions and questions.keys() <= groups.keys():
        return clustered(list(questions.values()), [groups[key] for key in questions])
    return proportion(questions.values())


def curves(
    outcomes: Mapping[int, Mapping[KindT, Outcomes]],
    groups: Mapping[str, str] | None = None,
    tops: Mapping[int, Mapping[KindT, TopAnswer]] | None = None,
) -> dict[KindT, list[Accuracy[KindT]]]:
    """The accuracy curve of every kind of question; `groups` as for `difference`."""
    found: dict[KindT, list[Accuracy[KindT]]] = {}
    for step, kinds in outcomes.items():
        for kind, questions in kinds.items():
            top = (tops or {}).get(step, {}).get(kind)
            found.setdefault(kind, []).append(Accuracy(step, kind, rate_of(questions, groups or {}), top))
    return found


def headline(
    kind: KindT,
    chance: float | None,
    points: list[Accuracy[KindT]],
    outcomes: Mapping[int, Mapping[KindT, Outcomes]],
    groups: Mapping[str, str] | None = None,
) -> Headline[KindT]:
    """The line of one kind of question, from its curve and the outcomes of all steps; `groups` as for `difference`."""
    before = points[0] if points[0].step == 0 else None
    after = points[-1] if points[-1].step > 0 else None
    change = None
    if before and after and {before.step, after.step} <= outcomes.keys():
        change = difference(outcomes[before.step].get(kind, {}), outcomes[after.step].get(kind, {}), groups)
    return Headline(kind, chance, before, after, change)


def question_of(row: Response, number: int) -> str:
    """The question that line `number` of a dump answers: a sample with its truth, so that runs can be compared."""
    return f"{row.sample} {row.truth}" if row.sample else f"row {number}"


def _arm_of(row: Response, by_source: bool) -> LoggedArm | None:
    """The arm of a response; with `by_source`, the arm and source, or None if it names none."""
    if row.arm is None or (by_source and not row.source):
        return None
    return replace(row.arm, source=row.source) if by_source else row.arm


def top_answers(rows: Iterable[Response], by_source: bool = False) -> dict[LoggedArm, TopAnswer]:
    """The most frequent answer of each arm, for the rows that hold answers; `by_source` as for `task_outcomes`."""
    given: dict[LoggedArm, Counter[str]] = {}
    right: dict[LoggedArm, Counter[str]] = {}
    for row in rows:
        arm = _arm_of(row, by_source)
        if arm is not None and row.answer is not None:
            given.setdefault(arm, Counter())[row.answer] += 1
            right.setdefault(arm, Counter())[json.dumps(json.loads(row.truth)["truth"])] += 1
    found = {}
    for arm, answers in given.items():
        # The first in the alphabet, where several are as frequent.
        text, count = min(answers.items(), key=lambda entry: (-entry[1], entry[0]))
        total = answers.total()
        found[arm] = TopAnswer(_as_asked(arm, text), count / total, max(right[arm].values()) / total)
    return found


def _as_asked(arm: LoggedArm, answer: str) -> str:
    """An answer of a dump as the prompt asks for it, such as `2, 1` for `(2, 1)`."""
    try:
        task, level = resolve(arm.task, arm.level, json.loads(arm.options))
        return str(task.grader(level).render(ast.literal_eval(answer)))
    except Exception:  # a word, or a task of another package that may raise anything
        return answer


def task_outcomes(rows: Iterable[Response], by_source: bool = False) -> dict[LoggedArm, Outcomes]:
    """Accuracy of every question (`question_of`), by arm.

    `by_source`: by arm and source, for rows that name one; the others are left out.
    """
    found: dict[LoggedArm, dict[str, list[float]]] = {}
    for number, row in enumerate(rows):
        acc, arm = row.figures.get("acc"), _arm_of(row, by_source)
        if arm is not None and acc is not None:
            found.setdefault(arm, {}).setdefault(question_of(row, number), []).append(acc)
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

"""Accuracies of a benchmark: overall, per l2-category and per category, plain and circular.

verl averages within one data source (`bench/<benchmark>/<category>`), so it has no accuracy over several categories, or over
several rows of one question. This module computes them from single answers. The report takes the answers from a run's
validation dumps, `ssl4rl evaluate` from its predictions.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ssl4rl_plugin.analysis.statistics import Proportion, wilson

OVERALL, L2_CATEGORY, CATEGORY = SCOPES = ("overall", "l2_category", "category")


@dataclass(frozen=True)
class AnsweredQuestion:
    """One response to a benchmark's question in one order of its options."""

    benchmark: str
    question: str
    """The question's id in the benchmark."""
    rotation: int
    """Number of places by which the options are rotated; 0 is the benchmark's own order."""
    rotations: int
    """Number of orders in which the question is asked."""
    category: str | None
    l2_category: str | None
    acc: float
    """1.0 if the answer is right, else 0.0."""


@dataclass(frozen=True)
class BenchmarkResult:
    """The accuracy of one benchmark, or of one of its categories."""

    benchmark: str
    scope: str
    """One of `SCOPES`."""
    name: str
    """Name of the category; empty for the whole benchmark."""
    plain: Proportion
    """Share of questions answered correctly in the benchmark's own order of options. Several responses to one question
    count with their mean; n is the number of questions."""
    circular: Proportion | None
    """Share of questions answered correctly in every order of their options; None if only one order was asked. With
    several responses to each order, the k-th responses to all orders are judged together."""
    incomplete: int
    """Number of questions left out of `circular`, because one of their orders has no response yet."""


def answered(ground_truth: str, acc: float | None) -> AnsweredQuestion | None:
    """A response, from its row's ground truth (`rewards.encode_question`) and `acc`; None if it does not answer a
    benchmark's question, or was not scored."""
    try:
        truth = json.loads(ground_truth)
        if acc is None or math.isnan(acc):
            return None
        return AnsweredQuestion(
            benchmark=truth["benchmark"],
            question=truth["question"],
            rotation=int(truth["rotation"]),
            rotations=int(truth["rotations"]),
            category=truth["category"],
            l2_category=truth["l2_category"],
            acc=min(1.0, max(0.0, float(acc))),
        )
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def benchmark_results(answers: Iterable[AnsweredQuestion]) -> list[BenchmarkResult]:
    """The results of every benchmark: overall, then its l2-categories, then its categories, each sorted by name.

    Intervals are Wilson intervals at 95 % over questions, which are treated as independent.

    Args:
        answers: in the order in which they were made.
    """
    grouped: dict[tuple[str, str, str], dict[str, list[AnsweredQuestion]]] = defaultdict(lambda: defaultdict(list))
    for answer in answers:
        names = {OVERALL: "", L2_CATEGORY: answer.l2_category, CATEGORY: answer.category}
        for scope, name in names.items():
            if name is not None:
                grouped[answer.benchmark, scope, name][answer.question].append(answer)
    order = sorted(grouped, key=lambda key: (key[0], SCOPES.index(key[1]), key[2]))
    return [_result(*key, grouped[key]) for key in order]


def _result(
    benchmark: str, scope: str, name: str, questions: Mapping[str, Sequence[AnsweredQuestion]]
) -> BenchmarkResult:
    plain = [[a.acc for a in given if a.rotation == 0] for given in questions.values()]
    circular = None
    incomplete = 0
    if any(a.rotations > 1 for given in questions.values() for a in given):
        # A question without options has one order, and counts with it.
        shares = [circular_accuracy(given) for given in questions.values()]
        incomplete = sum(share is None for share in shares)
        circular = _proportion([share for share in shares if share is not None])
    return BenchmarkResult(
        benchmark, scope, name, _proportion([math.fsum(a) / len(a) for a in plain if a]), circular, incomplete
    )


def circular_accuracy(answers: Sequence[AnsweredQuestion]) -> float | None:
    """Whether one question is answered correctly in every order of its options; None if an order has no response.

    MMBench's CircularEval (Liu et al., arXiv 2307.06281): 1.0 only if all orders are right. With n responses to each
    order, the mean over k of whether the k-th response to every order is right.
    """
    orders: dict[int, list[float]] = {rotation: [] for rotation in range(max(a.rotations for a in answers))}
    for answer in answers:
        orders.setdefault(answer.rotation, []).append(answer.acc)
    rounds = min(map(len, orders.values()))
    if not rounds:
        return None
    return math.fsum(min(given[k] for given in orders.values()) for k in range(rounds)) / rounds


def _proportion(shares: Sequence[float]) -> Proportion:
    return wilson(min(math.fsum(shares), len(shares)), len(shares))

"""The one reward function, with verl's signature, for every task.

    reward.custom_reward_function.path = pkg://ssl4rl_plugin.training.rewards
    reward.custom_reward_function.name = compute_score

verl calls it once per rollout, from several threads. It returns the same keys for every task, because verl makes a metric
of each and needs them in all rows. It never raises (verl would lose the prompt): a response that cannot be scored gets 0,
with the reason under `error`.
"""

from __future__ import annotations

import functools
import json
import math
import numbers
from dataclasses import dataclass
from typing import Any

from ssl4rl_plugin.core import Grader, Score, grade
from ssl4rl_plugin.core.grader import Credit
from ssl4rl_plugin.core.registry import reason
from ssl4rl_plugin.grading import question_grader
from ssl4rl_plugin.grading.consistency import DEGENERATE, last_named, repetition
from ssl4rl_plugin.grading.formats import answer_format
from ssl4rl_plugin.grading.lenient import lenient_value
from ssl4rl_plugin.tasks import resolve

INVALID = Score(0.0, correct=False, valid=False, similarity=0.0)
SHOWN = 128
"""Characters of an answer in the log."""


@dataclass(frozen=True)
class _Judged:
    """The score of a response, and the values that are logged with it."""

    score: Score = INVALID
    form: float = 0.0
    """1.0 if the form is exact and the answer valid."""
    agrees: bool | None = None
    """Whether the last value named in the reasoning is the answer; None if one of the two is missing."""
    answer: str = ""
    """The answer in canonical form; empty if it is not valid."""
    lenient: bool = False
    """The lenient reading is the truth."""
    lenient_valid: bool = False
    """The lenient reading finds a possible answer."""


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    *,
    answer_format: str = "think_answer",
    format_weight: float = 0.1,
    partial_credit: float = 0.5,
    partial_credit_by: Credit = "similarity",
    **_: Any,
) -> dict[str, Any]:
    """Score one response: `format_weight * format + (1 - format_weight) * accuracy`.

    Args:
        data_source: `ssl4rl/<task>` or `bench/<benchmark>/<category>`; verl groups its metrics by it.
        solution_str: the decoded response.
        ground_truth: JSON written by `encode_truth` or `encode_question`.
        extra_info: of the row. `thinking` says that the chat template opens the thought, so that the response begins
            inside it; the dataset and `ssl4rl evaluate` find it out from the tokenizer's own template.
        answer_format: one of `ssl4rl_plugin.grading.formats.FORMATS`.
        format_weight: share of the reward paid for the exact structure around one valid answer, in [0, 1). The check before
            a run refuses other values of this and the next two; here a response with one counts as not scored.
        partial_credit: largest accuracy of a close but wrong answer, in [0, 1]; 0 is all or nothing.
        partial_credit_by: what makes an answer close: `similarity` (above chance) or `places`; see `grade`.

    Returns:
        score: the reward in [0, 1]; exactly 1.0 only for a correct answer in exact form.
        acc: 1.0 if the answer is correct, else 0.0.
        format: 1.0 if the structure is exact and the answer valid, else 0.0.
        valid: 1.0 if the answer is one of the possible ones, else 0.0.
        similarity: graded closeness to the truth in [0, 1], before chance correction.
        consistent: 1.0 if the last possible answer that the reasoning names is the answer given, else 0.0.
        inconsistent: 1.0 if it is another one, else 0.0. Both are 0.0 without a valid answer, or if the reasoning names
            none.
        repetition: share of the response's n-grams that are repeats, in [0, 1).
        degenerate: 1.0 if more than half of them are, else 0.0.
        failed: 1.0 if the response could not be scored at all (see `error`), else 0.0.
        questions: for a benchmark's row, the number of questions of its data source in this validation; otherwise None,
            which verl leaves out of its means.
        lenient: 1.0 if the lenient reading (`ssl4rl_plugin.grading.lenient`) is correct, else 0.0. Never paid.
        lenient_only: 1.0 if only the lenient reading finds a possible answer, else 0.0.
        answer: the answer in canonical form ("" if not valid); the curriculum computes the diversity of answers from it.
        level, sample, item, error: strings ("" for none), for verl's rollout dumps.
    """
    level = sample = item = error = ""
    questions: float | None = None
    judged, repeated, reward = _Judged(), 0.0, 0.0
    try:
        truth = json.loads(ground_truth)
        level, sample = _text(truth["level"]), _text(truth["sample"])
        if truth.get("questions") is not None:
            questions = _count(truth["questions"])
        repeated = repetition(solution_str)
        thinking, item = bool((extra_info or {}).get("thinking")), _text((extra_info or {}).get("item", ""))
        weight = _share("format_weight", format_weight)
        partial = _share("partial_credit", partial_credit)
        found = _judge(solution_str, truth, answer_format, partial, partial_credit_by, thinking)
        score = found.score
        if not (0.0 <= score.value <= 1.0 and 0.0 <= score.similarity <= 1.0):  # NaN too
            raise ValueError(f"the grader gave {score.value} for a similarity of {score.similarity}, outside of [0, 1]")
        reward = 1.0 if score.correct and found.form else weight * found.form + (1.0 - weight) * score.value
        judged = found
    except Exception as problem:  # verl drops the prompt if a reward function raises any exception
        error = _text(reason(problem))[:200]
    score, form = judged.score, judged.form
    return {
        "score": reward,
        "acc": float(score.correct),
        "format": form,
        "valid": float(score.valid),
        "similarity": float(score.similarity),
        "consistent": float(judged.agrees is True),
        "inconsistent": float(judged.agrees is False),
        "repetition": repeated,
        "degenerate": float(repeated > DEGENERATE),
        "failed": float(bool(error)),
        "lenient": float(judged.lenient),
        "lenient_only": float(judged.lenient_valid and not score.valid),
        "questions": questions,
        "answer": _text(judged.answer),
        "level": level,
        "sample": sample,
        "item": item,
        "error": error,
    }


def _share(name: str, value: Any) -> float:
    """A setting of the reward as a number. Raises ValueError, where the check before a run was left out."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0.0 <= float(value) <= 1.0:
        raise ValueError(f"{name} must be a number in [0, 1], got {value!r}")
    return float(value)


def _count(value: Any) -> float:
    """The number of questions in a ground truth, at least 0 and finite. Raises ValueError."""
    count = float(value)
    if not 0.0 <= count < math.inf:
        raise ValueError(f"the ground truth says {value!r} questions")
    return count


def _text(value: Any) -> str:
    """A value as text that can be written as UTF-8, as verl does."""
    return str(value).encode("utf-8", "replace").decode()


def _judge(
    response: str, truth: dict[str, Any], format_name: str, partial_credit: float, credit_by: Credit, thinking: bool
) -> _Judged:
    """The score of a response's answer, its form, and whether its reasoning names the same."""
    grader = _grader(truth)
    found = answer_format(format_name).find(response, thinking)
    scores = [grade(grader, text, truth["truth"], partial_credit, credit_by) for text in found.texts]
    # Several answers that disagree are a hedge, and none. The lenient reading does not look behind one.
    hedged = len(scores) > 1 and len({repr(grader.parse(text)) for text in found.texts}) > 1
    score = INVALID if hedged or not scores else scores[-1]
    if not score.valid:
        value = None if hedged else lenient_value(grader, response, thinking)
        return _Judged(
            lenient=value is not None and grader.equal(value, truth["truth"]), lenient_valid=value is not None
        )
    named = last_named(grader, found.reasoning)
    answer = grader.parse(found.texts[-1])
    agrees = None if named is None else bool(named == answer)
    return _Judged(score, float(found.exact), agrees, str(answer)[:SHOWN], score.correct, True)


def _grader(truth: dict[str, Any]) -> Grader[Any]:
    """The grader of a row: its task's, or that of a benchmark's question."""
    if "benchmark" in truth:
        return question_grader(tuple(truth["choices"]))
    task, level = _task_at(truth["task"], truth["level"], json.dumps(truth.get("options", {}), sort_keys=True))
    return task.grader(level)


@functools.lru_cache(maxsize=256)
def _task_at(name: str, level: str, options: str) -> tuple[Any, Any]:
    return resolve(name, level, json.loads(options))

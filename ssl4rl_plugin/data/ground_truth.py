"""The `ground_truth` of a row: one JSON string with all that the reward function needs."""

from __future__ import annotations

import json
from typing import Any


def encode_truth(task: str, level: str, options: dict[str, Any], truth: Any, sample: str) -> str:
    """The ground truth of a sample: one JSON string with all that scoring needs (see `compute_score`).

    `sample` is its identity, `train:17`: verl writes the ground truth into its rollout dumps, and the sample with its
    pictures can be made again from there.
    """
    return json.dumps(
        {"task": task, "level": level, "options": options, "truth": truth, "sample": sample}, sort_keys=True
    )


def encode_question(
    benchmark: str,
    choices: tuple[str, ...],
    answer: str,
    sample: str,
    *,
    question: str,
    category: str | None,
    l2_category: str | None = None,
    rotation: int = 0,
    rotations: int = 1,
    questions: int,
) -> str:
    """The ground truth of a benchmark's row: one JSON string with all that scoring and `ssl4rl_plugin.analysis.benchmark_results` need.

    Args:
        benchmark: its name.
        choices: the option texts in the order in which they are shown; none for a free answer.
        answer: the right letter, or the right words.
        sample: the row's identity, `benchmark:id`.
        question: the question's id in the benchmark.
        category, l2_category: where the benchmark puts the question; None where it does not say.
        rotation, rotations: which of how many orders of the options this row shows (circular evaluation).
        questions: how many rows share its data source.
    """
    truth = {
        "benchmark": benchmark, "level": "", "choices": choices, "truth": answer, "sample": sample, "question": question,
        "category": category, "l2_category": l2_category, "rotation": rotation, "rotations": rotations,
        "questions": questions,
    }  # fmt: skip
    return json.dumps(truth, sort_keys=True)

"""The `ground_truth` of a row: one JSON string with everything that the reward function needs."""

from __future__ import annotations

import json
from typing import Any


def encode_truth(task: str, level: str, options: dict[str, Any], truth: Any, sample: str, source: str = "") -> str:
    """The ground truth of a sample as JSON; see `compute_score`.

    `sample` is the sample's key, such as `train:17`. verl writes the ground truth into its rollout dumps; with the key,
    the sample and its images can be made again. `source` is the label of its source, in a run with several.
    """
    values = {"task": task, "level": level, "options": options, "truth": truth, "sample": sample}
    return json.dumps(values | ({"source": source} if source else {}), sort_keys=True)


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
    """The ground truth of a benchmark's row as JSON, for scoring and `ssl4rl_plugin.analysis.benchmark_results`.

    Args:
        benchmark: name of the benchmark.
        choices: the option texts in the order shown; empty for a free answer.
        answer: the correct letter, or the correct text.
        sample: the row's key, `benchmark:id`.
        question: the question's id in the benchmark.
        category, l2_category: the question's categories in the benchmark; None if it has none.
        rotation, rotations: number of this rotation of the options, and how many there are (circular evaluation).
        questions: number of rows that share the data source.
    """
    truth = {
        "benchmark": benchmark, "level": "", "choices": choices, "truth": answer, "sample": sample, "question": question,
        "category": category, "l2_category": l2_category, "rotation": rotation, "rotations": rotations,
        "questions": questions,
    }  # fmt: skip
    return json.dumps(truth, sort_keys=True)

"""Cost of scoring: ordinary responses, and hostile megabyte strings (claim: under 50 ms each, median).

Run with `make bench`.
"""

from __future__ import annotations

import pytest

from ssl4rl_plugin.data.ground_truth import encode_truth
from ssl4rl_plugin.grading.formats import FORMATS
from ssl4rl_plugin.tasks import get_task, registry
from ssl4rl_plugin.training.rewards import compute_score

MEGABYTE = 1_000_000
HOSTILE = {
    "open answer tags": "<answer>" * (MEGABYTE // 8),
    "closing answer tags": "</answer>" * (MEGABYTE // 9),
    "open think tags": "<think>" * (MEGABYTE // 7),
    "agreeing answers": "<answer>90</answer>" * (MEGABYTE // 19),
    "digits": "9" * MEGABYTE,
    "angle brackets": "<" * MEGABYTE,
    "angle brackets in thinking": "<think>" + "<" * MEGABYTE + "</think><answer>90</answer>",
    "endless thinking": "<think>" + "a" * MEGABYTE,
    "boxes": "\\boxed{" * (MEGABYTE // 7),
    "nested braces": "\\boxed{" + "{" * (MEGABYTE // 2) + "}" * (MEGABYTE // 2),
    "spaces": " " * MEGABYTE + "<answer>90</answer>",
    "long answer": "<answer>" + "1," * (MEGABYTE // 2) + "</answer>",
    "numbers in thinking": "<think>" + "1, " * (MEGABYTE // 3) + "</think><answer>2,3,1,4</answer>",
    "letters in thinking": "<think>" + "A " * (MEGABYTE // 2) + "</think><answer>2,3,1,4</answer>",
}


def truth_of(name: str) -> str:
    task = get_task(name)
    return encode_truth(name, task.default_level, {}, next(iter(task.grader(task.level()).values())), "bench:0")


@pytest.mark.parametrize("task", registry.names())
def test_ordinary_response(benchmark, task: str) -> None:
    benchmark.group = "ordinary response"
    truth, response = truth_of(task), FORMATS["think_answer"].render("90")
    benchmark(compute_score, f"ssl4rl/{task}", response, truth)


@pytest.mark.parametrize("task", ("jigsaw", "rotation", "position"))
def test_long_reasoning(benchmark, task: str) -> None:
    """2,000 words, about what `data.max_response_length` of the recipes allows: the figures about reasoning and loops are
    most of the cost."""
    benchmark.group = "long reasoning"
    words = " ".join(f"word{k} tile {k % 9} at the top-left" for k in range(400))
    benchmark(compute_score, f"ssl4rl/{task}", f"<think>{words}</think><answer>90</answer>", truth_of(task))


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("fmt", FORMATS)
def test_hostile_megabyte(benchmark, kind: str, fmt: str) -> None:
    benchmark.group = "hostile megabyte"
    truth = truth_of("jigsaw")
    benchmark.pedantic(compute_score, ("x", HOSTILE[kind], truth), {"answer_format": fmt}, rounds=7)

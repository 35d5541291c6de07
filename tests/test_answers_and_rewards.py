"""The answer is found where it should be, paid as documented, and nothing hostile raises or is paid."""

from __future__ import annotations

import itertools
import os
import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl4rl_plugin.data.ground_truth import encode_truth
from ssl4rl_plugin.grading import Angle, Choice, Permutation
from ssl4rl_plugin.grading.formats import FORMATS
from ssl4rl_plugin.tasks import get_task, registry
from ssl4rl_plugin.training.rewards import compute_score

ROTATION = encode_truth("rotation", "pair_90", {}, 90, "train:0")
JIGSAW = encode_truth("jigsaw", "2x2", {}, [2, 3, 1, 4], "train:1")
POSITION = encode_truth("position", "quadrants", {}, "top-left", "train:2")


def score(response: str, truth: str = ROTATION, **kwargs) -> dict:
    return compute_score("ssl4rl/x", response, truth, {}, **kwargs)


@pytest.mark.parametrize(
    "response",
    [
        "<think>a</think><answer>90</answer>",
        "  <think>\nlong\nthought\n</think>\n\n<answer>\n90°\n</answer>\n",
        "<think>1 < 2 and <b>bold</b></think> <answer>90 degrees</answer>",
        "<think></think><answer>[90]</answer>",
        "<think>x</think><answer>-270</answer>",
        "<think>x</think><answer>90.0</answer>",
    ],
)
def test_right_answers_in_right_form_score_exactly_one(response: str) -> None:
    assert score(response)["score"] == 1.0


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("<answer>90</answer>", 0.9),  # right, but no thinking
        ("so <think>a</think><answer>90</answer>", 0.9),
        ("<think>a</think><answer>90</answer> done", 0.9),
        ("<think>a</think><answer>0</answer><answer>90</answer>", 0.0),  # two that disagree
        ("<think>a</think><answer>90</answer><answer>90.0</answer>", 0.9),  # two that agree
        ("<think><answer>90</answer></think>", 0.0),  # inside thinking
        ("<think>a<answer>90</answer>", 0.0),  # thinking never ends
        ("<answer>0</answer></think><answer>90</answer>", 0.9),  # thinking opened in the prompt
        ("<think>a</think><answer>0</answer>", 0.1),  # valid, wrong by 90 degrees: at chance
        ("<think>a</think><answer>270</answer>", 0.1),
        ("<think>a</think><answer>45</answer>", 0.0),  # not a possible answer
        ("<think>a</think><answer>ninety</answer>", 0.0),
        ("<think>a</think><answer></answer>", 0.0),
        ("<think>a</think>90", 0.0),
        ("", 0.0),
    ],
)
def test_documented_cases(response: str, expected: float) -> None:
    assert score(response)["score"] == pytest.approx(expected)


def test_graded_answers_are_corrected_for_chance() -> None:
    chance = Permutation(2, 2).chance_similarity
    swapped = score("<think>a</think><answer>3,2,1,4</answer>", JIGSAW)
    similarity = Permutation(2, 2).similarity((3, 2, 1, 4), [2, 3, 1, 4])
    assert swapped["similarity"] == similarity > chance
    assert swapped["score"] == pytest.approx(0.1 + 0.9 * 0.5 * (similarity - chance) / (1 - chance))
    assert score("<think>a</think><answer>3,2,1,4</answer>", JIGSAW, partial_credit=0.0)["score"] == pytest.approx(0.1)
    for invalid in ("1,1,1,1", "2,3,1", "2,3,1,4,9", "0,1,2,3", "2 3 1 x"):
        assert score(f"<think>a</think><answer>{invalid}</answer>", JIGSAW)["score"] == 0.0
    for same in ("2,3,1,4", "[2, 3, 1, 4]", "2 3 1 4", "(2;3;1;4)", "`2, 3, 1, 4`."):
        assert score(f"<think>a</think><answer>{same}</answer>", JIGSAW)["score"] == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "top-left",
        "Top-Left",
        "TOP LEFT",
        "top_left",
        "upper left",
        "Upper-Left",
        r"\text{top-left}",
        "**top-left**",
        "top-left.",
    ],
)
def test_choices_forgive_form(text: str) -> None:
    assert score(f"<think>a</think><answer>{text}</answer>", POSITION)["score"] == 1.0


def test_choices_do_not_forgive_content() -> None:
    for text in ("top", "left", "top-left or top-right", "not top-left", "top-leftmost"):
        assert score(f"<think>a</think><answer>{text}</answer>", POSITION)["score"] == 0.0


def test_boxed_counts_the_last_box_and_balances_braces() -> None:
    assert score(r"I think \boxed{90}", answer_format="boxed")["score"] == 1.0
    assert score(r"$\boxed{90}$.", answer_format="boxed")["score"] == 1.0
    assert score(r"\boxed{0} no, \boxed{90}", answer_format="boxed")["score"] == 0.0
    assert score(r"\boxed{{90}}", answer_format="boxed")["acc"] == 1.0
    for latex in (r"\boxed{90^\circ}", r"so $\boxed{90^{\circ}}$", r"\boxed{\text{90}}"):
        assert score(latex, answer_format="boxed")["score"] == 1.0
    assert score(r"\boxed{90", answer_format="boxed")["score"] == 0.0


def test_every_result_has_the_same_keys_and_plain_values() -> None:
    results = [score("", ROTATION), score("<answer>1</answer>", JIGSAW), score("x", "not json"), score("x", "{}")]
    results.append(compute_score(None, None, None, None))  # type: ignore[arg-type]
    assert len({tuple(result) for result in results}) == 1
    for result in results:
        assert all(isinstance(value, float | str) or value is None for value in result.values())
        assert result["score"] == 0.0
    assert results[2]["error"] and results[3]["error"] and not results[0]["error"]
    assert "nope" in score("<answer>1</answer>", encode_truth("nope", "x", {}, 1, "s"))["error"]


PIECES = [
    "<think>", "</think>", "<answer>", "</answer>", "\\boxed{", "{", "}", "90", "top-left", "2,3,1,4", "A", "same", "°",
    " ", "\n", "<", ">", "</", "\x00", "\ud83d", "🧩", "<|im_end|>", "９０", "1e5", "-", ",", "[" * 50, "(" * 500,
    "9" * 5000,
]  # fmt: skip


ANSWERS = ("90", "0", "2,3,1,4", "top-left", "A", "same", "1,2,3,4")
"""Possible answers of one task or another."""


def hostile(rng: random.Random, possible: str) -> str:
    """A string that is garbage, or nearly a response with a possible answer: mutated at up to three places."""
    kind = rng.random()
    if kind < 0.3:
        return "".join(rng.choice(PIECES) for _ in range(rng.randrange(12)))
    if kind < 0.5:
        return "".join(
            chr(rng.choice((rng.randrange(32, 127), rng.randrange(0x2000)))) for _ in range(rng.randrange(60))
        )
    if kind < 0.6:
        return rng.choice(PIECES) * rng.randrange(200)
    answer = rng.choice((possible, possible, *ANSWERS, rng.choice(PIECES)))
    parts = list(
        rng.choice(
            ((f"<think>{rng.choice(PIECES)}</think>", "<answer>", answer, "</answer>"), ("\\boxed{", answer, "}"))
        )
    )
    for _ in range(rng.randrange(4)):
        parts.insert(rng.randrange(len(parts) + 1), rng.choice(PIECES))
    return "".join(parts)


def has_one_valid_answer(response: str, fmt_name: str, grader) -> bool:
    """The rule, written again without the code under test: a visible block is valid, and all visible blocks agree."""
    visible: list[str] = []
    thinking = False
    for piece in re.split("(</?think>)", response):
        if piece == "</think>" and not thinking:
            visible.clear()  # thinking that was opened in the prompt
        elif not thinking and piece not in ("<think>", "</think>"):
            visible.append(piece)
        thinking = piece == "<think>" or (thinking and piece != "</think>")
    text = "\n".join(visible)
    if fmt_name == "boxed":
        blocks = []
        for start in (match.end() for match in re.finditer(r"\\boxed\{", text)):
            depths = list(itertools.accumulate({"{": 1, "}": -1}.get(c, 0) for c in text[start:]))
            blocks += [text[start : start + depths.index(-1)]] if -1 in depths else []
    else:
        blocks = re.findall("<answer>((?:(?!</?answer>).)*)</answer>", text, re.DOTALL)
    values = {repr(grader.parse(block)) for block in blocks}
    return len(values) == 1 and values != {"None"}


HOSTILE = 500 * int(os.environ.get("SSL4RL_TEST_SAMPLES", "100"))
"""50,000 on a push, 250,000 in `make test-full`."""


@pytest.mark.slow
def test_hostile_strings_through_every_task() -> None:
    """No exception, values in range, and no reward without one valid answer."""
    rng = random.Random(0)
    tasks = [get_task(name) for name in registry.names()]
    truths = []
    for task in tasks:
        grader = task.grader(task.level())
        truths.append((encode_truth(task.name, task.default_level, {}, next(iter(grader.values())), "t:0"), grader))
    paid = 0
    for number in range(HOSTILE):
        truth, grader = truths[number % len(truths)]
        response = hostile(rng, grader.render(grader.draw(rng)))
        fmt = list(FORMATS)[number % 3]
        result = compute_score("x", response, truth, answer_format=fmt)
        assert 0.0 <= result["score"] <= 1.0 and result["error"] == "", (response[:200], result)
        if result["score"] > 0:
            paid += 1
            assert has_one_valid_answer(response, fmt, grader), response[:200]
    assert paid > HOSTILE // 100, "the generator must reach the paid branch for the check to mean anything"


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("<>/thinkanswer{}\\boxed0123456789 ,\n"), max_size=300))
def test_arbitrary_text_never_raises(text: str) -> None:
    for fmt in FORMATS:
        assert score(text, JIGSAW, answer_format=fmt)["error"] == ""


MEGABYTE = [
    "<answer>" * 125_000, "</answer>" * 111_000, "<think>" * 142_000, "<answer>90</answer>" * 52_000, "9" * 1_000_000,
    "<" * 1_000_000, "\\boxed{" * 142_000, "<think>" + "a" * 1_000_000, "<answer>" + " " * 1_000_000 + "</answer>",
    "<think>" + "<" * 500_000 + "</think><answer>90</answer>", "<answer>" + "1," * 500_000 + "</answer>",
    "\\boxed{" + "{" * 500_000 + "}" * 500_000, " " * 1_000_000 + "<answer>90</answer>" + " " * 10,
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(MEGABYTE)))
def test_time_is_linear_on_megabyte_strings(number: int) -> None:
    """A guard against quadratic time with a wide margin; the 50 ms claim is measured in the benchmarks."""
    start = time.perf_counter()
    for fmt in FORMATS:
        for truth in (ROTATION, JIGSAW, POSITION):
            assert score(MEGABYTE[number], truth, answer_format=fmt)["error"] == ""
    assert time.perf_counter() - start < 9 * 1.0


def test_graders_check_their_arguments() -> None:
    for bad in (lambda: Angle(7), lambda: Angle(0), lambda: Permutation(1, 1), lambda: Choice(("a", "A")).parse("a")):
        with pytest.raises(ValueError):
            bad()

"""Figures about the reasoning and about loops: what they see, what they do not, and that they cost little."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl4rl_plugin.core import Grader
from ssl4rl_plugin.data.ground_truth import encode_question, encode_truth
from ssl4rl_plugin.grading import (
    Angle,
    Box,
    Choice,
    Counts,
    Interval,
    LabelSet,
    Ordering,
    Permutation,
    Words,
    question_grader,
)
from ssl4rl_plugin.grading.consistency import DEGENERATE, last_named, repetition
from ssl4rl_plugin.grading.formats import FORMATS
from ssl4rl_plugin.training.rewards import compute_score

ABCD = Choice(tuple("ABCD"))
PLACES = Choice(("top-left", "top-right", "bottom-left"), {"upper left": "top-left"})
ROTATION = encode_truth("rotation", "pair_90", {}, 90, "train:0")


@pytest.mark.parametrize(
    ("grader", "reasoning", "named"),
    [
        (ABCD, "It could be A. But the edge fits B, so B.", "B"),
        (ABCD, "A dog sits on a mat.", None),  # an article
        (ABCD, "I see B first. A dog sits there", "B"),
        (ABCD, "The answer is A because the sky is blue", "A"),
        (ABCD, "B? No. A fits better", "A"),
        (ABCD, "so **(C)**", "C"),
        (ABCD, "see option b", None),  # a letter is named as a letter
        (ABCD, "B's edge", None),
        (ABCD, "ABBA", None),
        (PLACES, "Top right? No: the Upper-Left corner.", "top-left"),
        (PLACES, "the top", None),
        (question_grader(("a red cat", "dog")), "there is a dog, no, a red  cat", "A"),
        (question_grader(("cat", "hot dog", "dog")), "a hot dog", "B"),
        (Angle(90), "of the 2 pictures this was turned by 180, or rather 90 degrees", 90),
        (Angle(90), "0, 90, 180 or 270?", 270),
        (Angle(90), "turned by 45", None),
        (Permutation(2, 2), "place 1: tile 2 ... so the order is 2, 3, 1, 4.", (2, 3, 1, 4)),
        (Permutation(2, 2), "1, 1, 2, 3", None),
        (Ordering(tuple("ABC")), "so B > A > C in the end", ("B", "A", "C")),
        (LabelSet(tuple("ABCD"), 2), "B and D are swapped", ("B", "D")),
        (Counts(1, 1, 9), "I count 3 stars", (3,)),
        (Interval(16, 3, 6), "frames 3 to 7 are gray", (3, 7)),
        (Box(0.2, 0.4), "from (100, 200) to (300, 450)", (100, 200, 300, 450)),
        (Words(), "it is red", None),  # any word would do
        (ABCD, "", None),
    ],
)
def test_the_last_value_named(grader: Grader[Any], reasoning: str, named: Any) -> None:
    assert last_named(grader, reasoning) == named


def flags(response: str, truth: str = ROTATION, fmt: str = "think_answer") -> tuple[float, float]:
    result = compute_score("x", response, truth, answer_format=fmt)
    assert result["error"] == ""
    return result["consistent"], result["inconsistent"]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("<think>0? no, 90°</think><answer>90</answer>", (1.0, 0.0)),
        ("<think>90? no, 180</think><answer>90</answer>", (0.0, 1.0)),
        ("<think>wrong, but as I said: 270</think><answer>270</answer>", (1.0, 0.0)),  # of a wrong answer too
        ("<think>hm</think><answer>90</answer>", (0.0, 0.0)),
        ("<think>90</think><answer>45</answer>", (0.0, 0.0)),  # no possible answer
        ("<think>90</think><answer>0</answer><answer>90</answer>", (0.0, 0.0)),  # no one answer
        ("<think>90</think>", (0.0, 0.0)),
        ("90 it is</think><answer>90</answer>", (1.0, 0.0)),  # thinking opened in the prompt
        ("180 <answer>90</answer>", (0.0, 1.0)),  # reasoning outside of the tags
        ("<answer>90</answer> 180", (0.0, 0.0)),  # said afterwards
        ("", (0.0, 0.0)),
    ],
)
def test_reasoning_against_answer(response: str, expected: tuple[float, float]) -> None:
    assert flags(response) == expected


def test_reasoning_against_answer_in_other_formats_and_on_questions() -> None:
    assert flags("first 180, now 90: \\boxed{90}", fmt="boxed") == (1.0, 0.0)
    assert flags("<answer>90</answer>", fmt="answer_only") == (0.0, 0.0)
    truth = encode_question("b", ("cat", "dog"), "B", "b:1", question="1", category=None, questions=1)
    assert flags("<think>I see a dog.</think><answer>B</answer>", truth) == (1.0, 0.0)
    assert flags("<think>I see a dog.</think><answer>A</answer>", truth) == (0.0, 1.0)


def test_loops_are_told_from_prose() -> None:
    prose = (
        "Now I look at the first picture, which shows a house; then at the other one, where trees stand behind the fence, "
        "and a person walks along the road to the left of the lamp. The second lacks the lamp, so the crop comes from the "
        "top right corner. The window there has four panes, as in the crop, and the wall is of the same red brick."
    )
    assert repetition(prose) < 0.05
    assert repetition(prose + "so the answer is B. " * 200) > 0.9
    assert repetition("啊" * 500) > 0.9 and repetition("a" * 3000) > 0.9
    assert repetition("no no no") == 0.0  # too short to be a loop
    for response, expected in ((prose, 0.0), (prose + "wait, " * 400, 1.0)):
        result = compute_score("x", f"<think>{response}</think><answer>90</answer>", ROTATION)
        assert result["degenerate"] == expected == float(result["repetition"] > DEGENERATE)
        assert result["score"] == 1.0  # a figure, not a penalty


def test_repetition_by_hand() -> None:
    words = [f"w{k:02}" for k in range(40)]  # one piece each
    once, twice = " ".join(words), " ".join(words * 2)
    assert repetition(once) == 0.0
    # 80 pieces have 73 runs of 8. The 40 that begin in the first half are distinct, the 33 others repeat them.
    assert repetition(twice) == pytest.approx(1 - 40 / 73)


@pytest.mark.parametrize("fmt", FORMATS)
@given(text=st.text(alphabet=st.sampled_from("ABab190 ,;>()[]-–.°'\n\\{}<>/thinkansweroxd"), max_size=300))
def test_any_text_is_read(fmt: str, text: str) -> None:
    for truth in (ROTATION, encode_truth("jigsaw", "2x2", {}, [2, 3, 1, 4], "t:1")):
        consistent, inconsistent = flags(text, truth, fmt)
        assert consistent + inconsistent <= 1.0


@pytest.mark.parametrize("piece", ["A ", "1,", "[", "a-", "1 and ", " ", "B", "9", "-", "(1 "])
def test_time_does_not_grow_with_the_text(piece: str) -> None:
    """A guard with a wide margin; the cost is measured in the benchmarks."""
    response = f"<think>{piece * (1_000_000 // len(piece))}</think><answer>90</answer>"
    start = time.perf_counter()
    for grader in (ABCD, PLACES, Angle(90), Permutation(2, 2), question_grader(("a b " * 40, "c d " * 40))):
        last_named(grader, response)
    repetition(response)
    assert time.perf_counter() - start < 2.0

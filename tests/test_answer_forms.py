"""Every way of writing that a grader accepts reads as the value, at every level of every task, and no hedge reads as one."""

from __future__ import annotations

import itertools
import random
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl4rl_plugin.core import Grader
from ssl4rl_plugin.data.ground_truth import encode_truth
from ssl4rl_plugin.grading import question_grader
from ssl4rl_plugin.grading.text import REFUSED, WRAPPINGS, full_width, normalise
from ssl4rl_plugin.tasks import get_task, registry
from ssl4rl_plugin.training.rewards import compute_score

ARMS = [(name, level) for name in registry.names() for level in get_task(name).levels]
OPTIONS = ("a dog", "A cat", "two birds", "None of these")


@cache
def grader_of(arm: tuple[str, str]) -> Grader[Any]:
    return get_task(arm[0]).grader(get_task(arm[0]).level(arm[1]))


@cache
def values_of(grader: Grader[Any]) -> list[Any]:
    """Some possible answers, each different from the others."""
    some = list(itertools.islice(grader.values(), 400))
    random.Random(0).shuffle(some)
    return some[:40]


def written(data: st.DataObject, grader: Grader[Any], value: Any) -> str:
    """The value in one of its forms, perhaps with something around it or in full width."""
    form = data.draw(st.sampled_from(sorted(grader.forms(value).items())))[1]
    around = data.draw(st.sampled_from(["{}", *WRAPPINGS.values()]))
    if '"' in form and ('"' in around or "“" in around):  # JSON inside of quotes is no form of anybody's
        around = "{}"
    text = around.replace("{{", "{").replace("}}", "}").replace("{}", form) if "{}" in around else form
    return full_width(text) if data.draw(st.booleans()) and "\\" not in text and "<|" not in text else text


@pytest.mark.parametrize("arm", ARMS, ids=":".join)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_every_form_of_a_value_reads_as_that_value(arm: tuple[str, str], data: st.DataObject) -> None:
    grader = grader_of(arm)
    value = data.draw(st.sampled_from(values_of(grader)))
    text = written(data, grader, value)
    assert grader.parse(text) == value, text


@pytest.mark.parametrize("arm", ARMS, ids=":".join)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_form_of_a_hedge_is_an_answer(arm: tuple[str, str], data: st.DataObject) -> None:
    grader = grader_of(arm)
    values = values_of(grader)
    one = data.draw(st.sampled_from(values))
    other = data.draw(st.sampled_from([value for value in values if value != one]))
    first, second = (data.draw(st.sampled_from(sorted(grader.forms(v).values()))) for v in (one, other))
    template = data.draw(st.sampled_from(sorted(REFUSED.values())))
    text = template.replace("{other}", second).replace("{}", first)
    assert grader.parse(text) is None, text


@pytest.mark.parametrize("arm", ARMS, ids=":".join)
def test_gold_in_every_form_is_paid_as_gold(arm: tuple[str, str]) -> None:
    grader = grader_of(arm)
    rng = random.Random(1)
    for _ in range(3):
        truth = grader.draw(rng)
        value = grader.parse(grader.render(truth))
        assert value is not None
        row = encode_truth(*arm, {}, truth, "test:0")
        for name, form in grader.forms(value).items():
            result = compute_score("x", f"<think>so</think><answer>{form}</answer>", row)
            assert (result["score"], result["error"]) == (1.0, ""), (name, form)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_options_read_with_their_own_text_only(data: st.DataObject) -> None:
    grader = question_grader(OPTIONS)
    letter = data.draw(st.sampled_from("ABCD"))
    assert grader.parse(written(data, grader, letter)) == letter
    other = data.draw(st.sampled_from([text for text in OPTIONS if text != OPTIONS["ABCD".index(letter)]]))
    mark = data.draw(
        st.sampled_from(["{}. {}", "{}) {}", "({}) {}", "{}: {}", "Option {}: {}", "{} - {}", "**{}. {}**"])
    )
    assert grader.parse(mark.format(letter, other)) is None


LOOK_ALIKES = [
    ("rotation", "pair_90", ["²", "9 0", "90.0000001", "9e1", "1e2", "90 180", "90 or 180", "ninety or so", "clockwise",
                             "90 degrees clockwise counter-clockwise", "90°°°", "٩٠", "⁹⁰", "90 < 180", "+-90",
                             "--90", ""]),
    ("position", "quadrants", ["not top-left", "neither", "both", "top", "left", "top-left top-right", "top-bottom",
                               "left-right", "tор-left", "top-left or top-right", "anywhere but top-left",
                               "top left right"]),
    ("contrastive", "overlap", ["same different", "not the same", "same or different", "sаme", "yes, different", "no, same",
                                "unsure", "it depends", "the", "photo"]),
    ("altered_patch", "2x2_mask", ["В", "А", "A B", "AB", "A or B", "A/B", "not A", "E", "Aa", "a b",
                                   "the a or the b", "[]"]),
    ("jigsaw", "2x2", ["1,1,1,1", "1,2,3", "1,2,3,4,4", "1 to 4", "1..4", "0,1,2,3", "2,3,1,x", "[[2,3],[1]]", "²,3,1,4",
                       "2,3,1,4 or 1,2,3,4", "-2, 3, 1, 4", "2.5,3,1,4", "1. 2\n3. 3\n2. 1\n4. 4"]),
    ("jigsaw_box", "large", ["[-5, 200, 600, 700]", "[1, 2, 3]", "[100, 200, 300, 1450]", "[300, 200, 100, 450]", "{}", "□",
                             '[{"bbox_2d": [1, 2, 30, 40]}, {"bbox_2d": [1, 2, 30, 40]}]', "x1=1, x1=2, y1=3, y2=4",
                             "[100, 200, 300, -450]", "100 200 300 450 500"]),
]  # fmt: skip


@pytest.mark.parametrize(("task", "level", "texts"), LOOK_ALIKES, ids=[task for task, _, _ in LOOK_ALIKES])
def test_what_only_looks_like_an_answer_is_none(task: str, level: str, texts: list[str]) -> None:
    level = level if level in get_task(task).levels else get_task(task).default_level
    grader = grader_of((task, level))
    for text in texts:
        assert grader.parse(text) is None, text


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=80))
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalise(text)
    assert once is not None and len(once) <= 4 * len(text) + 8

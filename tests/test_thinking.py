"""Chat templates that open the thought: told from the template, and paid and read accordingly.

The templates here are our own, in the shapes of Qwen2.5-VL, Qwen3-VL-Instruct, Qwen3-VL-Thinking, Qwen3 and GLM-4V.
"""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from ssl4rl_plugin.data.ground_truth import encode_truth
from ssl4rl_plugin.grading.formats import FORMATS
from ssl4rl_plugin.training.chat_template import opens_thought
from ssl4rl_plugin.training.rewards import compute_score

TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = TURNS[: -len("{% endif %}")] + "<think>\n{% endif %}"
SWITCH = (
    TURNS[: -len("{% endif %}")]
    + "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
GLM = (
    "[gMASK]<sop>{% for message in messages %}<|{{ message['role'] }}|>\n{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|begin_of_image|><|image|><|end_of_image|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n<think>{% endif %}"
)
SHAPES = [
    ("Qwen2.5-VL", TURNS, {}, False),
    ("Qwen3-VL-Instruct", TURNS, {}, False),
    ("Qwen3-VL-Thinking", THINKING, {}, True),
    ("Qwen3", SWITCH, {}, False),
    ("Qwen3 without thinking", SWITCH, {"enable_thinking": False}, False),
    ("GLM-4V", GLM, {}, True),
]
TRUTH = encode_truth("rotation", "pair_90", {}, 90, "train:0")


def tokenizer(template: str) -> PreTrainedTokenizerFast:
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"?": 0, "[UNK]": 1}, unk_token="[UNK]")))
    made.chat_template = template
    return made


@pytest.mark.parametrize(("name", "template", "options", "opens"), SHAPES, ids=[shape[0] for shape in SHAPES])
def test_the_template_tells_whether_it_opens_the_thought(
    name: str, template: str, options: dict[str, Any], opens: bool
) -> None:
    assert opens_thought(tokenizer(template), options) is opens


def test_a_question_that_ends_in_a_tag_does_not_count() -> None:
    assert not opens_thought(tokenizer("{{ messages[0]['content'] }}<think>{{ messages[0]['content'] }}"), {})


def score(response: str, thinking: bool, answer_format: str = "think_answer") -> dict[str, Any]:
    return compute_score("x", response, TRUTH, {"thinking": thinking}, answer_format=answer_format)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("thinking", [False, True])
def test_the_form_that_the_prompt_asks_for_is_paid_in_full(name: str, thinking: bool) -> None:
    result = score(FORMATS[name].render("90", thinking), thinking, name)
    assert (result["score"], result["format"], result["error"]) == (1.0, 1.0, "")


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("so it is 90.</think><answer>90</answer>", 1.0),
        ("so it is 90.</think>\n\n<answer>90</answer>\n", 1.0),
        ("<think>so it is 90.</think><answer>90</answer>", 0.9),  # the tag is there already
        ("half a thought <answer>90</answer>", 0.0),
        ("half a thought <answer>90</answer> that goes on", 0.0),
        ("<answer>0</answer></think><answer>90</answer>", 1.0),  # what the thought tries is its own affair
        ("a</think><answer>90</answer></think>", 0.0),  # the second tag makes all before it a thought
        ("a</think>90", 0.0),
        ("<answer>90</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_responses_that_begin_inside_the_thought(response: str, expected: float) -> None:
    assert score(response, thinking=True)["score"] == pytest.approx(expected)


def test_an_unfinished_thought_has_no_lenient_reading_either() -> None:
    assert score("it was turned by 90 degrees", thinking=True)["lenient_only"] == 0.0
    found = score("hm</think>It was turned by 90 degrees.", thinking=True)
    assert (found["score"], found["lenient"], found["lenient_only"]) == (0.0, 1.0, 1.0)

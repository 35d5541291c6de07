"""Sentences that a run's prompts have in common, as one token each."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl4rl_plugin.demo.model import TAGS, build_model, save, train_tokenizer
from ssl4rl_plugin.demo.phrases import common_phrases

WORDS = st.sampled_from(["one", "two", "cell", "A", "90", "which", "<answer>", "é"])
SENTENCE = st.builds(
    lambda words, end: " ".join(words) + end, st.lists(WORDS, min_size=1, max_size=5), st.sampled_from(".?:")
)
MARK = st.sampled_from(["<image>", "<image><image>\n", "<video>", "\n", ""])
PROMPT = st.builds(lambda mark, parts: mark + " ".join(parts), MARK, st.lists(SENTENCE, max_size=6))


@given(st.lists(PROMPT, max_size=12), st.integers(1, 4))
def test_phrases_are_of_the_prompts_have_several_words_and_no_mark(prompts: list[str], often: int) -> None:
    found = common_phrases(prompts, often)
    assert len(set(found)) == len(found)
    for phrase in found:
        assert sum(phrase in prompt for prompt in prompts) >= often
        assert len(phrase.split()) > 1
        assert "<image>" not in phrase and "<video>" not in phrase


def test_sentences_that_only_occur_together_are_one_phrase() -> None:
    ask = "<image>\nOne cell was changed. Which one? "
    prompts = [ask + "Give only the answer.", ask + "Write the answer alone."] * 4
    assert common_phrases(prompts) == [
        "\nOne cell was changed. Which one? ",
        "Give only the answer.",
        "Write the answer alone.",
    ]


def test_what_differs_stays_in_words() -> None:
    prompts = [f"<image>\nHow often does {number} occur here? Answer with a number." for number in range(20)]
    assert common_phrases(prompts) == ["Answer with a number."]


@pytest.mark.parametrize("vision", (True, False))
def test_a_tokenizer_with_phrases_reads_any_text_and_gives_it_back(tmp_path: Path, vision: bool) -> None:
    from verl.utils import hf_processor, hf_tokenizer

    prompts = [f"<image>\nWhich of these cells is it? Answer with one letter. Number {k}" for k in range(8)]
    phrases = common_phrases(prompts)
    tokenizer = train_tokenizer([*("user", "assistant") * 8, *prompts], phrases=phrases)
    save(build_model(tokenizer, 0, vision=vision), tokenizer, tmp_path)
    loaded = hf_processor(str(tmp_path)).tokenizer if vision else hf_tokenizer(str(tmp_path))
    answer = f"{TAGS[0]}B{TAGS[1]}"
    for text in (*prompts, answer, "Answer with one lett", "a\nnew text: Which of these cells is it? "):
        assert loaded.decode(loaded(text)["input_ids"]) == text
    body = prompts[0].removeprefix("<image>").removesuffix("Number 0")
    assert len(loaded(body)["input_ids"]) == len(phrases) == 1
    assert len(loaded(answer)["input_ids"]) == 3

"""The lenient reading: the value that a response names last, with sentences allowed. For tables; it is never paid.

Beside the strict reading it tells a gain in form from a gain in sight: an answer that only the lenient reading finds was
there, but not where or how the prompt asked for it.
"""

from __future__ import annotations

import re
from typing import Any

from ssl4rl_plugin.core import Grader
from ssl4rl_plugin.grading.formats import visible_text
from ssl4rl_plugin.grading.text import normalise

TAIL = 2000
"""Characters at the end of a response that are read."""
SENTENCES = 24
"""Sentences from the end that are read, which keeps hostile input cheap."""

_TAGS = re.compile(r"</?answer>|<\|[a-z_]{1,20}\|>")
_SENTENCE_END = re.compile(r"\n+|(?<=[^\d\s][.!?])\s+|(?<=[。！？])")


def lenient_value(grader: Grader[Any], response: str, thinking: bool = False) -> Any | None:
    """The last possible answer that a response names outside of its thought; None if it names none.

    The last sentence that names any value decides. If it names two that differ, there is no answer: a hedge is none in this
    reading either.

    Args:
        grader: reads values.
        response: what the model wrote.
        thinking: the chat template opens the thought, so the response begins inside it.
    """
    visible = visible_text(response, thinking)
    if visible is None:
        return None
    sentences = [part for part in _SENTENCE_END.split(_TAGS.sub("\n", visible[-TAIL:])) if part.strip()]
    whole = grader.parse(visible.strip())
    if whole is not None:
        return whole
    for sentence in reversed(sentences[-SENTENCES:]):
        named = _named(grader, sentence)
        if named:
            return named[0] if all(value == named[0] for value in named) else None
    return None


def _named(grader: Grader[Any], sentence: str) -> list[Any]:
    """The values that a sentence names: the sentence itself, or up to two spans of it."""
    if (value := grader.parse(sentence)) is not None:
        return [value]
    plain = normalise(sentence)
    if plain is None:
        return []
    found: list[Any] = []
    rest = plain
    while len(found) < 2:
        span = next((span for span in grader.spans(rest) if grader.parse(span) is not None), None)
        if span is None:
            break
        found.append(grader.parse(span))
        rest = rest[: rest.rindex(span)]
    return found

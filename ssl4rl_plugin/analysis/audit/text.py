"""Features of a prompt without pictures for a blind guesser: lengths, counts, shared words.

Node numbers are drawn for each sample, so features use how often a number occurs, not its value.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ssl4rl_plugin.analysis.audit.features import FloatArray, SampleFeatures
from ssl4rl_plugin.core import Clip, Sample

TEXT_GROUPS: Mapping[str, str] = {
    "length": "characters, words, lines and numbers in the prompt; characters and words of each option",
    "mentions": "how often the nodes of the question and of the options are named, and how often side by side as in an edge",
    "overlap": "words that an option, or the text of a node in the question, shares with the rest of the prompt",
}
"""Groups of features for prompts without pictures -> description."""

_NAMED = re.compile(r"\bnode (\d+)\b", re.IGNORECASE)
_WORDS = re.compile(r"[^\W\d_]{3,}")


def describe_text(sample: Sample) -> SampleFeatures:
    """The features of a sample without pictures."""
    body, _, question = sample.question.rpartition("\n")
    if sample.options:  # the options stand between the question and the last line
        body, question = _before_options(sample.question)
    asked = [int(number) for number in _NAMED.findall(question)][:2]
    counts = Counter(int(number) for number in re.findall(r"\d+", body))
    texts = _texts(body)
    shown: dict[str, list[list[float]]] = {
        "length": [[len(sample.question), len(sample.question.split()), sample.question.count("\n"), counts.total()]],
        "mentions": [_mentions(body, asked, counts)],
        "overlap": [_shared(*(texts.get(number, "") for number in (asked * 2)[:2])) if len(asked) == 2 else [0.0, 0.0]],
    }
    options = [str(option) for option in sample.options if not isinstance(option, Clip)]
    return SampleFeatures(
        np.zeros(0, np.float32), _arrays(shown), _options(options, asked, body, counts) if options else None
    )


def _before_options(text: str) -> tuple[str, str]:
    """The text before the question line, and that line: the last one before the options."""
    lines = text.split("\n")
    first = next((k for k, line in enumerate(lines) if line.startswith("A: ")), len(lines))
    return "\n".join(lines[: first - 1]), lines[first - 1]


def _options(options: Sequence[str], asked: Sequence[int], body: str, counts: Counter[int]) -> dict[str, FloatArray]:
    found: dict[str, list[list[float]]] = {"length": [], "mentions": [], "overlap": []}
    for option in options:
        named = [int(number) for number in _NAMED.findall(option)][:1]
        words = _NAMED.sub("", option)
        found["length"].append([len(words), len(words.split())])
        found["mentions"].append(_mentions(body, [*asked[:1], *named], counts)[1:] if named else [0.0] * 3)
        found["overlap"].append(_shared(words, body))
    return _arrays(found)


def _mentions(body: str, asked: Sequence[int], counts: Counter[int]) -> list[float]:
    """How often each of up to two nodes is named, the mean over all nodes, and how often the two are named side by side."""
    often = [float(counts[number]) for number in asked] + [0.0, 0.0]
    beside = 0
    if len(asked) == 2:
        a, b = asked
        pairs = rf"\b(?:{a}\D{{1,40}}{b}|{b}\D{{1,40}}{a})\b"
        beside = sum(1 for line in body.split("\n") for _ in re.finditer(pairs, line) if not line.startswith(f"{a}:"))
    return [often[0], often[1], counts.total() / max(1, len(counts)), float(beside)]


def _texts(body: str) -> dict[int, str]:
    """Node -> its text, where a line or a JSON value gives it after the node's number."""
    return {int(k): text for k, text in re.findall(r'(?:^|")(\d+)"?: "?([^"\n]*)', body, re.MULTILINE)}


def _shared(one: str, other: str) -> list[float]:
    """Number of words of a text that occur in another one, and their share of its words."""
    ours, theirs = ({word.casefold() for word in _WORDS.findall(text)} for text in (one, other))
    return [float(len(ours & theirs)), len(ours & theirs) / max(1, len(ours))]


def _arrays(rows: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, FloatArray]:
    return {group: np.array(values, np.float32) for group, values in rows.items()}

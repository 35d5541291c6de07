"""Does the reasoning lead to the answer, and does a response run in a loop: figures for the log, told without a judge.

Neither is part of the reward. Both look at a bounded part of the text, so that a hostile response costs no more than an
ordinary long one.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

from ssl4rl_plugin.core import Grader
from ssl4rl_plugin.grading import Choice, OpenWord, Words

TAIL = 4000
"""Characters at the end of the reasoning in which values are looked for: the last one named counts."""
LONGEST_PHRASE = 200
"""Longer labels (whole sentences as options of a question) are not looked for."""
LOOP_TAIL = 20_000
"""Characters at the end of a response in which loops are looked for: a loop goes on to the last token."""
GRAM = 8
"""Pieces (`_PIECE`) that count as repeated if they stand there again."""
DEGENERATE = 0.5
"""A response of which more than this share is repeated runs in a loop."""

_PIECE = re.compile(r"\w{1,4}|[^\w\s]")
"""Up to four letters or digits, or one other character: about a token, in scripts without spaces too."""
_ITEM = re.compile(r"(?<![\w.])[+-]?\d{1,6}(?:\.\d{1,6})?(?!\w)|(?<!\w)[A-Z](?!\w)")
"""What answers in several parts are made of: numbers, and capital letters that stand alone."""
_BETWEEN = re.compile(r"[\s,;>→()\[\]–-]*(?:(?:and|to|then)\b)?[\s,;>→()\[\]–-]*")
_GAP = 12
"""Characters between two items of one answer at most."""
_NAMING = re.compile(
    r"\b(?:option|answer|choice|letter|label|picture|image|tile|cell|patch|crop|candidate|box|region|point|node|is|be)"
    r"[\s:=]{1,3}$",
    re.IGNORECASE,
)
_SAYING = re.compile(r"\s(?:is|was|has|shows|matches|fits|and|or|then|because|since|must|seems|looks|comes)\b")


def repetition(response: str) -> float:
    """The share of a response's n-grams that are repeats, 1 - distinct / all, in [0, 1).

    The measure is seq-rep-n of Welleck et al., "Neural text generation with unlikelihood training" (arXiv 1908.04319),
    here on runs of `GRAM` pieces of at most four letters and on the last `LOOP_TAIL` characters. 0 for a response of fewer
    than four times `GRAM` pieces.
    """
    pieces = _PIECE.findall(response[-LOOP_TAIL:])
    if len(pieces) < 4 * GRAM:
        return 0.0
    grams = len(pieces) - GRAM + 1
    return 1.0 - len({tuple(pieces[k : k + GRAM]) for k in range(grams)}) / grams


def last_named(grader: Grader[Any], reasoning: str) -> Any | None:
    """The last possible answer that a reasoning names, as the grader reads it; None if it names none.

    A label counts where it stands as a word of its own (one capital letter as a capital: `B`, not `b`; and `A` or `I`
    not as a word of a sentence), a number or a list of numbers or letters where the grader takes it. Free words cannot
    be told from any others, so for them the result is None.
    """
    text = reasoning[-TAIL:]
    if isinstance(grader, Words | OpenWord):
        return None
    if isinstance(grader, Choice):
        return _last_label(grader, text)
    for span in _runs(text):
        if (value := grader.parse(span)) is not None:
            return value
    return None


def _last_label(grader: Choice, text: str) -> str | None:
    letters, words = _patterns(grader)
    # From the end: what stands last decides, and of two that overlap the longer one.
    best: tuple[int, int, str] | None = None
    for match in words.finditer(text) if words else ():
        best = (match.end(), len(match[0]), match[0])
    for match in letters.finditer(text) if letters else ():
        if (best is None or match.end() > best[0]) and _is_label(match[0], text, match.start()):
            best = (match.end(), 1, match[0])
    return None if best is None else grader.parse(best[2])


@functools.lru_cache(maxsize=256)
def _patterns(grader: Choice) -> tuple[re.Pattern[str] | None, re.Pattern[str] | None]:
    """What finds single capital letters, and what finds the other labels and aliases in any case."""
    spellings = [*grader.labels, *grader.aliases]
    capitals = [label for label in spellings if len(label) == 1 and label.isupper()]
    words = sorted({s for s in spellings if s not in capitals and len(s) <= LONGEST_PHRASE}, key=lambda s: (-len(s), s))
    # As the grader: hyphens, underscores and spaces are alike.
    alike = [r"[\s_-]{1,3}".join(re.escape(part) for part in re.split(r"[\s_-]+", s) if part) for s in words]
    found = "|".join(part for part in alike if part)
    return (
        re.compile(rf"(?<![\w'’])(?:{'|'.join(map(re.escape, capitals))})(?![\w'’])") if capitals else None,
        re.compile(rf"(?<![\w.-])(?:{found})(?!\w)", re.IGNORECASE) if found else None,
    )


def _is_label(letter: str, text: str, start: int) -> bool:
    """Whether a lone `A` or `I` is a label and no word of a sentence; any other letter always is."""
    after = text[start + 1 : start + 12]
    if letter not in "AI" or re.match(r"\s{1,3}[a-z]", after) is None:
        return True
    return _SAYING.match(after) is not None or _NAMING.search(text[max(0, start - 16) : start]) is not None


def _runs(text: str) -> Iterator[str]:
    """Spans that may be an answer in several parts, last first: maximal lists, and the last item of each."""
    spans: list[list[tuple[int, int]]] = []
    for match in _ITEM.finditer(text):
        if spans and (gap := match.start() - spans[-1][-1][1]) <= _GAP:
            start = spans[-1][-1][1]
            if _BETWEEN.fullmatch(text[start : start + gap]):
                spans[-1].append(match.span())
                continue
        spans.append([match.span()])
    for items in reversed(spans):
        end = items[-1][1]
        yield text[items[0][0] : end]
        if len(items) > 1:
            yield text[items[-1][0] : end]

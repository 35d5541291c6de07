"""The sentences that a run's prompts have in common, for a tokenizer that writes each of them as one token.

The words of a task's prompts are always the same, and only pictures, numbers and names differ. A pretrained model reads them
all. For a tiny model a token for a whole sentence says as much as twenty for its words, and a step takes a fraction of the
time (docs/cpu.md). SuperBPE (arXiv 2503.13423) merges across words for the same reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

OFTEN = 4
"""Prompts that a phrase has to occur in."""
_BOUNDARY = re.compile(r"(?<=[.?!:])(\s+)|(\n)|(<(?:image|video)>)")
"""Where a sentence ends, with the white space behind it; the marks of pictures and clips, which are no text."""
_MARKS = ("<image>", "<video>")


def common_phrases(prompts: Sequence[str], often: int = OFTEN) -> list[str]:
    """Sentences that occur in at least `often` prompts, with the white space behind them, in the order of first use.

    Sentences that only occur together are one phrase. A phrase has at least two words, so that no answer is one.
    """
    texts = [list(_sentences(prompt)) for prompt in prompts]
    while joined := _inseparable(texts):
        texts = [list(_join(text, joined)) for text in texts]
    used_in = Counter(piece for text in texts for piece in dict.fromkeys(text))
    return [piece for piece, count in used_in.items() if count >= often and len(piece.split()) > 1]


def _sentences(prompt: str) -> Iterable[str]:
    """The prompt in pieces that give it back when they are joined; a mark of a picture is a piece of its own."""
    parts = [part for part in _BOUNDARY.split(prompt) if part]
    held = ""
    for part in parts:
        if part in _MARKS:
            yield from (held, part) if held else (part,)
            held = ""
        elif part.isspace():
            yield held + part
            held = ""
        else:
            held = part
    if held:
        yield held


def _inseparable(texts: list[list[str]]) -> dict[str, str]:
    """Pieces that never occur without the next one: {first: second}. No piece is in two of the pairs."""
    alone = Counter(piece for text in texts for piece in text)
    pairs = Counter(pair for text in texts for pair in pairwise(text))
    found: dict[str, str] = {}
    for (first, second), count in pairs.items():
        free = first not in found and not {first, second} & set(found.values()) and second not in found
        together = count == alone[first] == alone[second] and first != second
        if free and together and not {first, second} & set(_MARKS):
            found[first] = second
    return found


def _join(text: list[str], pairs: dict[str, str]) -> Iterable[str]:
    pieces = iter(text)
    for piece in pieces:
        yield piece + next(pieces) if piece in pairs else piece

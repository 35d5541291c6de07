"""Finding answers in running text: lists of numbers and letters."""

from __future__ import annotations

import re
from collections.abc import Iterator

_ITEM = re.compile(r"(?<![\w.])[+-]?\d{1,6}(?:\.\d{1,6})?(?!\w)|(?<!\w)[A-Z](?!\w)")
"""What answers in several parts are made of: numbers, and capital letters that stand alone."""
_BETWEEN = re.compile(r"[\s,;>→()\[\]–-]*(?:(?:and|to|then)\b)?[\s,;>→()\[\]–-]*")
_GAP = 12
"""Characters between two items of one answer at most."""


def item_spans(text: str) -> Iterator[str]:
    """Spans of a text that may be answers, the last one first: the longest lists of items, and the last item of each."""
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

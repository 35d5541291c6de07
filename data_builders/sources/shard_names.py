"""Patterns of file names with braces, as WebDataset and shells have them: `{000..012}` and `{a,b}`."""

from __future__ import annotations

import re
from collections.abc import Iterator

MOST = 1_000_000
"""Names that a pattern may stand for."""

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def braces(text: str) -> bool:
    """Whether a text is a pattern."""
    return any(_RANGE.fullmatch(found) or "," in found for found in _BRACES.findall(text))


def expanded(text: str) -> list[str]:
    """The names that a pattern stands for, in order.

    >>> expanded("a-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar']

    Raises ValueError for more than a million names, or a range that runs backwards.
    """
    names = [""]
    place = 0
    for found in _BRACES.finditer(text):
        choices = list(_choices(found[1]))
        if len(names) * len(choices) > MOST:
            raise ValueError(f"the pattern stands for more than {MOST:,} names")
        names = [name + text[place : found.start()] + choice for name in names for choice in choices]
        place = found.end()
    return [name + text[place:] for name in names]


def _choices(inside: str) -> Iterator[str]:
    found = _RANGE.fullmatch(inside)
    if found is None:
        yield from inside.split(",") if "," in inside else (f"{{{inside}}}",)
        return
    first, last = int(found[1]), int(found[2])
    if first > last:
        raise ValueError(f"the range {{{inside}}} runs backwards")
    if last - first >= MOST:
        raise ValueError(f"the range {{{inside}}} has more than {MOST:,} numbers")
    # As in a shell, zeros in front of either end make all numbers as wide.
    width = max(len(found[1]), len(found[2])) if "0" in (found[1][:1], found[2][:1]) and len(found[1]) > 1 else 0
    for number in range(first, last + 1):
        yield f"{number:0{width}}"

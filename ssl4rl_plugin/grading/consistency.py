"""Does the reasoning lead to the answer, and does a response run in a loop: figures for the log, told without a judge.

Neither is part of the reward. Both look at a bounded part of the text, so that a hostile response costs no more than an
ordinary long one.
"""

from __future__ import annotations

import re
from typing import Any

from ssl4rl_plugin.core import Grader

TAIL = 4000
"""Characters at the end of the reasoning in which values are looked for: the last one named counts."""
LOOP_TAIL = 20_000
"""Characters at the end of a response in which loops are looked for: a loop goes on to the last token."""
GRAM = 8
"""Pieces (`_PIECE`) that count as repeated if they stand there again."""
DEGENERATE = 0.5
"""A response of which more than this share is repeated runs in a loop."""

_PIECE = re.compile(r"\w{1,4}|[^\w\s]")
"""Up to four letters or digits, or one other character: about a token, in scripts without spaces too."""


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
    """The last possible answer that a reasoning names, as the grader reads it (see `Grader.spans`); None for none."""
    for span in grader.spans(reasoning[-TAIL:]):
        if (value := grader.parse(span)) is not None:
            return value
    return None

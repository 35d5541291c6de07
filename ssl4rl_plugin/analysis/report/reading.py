"""How a run's answers were read: strict and lenient accuracy side by side, and the most common texts that earned nothing."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ssl4rl_plugin.analysis.report.page import percent, readable
from ssl4rl_plugin.analysis.runlog import Response, RunLog
from ssl4rl_plugin.grading.text import MAX_ANSWER_CHARS, normalise

LISTED = 12
"""Unread texts in the table."""
SHOWN = 120
"""Characters of an unread text."""

_BLOCK = re.compile(r"<answer>((?:(?!</?answer>).){0,400})</answer>", re.DOTALL)


def reading_lines(log: RunLog) -> list[dict[str, Any]]:
    """A line for each kind of question: strict and lenient accuracy, and the share that only the lenient reading reads,
    in the first and the last validation. None for a run whose validations do not hold the lenient reading."""
    steps = [step for step in log.validations if any("lenient" in row.figures for row in log.validation(step))]
    if not steps:
        return []
    tables = [_by_kind(log.validation(step)) for step in dict.fromkeys((steps[0], steps[-1]))]
    return [
        {"kind": readable(kind, 80), "points": [table[kind] for table in tables if kind in table]}
        for kind in tables[-1]
    ]


def _by_kind(rows: Iterable[Response]) -> dict[str, dict[str, str]]:
    found: dict[str, list[Response]] = {}
    for row in rows:
        found.setdefault(_kind(row), []).append(row)
    return {
        kind: {
            "step": str(of[0].step),
            "strict": _mean(of, "acc"),
            "lenient": _mean(of, "lenient"),
            "only": _mean(of, "lenient_only"),
            "unread": percent(sum(row.figures.get("valid") == 0.0 for row in of) / len(of)),
        }
        for kind, of in sorted(found.items())
    }


def _mean(rows: Sequence[Response], name: str) -> str:
    values = [value for row in rows if (value := row.figures.get(name)) is not None]
    return percent(math.fsum(values) / len(values)) if values else ""


def unread_texts(log: RunLog) -> list[dict[str, Any]]:
    """The most common answers of the last validation that the reward could not read, with how often they were given."""
    if not log.validations:
        return []
    counted: Counter[tuple[str, str]] = Counter()
    for row in log.validation(max(log.validations)):
        if row.figures.get("valid") == 0.0:
            counted[_kind(row), _text(row.output)] += 1
    return [
        {"kind": readable(kind, 80), "text": readable(text, SHOWN) or "(no answer)", "count": count}
        for (kind, text), count in sorted(counted.items(), key=lambda entry: (-entry[1], entry[0]))[:LISTED]
    ]


def _kind(row: Response) -> str:
    return row.arm.label if row.arm else row.answered.benchmark if row.answered else "unknown"


def _text(output: str) -> str:
    """What stands for the answer: the last answer block, or else the end of the response."""
    blocks = _BLOCK.findall(output[-4000:])
    text = blocks[-1] if blocks else output[-SHOWN:]
    return (normalise(text[:MAX_ANSWER_CHARS]) or "").strip()

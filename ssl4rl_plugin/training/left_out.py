"""Questions that a run leaves out because their prompts do not fit, and the counts of all that are left out.

The validation dataset publishes the counts; the sampler, in the same process, adds them to each step's metrics
(`ssl4rl/left_out/BENCHMARK/CATEGORY/REASON`), from which the report reads them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ssl4rl_plugin.data.rows import PROBES, Row, Rows

PREFIX = "ssl4rl/left_out/"
"""Of the metrics."""
TOO_LONG = "too_long"
"""The reason of a prompt over `data.max_prompt_length`."""
NAMED = 20
"""Categories that the log names one by one."""


@dataclass(frozen=True)
class LeftOut:
    """The questions of a category that are left out for one reason."""

    benchmark: str
    category: str
    reason: str
    count: int
    of: int
    """All questions of the category, if the reason is `too_long`; the others were counted before they were asked."""

    def __str__(self) -> str:
        share = f" of {self.of}" if self.of else ""
        return (
            f"{self.benchmark}, category {self.category!r}: {self.count}{share} questions are left out ({self.reason})"
        )


class FittingRows:
    """Questions without those whose prompts do not fit.

    Args:
        rows: all questions.
        kept: numbers of the rows that are asked, in order.
        counts: number of them in each data source.
    """

    def __init__(self, rows: Rows, kept: Sequence[int], counts: Mapping[str, int]) -> None:
        self.rows = rows
        self.kept = kept
        self.counts = counts

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> Row:
        """Row `index`. Raises IndexError out of range, and the errors of the rows."""
        row = self.rows[self.kept[index]]
        truth = json.loads(row.ground_truth) | {"questions": self.counts[row.data_source]}
        return replace(row, ground_truth=json.dumps(truth, sort_keys=True))

    def probes(self) -> Iterator[Row]:
        """A few rows, spread over the questions."""
        return (self[index] for index in range(0, len(self), max(1, len(self) // PROBES)))

    def state(self) -> dict[str, Any]:
        return self.rows.state()


def place_of(data_source: str) -> tuple[str, str]:
    """Benchmark and category of a data source; the rotations of a question count with it."""
    _, benchmark, category = data_source.split("/", 2)
    return benchmark.removesuffix("_rotated"), category


_published: dict[str, float] = {}


def publish(found: Sequence[LeftOut]) -> None:
    """Set the counts of this process's run."""
    counts: Counter[str] = Counter()
    for one in found:
        counts[f"{PREFIX}{one.benchmark}/{one.category}/{one.reason}"] += one.count
    _published.clear()
    _published.update({name: float(count) for name, count in counts.items()})


def metrics() -> dict[str, float]:
    """The published counts as metrics of a step; empty if nothing is left out."""
    return dict(_published)


def said(found: Sequence[LeftOut]) -> list[str]:
    """One line for each category and reason, the largest first."""
    order = sorted(found, key=lambda one: -one.count)
    lines = [str(one) for one in order[:NAMED]]
    if rest := order[NAMED:]:
        lines.append(f"{sum(one.count for one in rest)} more questions in {len(rest)} other categories are left out")
    return lines

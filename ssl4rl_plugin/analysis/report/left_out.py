"""Questions that a run left out, by benchmark, category and reason, from its metrics."""

from __future__ import annotations

from typing import Any

from ssl4rl_plugin.analysis.benchmark_results import CATEGORY
from ssl4rl_plugin.analysis.report.page import readable
from ssl4rl_plugin.analysis.runlog import RunLog
from ssl4rl_plugin.training.left_out import PREFIX

REASONS = {"too_long": "prompt too long (data.max_prompt_length)", "no_answer": "no answer in the file"}
"""Reasons in words; others stand as they are."""


def lines(log: RunLog) -> list[dict[str, Any]]:
    """A line for each category and reason: questions left out, and how many of the category were asked; the most first."""
    asked = {
        (row.kind.benchmark, row.kind.name): row.after.rate.n
        for row in log.benchmark_headline()
        if row.kind.scope == CATEGORY and row.after and not row.kind.circular
    }
    recorded = {benchmark for benchmark, _ in asked}
    found = []
    for name in log.names(PREFIX):
        benchmark, _, rest = name.removeprefix(PREFIX).partition("/")
        category, _, reason = rest.rpartition("/")
        _, counts = log.curve(name)
        if counts:
            found.append(
                {
                    "benchmark": readable(benchmark, 80),
                    "category": readable(category, 80),
                    "reason": REASONS.get(reason, readable(reason.replace("_", " "), 80)),
                    "count": round(counts[-1]),
                    # A category that is missing beside others of its benchmark was left out as a whole.
                    "asked": str(asked.get((benchmark, category), "none")) if benchmark in recorded else "not recorded",
                }
            )
    return sorted(found, key=lambda line: (-line["count"], line["benchmark"], line["category"]))

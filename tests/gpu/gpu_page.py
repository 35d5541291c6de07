"""The page of a GPU check, made from its record alone: one file that can be attached to a bug report."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

from gpu_verdicts import K3, K3_BOUND, comparisons, host
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined

from ssl4rl_plugin.analysis.report.page import readable

STATUSES = ("failed", "unclear", "not run", "passed")
SHOWN = ("gen", "old_log_prob", "ref", "update_actor", "update_weights", "step")
"""Parts of a step in the table of times."""


def page(record: dict[str, Any]) -> str:
    """The page (HTML) of a record of `gpu_check.check`. Depends on nothing else, and loads nothing."""
    counts = dict.fromkeys(STATUSES, 0)
    for case in record["cases"]:
        for verdict in case["verdicts"]:
            counts[verdict["status"]] += 1
    return (
        _environment()
        .get_template("gpu_check.html.j2")
        .render(
            record=record,
            counts=counts,
            shown=SHOWN,
            cases=[_case(case) for case in record["cases"]],
            raw=json.dumps(record, indent=1, ensure_ascii=False),
        )
    )


def _case(case: dict[str, Any]) -> dict[str, Any]:
    runs = case["runs"]
    return {
        **case,
        "bound": K3_BOUND[case["name"]],
        "k3": {way: [f"{value:.1e}" for value in run["metrics"].get(K3, [])] for way, run in runs.items()},
        "times": {way: _times(run) for way, run in runs.items()},
        "memory": {way: _memory(run) for way, run in runs.items()},
    }


def _memory(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table of memory."""
    rows = comparisons(run)
    if (main_memory := host(run)) is not None:
        rows = [*rows, ("main memory (not judged)", *main_memory)]
    return [
        {"what": what, "measured": measured, "estimated": estimated}
        for what, measured, estimated in rows
        if math.isfinite(measured)
    ]


def _times(run: dict[str, Any]) -> dict[str, float]:
    """Median seconds of the parts of a step, without the first step."""
    medians = {}
    for part in SHOWN:
        values = run["step_s"] if part == "step" else run["metrics"].get(f"timing_s/{part}", [])
        if len(values) > 1:
            medians[part] = statistics.median(values[1:])
    return medians


def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=ChoiceLoader(
            [FileSystemLoader(Path(__file__).parent), PackageLoader("ssl4rl_plugin.analysis.report", "templates")]
        ),
    )
    environment.filters["readable"] = readable
    return environment

"""Follow verl's trainer from outside, by the metrics that it writes: progress, times, and a limit to waiting."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.demo.progress import TRAINED, Part, Timeline, accuracies, validated

START_LIMIT = 600
"""Seconds without a first metric after which a run counts as stuck: verl can wait forever for a failed worker."""
STEP_LIMIT = 300
"""Seconds without a new metric after which a run counts as stuck."""
POLL = 0.5
"""Seconds between two looks at the metrics."""


class DemoError(UserError):
    """The demo could not finish; the message says why and where to look."""


def follow(
    process: subprocess.Popen[bytes],
    metrics: Path,
    total: int,
    done: int,
    timeline: Timeline,
    seen: Callable[[int], object] | None = None,
) -> None:
    """Show verl's progress until it ends, and measure its parts. Raises DemoError if it gets stuck.

    Args:
        process: verl's trainer.
        metrics: the file of verl's file logger.
        total: the last step.
        done: the step that it resumes from.
        timeline: where to show it.
        seen: called with the number of a step when its metrics are there.
    """
    looks = _looks(process, metrics)
    first: list[dict[str, Any]] = []
    with timeline.part("start") as part:
        for first in looks:
            if first:
                break
            part.tick()
    if not first:  # it ended, with a message in its output
        return
    validations = 0.0
    with timeline.part("training", total, done) as part:
        for rows in itertools.chain([first], looks):
            for row in rows:
                _show(part, row["step"], row["data"])
                if row["step"] > done:  # the first validation is a part of the start
                    validations += row["data"].get("timing_s/testing") or 0.0
                if seen is not None:
                    seen(row["step"])
            if part.done >= total:
                break
            part.tick()
    timeline.move("training", "validation", validations)
    with timeline.part("end") as part:
        for _ in looks:
            part.tick()


def _show(part: Part, step: int, data: dict[str, Any]) -> None:
    """Show a step's reward and accuracies."""
    chances = part.timeline.chances
    if held_out := validated(data, chances):
        part.timeline.say(f"step {step}, held-out accuracy: {held_out}")
    reward = data.get("critic/score/mean")
    shown = [f"reward {reward:.2f}"] if isinstance(reward, float) else []
    if trained := accuracies(data, chances, TRAINED):
        shown.append(f"in training: {trained}")
    part.step(step, " · ".join(shown))


def _looks(process: subprocess.Popen[bytes], metrics: Path) -> Iterator[list[dict[str, Any]]]:
    """The new rows of the metrics, twice a second, until the process has ended. Raises DemoError if none comes for long."""
    known, last = 0, time.monotonic()
    ended = False
    while not ended:
        ended = process.poll() is not None
        rows = _complete_rows(metrics)
        if len(rows) > known:
            last = time.monotonic()
        elif time.monotonic() - last > (STEP_LIMIT if known else START_LIMIT):
            raise DemoError(
                f"no progress for {time.monotonic() - last:.0f} s: stopped. See the log beside {metrics}, and "
                "`ssl4rl doctor`"
            )
        yield rows[known:]
        known = len(rows)
        if not ended:
            time.sleep(POLL)


def _complete_rows(metrics: Path) -> list[dict[str, Any]]:
    if not metrics.exists():
        return []
    lines = metrics.read_bytes().split(b"\n")[:-1]  # what follows the last newline is still being written
    return [json.loads(line) for line in lines if line.strip()]

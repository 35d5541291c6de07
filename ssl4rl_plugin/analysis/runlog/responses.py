"""Single responses of a model, from verl's validation and rollout dumps, and the keys by which they are grouped."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from ssl4rl_plugin.analysis.benchmark_results import SCOPES, AnsweredQuestion, answered
from ssl4rl_plugin.analysis.runlog.files import is_number
from ssl4rl_plugin.data.arms import Arm
from ssl4rl_plugin.tasks import resolve


@dataclass(frozen=True, order=True)
class LoggedArm:
    """A task and level as the dumps name it, with the level's fields that the run changed."""

    task: str
    level: str
    """Empty if only verl's own metrics are left, which do not tell levels apart."""
    options: str = "{}"
    """JSON object with sorted keys."""
    source: str = ""
    """Name of the source, in figures of each source of a run with several; else empty."""

    @property
    def label(self) -> str:
        """`task:level`."""
        return f"{self.task}:{self.level}" if self.level else self.task

    @classmethod
    def of(cls, arm: Arm) -> LoggedArm:
        """The key of an arm of the settings."""
        return cls(arm.task.name, arm.level_name, json.dumps(arm.options, sort_keys=True))

    @cached_property
    def chance(self) -> float | None:
        """Accuracy of the best blind guesser; None if the level is unknown or the task is not installed."""
        try:
            task, level = resolve(self.task, self.level, json.loads(self.options))
            return task.chance(level) if self.level else None
        except Exception:  # a task of another package may raise anything; the run can be read without it
            return None


@dataclass(frozen=True, order=True)
class BenchmarkKey:
    """A benchmark, or one of its categories."""

    benchmark: str
    place: int
    """Index of the scope in `benchmark_results.SCOPES`: overall, l2-category, category."""
    name: str
    """Name of the category; empty for the whole benchmark."""
    circular: bool = False
    """A question counts as right only if it is answered correctly in every order of its options."""

    @property
    def scope(self) -> str:
        """One of `benchmark_results.SCOPES`."""
        return SCOPES[self.place]

    @property
    def label(self) -> str:
        """`mmbench / attribute reasoning (circular)`."""
        name = f"{self.benchmark} / {self.name}" if self.name else self.benchmark
        return f"{name} (circular)" if self.circular else name


KindT = TypeVar("KindT", LoggedArm, BenchmarkKey)
"""The kind of question that an accuracy is of: an arm, or a benchmark or category."""


@dataclass(frozen=True)
class Response:
    """One line of verl's dumps: a response of the model and its reward."""

    step: int
    prompt: str
    """The decoded prompt as the model saw it."""
    output: str
    """The response. Untrusted text."""
    score: float
    """The reward; NaN if verl recorded none."""
    arm: LoggedArm | None
    """None for a line that is not of a pretext task of this package."""
    answered: AnsweredQuestion | None
    """The benchmark question that it answers; None for any other line, and for one that was not scored."""
    sample: str
    """`val:17`, number 17 of the validation stream, or `mmbench:17`, a benchmark's question; empty if unknown."""
    truth: str
    """The ground truth as `rewards.encode_truth` wrote it."""
    uid: str
    """verl's name of the rollout, `{prompt}_{rollout}_{turn}`."""
    figures: Mapping[str, float | None]
    """`acc`, `format`, `valid`, `similarity`, `lenient` and `lenient_only` in [0, 1]. Training rollouts lack them. None if a
    value is no number."""
    error: str
    """Why the response could not be scored; empty if it was."""
    source: str = ""
    """Name of the source that its item is from, in a run with several sources."""
    answer: str | None = None
    """The answer as the reward read it; empty if it is not a possible one, None if the dump does not hold it."""
    item: str = ""
    """Id of its item; empty if the dump does not hold it."""

    @property
    def gold(self) -> str | None:
        """The right answer as text; None if the task is not installed or the truth is unreadable."""
        try:
            truth = json.loads(self.truth)
            if self.answered:
                return str(truth["truth"])
            task, level = resolve(truth["task"], truth["level"], truth.get("options") or {})
            return task.gold(truth["truth"], level)
        except Exception:  # see LoggedArm.chance
            return None

    @property
    def group(self) -> str:
        """Key shared by the rollouts of one prompt in one step."""
        return self.uid.rsplit("_", 2)[0] or self.sample


def parse_response(line: Mapping[str, Any], step: int) -> Response:
    """One line of a dump. Missing keys give empty fields."""
    gts = line.get("gts")
    truth: Any = None
    if isinstance(gts, str):
        try:
            truth = json.loads(gts)
        except (ValueError, RecursionError):
            truth = None
    arm, sample = None, line.get("sample")
    acc = line.get("acc")
    if isinstance(truth, dict) and {"task", "level", "truth"} <= truth.keys():
        options = json.dumps(truth.get("options") or {}, sort_keys=True)
        arm = LoggedArm(str(truth["task"]), str(truth["level"]), options)
        sample = truth.get("sample", sample)
    return Response(
        step=step,
        prompt=_text(line.get("input")),
        output=_text(line.get("output")),
        score=float(line["score"]) if is_number(line.get("score")) else math.nan,
        arm=arm,
        answered=answered(gts, acc if is_number(acc) else None) if isinstance(gts, str) and arm is None else None,
        sample=_text(sample),
        truth=_text(gts),
        uid=_text(line.get("uid")),
        figures={
            name: min(1.0, max(0.0, float(line[name]))) if is_number(line[name]) else None
            for name in ("acc", "format", "valid", "similarity", "lenient", "lenient_only")
            if name in line
        },
        error=_text(line.get("error")),
        source=_text(truth.get("source")) if arm is not None else "",
        answer=_text(line["answer"]) if "answer" in line else None,
        item=_text(line.get("item")),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)

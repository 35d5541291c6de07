"""`RunLog`: everything that a run recorded."""

from __future__ import annotations

import functools
import math
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ssl4rl_plugin.analysis.benchmark_results import CATEGORY, OVERALL, SCOPES
from ssl4rl_plugin.analysis.runlog.accuracy import (
    Accuracy,
    Headline,
    Outcomes,
    benchmark_outcomes,
    curves,
    headline,
    judged,
    question_of,
    task_outcomes,
    top_answers,
)
from ssl4rl_plugin.analysis.runlog.config import RunConfig
from ssl4rl_plugin.analysis.runlog.files import RunFiles
from ssl4rl_plugin.analysis.runlog.questions import RunQuestions
from ssl4rl_plugin.analysis.runlog.responses import BenchmarkKey, LoggedArm, Response, parse_response
from ssl4rl_plugin.analysis.statistics import Proportion, wilson
from ssl4rl_plugin.data.samples import StreamSample
from ssl4rl_plugin.training.settings import Settings

if TYPE_CHECKING:
    from ssl4rl_plugin.data.rows import Row


MOST_QUESTIONS = 10**9
"""Largest number of questions of a benchmark's category that is believed."""


class RunLog(RunFiles):
    """A run, opened for reading. Files are read on demand, and not kept open.

    Args:
        run: the run folder, or one file of metrics (see the package).

    Raises:
        RunError: there is no such folder or file, or it holds nothing of a run.
    """

    @functools.lru_cache(maxsize=4)  # noqa: B019 -- a RunLog lives as long as its report
    def validation(self, step: int) -> list[Response]:
        """All responses of the validation at that step. Raises KeyError if there was none."""
        return [parse_response(line, step) for line in self._lines(self.validations[step])]

    def rollout(self, step: int) -> list[Response]:
        """All training rollouts of that step. Raises KeyError if there are none."""
        return [parse_response(line, step) for line in self._lines(self.rollouts[step])]

    @cached_property
    def outcomes(self) -> dict[int, dict[LoggedArm, Outcomes]]:
        """Step -> arm -> question -> accuracy, from the validation dumps."""
        return {step: task_outcomes(self.validation(step)) for step in self.validations}

    @cached_property
    def benchmark_outcomes(self) -> dict[int, dict[BenchmarkKey, Outcomes]]:
        """The same for benchmarks and their categories. Circular ones only if every order has an answer."""
        return {step: benchmark_outcomes(self.validation(step)) for step in self.validations}

    @cached_property
    def groups(self) -> dict[str, str]:
        """Question (`question_of`) -> group of its item, such as the photograph that it shows a crop of.

        Empty if the dumps do not name the items, or the run's source cannot be read any more.
        """
        items = {
            question_of(row, number): row.item
            for step in self.validations
            for number, row in enumerate(self.validation(step))
            if row.arm and row.item
        }
        group_of = self._questions.groups(set(items.values())) if items else {}
        return {question: group_of[item] for question, item in items.items() if item in group_of}

    @cached_property
    def arms(self) -> dict[LoggedArm, list[Accuracy[LoggedArm]]]:
        """The validation curve of every arm, ordered by arm.

        From the validation dumps. Without dumps, from verl's own metrics, without levels and intervals.
        """
        tops = {step: top_answers(self.validation(step)) for step in self.validations}
        found = curves(self.outcomes, self.groups, tops)
        if not found:
            for task, (steps, values) in self.task_figure("acc").items():
                arm = LoggedArm(task, "")
                found[arm] = [
                    Accuracy(step, arm, Proportion(value, 0.0, 1.0, 0))
                    for step, value in zip(steps, values, strict=True)
                ]
        return dict(sorted(found.items()))

    @cached_property
    def benchmarks(self) -> dict[BenchmarkKey, list[Accuracy[BenchmarkKey]]]:
        """The validation curve of every benchmark and category; a benchmark's categories follow the benchmark.

        From the validation dumps. Without dumps, from verl's own metrics: the categories, and the whole benchmark if the
        metrics give the number of questions of each category.
        """
        return dict(sorted((curves(self.benchmark_outcomes) or self._logged_benchmarks()).items()))

    def _logged_benchmarks(self) -> dict[BenchmarkKey, list[Accuracy[BenchmarkKey]]]:
        found: dict[BenchmarkKey, list[Accuracy[BenchmarkKey]]] = {}
        whole: dict[tuple[str, int], list[Proportion]] = {}
        sizes = self._validated("bench/([^/]+)/([^/]+)", "questions")
        for (benchmark, category), (steps, values) in self._validated("bench/([^/]+)/([^/]+)", "acc").items():
            counts = dict(zip(*sizes.get((benchmark, category), ((), ())), strict=True))
            for step, value in zip(steps, values, strict=True):
                count = round(counts.get(step, 0))
                rate = wilson(min(value, 1.0) * count, count) if count else Proportion(value, 0.0, 1.0, 0)
                whole.setdefault((benchmark, step), []).append(rate)
                kind = BenchmarkKey(benchmark, SCOPES.index(CATEGORY), category)
                found.setdefault(kind, []).append(Accuracy(step, kind, rate))
        for (benchmark, step), rates in whole.items():
            if all(rate.n for rate in rates):
                count = sum(rate.n for rate in rates)
                kind = BenchmarkKey(benchmark, SCOPES.index(OVERALL), "")
                right = min(math.fsum(rate.mean * rate.n for rate in rates), count)
                found.setdefault(kind, []).append(Accuracy(step, kind, wilson(right, count)))
        return found

    def headline(self) -> list[Headline[LoggedArm]]:
        """The result: every arm before the first update and at the last validation, with verdicts."""
        return judged(
            [headline(kind, kind.chance, points, self.outcomes, self.groups) for kind, points in self.arms.items()]
        )

    @cached_property
    def source_outcomes(self) -> dict[int, dict[LoggedArm, Outcomes]]:
        """`outcomes` for every arm and source of a run with several sources; empty kinds for other runs."""
        return {step: task_outcomes(self.validation(step), by_source=True) for step in self.validations}

    def source_headline(self) -> list[Headline[LoggedArm]]:
        """`headline` for every arm and source of a run with several sources; empty for other runs."""
        found = self.source_outcomes
        tops = {step: top_answers(self.validation(step), by_source=True) for step in self.validations}
        points_of = curves(found, self.groups, tops)
        return judged(
            [headline(kind, kind.chance, points, found, self.groups) for kind, points in sorted(points_of.items())]
        )

    def benchmark_headline(self) -> list[Headline[BenchmarkKey]]:
        """The same for benchmarks and their categories."""
        return [headline(kind, None, points, self.benchmark_outcomes) for kind, points in self.benchmarks.items()]

    def task_figure(self, name: str) -> dict[str, tuple[list[int], list[float]]]:
        """Task -> steps and values of one figure of `rewards.compute_score` in the validations. With several sources,
        `task/source`.

        From verl's metrics. Without metrics, `acc`, `format`, `valid` and `similarity` come from the dumps.
        """
        logged = {task: curve for (task,), curve in self._validated("ssl4rl/([^/]+(?:/[^/]+)?)", name).items()}
        return logged or self._dumped(name)

    def _validated(self, data_source: str, name: str) -> dict[tuple[str, ...], tuple[list[int], list[float]]]:
        """Curves of a validation figure, by the groups that the pattern of data sources captures."""
        pattern = re.compile(rf"val-(?:core|aux)/{data_source}/{re.escape(name)}/mean@\d+")
        found: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}
        for metric in self.names("val-"):
            if match := pattern.fullmatch(metric):
                curve = self.possible(metric, most=MOST_QUESTIONS if name == "questions" else 1.0)
                found |= {match.groups(): curve} if curve[0] else {}
        return found

    def possible(self, metric: str, most: float = 1.0) -> tuple[list[int], list[float]]:
        """`curve` of a share or a count, without values outside of [0, most]: `impossible` lists their steps."""
        points = list(zip(*self.curve(metric), strict=True))
        if wrong := [step for step, value in points if not 0 <= value <= most]:
            self.impossible[metric] = wrong
        points = [(step, value) for step, value in points if 0 <= value <= most]
        return [step for step, _ in points], [value for _, value in points]

    @cached_property
    def impossible(self) -> dict[str, list[int]]:
        """Metric -> steps at which it was outside of its range, so far as it was asked for with `possible`."""
        return {}

    def _dumped(self, name: str) -> dict[str, tuple[list[int], list[float]]]:
        found: dict[str, tuple[list[int], list[float]]] = {}
        for step in self.validations:
            by_task: dict[str, list[float]] = {}
            for row in self.validation(step):
                value = row.figures.get(name)
                if row.arm and value is not None:
                    by_task.setdefault(row.arm.task, []).append(value)
            for task, values in by_task.items():
                steps, means = found.setdefault(task, ([], []))
                steps.append(step)
                means.append(math.fsum(values) / len(values))
        return found

    @cached_property
    def config(self) -> RunConfig:
        """The composed config of the run."""
        return RunConfig(self.config_file, self.folder)

    def setting(self, key: str) -> Any:
        """One value of the config, e.g. `data.train_batch_size`; None if it is missing or cannot be resolved."""
        return self.config.value(key)

    @property
    def settings(self) -> Settings:
        """The `ssl4rl:` section of the config. Raises what `RunConfig.settings` raises."""
        return self.config.settings

    @cached_property
    def _questions(self) -> RunQuestions:
        return RunQuestions(self.config)

    def sample_of(self, row: Response) -> StreamSample:
        """The sample of a response, made again. Raises what `RunQuestions.sample_of` raises."""
        return self._questions.sample_of(row)

    def asked(self, row: Response) -> Row:
        """The sample or benchmark question of a response, made again. Raises what `RunQuestions.asked` raises."""
        return self._questions.asked(row)

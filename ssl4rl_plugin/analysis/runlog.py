"""What a run of verl left behind, read back: metrics, validations, rollouts, the config, and the samples themselves.

A run folder looks like this; everything in it is optional, and what is absent is simply empty here:

    metrics*.jsonl              verl's file logger (VERL_FILE_LOGGER_PATH=RUN/metrics.jsonl, trainer.logger=[file])
    *.log                       verl's output, read where there are no metrics*.jsonl (trainer.logger=[console])
    validation/{step}.jsonl     trainer.validation_data_dir=RUN/validation
    rollouts/{step}.jsonl       trainer.rollout_data_dir=RUN/rollouts
    hydra/.hydra/config.yaml    hydra.run.dir=RUN/hydra
    curriculum.jsonl            the curriculum's journal; in trainer.default_local_dir, RUN/checkpoints of the demo

In place of a folder it can be one file of metrics: JSON lines, or verl's output. The files of a run that is still going on,
or was killed, may end in the middle of a line: such lines are skipped and counted.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ssl4rl_plugin.analysis.benchmark_results import (
    CATEGORY,
    OVERALL,
    SCOPES,
    AnsweredQuestion,
    answered,
    circular_accuracy,
)
from ssl4rl_plugin.analysis.statistics import ConfidenceInterval, Proportion, bootstrap, mcnemar, proportion, wilson
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.arms import Arm
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.samples import SampleError, SampleStream, StreamSample
from ssl4rl_plugin.tasks import resolve
from ssl4rl_plugin.training.settings import Settings, SettingsError

if TYPE_CHECKING:
    from ssl4rl_plugin.data.rows import Row, Rows

HOW_TO_RECORD = (
    "VERL_FILE_LOGGER_PATH=RUN/metrics.jsonl python -m verl.trainer.main_ppo ... hydra.run.dir=RUN/hydra "
    "trainer.validation_data_dir=RUN/validation trainer.rollout_data_dir=RUN/rollouts"
)
"""What makes verl write a run folder that can be read here."""


class RunError(UserError):
    """A folder that holds no run, or a sample that cannot be made again; the message says what to do."""


@dataclass(frozen=True, order=True)
class LoggedArm:
    """Which kind of question: task, level, and the level's fields that were changed."""

    task: str
    level: str
    """Empty where only verl's own metrics are left, which do not tell levels apart."""
    options: str = "{}"
    """JSON object with sorted keys."""

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
        except Exception:  # a stranger's task may fail in any way; a run can be read without it
            return None


@dataclass(frozen=True, order=True)
class BenchmarkKey:
    """A benchmark, or one of its categories."""

    benchmark: str
    place: int
    """Of the scope among `benchmark_results.SCOPES`: all, l2-category, category."""
    name: str
    """Of the category; empty for the whole benchmark."""
    circular: bool = False
    """A question counts as right only if it is answered rightly in every order of its options."""

    @property
    def scope(self) -> str:
        """One of `benchmark_results.SCOPES`."""
        return SCOPES[self.place]

    @property
    def label(self) -> str:
        """`mmbench / attribute reasoning (circular)`."""
        name = f"{self.benchmark} / {self.name}" if self.name else self.benchmark
        return f"{name} (circular)" if self.circular else name


Kind = TypeVar("Kind", LoggedArm, BenchmarkKey)


@dataclass(frozen=True)
class Response:
    """One line of verl's dumps: a response of the model with what it earned."""

    step: int
    prompt: str
    """The decoded prompt as the model saw it."""
    output: str
    """What the model wrote. Not to be trusted: anything can stand here."""
    score: float
    """The reward; NaN if verl recorded none."""
    arm: LoggedArm | None
    """None for a line that is not of a pretext task of this package."""
    answered: AnsweredQuestion | None
    """What it says about a benchmark; None if it is none of a benchmark's questions, or was not scored."""
    sample: str
    """`val:17`, number 17 of the validation stream, or `mmbench:17`, a benchmark's question; empty if unknown."""
    truth: str
    """The ground truth as `rewards.encode_truth` wrote it."""
    uid: str
    """verl's name of the rollout, `{prompt}_{rollout}_{turn}`."""
    figures: Mapping[str, float | None]
    """`acc`, `format`, `valid` and `similarity` in [0, 1]; absent in training rollouts, None where it went missing."""
    error: str
    """Why the response could not be scored; empty if it was."""

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
        """What the rollouts of one prompt in one step have in common."""
        return self.uid.rsplit("_", 2)[0] or self.sample


@dataclass(frozen=True)
class Accuracy(Generic[Kind]):
    """Share of right answers of one kind of question in one validation."""

    step: int
    kind: Kind
    rate: Proportion
    """Its interval treats questions as independent, and several answers to one question as one. Without a count (verl's
    metrics only), n is 0 and the interval [0, 1]."""


@dataclass(frozen=True)
class AccuracyChange:
    """How accuracy changed between two sets of answers to the same questions."""

    change: ConfidenceInterval
    """Second minus first, with the bootstrap interval over questions."""
    gained: int
    """Questions that were answered better the second time."""
    lost: int
    p: float | None
    """McNemar's exact test; None where a question has several answers."""


@dataclass(frozen=True)
class Headline(Generic[Kind]):
    """A line of the result table: one kind of question before and after training."""

    kind: Kind
    chance: float | None
    """None where it is unknown."""
    before: Accuracy[Kind] | None
    """The run's first validation, if it came before the first update (step 0)."""
    after: Accuracy[Kind] | None
    """The last validation, if training lay before it."""
    change: AccuracyChange | None
    """After against before on the same questions; None where single answers were not recorded."""

    @property
    def last(self) -> Accuracy[Kind] | None:
        """The latest that is known."""
        return self.after or self.before

    @property
    def verdict(self) -> str:
        """What the last interval says: `above chance`, `at chance`, `below chance`, or empty if it cannot be told."""
        if self.last is None or self.chance is None or not self.last.rate.n:
            return ""
        if self.last.rate.low > self.chance:
            return "above chance"
        return "below chance" if self.last.rate.high < self.chance else "at chance"


Outcomes = Mapping[str, float]
"""Question -> share of right answers to it."""


def difference(first: Outcomes, second: Outcomes) -> AccuracyChange | None:
    """The change from the first to the second answers, on the questions that both have; None if there are none."""
    pairs = [(first[key], second[key]) for key in first.keys() & second.keys()]
    if not pairs:
        return None
    gained, lost = sum(new > old for old, new in pairs), sum(new < old for old, new in pairs)
    single = all(value in (0.0, 1.0) for pair in pairs for value in pair)
    changes = sorted(new - old for old, new in pairs)  # sorted: the order of a set is not the same every time
    return AccuracyChange(bootstrap(changes), gained, lost, mcnemar(gained, lost) if single else None)


class RunLog:
    """A run folder, opened for reading; files are read when they are asked for, and not kept open.

    Args:
        run: the run folder, or one file of metrics (see the module).

    Raises:
        RunError: there is no such folder or file, or nothing of a run is in it.
    """

    def __init__(self, run: str | Path) -> None:
        self.path = Path(run).expanduser().resolve()
        self._torn: set[tuple[Path, int]] = set()
        self.metric_files: list[Path]
        if self.path.is_file():
            self.folder, self.name = self.path.parent, self.path.stem
            self.metric_files, self.validations, self.rollouts = [self.path], {}, {}
            if not self.metrics:
                raise RunError(f"{self.path} holds no metrics of verl: give a run folder, or what verl's logger wrote")
            return
        if not self.path.is_dir():
            raise RunError(f"{self.path} is not a folder: give the run folder of a training")
        self.folder, self.name = self.path, self.path.name
        self.metric_files = sorted(self.folder.glob("metrics*.jsonl"), key=_natural)
        self.validations = _steps(self.folder / "validation")
        """Step -> file of the validation at that step, in order."""
        self.rollouts = _steps(self.folder / "rollouts")
        """Step -> file of the training rollouts of that step, in order."""
        if not self.metric_files:
            self.metric_files = sorted(self.folder.glob("*.log"), key=_natural)
        if not (self.metric_files or self.validations or self.rollouts):
            raise RunError(
                f"{self.folder} holds no metrics, validations or rollouts; record a run with {HOW_TO_RECORD}"
            )

    @cached_property
    def _logged(self) -> dict[int, dict[str, float]]:
        """Step -> verl's metrics at that step, ordered by step; NaN for what is no finite number.

        A resumed run writes a new file. Files count in the order of their names (numbers by value), and where a step
        is in several, the later file wins, name by name.
        """
        merged: dict[int, dict[str, float]] = {}
        for path in self.metric_files:
            for step, data in self._json_steps(path) if path.suffix == ".jsonl" else _console_steps(path):
                merged.setdefault(step, {}).update(data)
        return dict(sorted(merged.items()))

    def _json_steps(self, path: Path) -> Iterator[tuple[int, dict[str, float]]]:
        """What verl's file logger wrote: steps with their numbers."""
        for line in self._lines(path):
            step, data = line.get("step"), line.get("data")
            if isinstance(step, int) and isinstance(data, dict):
                values: dict[str, float] = {}
                for name, value in data.items():
                    if _is_number(value):
                        values[name] = float(value)
                    elif value is None or isinstance(value, float):  # null is how it writes NaN
                        values[name] = math.nan
                yield step, values

    @cached_property
    def metrics(self) -> dict[int, dict[str, float]]:
        """Step -> verl's metrics at that step, ordered by step; values that are no finite numbers are left out."""
        return {
            step: {name: value for name, value in data.items() if math.isfinite(value)}
            for step, data in self._logged.items()
        }

    @cached_property
    def gaps(self) -> dict[str, list[int]]:
        """Metric -> steps at which verl logged something that is no finite number."""
        found: dict[str, list[int]] = {}
        for step, data in self._logged.items():
            for name, value in data.items():
                if not math.isfinite(value):
                    found.setdefault(name, []).append(step)
        return found

    def curve(self, name: str, gaps: bool = False) -> tuple[list[int], list[float]]:
        """Steps and values of one of verl's metrics; both empty if it was never logged.

        With `gaps`, a step at which it was no finite number has NaN; otherwise it is left out.
        """
        source = self._logged if gaps else self.metrics
        points = [(step, data[name]) for step, data in source.items() if name in data]
        if all(math.isnan(value) for _, value in points):
            return [], []
        return [step for step, _ in points], [value for _, value in points]

    def names(self, prefix: str) -> list[str]:
        """All metric names that start so, in the order of their first appearance."""
        return list(dict.fromkeys(name for data in self.metrics.values() for name in data if name.startswith(prefix)))

    @functools.lru_cache(maxsize=4)  # noqa: B019 -- a RunLog lives as long as its report
    def validation(self, step: int) -> list[Response]:
        """All responses of the validation at that step. Raises KeyError if there was none."""
        return [_response(line, step) for line in self._lines(self.validations[step])]

    def rollout(self, step: int) -> list[Response]:
        """All training rollouts of that step. Raises KeyError if there are none."""
        return [_response(line, step) for line in self._lines(self.rollouts[step])]

    @cached_property
    def outcomes(self) -> dict[int, dict[LoggedArm, Outcomes]]:
        """Step -> kind of question -> question -> accuracy, from the validation dumps."""
        return {step: _task_outcomes(self.validation(step)) for step in self.validations}

    @cached_property
    def benchmark_outcomes(self) -> dict[int, dict[BenchmarkKey, Outcomes]]:
        """The same for benchmarks and their categories; circular ones only where every order has an answer."""
        return {step: _benchmark_outcomes(self.validation(step)) for step in self.validations}

    @cached_property
    def arms(self) -> dict[LoggedArm, list[Accuracy[LoggedArm]]]:
        """The validation curve of every kind of question, ordered by kind.

        From the validation dumps; where there are none, from verl's own metrics, without levels and intervals.
        """
        found = _accuracies(self.outcomes)
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
        """The validation curve of every benchmark and category, a benchmark's categories after itself.

        From the validation dumps; where there are none, from verl's own metrics: categories, and the whole if they say how
        many questions each has.
        """
        return dict(sorted((_accuracies(self.benchmark_outcomes) or self._logged_benchmarks()).items()))

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
        """The result: every kind of question before the first update and after the last validated one."""
        return [_headline(kind, kind.chance, points, self.outcomes) for kind, points in self.arms.items()]

    def benchmark_headline(self) -> list[Headline[BenchmarkKey]]:
        """The same for benchmarks and their categories."""
        return [_headline(kind, None, points, self.benchmark_outcomes) for kind, points in self.benchmarks.items()]

    def task_figure(self, name: str) -> dict[str, tuple[list[int], list[float]]]:
        """Task -> steps and values of a figure of its validations, of those that `rewards.compute_score` returns.

        From verl's metrics; of `acc`, `format`, `valid` and `similarity` from the dumps where there are no metrics.
        """
        logged = {task: curve for (task,), curve in self._validated("ssl4rl/([^/]+)", name).items()}
        return logged or self._dumped(name)

    def _validated(self, data_source: str, name: str) -> dict[tuple[str, ...], tuple[list[int], list[float]]]:
        """Curves of a validation figure by what the pattern of data sources captures."""
        pattern = re.compile(rf"val-(?:core|aux)/{data_source}/{re.escape(name)}/mean@\d+")
        found = {
            match.groups(): self.curve(metric) for metric in self.names("val-") if (match := pattern.fullmatch(metric))
        }
        return {key: curve for key, curve in found.items() if curve[0]}

    def _dumped(self, name: str) -> dict[str, tuple[list[int], list[float]]]:
        curves: dict[str, tuple[list[int], list[float]]] = {}
        for step in self.validations:
            by_task: dict[str, list[float]] = {}
            for row in self.validation(step):
                value = row.figures.get(name)
                if row.arm and value is not None:
                    by_task.setdefault(row.arm.task, []).append(value)
            for task, values in by_task.items():
                steps, means = curves.setdefault(task, ([], []))
                steps.append(step)
                means.append(math.fsum(values) / len(values))
        return curves

    @cached_property
    def config_file(self) -> Path | None:
        """The composed config that Hydra wrote; None if it is not in the run folder."""
        if self.path.is_file():
            return None  # what lies beside it need not belong to it
        candidates = (self.folder / "hydra" / ".hydra" / "config.yaml", self.folder / ".hydra" / "config.yaml")
        return next((path for path in candidates if path.is_file()), None)

    @cached_property
    def config_text(self) -> str:
        """The composed config as YAML; empty if there is none."""
        return self.config_file.read_text(encoding="utf-8", errors="replace") if self.config_file else ""

    def setting(self, key: str) -> Any:
        """One value of the config, e.g. `data.train_batch_size`; None if it is not there or cannot be resolved."""
        from omegaconf import OmegaConf

        try:
            value = OmegaConf.select(self._config, key)
            return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except Exception:  # the run's environment variables and resolvers need not exist here
            return None

    @cached_property
    def config_values(self) -> dict[str, Any]:
        """The composed config as nested values, interpolations as they stand; empty if there is none to be read."""
        from omegaconf import OmegaConf

        try:
            values = OmegaConf.to_container(self._config, resolve=False)
        except Exception:  # of YAML's and OmegaConf's own kinds
            return {}
        return {str(key): value for key, value in values.items()} if isinstance(values, dict) else {}

    def journal(self) -> Iterator[dict[str, Any]]:
        """The lines of the curriculum's journal; none if it has none."""
        for folder in () if self.path.is_file() else (self.folder, self.folder / "checkpoints"):
            if (folder / "curriculum.jsonl").is_file():
                yield from self._lines(folder / "curriculum.jsonl")
                return

    @cached_property
    def settings(self) -> Settings:
        """The `ssl4rl:` section of the config.

        Raises:
            RunError: the config is not there, or was not made by a recipe of this package.
            SettingsError: it names a task or level that is not installed here.
        """
        section = self.setting("ssl4rl")
        if not isinstance(section, dict):
            raise RunError(
                f"{self.folder} has no hydra/.hydra/config.yaml with an `ssl4rl` section, so its pictures cannot be "
                "made again; start runs with hydra.run.dir=RUN/hydra"
            )
        places = [section, section.get("source") or {}, *(section.get("benchmarks") or [])]
        for place in places:
            for key in ("path", "manifest", "data"):
                if isinstance(place, dict) and isinstance(place.get(key), str):
                    place[key] = self._from_where_it_ran(place[key])
        try:
            return Settings.from_config(section)
        except (KeyError, TypeError) as error:
            raise SettingsError(f"the `ssl4rl` section of {self.config_file} is not complete: {error!r}") from error

    def sample_of(self, row: Response) -> StreamSample:
        """Make the question of a response again, with its pictures.

        Raises:
            RunError: the sample is unknown, or what comes out is not what the model saw, because the images, the
                settings or the package changed since.
            SettingsError, SourceError, SampleError: the settings or the images are no longer usable.
        """
        split, _, number = row.sample.partition(":")
        if split not in ("train", "val") or not number.isdecimal():
            raise RunError(f"the response of step {row.step} does not say which sample it answers ({row.sample!r})")
        try:
            stream = self._stream(split)
            # A curriculum's decisions are not in the config; what was drawn is in the row.
            arm = next((arm for arm in self.settings.arms if row.arm == LoggedArm.of(arm)), None)
            made = stream[int(number)] if arm is None else stream.of_arm(int(number), arm)
        except IndexError:
            raise RunError(f"sample {row.sample} is not in the stream that the config describes") from None
        if made.truth_json != row.truth:
            raise RunError(f"sample {row.sample} comes out differently now: its images or the package have changed")
        return made

    def asked(self, row: Response) -> Row:
        """What a response answers, made again or read again, with its pictures: a sample or a benchmark's question.

        Raises:
            RunError: it is unknown, or what comes out is not what the model saw.
            SettingsError, SourceError, SampleError, BuiltError: the settings or the images are no longer usable.
        """
        from ssl4rl_plugin.data.rows import row_of

        data = self.settings.data
        if row.answered is None and data is None:
            return row_of(self.sample_of(row))
        if row.answered is None:
            from ssl4rl_plugin.training.stored_rows import StoredRows

            split, _, number = row.sample.partition(":")
            try:
                made = StoredRows(Path(str(data)), split)[int(number)]
            except (ValueError, IndexError) as error:
                raise RunError(f"sample {row.sample!r} cannot be read from {data}: {error}") from error
        else:
            told = row.answered
            place = self._questions.get((told.benchmark, told.question, told.rotation))
            if place is None:
                raise RunError(
                    f"question {row.sample} is in none of the benchmarks (ssl4rl.benchmarks) of the config; those that are "
                    "part of built data cannot be looked up"
                )
            made = place[0][place[1]]
        if made.ground_truth != row.truth:
            raise RunError(f"{row.sample} comes out differently now: its images or the package have changed")
        return made

    @cached_property
    def _questions(self) -> dict[tuple[str, str, int], tuple[Rows, int]]:
        """Benchmark, question and rotation -> the rows that it is in, and its number there; not of built ones."""
        from ssl4rl_plugin.training.graph_questions import GraphQuestionRows
        from ssl4rl_plugin.training.questions import QuestionRows
        from ssl4rl_plugin.training.run_rows import own_rows, questions  # here: it imports verl

        found: dict[tuple[str, str, int], tuple[Rows, int]] = {}
        for rows in questions(own_rows(self.settings, "val"), self.settings):
            if isinstance(rows, QuestionRows):
                name = rows.manifest.source.name
                found |= {(name, one.question.id, one.rotation): (rows, n) for n, one in enumerate(rows.asked)}
            elif isinstance(rows, GraphQuestionRows):
                name = rows.manifest.graph.name
                found |= {(name, f"{one.sort}:{one.node}", 0): (rows, n) for n, one in enumerate(rows.asked)}
        return found

    @functools.lru_cache(maxsize=2)  # noqa: B019
    def _stream(self, split: str) -> SampleStream:
        return SampleStream(self.settings, self._manifest, split)

    @cached_property
    def _manifest(self) -> Any:
        try:
            return load_manifest(self.settings)
        except OSError as error:
            raise SampleError(f"the images of the run cannot be read: {error}") from error

    @cached_property
    def _config(self) -> Any:
        from omegaconf import OmegaConf

        return OmegaConf.create(self.config_text or "{}")

    def _from_where_it_ran(self, path: str) -> str:
        """A relative path of the config, seen from the folder that the run was started in."""
        from omegaconf import OmegaConf

        if self.config_file is None or Path(path).expanduser().is_absolute() or Path(path).exists():
            return path
        try:
            cwd = OmegaConf.load(self.config_file.with_name("hydra.yaml")).hydra.runtime.cwd
        except Exception:  # Hydra's own file is only a help
            return path
        return str(Path(str(cwd)) / path)

    @property
    def torn_lines(self) -> int:
        """Lines that could not be read, in the files read so far."""
        return len(self._torn)

    def _lines(self, path: Path) -> Iterator[dict[str, Any]]:
        """The JSON objects of a file; torn lines are counted and skipped."""
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                for number, line in enumerate(file):
                    try:
                        value = json.loads(line)
                    except (ValueError, RecursionError):
                        value = None
                    if isinstance(value, dict):
                        yield value
                    elif line.strip():
                        self._torn.add((path, number))
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}") from error


def _steps(folder: Path) -> dict[int, Path]:
    """The `{step}.jsonl` files of a folder, ordered by step."""
    files = {int(path.stem): path for path in folder.glob("*.jsonl") if path.stem.isdecimal()}
    return dict(sorted(files.items()))


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key of a file name in which 10 comes after 9, and `metrics` before `metrics_2`."""
    parts = re.findall(r"\d+|\D+", path.stem)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def _console_steps(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """What verl's console logger wrote among its output: `step:12 - name:value - ...`."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                # Ray puts the worker's name in front.
                if match := re.search(r"(?:^|\s)step:(\d+) - (\S.*)", line):
                    numbers = (re.fullmatch(_PRINTED, part) for part in match[2].strip().split(" - "))
                    values = {found[1]: float(found[2]) for found in numbers if found}
                    yield int(match[1]), {name: v if math.isfinite(v) else math.nan for name, v in values.items()}
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error


_PRINTED = r"(\S.*):(?:np\.\w+\()?(-?(?:\d[\d.]*(?:e[+-]?\d+)?|nan|inf))\)?"
"""`name:0.5`, `name:np.float64(0.5)`."""


def _accuracies(outcomes: Mapping[int, Mapping[Kind, Outcomes]]) -> dict[Kind, list[Accuracy[Kind]]]:
    """The curve of every kind of question."""
    found: dict[Kind, list[Accuracy[Kind]]] = {}
    for step, kinds in outcomes.items():
        for kind, questions in kinds.items():
            found.setdefault(kind, []).append(Accuracy(step, kind, proportion(questions.values())))
    return found


def _headline(
    kind: Kind, chance: float | None, points: list[Accuracy[Kind]], outcomes: Mapping[int, Mapping[Kind, Outcomes]]
) -> Headline[Kind]:
    before = points[0] if points[0].step == 0 else None
    after = points[-1] if points[-1].step > 0 else None
    change = None
    if before and after and {before.step, after.step} <= outcomes.keys():
        change = difference(outcomes[before.step].get(kind, {}), outcomes[after.step].get(kind, {}))
    return Headline(kind, chance, before, after, change)


def _task_outcomes(rows: Iterable[Response]) -> dict[LoggedArm, Outcomes]:
    """Accuracy of every question, by kind; a question is a sample with its truth, so that runs can be compared."""
    found: dict[LoggedArm, dict[str, list[float]]] = {}
    for number, row in enumerate(rows):
        acc = row.figures.get("acc")
        if row.arm and acc is not None:
            question = f"{row.sample} {row.truth}" if row.sample else f"row {number}"
            found.setdefault(row.arm, {}).setdefault(question, []).append(acc)
    return {arm: {key: math.fsum(of) / len(of) for key, of in questions.items()} for arm, questions in found.items()}


def _benchmark_outcomes(rows: Iterable[Response]) -> dict[BenchmarkKey, Outcomes]:
    """Accuracy of every question, by benchmark and category, plain and circular (see `benchmark_results`)."""
    by_question: dict[tuple[str, str], list[AnsweredQuestion]] = {}
    for row in rows:
        if row.answered:
            by_question.setdefault((row.answered.benchmark, row.answered.question), []).append(row.answered)
    found: dict[BenchmarkKey, dict[str, float]] = {}
    for (benchmark, question), answers in by_question.items():
        plain = [answer.acc for answer in answers if answer.rotation == 0]
        figures = {False: math.fsum(plain) / len(plain) if plain else None}
        if any(answer.rotations > 1 for answer in answers):
            figures[True] = circular_accuracy(answers)
        for place, name in enumerate(("", answers[0].l2_category, answers[0].category)):
            for circular, figure in figures.items():
                if name is not None and figure is not None:
                    found.setdefault(BenchmarkKey(benchmark, place, name, circular), {})[question] = figure
    return dict(found)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _response(line: dict[str, Any], step: int) -> Response:
    """One line of a dump, whatever is missing in it."""
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
        score=float(line["score"]) if _is_number(line.get("score")) else math.nan,
        arm=arm,
        answered=answered(gts, acc if _is_number(acc) else None) if isinstance(gts, str) and arm is None else None,
        sample=_text(sample),
        truth=_text(gts),
        uid=_text(line.get("uid")),
        figures={
            name: min(1.0, max(0.0, float(line[name]))) if _is_number(line[name]) else None
            for name in ("acc", "format", "valid", "similarity")
            if name in line
        },
        error=_text(line.get("error")),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)

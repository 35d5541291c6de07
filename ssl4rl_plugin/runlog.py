"""What a run of verl left behind, read back: metrics, validations, rollouts, the config, and the samples themselves.

A run folder looks like this; everything in it is optional, and what is absent is simply empty here:

    metrics*.jsonl              verl's file logger (VERL_FILE_LOGGER_PATH=RUN/metrics.jsonl, trainer.logger=[file])
    validation/{step}.jsonl     trainer.validation_data_dir=RUN/validation
    rollouts/{step}.jsonl       trainer.rollout_data_dir=RUN/rollouts
    hydra/.hydra/config.yaml    hydra.run.dir=RUN/hydra

The files of a run that is still going on, or was killed, may end in the middle of a line: such lines are skipped and
counted.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ssl4rl_plugin.samples import Made, SampleError, SampleStream, load_manifest
from ssl4rl_plugin.settings import Arm, Settings, SettingsError
from ssl4rl_plugin.stats import Proportion, wilson
from ssl4rl_plugin.tasks import resolve

HOW_TO_RECORD = (
    "VERL_FILE_LOGGER_PATH=RUN/metrics.jsonl python -m verl.trainer.main_ppo ... hydra.run.dir=RUN/hydra "
    "trainer.validation_data_dir=RUN/validation trainer.rollout_data_dir=RUN/rollouts"
)
"""What makes verl write a run folder that can be read here."""


class RunError(ValueError):
    """A folder that holds no run, or a sample that cannot be made again; the message says what to do."""


@dataclass(frozen=True, order=True)
class ArmKey:
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
    def of(cls, arm: Arm) -> ArmKey:
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
    arm: ArmKey | None
    """None for a line whose ground truth is not of this package."""
    sample: str
    """`val:17`: number 17 of the validation stream; empty if unknown."""
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
            task, level = resolve(truth["task"], truth["level"], truth.get("options") or {})
            return task.gold(truth["truth"], level)
        except Exception:  # see ArmKey.chance
            return None

    @property
    def group(self) -> str:
        """What the rollouts of one prompt in one step have in common."""
        return self.uid.rsplit("_", 2)[0] or self.sample


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers of one kind of question in one validation."""

    step: int
    arm: ArmKey
    rate: Proportion
    """Its interval treats questions as independent, and several answers to one question as one. Without a count (verl's
    metrics only), n is 0 and the interval [0, 1]."""


@dataclass(frozen=True)
class Headline:
    """A line of the result table: one kind of question before and after training."""

    arm: ArmKey
    chance: float | None
    before: Accuracy | None
    """The run's first validation, if it came before the first update (step 0)."""
    after: Accuracy | None
    """The last validation, if training lay before it."""

    @property
    def verdict(self) -> str:
        """What the last interval says: `above chance`, `at chance`, `below chance`, or empty if it cannot be told."""
        last = self.after or self.before
        if last is None or self.chance is None or not last.rate.n:
            return ""
        if last.rate.low > self.chance:
            return "above chance"
        return "below chance" if last.rate.high < self.chance else "at chance"


class RunLog:
    """A run folder, opened for reading; files are read when they are asked for, and not kept open.

    Args:
        folder: the run folder (see the module).

    Raises:
        RunError: there is no such folder, or nothing of a run is in it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser().resolve()
        self._torn: set[tuple[Path, int]] = set()
        if not self.folder.is_dir():
            raise RunError(f"{self.folder} is not a folder: give the run folder of a training")
        self.metric_files = sorted(self.folder.glob("metrics*.jsonl"), key=_natural)
        self.validations = _steps(self.folder / "validation")
        """Step -> file of the validation at that step, in order."""
        self.rollouts = _steps(self.folder / "rollouts")
        """Step -> file of the training rollouts of that step, in order."""
        if not (self.metric_files or self.validations or self.rollouts):
            raise RunError(
                f"{self.folder} holds no metrics, validations or rollouts; record a run with {HOW_TO_RECORD}"
            )

    @cached_property
    def metrics(self) -> dict[int, dict[str, float]]:
        """Step -> verl's metrics at that step, ordered by step; values that are no finite numbers are left out.

        A resumed run writes a new file. Files count in the order of their names (numbers by value), and where a step
        is in several, the later file wins, name by name.
        """
        merged: dict[int, dict[str, float]] = {}
        for path in self.metric_files:
            for line in self._lines(path):
                step, data = line.get("step"), line.get("data")
                if isinstance(step, int) and isinstance(data, dict):
                    numbers = {name: value for name, value in data.items() if _is_number(value)}
                    merged.setdefault(step, {}).update(numbers)
        return dict(sorted(merged.items()))

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one of verl's metrics; both empty if it was never logged."""
        points = [(step, data[name]) for step, data in self.metrics.items() if name in data]
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
    def accuracies(self) -> list[Accuracy]:
        """Accuracy of every kind of question in every validation, ordered by kind, then by step.

        From the validation dumps; where there are none, from verl's own metrics, without levels and intervals.
        """
        found: list[Accuracy] = []
        for step in self.validations:
            by_arm: dict[ArmKey, dict[str, list[float]]] = {}
            for number, row in enumerate(self.validation(step)):
                acc = row.figures.get("acc")
                if row.arm and acc is not None:
                    answers = by_arm.setdefault(row.arm, {})
                    answers.setdefault(row.sample or f"row {number}", []).append(acc)
            for arm, samples in by_arm.items():
                means = [math.fsum(answers) / len(answers) for answers in samples.values()]
                found.append(Accuracy(step, arm, wilson(min(math.fsum(means), len(means)), len(means))))
        if not found:
            pattern = re.compile(r"val-core/ssl4rl/([^/]+)/acc/mean@\d+")
            for name in self.names("val-core/ssl4rl/"):
                if match := pattern.fullmatch(name):
                    for step, value in zip(*self.curve(name), strict=True):
                        found.append(Accuracy(step, ArmKey(match[1], ""), Proportion(value, 0.0, 1.0, 0)))
        return sorted(found, key=lambda point: (point.arm, point.step))

    @cached_property
    def arms(self) -> dict[ArmKey, list[Accuracy]]:
        """The validation curve of every kind of question."""
        curves: dict[ArmKey, list[Accuracy]] = {}
        for point in self.accuracies:
            curves.setdefault(point.arm, []).append(point)
        return curves

    def headline(self) -> list[Headline]:
        """The result: every kind of question before the first update and after the last validated one."""
        return [
            Headline(
                arm=arm,
                chance=arm.chance,
                before=points[0] if points[0].step == 0 else None,
                after=points[-1] if points[-1].step > 0 else None,
            )
            for arm, points in self.arms.items()
        ]

    @cached_property
    def rates(self) -> dict[str, tuple[list[int], list[float]]]:
        """Mean of `format` and `valid` over all responses of each validation: name -> (steps, values)."""
        curves: dict[str, tuple[list[int], list[float]]] = {}
        for step in self.validations:
            for name in ("format", "valid"):
                values = [v for row in self.validation(step) if (v := row.figures.get(name)) is not None]
                if values:
                    steps, means = curves.setdefault(name, ([], []))
                    steps.append(step)
                    means.append(math.fsum(values) / len(values))
        return curves

    @cached_property
    def config_file(self) -> Path | None:
        """The composed config that Hydra wrote; None if it is not in the run folder."""
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
        source = section.get("source") or {}
        for key in ("path", "manifest"):
            if isinstance(source.get(key), str):
                source[key] = self._from_where_it_ran(source[key])
        try:
            return Settings.from_config(section)
        except (KeyError, TypeError) as error:
            raise SettingsError(f"the `ssl4rl` section of {self.config_file} is not complete: {error!r}") from error

    def sample_of(self, row: Response) -> Made:
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
            arm = next((arm for arm in self.settings.arms if row.arm == ArmKey.of(arm)), None)
            made = stream[int(number)] if arm is None else stream.of_arm(int(number), arm)
        except IndexError:
            raise RunError(f"sample {row.sample} is not in the stream that the config describes") from None
        if made.truth_json != row.truth:
            raise RunError(f"sample {row.sample} comes out differently now: its images or the package have changed")
        return made

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
    if isinstance(truth, dict) and {"task", "level", "truth"} <= truth.keys():
        options = json.dumps(truth.get("options") or {}, sort_keys=True)
        arm = ArmKey(str(truth["task"]), str(truth["level"]), options)
        sample = truth.get("sample", sample)
    return Response(
        step=step,
        prompt=_text(line.get("input")),
        output=_text(line.get("output")),
        score=float(line["score"]) if _is_number(line.get("score")) else math.nan,
        arm=arm,
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

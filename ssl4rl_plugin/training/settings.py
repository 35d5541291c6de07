"""The `ssl4rl:` section of the config, checked and typed.

The `...Section` models list the keys and their ranges. The dataset, the check before a run and the command line read
the config through `Settings`.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import InterpolationToMissingValueError
from pydantic import Field, field_validator

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.grader import Credit
from ssl4rl_plugin.data.arms import Arm, SourceSettings, StreamSettings
from ssl4rl_plugin.grading.formats import AnswerFormat, answer_format
from ssl4rl_plugin.tasks import get_task
from ssl4rl_plugin.training.config_model import ConfigModel, Options
from ssl4rl_plugin.training.curriculum.director import CurriculumSettings
from ssl4rl_plugin.training.curriculum.evidence import CurriculumArm, ladder

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
PixelCount = Annotated[int, Field(ge=28 * 28)]

BENCHMARK_PIXELS = 1024 * 1024
"""Default of `ssl4rl.benchmark_max_pixels`."""


class SettingsError(UserError):
    """A wrong setting: the message names the key, what was given, and what is possible."""


class SourceSection(ConfigModel):
    """`ssl4rl.source`; see `SourceSettings`."""

    name: str
    path: str | None = None
    options: Options = {}
    manifest: str | None = None
    val_fraction: Share = 0.1
    max_pixels: PixelCount
    train_size: int | float | None = None
    taught_fraction: Share = 0.0

    @field_validator("train_size", mode="plain")
    @classmethod
    def _size(cls, value: Any) -> int | float | None:
        return _train_size(value)


class SourceEntry(ConfigModel):
    """An entry of `ssl4rl.sources`; see `SourceSettings`. A missing val_fraction, max_pixels or train_size is that of
    `ssl4rl.source`."""

    path: str | None = None
    source: str | None = None
    """Name of a registered source; None to choose it by the path, as commands do."""
    name: str | None = None
    """Name in metrics, rows and the report; None for the last part of the path."""
    weight: Annotated[float, Field(gt=0)] | None = None
    options: Options = {}
    manifest: str | None = None
    val_fraction: Share | None = None
    max_pixels: PixelCount | None = None
    train_size: int | float | None = None

    @field_validator("train_size", mode="plain")
    @classmethod
    def _size(cls, value: Any) -> int | float | None:
        return _train_size(value)

    @field_validator("weight", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("name")
    @classmethod
    def _label(cls, value: str | None) -> str | None:
        if value is None or re.fullmatch(r"[\w.-]+", value):
            return value
        raise ValueError(f"is part of metrics' names and may have letters, digits, '_', '-' and '.', got {value!r}")


def _train_size(value: Any) -> int | float | None:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if value is None or whole or (isinstance(value, float) and 0 < value <= 1):
        return value
    raise ValueError(f"must be a share in (0, 1] (0.25) or a number from 1, got {value!r}")


class TaskSection(ConfigModel):
    """An entry of `ssl4rl.tasks`."""

    task: str
    """`TASK` or `TASK:LEVEL`."""
    level: str | None = None
    weight: Annotated[float, Field(ge=0)] = 1.0
    options: Options = {}
    """Fields of the level."""


class BenchmarkSection(ConfigModel):
    """An entry of `ssl4rl.benchmarks`; see `BenchmarkSettings`."""

    name: str
    path: str | None = None
    options: Options = {}
    limit: Count | None = None
    circular: bool = False
    max_pixels: PixelCount | None = None


class RewardSection(ConfigModel):
    """What `rewards.compute_score` is called with, for runs that give it another value than `ssl4rl` has."""

    answer_format: str = "think_answer"
    format_weight: Share = 0.1
    partial_credit: Annotated[float, Field(ge=0, le=1)] = 0.5
    partial_credit_by: Credit = "similarity"


class Section(ConfigModel):
    """All keys of `ssl4rl:`; see `Settings`. Keys of type Any have a check of their own."""

    seed: Annotated[int, Field(ge=0)]
    tasks: Any
    options: Options = {}
    """Fields of the levels, for all tasks; null leaves a field as the level has it."""
    source: Any
    sources: list[Any] | None = None
    answer_format: AnswerFormat
    format_weight: Share = 0.1
    partial_credit: Annotated[float, Field(ge=0, le=1)] = 0.5
    partial_credit_by: Credit = "similarity"
    epochs: Count
    fixed_corruptions: bool = False
    val_samples: Count
    system_prompt: str | None = None
    videos_as: Literal["auto", "video", "images"] = "auto"
    data: str | None = None
    benchmarks: list[Any] | None = None
    benchmark_max_pixels: PixelCount = BENCHMARK_PIXELS
    allow_left_out: Annotated[float, Field(ge=0, le=1)] = 0.01
    transductive: bool = False
    curriculum: Any = None
    gpu_memory: Any = None
    """Read by `ssl4rl doctor`, as the next one is."""
    host_memory: Any = None
    attention: Literal["auto", "flash_attention_2", "sdpa"] = "auto"
    """Read by the recipes' resolvers."""
    warm_up: Any = None
    """Read by `ssl4rl demo`."""

    @field_validator("answer_format", mode="plain")
    @classmethod
    def _format(cls, value: Any) -> AnswerFormat:
        return answer_format(value)


@dataclass(frozen=True)
class BenchmarkSettings:
    """A benchmark that is validated on."""

    source: SourceSettings
    limit: int | None
    """Number of questions; None for all."""
    circular: bool = False
    """Each question is asked once for every rotation of its options."""


@dataclass(frozen=True)
class Settings(StreamSettings):
    """All of the `ssl4rl:` section."""

    data: str | None = None
    """Folder made by `ssl4rl build`, whose rows take the place of samples made on the fly."""
    benchmarks: tuple[BenchmarkSettings, ...] = ()
    """What is validated on beside the pretext tasks."""
    benchmark_max_pixels: int = BENCHMARK_PIXELS
    """Most pixels that the pictures of a benchmark's question have together, unless the benchmark has its own limit."""
    allow_left_out: float = 0.01
    """Largest share of a benchmark's questions that a run may leave out because their prompts do not fit."""
    transductive: bool = False
    """Images of these benchmarks may be trained on."""
    curriculum: CurriculumSettings | None = None
    """What decides how often each arm is drawn; None for the arms' weights."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Settings:
        """Read the section (a plain mapping or an OmegaConf node). Raises SettingsError or PolicyError."""
        try:
            plain = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else dict(config)
        except InterpolationToMissingValueError as error:
            reason = str(error).splitlines()[0].rpartition(": ")[2]
            raise SettingsError(
                f"{error.full_key} takes its value from {reason}, which is not set: set one of them"
            ) from error
        section = Section.read(plain, "ssl4rl", SettingsError)
        source = SourceSection.read(section.source, "ssl4rl.source", SettingsError)
        curriculum = CurriculumSettings.from_config(section.curriculum)
        options = {key: value for key, value in section.options.items() if value is not None}
        return cls(
            seed=section.seed,
            arms=parse_arms(section.tasks, options, every_level=curriculum is not None),
            source=SourceSettings(**dict(source)),
            sources=parse_sources(section.sources or [], source),
            answer_format=section.answer_format,
            epochs=section.epochs,
            fixed_corruptions=section.fixed_corruptions,
            val_samples=section.val_samples,
            system_prompt=section.system_prompt,
            videos_as=section.videos_as,
            data=section.data,
            benchmarks=parse_benchmarks(section.benchmarks or [], section.benchmark_max_pixels),
            benchmark_max_pixels=section.benchmark_max_pixels,
            allow_left_out=section.allow_left_out,
            transductive=section.transductive,
            curriculum=curriculum,
        )


def curriculum_arms(arms: Sequence[Arm]) -> tuple[CurriculumArm, ...]:
    """What a curriculum knows of each arm, in the same order."""
    return ladder(
        [
            CurriculumArm(
                key=arm.key,
                label=_label(
                    arm,
                    [other for other in arms if (other.task.name, other.level_name) == (arm.task.name, arm.level_name)],
                ),
                task=arm.task.name,
                rung=list(arm.task.levels).index(arm.level_name),
                chance=arm.task.chance(arm.level),
                weight=arm.weight,
            )
            for arm in arms
        ]
    )


def _label(arm: Arm, same: Sequence[Arm]) -> str:
    """`task/level`, and the options in which arms at the same level differ."""
    own = {key: value for key, value in arm.options.items() if any(other.options.get(key) != value for other in same)}
    return f"{arm.task.name}/{arm.level_name}" + "".join(f" {key}={value}" for key, value in sorted(own.items()))


def parse_arms(
    entries: Any, common_options: Mapping[str, Any] | None = None, every_level: bool = False
) -> tuple[Arm, ...]:
    """The arms that `ssl4rl.tasks` names.

    Each entry is `rotation` (its default level; every level, if `every_level`), `rotation:pair_45`, `rotation:*` (every
    level), or a mapping with the keys of `TaskSection`. `common_options` apply to every arm whose level has such a
    field. Raises SettingsError.
    """
    if isinstance(entries, str):
        entries = [entries]
    if not isinstance(entries, Sequence) or not entries:
        raise SettingsError(f"ssl4rl.tasks must list at least one task, e.g. [rotation], got {entries!r}")
    arms: list[Arm] = []
    for number, entry in enumerate(entries):
        entry = {"task": entry} if isinstance(entry, str) else entry
        section = TaskSection.read(entry, f"ssl4rl.tasks.{number}", SettingsError)
        name, _, level = section.task.partition(":")
        level = section.level or level
        try:
            task = get_task(name)
            every = level == "*" or (every_level and not level)
            for level_name in task.levels if every else (level or task.default_level,):
                fields = {field.name for field in dataclasses.fields(task.level(level_name))}
                shared = {key: value for key, value in (common_options or {}).items() if key in fields}
                arm = Arm(task, level_name, shared | section.options, section.weight)
                task.grader(arm.level)  # an impossible combination fails here and not in the middle of a run
                arms.append(arm)
        except ValueError as error:
            raise SettingsError(f"ssl4rl.tasks: {error}") from error
    keys = [arm.key for arm in arms]
    if len(set(keys)) < len(keys):
        raise SettingsError(
            f"ssl4rl.tasks names an arm twice: {', '.join(sorted(k for k in keys if keys.count(k) > 1))}"
        )
    for key in common_options or {}:
        if not any(key in arm.options for arm in arms):
            raise SettingsError(f"ssl4rl.options.{key}: none of the tasks has such an option")
    if sum(arm.weight for arm in arms) <= 0:
        raise SettingsError("ssl4rl.tasks: all weights are 0")
    return tuple(arms)


def parse_sources(entries: Sequence[Any], common: SourceSection) -> tuple[SourceSettings, ...]:
    """The sources that `ssl4rl.sources` names: mappings with the keys of `SourceEntry`.

    `common` is `ssl4rl.source`, whose path must then be unset. Raises SettingsError.
    """
    if entries and common.path not in (None, "???"):
        raise SettingsError(
            f"ssl4rl.source.path is {common.path!r} and ssl4rl.sources lists other sources: name all of them in "
            "ssl4rl.sources, and set ssl4rl.source.path=null"
        )
    if entries and common.taught_fraction:
        raise SettingsError(
            "ssl4rl.source.taught_fraction divides one source: name it in ssl4rl.source, not in ssl4rl.sources"
        )
    sections: list[SourceEntry] = []
    for number, entry in enumerate(entries):
        section = SourceEntry.read(entry, f"ssl4rl.sources.{number}", SettingsError)
        if section.path in (None, "???") and section.source is None:
            raise SettingsError(
                f"ssl4rl.sources.{number} needs a path, or a source that needs none: {{path: /data/photos}} or "
                "{source: sample_photos} (`ssl4rl sources` lists the sources)"
            )
        key = (section.source, section.path and os.path.normpath(section.path), section.options)
        for earlier, one in enumerate(sections):
            if section.path and key == (one.source, one.path and os.path.normpath(one.path), one.options):
                raise SettingsError(
                    f"ssl4rl.sources.{number} is the same as ssl4rl.sources.{earlier}: list it once, with a weight if it is "
                    "to be used more often"
                )
        sections.append(section)
    return tuple(
        SourceSettings(
            name=section.source or "",
            path=section.path,
            options=section.options,
            manifest=section.manifest,
            val_fraction=common.val_fraction if section.val_fraction is None else section.val_fraction,
            max_pixels=section.max_pixels or common.max_pixels,
            train_size=common.train_size if section.train_size is None else section.train_size,
            label=label,
            weight=section.weight,
        )
        for section, label in zip(sections, _labels(sections), strict=True)
    )


def _labels(sections: Sequence[SourceEntry]) -> list[str]:
    """The names of sources: given ones, or the last part of each path, made unique. Raises SettingsError."""
    given = [section.name for section in sections if section.name is not None]
    if twice := sorted({name for name in given if given.count(name) > 1}):
        raise SettingsError(f"ssl4rl.sources has two entries with the name {twice[0]!r}: give each its own")
    taken = set(given)
    found = []
    for section in sections:
        label = section.name
        if label is None:
            last = Path(section.path).name if section.path is not None else section.source or ""
            base = re.sub(r"[^\w.-]+", "_", last).strip("_.") or "source"
            names = itertools.chain([base], (f"{base}_{number}" for number in itertools.count(2)))
            label = next(name for name in names if name not in taken)
            taken.add(label)
        found.append(label)
    return found


def parse_benchmarks(entries: Sequence[Any], max_pixels: int = BENCHMARK_PIXELS) -> tuple[BenchmarkSettings, ...]:
    """The benchmarks that `ssl4rl.benchmarks` names: mappings with the keys of `BenchmarkSection`.

    `max_pixels` is the limit of benchmarks without their own. Raises SettingsError.
    """
    found: list[BenchmarkSettings] = []
    for number, entry in enumerate(entries):
        section = BenchmarkSection.read(entry, f"ssl4rl.benchmarks.{number}", SettingsError)
        if section.path == "???":
            raise SettingsError(f"say where {section.name} is: ssl4rl.benchmarks.{number}.path=...")
        source = SourceSettings(
            name=section.name,
            path=section.path,
            options=section.options,
            manifest=None,
            val_fraction=0.0,  # a benchmark is held out as a whole
            max_pixels=section.max_pixels or max_pixels,
        )
        found.append(BenchmarkSettings(source, section.limit, section.circular))
    names = [benchmark.source.name for benchmark in found]
    if len(set(names)) < len(names):
        raise SettingsError("ssl4rl.benchmarks names a benchmark twice")
    return tuple(found)

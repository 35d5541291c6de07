"""The `ssl4rl:` section of the config, checked and typed.

One place knows which keys there are, what they may be, and what to say if they are wrong; the dataset, the preflight
check and the command line all read the config through `Settings`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.arms import Arm, SourceSettings, StreamSettings
from ssl4rl_plugin.grading.formats import answer_format
from ssl4rl_plugin.tasks import get_task
from ssl4rl_plugin.training.curriculum.director import CurriculumSettings
from ssl4rl_plugin.training.curriculum.evidence import CurriculumArm, ladder


class SettingsError(UserError):
    """A wrong setting: the message names the key, what was given, and what is possible."""


@dataclass(frozen=True)
class BenchmarkSettings:
    """A benchmark that is validated on."""

    source: SourceSettings
    limit: int | None
    """So many of its questions; None for all."""
    circular: bool = False
    """Each question is asked once for every rotation of its options."""


@dataclass(frozen=True)
class Settings(StreamSettings):
    """All of the `ssl4rl:` section."""

    data: str | None = None
    """Folder made by `ssl4rl build` whose rows are used in place of samples made on the spot."""
    benchmarks: tuple[BenchmarkSettings, ...] = ()
    """What is validated on beside the pretext tasks."""
    transductive: bool = False
    """Images of these benchmarks may be trained on."""
    curriculum: CurriculumSettings | None = None
    """What decides how often each arm is drawn; None for the arms' weights."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Settings:
        """Read the section (a plain mapping or an OmegaConf node). Raises SettingsError."""
        section = _plain(config)
        source = section.get("source") or {}
        try:
            fmt = answer_format(section["answer_format"])
        except UserError as error:
            raise SettingsError(f"ssl4rl.answer_format: {error}") from error
        fraction = source.get("val_fraction", 0.1)
        if not isinstance(fraction, int | float) or not 0 <= fraction < 1:
            raise SettingsError(f"ssl4rl.source.val_fraction must be in [0, 1), got {fraction!r}")
        for key, low in (("format_weight", 0.0), ("partial_credit", 0.0)):
            value = section.get(key, low)
            if not isinstance(value, int | float) or not low <= value < 1:
                raise SettingsError(f"ssl4rl.{key} must be in [0, 1), got {value!r}")
        curriculum = CurriculumSettings.from_config(section.get("curriculum"))
        return cls(
            seed=_integer(section, "seed", 0),
            arms=parse_arms(
                section["tasks"],
                {k: v for k, v in (section.get("options") or {}).items() if v is not None},
                every_level=curriculum is not None,
            ),
            source=SourceSettings(
                name=source["name"],
                path=source.get("path"),
                options=dict(source.get("options") or {}),
                manifest=source.get("manifest"),
                val_fraction=float(fraction),
                max_pixels=_integer(source, "max_pixels", 28 * 28, "ssl4rl.source."),
                train_size=_size(source.get("train_size")),
            ),
            answer_format=fmt,
            epochs=_integer(section, "epochs", 1),
            val_samples=_integer(section, "val_samples", 1),
            system_prompt=section.get("system_prompt"),
            videos_as=_one_of(section, "videos_as", ("auto", "video", "images")),
            data=section.get("data"),
            benchmarks=parse_benchmarks(section.get("benchmarks") or [], source),
            transductive=bool(section.get("transductive", False)),
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
    level), or a mapping with `task`, and perhaps `level`, `weight` (0 or more) and `options` (fields of the level).
    `common_options` apply to every arm whose level has such a field. Raises SettingsError.
    """
    if isinstance(entries, str):
        entries = [entries]
    if not entries:
        raise SettingsError("ssl4rl.tasks is empty: name at least one task, e.g. ssl4rl.tasks=[rotation]")
    arms: list[Arm] = []
    for entry in entries:
        spec: dict[str, Any] = {"task": entry} if isinstance(entry, str) else dict(entry)
        unknown = sorted(set(spec) - {"task", "level", "weight", "options"})
        if unknown or not isinstance(spec.get("task"), str):
            raise SettingsError(f"ssl4rl.tasks: {entry!r} must be a name or have keys task, level, weight, options")
        name, _, level = spec["task"].partition(":")
        level = spec.get("level") or level
        weight = spec.get("weight", 1.0)
        if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise SettingsError(f"ssl4rl.tasks: weight of {name!r} must be a number from 0, got {weight!r}")
        try:
            task = get_task(name)
            every = level == "*" or (every_level and not level)
            for level_name in task.levels if every else (level or task.default_level,):
                fields = {field.name for field in dataclasses.fields(task.level(level_name))}
                shared = {key: value for key, value in (common_options or {}).items() if key in fields}
                arm = Arm(task, level_name, shared | dict(spec.get("options") or {}), float(weight))
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


def parse_benchmarks(entries: Any, images: Mapping[str, Any]) -> tuple[BenchmarkSettings, ...]:
    """The benchmarks that `ssl4rl.benchmarks` names: mappings with `name` (a source with questions), `path`, and perhaps
    `options` (of the source), `limit` and `circular`. `images` is `ssl4rl.source`, for the pixel limit. Raises
    SettingsError.
    """
    found: list[BenchmarkSettings] = []
    for entry in entries:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise SettingsError(f"ssl4rl.benchmarks: {entry!r} must be a mapping with name and path")
        if unknown := sorted(set(entry) - {"name", "path", "options", "limit", "circular"}):
            raise SettingsError(f"ssl4rl.benchmarks: {entry['name']!r} has unknown {', '.join(map(repr, unknown))}")
        if entry.get("path") == "???":
            raise SettingsError(f"say where {entry['name']} is: ssl4rl.benchmarks.{len(found)}.path=...")
        source = SourceSettings(
            name=entry["name"],
            path=entry.get("path"),
            options=dict(entry.get("options") or {}),
            manifest=None,
            val_fraction=0.0,  # a benchmark is held out as a whole, by what it is used for
            max_pixels=_integer(images, "max_pixels", 28 * 28, "ssl4rl.source."),
        )
        limit = None if entry.get("limit") is None else _integer(entry, "limit", 1, "ssl4rl.benchmarks: ")
        if not isinstance(circular := entry.get("circular", False), bool):
            raise SettingsError(
                f"ssl4rl.benchmarks: circular of {entry['name']!r} must be true or false, got {circular!r}"
            )
        found.append(BenchmarkSettings(source, limit, circular))
    names = [benchmark.source.name for benchmark in found]
    if len(set(names)) < len(names):
        raise SettingsError("ssl4rl.benchmarks names a benchmark twice")
    return tuple(found)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The section as plain Python values, interpolations resolved."""
    from omegaconf import OmegaConf

    if OmegaConf.is_config(config):
        config = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return dict(config)


def _one_of(section: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> str:
    value = section.get(key, choices[0])
    if value not in choices:
        raise SettingsError(f"ssl4rl.{key} must be one of {', '.join(choices)}, got {value!r}")
    return str(value)


def _size(value: Any) -> int | float | None:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if value is None or whole or (isinstance(value, float) and 0 < value <= 1):
        return value
    raise SettingsError(f"ssl4rl.source.train_size must be a share in (0, 1] (0.25) or a number from 1, got {value!r}")


def _integer(section: Mapping[str, Any], key: str, low: int, prefix: str = "ssl4rl.") -> int:
    value = section.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise SettingsError(f"{prefix}{key} must be an integer from {low}, got {value!r}")
    return value

"""The settings that determine a stream of samples: arms, source, seed, answer format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssl4rl_plugin.core import Task
from ssl4rl_plugin.grading.formats import AnswerFormat


@dataclass(frozen=True)
class Arm:
    """One (task, level) that samples are drawn from."""

    task: Task[Any]
    level_name: str
    """A name from `task.levels`."""
    options: dict[str, Any]
    """Fields of the level that were changed (JSON values)."""
    weight: float
    """Share of the training samples, relative to the other arms."""

    @property
    def level(self) -> Any:
        """The level with the options applied."""
        return self.task.level(self.level_name, **self.options)

    @property
    def key(self) -> str:
        """`task:level`, with the options if there are any. Identifies the arm in seeds and tables."""
        return arm_key(self.task.name, self.level_name, self.options)

    @property
    def data_source(self) -> str:
        """The name under which verl groups this task's metrics."""
        return f"ssl4rl/{self.task.name}"


def arm_key(task: str, level: str, options: Mapping[str, Any]) -> str:
    """The name of an arm: `task:level`, with the options as JSON if there are any."""
    return f"{task}:{level}{json.dumps(options, sort_keys=True) if options else ''}"


@dataclass(frozen=True)
class SourceSettings:
    """Where items come from."""

    name: str
    """A registered source; empty to choose it by the path (`data.choose_source`)."""
    path: str | None
    options: dict[str, Any]
    manifest: str | None
    val_fraction: float
    max_pixels: int
    train_size: int | float | None = None
    """Training images to use: a share (float in (0, 1]), a number (int), or None for all, as in scikit-learn."""
    taught_fraction: float = 0.0
    """Share of the training groups whose items are in the split `taught` instead of `train`."""
    label: str = ""
    """Its name among several sources of a run, in metrics and ids; empty for the only source of a run."""
    weight: float | None = None
    """Share of the samples, relative to the other sources that the same tasks draw from; see `data.decks`."""


@dataclass(frozen=True)
class StreamSettings:
    """Settings that, with the manifest and the index of a sample, determine the sample."""

    seed: int
    arms: tuple[Arm, ...]
    source: SourceSettings
    answer_format: AnswerFormat
    epochs: int
    """Number of times that each training item is used."""
    val_samples: int
    """Number of held-out samples for each arm."""
    system_prompt: str | None
    fixed_corruptions: bool = False
    """Every epoch repeats the samples of the first, in a new order; False makes new ones."""
    videos_as: str = "auto"
    """How the model gets clips: `video`, `images` (one for each frame), or `auto` (video if its processor supports it)."""
    sources: tuple[SourceSettings, ...] = ()
    """Several sources, each with its own label, in place of `source`; empty for a run with one source."""

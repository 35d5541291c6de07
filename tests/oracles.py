"""All oracles (tests/oracle_*.py), and how often each agrees with the truth."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from oracle_crops import ORACLES as CROPS
from oracle_pixels import ORACLES as PIXELS
from oracle_tiles import ORACLES as TILES
from oracle_video import ORACLES as VIDEO

from ssl4rl_plugin.core import Sample
from ssl4rl_plugin.data.arms import SourceSettings
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.grading.formats import answer_format
from ssl4rl_plugin.tasks import get_task
from ssl4rl_plugin.training.settings import Settings, parse_arms

ORACLES: dict[str, Callable[[Sample, Any], Any]] = {**TILES, **CROPS, **PIXELS, **VIDEO}
ARMS = [(name, level) for name in sorted(ORACLES) for level in get_task(name).levels]
KINDS: dict[str, tuple[str, None]] = {
    "image": ("sample_photos", None),
    "rgbd": ("sample_depth", None),
    "video": ("sample_videos", None),
}
BUILT_IN = {name: KINDS[get_task(name).kind] for name in ORACLES}


@dataclass(frozen=True)
class Agreement:
    asked: int
    """Samples on which the oracle gave an answer; for some levels it has none."""
    wrong: list[str]
    """Keys, items, truths and answers of those that it answered otherwise."""


@functools.cache
def _manifest(source: str, path: str | None) -> tuple[Settings, Manifest]:
    settings = Settings(
        seed=0,
        arms=parse_arms(["rotation"]),
        source=SourceSettings(source, path, {}, None, 0.0, 1024 * 1024),
        answer_format=answer_format("think_answer"),
        epochs=100,
        val_samples=1,
        system_prompt=None,
    )
    return settings, load_manifest(settings)


def agreement(task_name: str, level_name: str, source: str, path: Path | str | None, count: int) -> Agreement:
    """Ask the task's oracle about `count` training samples of a source.

    Margins around tiles are left away where a level has them: they are there so that seams do not match pixel by pixel,
    which is how an oracle puts tiles together.
    """
    settings, manifest = _manifest(source, None if path is None else str(path))
    has_margin = hasattr(get_task(task_name).level(level_name), "margin")
    options = {"margin": 0.0} if has_margin else {}
    arms = parse_arms([{"task": task_name, "level": level_name, "options": options}])
    stream = SampleStream(replace(settings, arms=arms), manifest, "train")
    task, level = get_task(task_name), arms[0].level
    asked, wrong = 0, []
    for index in range(count):
        made = stream[index]
        answer = ORACLES[task_name](made.sample, level)
        if answer is None:
            continue
        asked += 1
        value = task.grader(level).parse(task.gold(answer, level))
        if value is None or not task.grader(level).equal(value, made.sample.truth):
            wrong.append(f"{made.key} {made.item_id}: {made.sample.truth} and not {answer}")
    return Agreement(asked, wrong)

"""Validation sets ask for every possible answer equally often, and nothing else about the samples changes."""

from __future__ import annotations

import json
import pickle
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.data.arms import Arm
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.grading import Choice
from ssl4rl_plugin.training.settings import Settings


@dataclass(frozen=True)
class DiceLevel(Level):
    answers: int = 2
    refused: float = 0.0
    """Share of draws that are refused."""
    stuck: bool = False
    """Draw the same truth always, against what the grader says."""


class NotUniform(Choice):
    uniform: ClassVar[bool] = False


class Dice(Task[DiceLevel]):
    name, summary, reference, default_level = "dice", "-", "-", "any"
    levels = {"any": DiceLevel()}

    def grader(self, level: DiceLevel) -> Choice:
        return Choice(tuple(f"n{k}" for k in range(level.answers)))

    def generate(self, item: Item, level: DiceLevel, rng: random.Random) -> Sample | Rejection:
        if rng.random() < level.refused:
            return Rejection("unlucky")
        truth = 0 if level.stuck else rng.randrange(level.answers)
        return Sample("<image>?", (item.image,), f"n{truth}", {"draw": rng.random()})


class Loaded(Dice):
    def grader(self, level: DiceLevel) -> Choice:
        return NotUniform(tuple(super().grader(level).values()))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Any]]:
    """Settings and manifest of a few small pictures, all of them held out."""
    folder: Path = tmp_path_factory.mktemp("few")
    for number in range(7):
        Image.effect_noise((40, 40 + number), 60 + 9 * number).convert("RGB").save(folder / f"{number}.png")
    source = {"name": "folder", "path": str(folder), "options": {}, "manifest": None, "val_fraction": 0.5,
              "max_pixels": 9999}  # fmt: skip
    section = {"tasks": ["rotation"], "options": {}, "seed": 0, "epochs": 2, "val_samples": 8, "source": source,
               "answer_format": "think_answer", "format_weight": 0.1, "partial_credit": 0.5, "system_prompt": None,
               "transductive": False}  # fmt: skip
    read = Settings.from_config(section)
    yield read, load_manifest(read)


def dice(
    few: tuple[Settings, Any],
    count: int,
    split: str = "val",
    seed: int = 0,
    task: Task[Any] | None = None,
    **options: Any,
) -> SampleStream:
    """A stream of `count` samples of each of two dice."""
    arms = tuple(Arm(task or Dice(), "any", {"side": side} | options, 1.0) for side in (100, 200))
    return SampleStream(replace(few[0], arms=arms, val_samples=count, seed=seed), few[1], split)


def facts(found: SampleStream, indices: range) -> list[tuple[str, str, str]]:
    return [(found[i].truth_json, found[i].item_id, json.dumps(found[i].sample.params)) for i in indices]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    answers=st.integers(2, 30), count=st.integers(1, 60), seed=st.integers(0, 9), refused=st.sampled_from([0.0, 0.3])
)
def test_the_counts_of_two_answers_differ_by_at_most_one(
    few: tuple[Settings, Any], answers: int, count: int, seed: int, refused: float
) -> None:
    found = dice(few, count, seed=seed, answers=answers, refused=refused)
    for arm in range(2):
        truths = [found[arm * count + k].sample.truth for k in range(count)]
        for reach in range(1, count + 1):
            times = Counter(truths[:reach])
            assert max(times.values()) - min(times[f"n{k}"] for k in range(answers)) <= 1


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers=st.integers(2, 30), count=st.integers(1, 40), seed=st.integers(0, 9))
def test_a_sample_does_not_depend_on_what_was_made_before(
    few: tuple[Settings, Any], answers: int, count: int, seed: int
) -> None:
    whole = facts(dice(few, count, seed=seed, answers=answers), range(2 * count))
    backwards = range(2 * count - 1, -1, -1)
    assert facts(pickle.loads(pickle.dumps(dice(few, count, seed=seed, answers=answers))), backwards) == whole[::-1]
    # As several workers make them: each has a stream of its own and every third sample.
    for worker in range(3):
        own = range(worker, 2 * count, 3)
        assert facts(dice(few, count, seed=seed, answers=answers), own) == [whole[k] for k in own]


def test_a_smaller_set_is_the_start_of_a_larger_one(few: tuple[Settings, Any]) -> None:
    def params(count: int) -> list[Any]:
        return [dice(few, count, answers=5)[k].sample.params for k in range(12)]

    assert params(12) == params(40)


def test_the_first_draw_is_kept_where_its_answer_is_free(few: tuple[Settings, Any]) -> None:
    """So the items stay, and a sample changes only where its answer was taken."""
    before, after = dice(few, 64, task=Loaded(), answers=2), dice(few, 64, answers=2)
    assert [before[k].item_id for k in range(64)] == [after[k].item_id for k in range(64)]
    same = [before[k].sample.params == after[k].sample.params for k in range(64)]
    assert all(same[::2]) and 8 < sum(same[1::2]) < 24


def test_truths_that_are_not_uniform_are_left_alone(few: tuple[Settings, Any]) -> None:
    found = dice(few, 64, task=Loaded(), answers=2)
    assert sorted(Counter(found[k].sample.truth for k in range(64)).values()) != [32, 32]


def test_training_samples_are_not_balanced(few: tuple[Settings, Any]) -> None:
    uniform, loaded = (dice(few, 8, "train", task=task, answers=2) for task in (Dice(), Loaded()))
    assert facts(uniform, range(len(uniform))) == facts(loaded, range(len(loaded)))


def test_a_task_that_never_gives_an_answer_does_not_stop_the_run(few: tuple[Settings, Any]) -> None:
    found = dice(few, 9, answers=3, stuck=True)
    assert {found[k].sample.truth for k in range(9)} == {"n0"}


@pytest.mark.parametrize(
    "task", ["rotation", "jigsaw:2x1", "jigsaw:2x2", "position", "contrastive", "swapped_tiles:2x2"]
)
def test_a_constant_answer_scores_exactly_chance(section: dict[str, Any], task: str) -> None:
    read = Settings.from_config({**section, "tasks": [task], "options": {"side": 56}, "val_samples": 24})
    found = SampleStream(read, load_manifest(read), "val")
    arm = read.arms[0]
    grader, truths = arm.task.grader(arm.level), [found[k].sample.truth for k in range(24)]
    for value in grader.values():
        scores = [arm.task.score(grader.render(value), truth, arm.level).correct for truth in truths]
        assert sum(scores) / 24 == pytest.approx(arm.task.chance(arm.level))

"""Trainings of a bench: many runs of verl's main_ppo in one folder, and what their validations say.

Each training has a folder OUT/<way>-<seed>. It is finished if the validation of its last step is there. So a bench that was
stopped goes on where it was, and a summary names the trainings that are missing.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from ssl4rl_plugin.analysis.runlog import RunLog
from ssl4rl_plugin.data.arms import Arm, arm_key
from ssl4rl_plugin.demo import run as demo

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "curriculum.md"
ASSETS = ROOT / "docs" / "assets"


@dataclass(frozen=True)
class Training:
    """One run of main_ppo."""

    way: str
    seed: int
    """Seed of the start model and of the samples."""
    overrides: tuple[str, ...]
    steps: int

    def folder(self, out: Path) -> Path:
        return out / f"{re.sub(r'[^a-z0-9.]+', '-', self.way.lower())}-{self.seed}"

    def finished(self, out: Path) -> bool:
        return (self.folder(out) / "validation" / f"{self.steps}.jsonl").is_file()

    def run(self, recipe: str, out: Path, model: Path) -> None:
        """Train from a copy of `model`. A failure is printed, and the training stays missing."""
        folder = self.folder(out)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copytree(model, folder / "model")
        own = (f"ssl4rl.seed={self.seed}", f"trainer.total_training_steps={self.steps}", "trainer.save_freq=-1")
        try:
            demo.run_trainer(recipe, folder, [*self.overrides, *own], self.steps)
        except demo.DemoError as error:
            print(f"{self.way}, seed {self.seed} failed: {error}", flush=True)


def model_folder(out: Path, seed: int) -> Path:
    """Where the start model of a seed is."""
    return out / f"model-{seed}"


def train_all(recipe: str, trainings: Iterable[Training], out: Path, start: Sequence[str], at_once: int) -> None:
    """Make the missing start models and trainings.

    Args:
        recipe: of all trainings.
        trainings: in the order in which they start.
        out: the bench's folder.
        start: overrides of the run that a start model is made for.
        at_once: trainings at the same time; each takes about 6 GB.
    """
    todo = [training for training in trainings if not training.finished(out)]
    for seed in dict.fromkeys(training.seed for training in todo):
        model = model_folder(out, seed)
        own = (f"actor_rollout_ref.model.path={model}", f"ssl4rl.seed={seed}")
        demo.prepare_model(demo.compose(recipe, [*start, *own]), model, seed)
    with ThreadPoolExecutor(at_once) as pool:
        for job in [pool.submit(one.run, recipe, out, model_folder(out, one.seed)) for one in todo]:
            job.result()


def sort_out(out: Path, trainings: Iterable[Training]) -> tuple[list[Training], list[dict[str, Any]]]:
    """The trainings that OUT holds, and way and seed of those that are missing."""
    there, missing = [], []
    for training in trainings:
        if training.finished(out):
            there.append(training)
        else:
            missing.append({"way": training.way, "seed": training.seed})
    return there, missing


def accuracies(run: Path) -> dict[int, dict[str, float]]:
    """Step -> key of the arm -> share of right answers, from the validations of a run."""
    return {
        step: {
            arm_key(arm.task, arm.level, json.loads(arm.options)): statistics.fmean(questions.values())
            for arm, questions in arms.items()
        }
        for step, arms in RunLog(run).outcomes.items()
    }


def entry(arm: Arm, weight: float) -> str:
    """An arm as an entry of `ssl4rl.tasks` on the command line. With weight 0 it is only validated."""
    options = ", ".join(f"{key}: {json.dumps(value)}" for key, value in arm.options.items())
    return f"{{task: {arm.task.name}, level: {arm.level_name}, weight: {weight:g}, options: {{{options}}}}}"


def seeds_of(text: str) -> tuple[int, ...]:
    """`1-4,7` as (1, 2, 3, 4, 7)."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with Student's 95 % interval; without ends for a single seed."""

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        if len(values) < 2:
            return cls(float(np.mean(values)), None, None)
        error = float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))
        mean = float(np.mean(values))
        return cls(mean, mean - error, mean + error)

    def text(self, sign: str = "") -> str:
        """`0.130 [0.010, 0.250]`; `sign` is `+` to show the sign of positive numbers, too."""
        ends = "" if self.low is None else f" [{self.low:{sign}.3f}, {self.high:{sign}.3f}]"
        return f"{self.mean:{sign}.3f}{ends}"


def ranges(seeds: Sequence[int]) -> str:
    """The reverse of `seeds_of`: (1, 2, 3, 4, 7) as `1-4, 7`. Seeds in rising order."""
    parts: list[list[int]] = []
    for seed in seeds:
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def missing_text(made: Mapping[str, Any]) -> str:
    """A sentence on the trainings that are there and those that are missing."""
    total = len(made["runs"]) + len(made["missing"])
    if not made["missing"]:
        return f"All {total} trainings are there."
    by_way: dict[str, list[int]] = {}
    for run in made["missing"]:
        by_way.setdefault(run["way"], []).append(run["seed"])
    named = "; ".join(f"`{way}`, seed {ranges(sorted(seeds))}" for way, seeds in by_way.items())
    return f"{len(made['runs'])} of {total} trainings are there. Missing: {named}."


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows))


def replace_between(page: str, made: Mapping[str, str]) -> str:
    """The page with new text between `<!-- NAME: made -->` and `<!-- NAME: end -->`, for each name."""
    for name, text in made.items():
        begin, end = f"<!-- {name}: made -->\n", f"<!-- {name}: end -->"
        before, rest = page.split(begin)
        page = f"{before}{begin}\n{text}\n\n{end}{rest.split(end)[1]}"
    return page


def arguments(description: str | None, seeds: str) -> argparse.ArgumentParser:
    """What the benches have in common on the command line. `seeds`: the default, as `1-8`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", default=seeds, type=seeds_of)
    parser.add_argument("--at-once", type=int, default=1, help="trainings at the same time; each takes about 6 GB")
    parser.add_argument("--summary", action="store_true", help="train nothing, read what OUT holds")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--docs", action="store_true", help="write tables and picture of docs/curriculum.md")
    return parser


def finish(
    name: str,
    made: Mapping[str, Any],
    given: argparse.Namespace,
    report: Callable[[Mapping[str, Any]], str],
    draw: Callable[[Mapping[str, Any], Path], None] | None,
    shown: str,
) -> None:
    """Write OUT/NAME.json, print the report, and make what the command line asks for.

    Args:
        name: of the bench, and of its part of the page.
        made: the results.
        given: the command line.
        report: the results in Markdown.
        draw: writes the picture; None if there is nothing to draw yet.
        shown: what the picture shows.
    """
    results, text = json.dumps(made) + "\n", report(made)
    (given.out / f"{name}.json").write_text(results)
    print(text)
    if given.picture and draw:
        draw(made, given.picture)
    if given.docs:
        (ASSETS / f"{name}.json").write_text(results)
        if draw:
            draw(made, ASSETS / f"{name}.png")
            text += f"\n\n![{shown}](assets/{name}.png)"
        PAGE.write_text(replace_between(PAGE.read_text(), {name: text}))

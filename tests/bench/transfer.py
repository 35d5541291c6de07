"""Does it carry over? From one start model, each task of `recipe=cpu_learn` alone and their mixture, tested on all tasks.

Run `python tests/bench/transfer.py OUT`: for each seed one training through verl's main_ppo on each task alone and one on
the mixture, all with the same number of rollouts. Their last validation asks all of these tasks, and tasks and levels that
no training shows. Writes OUT/transfer.json, and prints the matrix of trained by tested task, with Student's 95 % intervals
over seeds. Trainings that OUT holds already are not repeated, and missing ones are named.

    --seeds 1-3        the seeds                   --steps N       steps of a training; the recipe's if missing
    --at-once N        trainings at the same time  --summary       train nothing, read what OUT holds
    --others T:L,...   what is tested but never trained
    --picture FILE     the matrix as a heat map    SETTING=VALUE   further overrides, of models and trainings
    --docs             write the tables and the picture of docs/curriculum.md

The start model has learnt to write answers of all tested tasks, and some truth of the trained ones, as the recipe says.
Before the mixture's training it answers the same questions: changes are measured from there, paired by seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from trainings import (
    Interval,
    Training,
    accuracies,
    arguments,
    entry,
    finish,
    missing_text,
    sort_out,
    table,
    train_all,
)

from ssl4rl_plugin.data.arms import Arm
from ssl4rl_plugin.demo import run as demo
from ssl4rl_plugin.training.settings import Settings

RECIPE = "cpu_learn"
SEEDS = "1-3"
FORMAT_STEPS = 100
"""Steps of the warm-up on random answers, before teaching."""
OTHERS = "rotation:single_90,position:3x3,flip:single_vertical,jigsaw_pair:left_right"
"""Two levels of trained tasks, and two further tasks."""
MIXTURE = "mixture"
SHOWN = "Change of accuracy by trained and tested task"


def label(arm: Arm) -> str:
    return f"{arm.task.name}:{arm.level_name}"


def tested(trained: Sequence[Arm], others: Sequence[str], overrides: Sequence[str]) -> tuple[Arm, ...]:
    """The trained arms and the others, with the options of the recipe. What is trained already is no other."""
    names = [label(arm) for arm in trained]
    more = ", ".join(name for name in others if name not in names)
    own = ["actor_rollout_ref.model.path=none", *overrides, f"ssl4rl.tasks=[{more}]"]
    return (*trained, *Settings.from_config(demo.compose(RECIPE, own).ssl4rl).arms) if more else tuple(trained)


def tasks(arms: Sequence[Arm], weights: Mapping[str, float]) -> str:
    """`ssl4rl.tasks` of all arms, with weight 0 for those that are only tested."""
    return f"ssl4rl.tasks=[{', '.join(entry(arm, weights.get(arm.key, 0.0)) for arm in arms)}]"


def start(trained: Sequence[Arm], arms: Sequence[Arm]) -> tuple[str, ...]:
    """The overrides of the start model: it learns to write answers of all arms, and some truth of the trained ones."""
    taught = tasks(trained, {arm.key: 1.0 for arm in trained}).partition("=")[2]
    return (
        tasks(arms, {arm.key: 1.0 for arm in arms}),
        f"ssl4rl.warm_up.steps={FORMAT_STEPS}",
        f"ssl4rl.warm_up.taught={taught}",
    )


def ways(trained: Sequence[Arm], arms: Sequence[Arm]) -> dict[str, tuple[str, ...]]:
    """The overrides of each training. Only the mixture's validates before the first step, as the start of all."""
    found: dict[str, tuple[str, ...]] = {MIXTURE: (tasks(arms, {arm.key: arm.weight for arm in trained}),)}
    for arm in trained:
        found[label(arm)] = (tasks(arms, {arm.key: 1.0}), "trainer.val_before_train=false")
    return found


def collect(out: Path, trainings: Sequence[Training], arms: Sequence[Arm]) -> dict[str, Any]:
    """The results in OUT, as written to transfer.json."""
    there, missing = sort_out(out, trainings)
    runs = []
    for training in there:
        found = accuracies(training.folder(out))
        run: dict[str, Any] = {"way": training.way, "seed": training.seed, "steps": training.steps}
        for name, step in (("before", 0), ("after", training.steps)):
            if step in found:
                run[name] = [found[step][arm.key] for arm in arms]
        runs.append(run)
    chances = {label(arm): arm.task.chance(arm.level) for arm in arms}
    return {"recipe": RECIPE, "chances": chances, "runs": runs, "missing": missing}


@dataclass(frozen=True)
class Matrix:
    """transfer.json, as changes from the start."""

    made: Mapping[str, Any]

    @property
    def columns(self) -> list[str]:
        return list(self.made["chances"])

    @cached_property
    def start(self) -> dict[int, np.ndarray]:
        """Seed -> accuracy of its start model on each tested task."""
        return {run["seed"]: np.array(run["before"]) for run in self.made["runs"] if "before" in run}

    @cached_property
    def changes(self) -> dict[str, np.ndarray]:
        """Trained task -> change of accuracy from the start, shape (seeds, tested tasks)."""
        found: dict[str, list[np.ndarray]] = {}
        for run in self.made["runs"]:
            if run["seed"] in self.start:
                found.setdefault(run["way"], []).append(np.array(run["after"]) - self.start[run["seed"]])
        return {way: np.array(rows) for way, rows in found.items()}


def matrix_table(matrix: Matrix) -> str:
    """Chance and start of each tested task, and the changes by trained task."""
    starts = np.array(list(matrix.start.values()))
    rows = [
        ["chance", "", *(f"{chance:.3f}" for chance in matrix.made["chances"].values())],
        ["start", str(len(starts)), *(Interval.of(column).text() for column in starts.T)],
    ]
    for way, changes in matrix.changes.items():
        cells = [Interval.of(column).text("+") for column in changes.T]
        own = [f"**{cell}**" if name == way else cell for name, cell in zip(matrix.columns, cells, strict=True)]
        rows.append([f"`{way}`", str(len(changes)), *own])
    return table(["Trained on", "Seeds", *(f"`{name}`" for name in matrix.columns)], rows)


def report(made: Mapping[str, Any]) -> str:
    """The matrix in Markdown, with what it rests on."""
    matrix, parts = Matrix(made), [missing_text(made)]
    if matrix.changes:
        steps = ", ".join(str(steps) for steps in sorted({run["steps"] for run in made["runs"]}))
        parts += [
            f"Rows: what was trained, for {steps} steps. Columns: what was tested on held-out pictures. Cells: change of "
            "the accuracy from the start, mean over seeds with Student's 95 % interval. Bold: the trained task itself.",
            matrix_table(matrix),
        ]
    return "\n\n".join(parts)


def draw(made: Mapping[str, Any], path: Path) -> None:
    """The mean changes as a heat map; an asterisk marks intervals without 0."""
    import matplotlib.pyplot as plt

    matrix = Matrix(made)
    means = np.array([changes.mean(axis=0) for changes in matrix.changes.values()])
    size = (2.5 + 1.1 * len(matrix.columns), 1.8 + 0.6 * len(means))
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    limit = max(0.05, float(np.abs(means).max()))
    image = axes.imshow(means, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    for row, (way, changes) in enumerate(matrix.changes.items()):
        for column, values in enumerate(changes.T):
            found = Interval.of(values)
            sure = found.low is not None and (found.low > 0 or found.high < 0)
            weight = "bold" if way == matrix.columns[column] else "normal"
            axes.text(column, row, f"{found.mean:+.2f}{'*' if sure else ''}", ha="center", va="center", weight=weight)
    axes.set_xticks(range(len(matrix.columns)), [name.replace(":", "\n") for name in matrix.columns], fontsize="small")
    axes.set_yticks(range(len(means)), list(matrix.changes), fontsize="small")
    axes.set(xlabel="tested on", ylabel="trained on")
    figure.colorbar(image, label="change of accuracy")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = arguments(__doc__, SEEDS)
    parser.add_argument("overrides", nargs="*", help="further Hydra overrides")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--others", default=OTHERS)
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    config = demo.compose(RECIPE, [f"actor_rollout_ref.model.path={out}", *given.overrides])
    steps = given.steps or int(config.trainer.total_training_steps)
    trained = Settings.from_config(config.ssl4rl).arms
    arms = tested(trained, given.others.split(","), given.overrides)
    all_ways = {way: (*given.overrides, *own, f"trainer.test_freq={steps}") for way, own in ways(trained, arms).items()}
    trainings = [Training(way, seed, own, steps) for seed in given.seeds for way, own in all_ways.items()]
    if not given.summary:
        train_all(RECIPE, trainings, out, (*given.overrides, *start(trained, arms)), given.at_once)
    made = collect(out, trainings, arms)
    finish("transfer", made, given, report, draw if Matrix(made).changes else None, SHOWN)


if __name__ == "__main__":
    main()

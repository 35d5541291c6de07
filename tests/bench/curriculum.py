"""Does choosing pay? Ways to draw the same levels, in real training, to the same number of rollouts.

Run `python tests/bench/curriculum.py OUT` (`make curriculum`): trains `recipe=cpu_curriculum` through verl's main_ppo for
every way and seed, and writes OUT/curriculum.json. All ways of a seed start from one model and validate at the same steps.
Differences are paired by seed. Trainings that OUT holds already are not repeated, and missing ones are named.

    --ways NAME,...    some of the ways only       --seeds 1-8     the seeds
    --at-once N        trainings at the same time  --summary       train nothing, read what OUT holds
    --docs             also write the tables and the picture of docs/curriculum.md

A way is one of the policies, all levels evenly (`uniform`), or one level alone. The best of those alone is known only
afterwards: a fixed choice that nobody could have made before. So a policy that ends near it has done well.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
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

from ssl4rl_plugin.analysis.runlog import RunLog
from ssl4rl_plugin.data.arms import Arm
from ssl4rl_plugin.demo import run as demo
from ssl4rl_plugin.training.settings import Settings

RECIPE = "cpu_curriculum"
SEEDS = "1-8"
WARM_UP = 3
"""Steps of all arms evenly, in which an adaptive policy sees each of them."""
POLICIES = {
    "goldilocks": "policy: goldilocks",
    "goldilocks at 0.4": "policy: goldilocks, target: 0.4",
    "learning_progress": "policy: learning_progress",
}
"""Adaptive ways, with their sections of `ssl4rl.curriculum`."""
UNIFORM = "uniform"
ALONE = " alone"
"""End of the name of a way that draws one level only."""
UNLEARNT = "blur"
"""Levels of this kind are not trained alone: the tiny model cannot learn them."""
SHOWN = "Held-out accuracy over the steps by way of drawing, and what the policies drew"


def label(arm: Arm) -> str:
    """A level with its strength, where it is not 1."""
    strength = arm.options.get("strength", 1.0)
    return arm.level_name if strength == 1.0 else f"{arm.level_name} at {strength:g}"


def ways(arms: Sequence[Arm]) -> dict[str, tuple[str, ...]]:
    """The overrides of each way to draw."""
    found: dict[str, tuple[str, ...]] = {UNIFORM: ("ssl4rl.curriculum=fixed",)}
    for policy, section in POLICIES.items():
        found[policy] = (f"ssl4rl.curriculum={{{section}, warm_up: {WARM_UP}}}",)
    for chosen in arms:
        if UNLEARNT not in chosen.level_name:
            tasks = ", ".join(entry(arm, float(arm is chosen)) for arm in arms)
            found[f"{label(chosen)}{ALONE}"] = ("ssl4rl.curriculum=fixed", f"ssl4rl.tasks=[{tasks}]")
    return found


# ---- what the trainings left behind


def collect(out: Path, trainings: Sequence[Training], arms: Sequence[Arm]) -> dict[str, Any]:
    """The results in OUT, as written to curriculum.json."""
    there, missing = sort_out(out, trainings)
    runs = []
    for training in there:
        folder = training.folder(out)
        found = accuracies(folder)
        runs.append(
            {
                "way": training.way,
                "seed": training.seed,
                "accuracy": {str(step): [of[arm.key] for arm in arms] for step, of in sorted(found.items())},
                **_drawn(folder, arms),
            }
        )
    return {
        "recipe": RECIPE,
        "arms": [
            {"key": arm.key, "label": label(arm), "chance": arm.task.chance(arm.level)} for arm in arms
        ],
        "runs": runs,
        "missing": missing,
    }  # fmt: skip


def _drawn(folder: Path, arms: Sequence[Arm]) -> dict[str, Any]:
    """Prompts of each arm in each step, and the median share of a step that the sampler took."""
    log = RunLog(folder)
    cost = zip(log.curve("curriculum/cost_s")[1], log.curve("timing_s/step")[1], strict=True)
    journal = (folder / "checkpoints" / "curriculum.jsonl").read_text().splitlines()[1:]
    shown = [json.loads(line)["shown"] for line in journal]
    drawn = [[int(step.get(arm.key, {}).get("groups", 0)) for arm in arms] for step in shown]
    return {"drawn": drawn, "sampler": statistics.median(spent / step for spent, step in cost)}


@dataclass(frozen=True)
class Results:
    """curriculum.json, as arrays."""

    made: Mapping[str, Any]

    @cached_property
    def chance(self) -> np.ndarray:
        return np.array([arm["chance"] for arm in self.made["arms"]])

    @property
    def labels(self) -> list[str]:
        return [arm["label"] for arm in self.made["arms"]]

    @cached_property
    def skill(self) -> dict[str, dict[int, dict[int, np.ndarray]]]:
        """Way -> seed -> step -> accuracy above chance at each arm, (p - c) / (1 - c), not clipped."""
        found: dict[str, dict[int, dict[int, np.ndarray]]] = {}
        for run in self.made["runs"]:
            found.setdefault(run["way"], {})[run["seed"]] = {
                int(step): (np.array(of) - self.chance) / (1 - self.chance) for step, of in run["accuracy"].items()
            }
        return found

    @cached_property
    def steps(self) -> list[int]:
        """The validated steps that all runs have."""
        each = [set(of) for seeds in self.skill.values() for of in seeds.values()]
        return sorted(set.intersection(*each)) if each else []

    @cached_property
    def alone(self) -> list[str]:
        return [way for way in self.skill if way.endswith(ALONE)]

    def at(self, way: str, seed: int, step: int) -> float:
        """Mean skill over the arms."""
        return float(self.skill[way][seed][step].mean())

    def area(self, way: str, seed: int) -> float:
        """Mean of the curve over the rollouts (trapezoid rule): the area under it, as a skill."""
        values = [self.at(way, seed, step) for step in self.steps]
        return float(np.trapezoid(values, self.steps) / (self.steps[-1] - self.steps[0]))

    def measures(self) -> dict[str, Callable[[str, int], float]]:
        """What ways are compared by: the skill at each step after the start, and the area under the curve."""
        found: dict[str, Callable[[str, int], float]] = {
            f"step {step}": lambda way, seed, step=step: self.at(way, seed, step) for step in self.steps[1:]
        }
        return found | {"area": self.area}

    def best_alone(self) -> str | None:
        """The level alone with the highest mean at the last step, over the seeds of all of them."""
        common = set.intersection(*(set(self.skill[way]) for way in self.alone)) if self.alone else set()
        if not common:
            return None
        return max(self.alone, key=lambda way: np.mean([self.at(way, seed, self.steps[-1]) for seed in common]))

    def difference(self, measure: Callable[[str, int], float], way: str, other: str) -> tuple[Interval, int] | None:
        """`way` less `other`, paired by seed, and the number of seeds; None without a common one."""
        both = sorted(self.skill[way].keys() & self.skill.get(other, {}).keys())
        return (Interval.of([measure(way, s) - measure(other, s) for s in both]), len(both)) if both else None


# ---- tables and the picture


def curves_table(results: Results) -> str:
    """Skill at every validated step and the area under the curve, mean over the arms."""
    measures = {f"step {results.steps[0]}": lambda way, seed: results.at(way, seed, results.steps[0])}
    measures |= results.measures()
    rows = [
        [f"`{way}`", str(len(seeds)), *(Interval.of([of(way, seed) for seed in seeds]).text() for of in measures.values())]
        for way, seeds in results.skill.items()
    ]  # fmt: skip
    return table(["Drawn", "Seeds", *measures], rows)


def differences_table(results: Results) -> str:
    """Each way less uniform drawing, and less the best level alone."""
    measures, rows = results.measures(), []
    for other in filter(None, (UNIFORM, results.best_alone())):
        for way in results.skill:
            found = [results.difference(of, way, other) for of in measures.values()]
            if way != other and found[0]:
                cells = [of[0].text("+") if of else "" for of in found]
                rows.append([f"`{way}` - `{other}`", str(found[0][1]), *cells])
    return table(["Difference", "Seeds", *measures], rows)


def arms_table(results: Results) -> str:
    """Skill at each arm at the last step, mean over the seeds."""
    rows = []
    for way, seeds in results.skill.items():
        mean = np.mean([of[results.steps[-1]] for of in seeds.values()], axis=0)
        rows.append([f"`{way}`", *(f"{value:.2f}" for value in mean)])
    return table(["Drawn", *results.labels], rows)


def alone_table(results: Results) -> str:
    """Each level's own gain when it is trained alone, and in the uniform mixture with as many rollouts in all."""
    rows, (first, last) = [], (results.steps[0], results.steps[-1])
    for way in results.alone:
        arm = results.labels.index(way.removesuffix(ALONE))
        both = sorted(results.skill[way].keys() & results.skill.get(UNIFORM, {}).keys())
        if not both:
            continue

        def gains(of: str, arm: int = arm, both: Sequence[int] = both) -> list[float]:
            return [float(results.skill[of][s][last][arm] - results.skill[of][s][first][arm]) for s in both]

        own, mixed = gains(way), gains(UNIFORM)
        less = [b - a for a, b in zip(own, mixed, strict=True)]
        rows.append([results.labels[arm], str(len(both)), *(Interval.of(of).text("+") for of in (own, mixed, less))])
    return table(["Level", "Seeds", "Gain alone", "Gain in the mixture", "Mixture - alone"], rows)


def report(made: Mapping[str, Any]) -> str:
    """All tables, in Markdown."""
    results, parts = Results(made), [missing_text(made)]
    if made["runs"]:
        last = results.steps[-1]
        cost = 100 * statistics.median(run["sampler"] for run in made["runs"])
        parts += [
            "Held-out accuracy above chance, mean over all levels, with Student's 95 % interval over seeds. `area` is the "
            "mean of the curve over the rollouts.",
            curves_table(results),
            "Differences, paired by seed. The best level alone is chosen by these results.",
            differences_table(results),
            f"The same accuracy at each level after step {last}.",
            arms_table(results),
            f"A mixture and its parts: the gain of a level from step {results.steps[0]} to {last}, trained alone and in "
            "the uniform mixture, with the same number of rollouts in all.",
            alone_table(results),
            f"The sampler took {cost:.2f} % of a step (median of {len(made['runs'])} trainings).",
        ]
    return "\n\n".join(parts)


def draw(made: Mapping[str, Any], path: Path) -> None:
    """Skill over the steps by way, and what the policies drew on average."""
    import matplotlib.pyplot as plt

    results = Results(made)
    policies = [way for way in POLICIES if way in results.skill]
    figure, axes = plt.subplots(1, 1 + len(policies), figsize=(6 + 4 * len(policies), 4), layout="constrained")
    axes = np.atleast_1d(axes)
    for way, seeds in results.skill.items():
        curves = np.array([[of[step].mean() for step in results.steps] for of in seeds.values()])
        style = "--" if way.endswith(ALONE) else "-"
        axes[0].plot(results.steps, curves.mean(axis=0), style, marker="o", ms=3, label=f"{way} ({len(seeds)})")
    axes[0].set(xlabel="step", ylabel="held-out accuracy above chance", title="mean over levels (number of seeds)")
    axes[0].legend(frameon=False, fontsize="small")
    colours = plt.get_cmap("viridis")(np.linspace(0.05, 0.95, len(results.labels)))
    for axis, way in zip(axes[1:], policies, strict=True):
        drawn = np.mean([run["drawn"] for run in made["runs"] if run["way"] == way], axis=0)
        shares = drawn / drawn.sum(axis=1, keepdims=True)
        axis.stackplot(np.arange(1, len(shares) + 1), shares.T, colors=colours, labels=results.labels)
        axis.set(title=f"{way}: share of the prompts", xlabel="step", ylim=(0, 1), xlim=(1, len(shares)))
    if policies:
        axes[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = arguments(__doc__, SEEDS)
    parser.add_argument("--ways", help="names, separated by commas; all if missing")
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    config = demo.compose(RECIPE, [f"actor_rollout_ref.model.path={out}"])
    arms, steps = Settings.from_config(config.ssl4rl).arms, int(config.trainer.total_training_steps)
    known = ways(arms)
    chosen = given.ways.split(",") if given.ways else list(known)
    if unknown := sorted(set(chosen) - set(known)):
        parser.error(f"no way {', '.join(unknown)}: choose from {', '.join(known)}")
    trainings = [Training(way, seed, known[way], steps) for seed in given.seeds for way in chosen]
    if not given.summary:
        train_all(RECIPE, trainings, out, (), given.at_once)
    made = collect(out, trainings, arms)
    finish("curriculum", made, given, report, draw if made["runs"] else None, SHOWN)


if __name__ == "__main__":
    main()

"""Curricula compared in real training: five ways to draw the same tasks, three seeds each, equal numbers of rollouts.

Run `python tests/bench/curriculum.py OUT [--at-once N] [--picture docs/assets/curriculum.png]` (`make curriculum`): trains
`recipe=cpu_curriculum` through verl's main_ppo for each way and seed (an hour or more on 2 cores), skips runs that OUT
holds already, and prints held-out accuracy over all levels, before and after, with 95 % intervals over seeds. `--summary`
only prints what OUT holds. Seed 0 was the pilot, with which the recipe was chosen.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy import stats

from ssl4rl_plugin.analysis.runlog import RunLog
from ssl4rl_plugin.data.arms import Arm
from ssl4rl_plugin.demo import run as demo
from ssl4rl_plugin.training.settings import Settings

RECIPE = "cpu_curriculum"
SEEDS = (1, 2, 3)
WARM_UP = 3
"""Steps of all arms evenly, in which an adaptive policy sees each of them."""


def arms_of(config: object) -> tuple[Arm, ...]:
    return Settings.from_config(config.ssl4rl).arms  # type: ignore[attr-defined]


def ways(arms: tuple[Arm, ...]) -> Mapping[str, list[str]]:
    """The overrides of each way to draw."""

    def weighted(only: str | None = None) -> str:
        entries = [
            f"{{task: {arm.task.name}, level: {arm.level_name}, weight: {int(only in (None, label(arm)))}, options: "
            + "{" + ", ".join(f"{key}: {value}" for key, value in arm.options.items()) + "}}"
            for arm in arms
        ]  # fmt: skip
        return f"ssl4rl.tasks=[{', '.join(entries)}]"

    return {
        "goldilocks": [f"ssl4rl.curriculum={{policy: goldilocks, warm_up: {WARM_UP}}}"],
        "learning progress": [f"ssl4rl.curriculum={{policy: learning_progress, warm_up: {WARM_UP}}}"],
        "uniform": ["ssl4rl.curriculum=fixed"],
        "easiest only": ["ssl4rl.curriculum=fixed", weighted("2x2_mask")],
        "hardest mask only": ["ssl4rl.curriculum=fixed", weighted("2x2_mask at 0.4")],
    }


def label(arm: Arm) -> str:
    """A level with its strength, where it is not 1."""
    strength = arm.options.get("strength", 1.0)
    return arm.level_name if strength == 1.0 else f"{arm.level_name} at {strength:g}"


def train(out: Path, model: Path, overrides: list[str], seed: int, steps: int) -> None:
    """One run, unless it is there already."""
    if finished(out, steps):
        return
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    shutil.copytree(model, out / "model")
    demo.run_trainer(RECIPE, out, [*overrides, f"ssl4rl.seed={seed}"], steps)


def levels(out: Path, step: int, arms: tuple[Arm, ...]) -> list[float]:
    """Held-out accuracy at each arm, chance-corrected and not clipped."""
    answers: dict[str, list[float]] = {}
    for line in (out / "validation" / f"{step}.jsonl").read_text().splitlines():
        row = json.loads(line)
        truth = json.loads(row["gts"])
        strength = truth["options"].get("strength", 1.0)
        answers.setdefault(f"{truth['level']} {strength:g}", []).append(row["acc"])
    found = []
    for arm in arms:
        accuracy = statistics.mean(answers[f"{arm.level_name} {arm.options.get('strength', 1.0):g}"])
        chance = arm.task.chance(arm.level)
        found.append((accuracy - chance) / (1 - chance))
    return found


def finished(out: Path, steps: int) -> bool:
    """Whether a run has come to its last validation."""
    return (out / "validation" / f"{steps}.jsonl").is_file()


def interval(values: np.ndarray) -> str:
    """Mean with Student's 95 % interval; without one for a single value."""
    if len(values) < 2:
        return f"{values.mean():.3f} [one seed]"
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def draw(
    results: Mapping[str, np.ndarray],
    before: np.ndarray,
    shares: Mapping[str, np.ndarray],
    names: list[str],
    path: Path,
) -> None:
    """Held-out skill by way, and what the adaptive policies drew."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 1 + len(shares), figsize=(6 + 4 * len(shares), 4), layout="constrained")
    places = np.arange(len(results))
    for place, values in zip(places, results.values(), strict=True):
        axes[0].scatter([place] * len(values), values.mean(axis=1), color="0.4", s=18, zorder=3)
        axes[0].bar(place, values.mean(), color="tab:blue", alpha=0.55)
    axes[0].axhline(before.mean(), color="0.3", linestyle=":", label="before training")
    axes[0].set_xticks(places, [name.replace(" ", "\n") for name in results], fontsize="small")
    axes[0].set_ylabel("held-out accuracy above chance")
    axes[0].legend(frameon=False)
    colours = plt.get_cmap("viridis")(np.linspace(0.05, 0.95, len(names)))
    for axis, (name, drawn) in zip(axes[1:], shares.items(), strict=True):
        axis.stackplot(np.arange(1, len(drawn) + 1), drawn.T, colors=colours, labels=names)
        axis.set(title=f"{name}: share of the prompts", xlabel="step", ylim=(0, 1), xlim=(1, len(drawn)))
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--at-once", type=int, default=1, help="runs at the same time; each takes about 6 GB")
    parser.add_argument("--summary", action="store_true", help="train nothing, and print what OUT holds")
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    out = given.out.resolve()
    configs = {
        seed: demo.compose(RECIPE, [f"actor_rollout_ref.model.path={out / f'model-{seed}'}", f"ssl4rl.seed={seed}"])
        for seed in SEEDS
    }
    arms = arms_of(configs[SEEDS[0]])
    steps = int(configs[SEEDS[0]].trainer.total_training_steps)
    if not given.summary:
        for seed, config in configs.items():
            demo.prepare_model(config, out / f"model-{seed}", seed)
        with ThreadPoolExecutor(given.at_once) as pool:
            jobs = [
                pool.submit(
                    train, out / f"{way.replace(' ', '-')}-{seed}", out / f"model-{seed}", overrides, seed, steps
                )
                for seed in SEEDS
                for way, overrides in ways(arms).items()
            ]
            for job in jobs:
                job.result()

    names = [label(arm) for arm in arms]
    runs = {
        way: {seed: run for seed in SEEDS if finished(run := out / f"{way.replace(' ', '-')}-{seed}", steps)}
        for way in ways(arms)
    }
    before = np.array([levels(run, 0, arms) for run in runs["goldilocks"].values()])
    results = {
        way: np.array([levels(run, steps, arms) for run in found.values()]) for way, found in runs.items() if found
    }
    print(f"{'':20}{'mean over levels':>24}" + "".join(f"{name:>16}" for name in names))
    for way, values in {"before": before, **results}.items():
        print(f"{way:20}{interval(values.mean(axis=1)):>24}" + "".join(f"{v:16.3f}" for v in values.mean(axis=0)))
    best = max(set(results) & {"goldilocks", "learning progress"}, key=lambda way: results[way].mean())
    for way, found in runs.items():
        both = [seed for seed in found if seed in runs[best]]
        if way != best and both:
            pairs = [
                np.mean(levels(runs[best][seed], steps, arms)) - np.mean(levels(found[seed], steps, arms))
                for seed in both
            ]
            print(f"{best} less {way}: {interval(np.array(pairs))}, paired by seed ({len(both)})")
    logs = [RunLog(run) for found in runs.values() for run in found.values()]
    cost = [
        statistics.median(
            c / s for c, s in zip(log.curve("curriculum/cost_s")[1], log.curve("timing_s/step")[1], strict=True)
        )
        for log in logs
    ]
    print(f"cost of the sampler: {100 * statistics.median(cost):.2f} % of a step (median of {len(cost)} runs)")
    if given.picture:
        shares = {}
        for way in ("goldilocks", "learning progress"):
            log = RunLog(next(iter(runs[way].values())))
            curves = [name for name in log.names("curriculum/") if name.count("/") >= 3 and name.endswith("/share")]
            shares[way] = np.array(
                [log.curve(name)[1] for name in sorted(curves, key=list(log.names("curriculum/")).index)]
            ).T
        draw(results, before, shares, names, given.picture)


if __name__ == "__main__":
    main()

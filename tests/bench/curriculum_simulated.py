"""Policies compared on synthetic learners: rollouts until 90 % of the oracle's final skill, and skill over the steps.

Run `python tests/bench/curriculum_simulated.py [--picture FILE]`: 20 seeds of each policy in the
world `MIXED` of `ssl4rl_plugin.training.curriculum.simulator`, a few minutes on one core. `--once` runs two of them each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy import stats

from ssl4rl_plugin.training.curriculum.director import CurriculumSettings
from ssl4rl_plugin.training.curriculum.simulator import MIXED, Simulated, oracle, rollouts_to_target, simulate

SEEDS = range(20)
STEPS = 300
"""Steps of the oracle, and of the curves."""
LONG = 700
"""Steps that the slow ones get to reach the target."""
POLICIES = ("goldilocks", "diversity_aware", "learning_progress", "gradient_signal", "staged", "fixed")


def draw(runs: dict[str, list[Simulated]], best: Simulated, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.plot(best.skill, color="0.2", linestyle="--", label="oracle")
    for policy, several in runs.items():
        curves = np.array([run.skill[: STEPS + 1] for run in several])
        left.plot(curves.mean(axis=0), label=policy)
        left.fill_between(np.arange(STEPS + 1), curves.min(axis=0), curves.max(axis=0), alpha=0.2)
    left.set(
        xlabel="step", ylabel="mean accuracy above chance over all arms", title="20 learners each, with their range"
    )
    left.legend(frameon=False)
    first = runs["goldilocks"][0]
    colours = plt.get_cmap("tab20")(np.arange(len(first.arms)))
    names = [arm.label for arm in first.arms]
    right.stackplot(np.arange(1, STEPS + 1), first.shares[:STEPS].T, colors=colours, labels=names)
    right.set(
        xlabel="step", ylabel="share of the prompts", title="goldilocks, one learner", xlim=(1, STEPS), ylim=(0, 1)
    )
    right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--once", action="store_true", help="two seeds: is everything there?")
    given = parser.parse_args()
    picture, seeds = given.picture, SEEDS[:2] if given.once else SEEDS
    best = oracle(MIXED, STEPS)
    target = 0.9 * best.skill[-1]
    print(f"oracle: {best.skill[0]:.3f} to {best.skill[-1]:.3f}; {target:.3f} after {best.steps_to(target):.0f}")
    runs = {policy: [simulate(MIXED, CurriculumSettings(policy), LONG, seed) for seed in seeds] for policy in POLICIES}
    harder = [simulate(MIXED, CurriculumSettings("goldilocks", {"target": 0.4}), LONG, seed) for seed in seeds]
    late = [simulate(MIXED, CurriculumSettings("goldilocks"), LONG, seed, lag=8) for seed in seeds]
    uniform = rollouts_to_target(runs["fixed"], target, MIXED).mean()
    for policy, several in {
        **runs,
        "goldilocks, target 0.4": harder,
        "goldilocks, decisions 8 steps late": late,
    }.items():
        ratio = rollouts_to_target(several, target, MIXED) / uniform
        low, high = stats.t.interval(0.95, len(ratio) - 1, ratio.mean(), stats.sem(ratio))
        print(
            f"{policy:36} {100 * ratio.mean():6.1f} % of the uniform mixture's rollouts [{100 * low:.1f}, {100 * high:.1f}]"
        )
    if picture:
        draw(runs, best, picture)


if __name__ == "__main__":
    main()

"""Where a training step's time goes on the CPU, by what was changed for it.

Run `python tests/bench/step_time.py [steps]` on a quiet machine (`make profile`): trains `recipe=cpu_one_task` for some
steps in each way, from the same weights, and prints medians in seconds without the first two steps. About five minutes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from ssl4rl_plugin.analysis.runlog import RunLog
from ssl4rl_plugin.demo import phrases
from ssl4rl_plugin.demo import run as demo

RECIPE = "cpu_one_task"
PARTS = {
    "gen": "rollouts (agent loop, vLLM, reward)",
    "old_log_prob": "log-probs of the actor",
    "update_actor": "update of the actor",
    "update_weights": "weights to vLLM",
    "adv": "advantages",
    "step": "whole step",
}
QUIET = ("trainer.val_before_train=false", "trainer.test_freq=-1", "trainer.save_freq=-1")


@dataclass(frozen=True)
class Way:
    words: bool
    """Prompts are tokens of words, not of sentences."""
    overrides: tuple[str, ...] = ()


VERLS_LOOP = (
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class=null",
    "trainer.v1.sampler.sampler_kwargs.poll_interval=2.0",
)
WAYS = {
    "verl's agent loop": Way(words=True, overrides=VERLS_LOOP),
    "group rollouts": Way(words=True),
    "and sentences": Way(words=False),
}
"""Each way has what the ones before it have. The last one is the recipe."""


def train(way: Way, out: Path, steps: int) -> dict[str, float]:
    """Median seconds of each part."""
    config = demo.compose(RECIPE, [f"actor_rollout_ref.model.path={out / 'model'}"])
    with patch.object(phrases, "common_phrases", (lambda texts: []) if way.words else phrases.common_phrases):
        demo.prepare_model(config, out / "model", seed=0)
    demo.run_trainer(RECIPE, out, [f"trainer.total_training_steps={steps}", *QUIET, *way.overrides], steps)
    log = RunLog(out)
    return {part: statistics.median(log.curve(f"timing_s/{part}")[1][2:]) for part in PARTS}


def main(steps: int) -> None:
    medians: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, way) in enumerate(WAYS.items()):
            out = Path(folder) / str(number)
            out.mkdir()
            medians[name] = train(way, out, steps)
    print(f"seconds a step, medians of {steps - 2} steps of 32 prompts x 8 rollouts")
    print(f"{'':38}" + "".join(f"{name:>20}" for name in medians) + f"{'first / last':>14}")
    for part, name in PARTS.items():
        found = [figures[part] for figures in medians.values()]
        print(f"{name:38}" + "".join(f"{value:20.2f}" for value in found) + f"{found[0] / found[-1]:14.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="?", type=int, default=10)
    main(parser.parse_args().steps)

"""Where a training step's time goes on the CPU, with group rollouts and with verl's own agent loop.

Run `python tests/bench/step_time.py [steps]` on a quiet machine (`make profile`): trains `recipe=cpu_one_task` for some
steps in both ways, on one model, and prints medians in seconds without the first two steps. About five minutes.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

from ssl4rl_plugin.analysis.runlog import RunLog
from ssl4rl_plugin.demo import run as demo

PARTS = {
    "gen": "rollouts (agent loop, vLLM, reward)",
    "old_log_prob": "log-probs of the actor",
    "update_actor": "update of the actor",
    "update_weights": "weights to vLLM",
    "adv": "advantages",
    "step": "whole step",
}
WAYS = {
    "verl's agent loop": (
        "actor_rollout_ref.rollout.agent.agent_loop_manager_class=null",
        "trainer.v1.sampler.sampler_kwargs.poll_interval=2.0",
    ),
    "group rollouts": (),
}


def main(steps: int) -> None:
    medians: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        demo.prepare_model(demo.compose("cpu_one_task", [f"actor_rollout_ref.model.path={model}"]), model, seed=0)
        for way, overrides in WAYS.items():
            out = Path(folder) / way.replace(" ", "-").replace("'", "")
            out.mkdir()
            shutil.copytree(model, out / "model")
            quiet = ("trainer.val_before_train=false", "trainer.test_freq=-1", "trainer.save_freq=-1")
            total = f"trainer.total_training_steps={steps}"
            demo.run_trainer("cpu_one_task", out, [total, *quiet, *overrides], steps)
            log = RunLog(out)
            medians[way] = {part: statistics.median(log.curve(f"timing_s/{part}")[1][2:]) for part in PARTS}
    print(f"seconds a step, medians of {steps - 2} steps of 32 prompts x 8 rollouts")
    print(f"{'':38}" + "".join(f"{way:>20}" for way in medians) + f"{'ratio':>8}")
    for part, name in PARTS.items():
        before, after = (figures[part] for figures in medians.values())
        print(f"{name:38}{before:20.2f}{after:20.2f}{before / after:8.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="?", type=int, default=10)
    main(parser.parse_args().steps)

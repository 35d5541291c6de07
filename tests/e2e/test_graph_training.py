"""A real run on a graph through unmodified verl on the CPU: a text model, graph tasks, questions about held-out edges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssl4rl_plugin.analysis.runlog import RunLog
from ssl4rl_plugin.demo import run as demo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.xdist_group("graph")]

STEPS = 2
SMALL = (
    "ssl4rl.val_samples=4",
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=32",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=32",
    "trainer.save_freq=2",
    "trainer.test_freq=2",
)


def test_a_run_on_a_graph_ends_with_table_and_questions(tmp_path: Path) -> None:
    assert demo.main(tmp_path / "run", recipe="graph_cpu_demo", steps=STEPS, extra=SMALL) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert set(summary["tasks"]) == {
        "link_prediction:pair", "masked_attribute:4_texts", "neighbour_prediction:1_of_4", "node_degree:up_to_3",
        "shortest_path:2_steps",
    }  # fmt: skip
    assert all(task["before"]["n"] == task["after"]["n"] == 4 for task in summary["tasks"].values())
    log = RunLog(tmp_path / "run")
    steps, _ = log.curve("val-core/bench/les_miserables/link_prediction/acc/mean@1")
    assert list(steps) == [0, STEPS]
    # No prompt was lost, and no reward failed.
    for step in range(1, STEPS + 1):
        rows = [json.loads(line) for line in (tmp_path / "run" / "rollouts" / f"{step}.jsonl").read_text().splitlines()]
        assert len(rows) == 32
    assert all(not row.error for step in log.validations for row in log.validation(step))

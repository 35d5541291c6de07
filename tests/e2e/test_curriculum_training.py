"""The curriculum in real runs of unmodified verl on the CPU: it steers, resumes as it was, and DAPO's filter still works."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from ssl4rl_plugin.analysis.runlog import RunLog
from ssl4rl_plugin.demo import run as demo
from ssl4rl_plugin.training.curriculum.journal import NAME

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.xdist_group("curriculum")]

STEPS, SAVED = 6, 2
PROMPTS = 16
SMALL = (
    "ssl4rl.tasks=[altered_patch,position]",
    "ssl4rl.curriculum=goldilocks",
    "ssl4rl.val_samples=4",
    f"data.train_batch_size={PROMPTS}",
    f"actor_rollout_ref.actor.ppo_mini_batch_size={PROMPTS}",
    f"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu={4 * PROMPTS}",
    f"actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu={4 * PROMPTS}",
    "actor_rollout_ref.rollout.n=4",
    "trainer.val_before_train=false",
    "trainer.test_freq=-1",
    f"trainer.save_freq={SAVED}",
)


def journal(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / NAME).read_text().splitlines()[1:]]


def drawn(out: Path, step: int) -> Counter[tuple[str, str]]:
    """Sample and level of every prompt of a step."""
    rows = [json.loads(line) for line in (out / "rollouts" / f"{step}.jsonl").read_text().splitlines()]
    truths = [json.loads(row["gts"]) for row in rows]
    return Counter((truth["sample"], f"{truth['task']}:{truth['level']}") for truth in truths)


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two loader workers, so that a decision holds from the fifth batch after it on."""
    out = tmp_path_factory.mktemp("steered")
    assert demo.main(out, steps=STEPS, extra=(*SMALL, "data.dataloader_num_workers=2")) == 0
    return out


def test_every_step_says_what_was_drawn_and_what_comes(steered: Path) -> None:
    log = RunLog(steered)
    entries = journal(steered / "checkpoints")
    assert [entry["step"] for entry in entries] == list(range(1, STEPS + 1))
    arms = [
        name.split("/", 1)[1].rsplit("/", 1)[0] for name in log.names("curriculum/") if name.endswith("/probability")
    ]
    assert len(arms) == 14, "every level of both tasks"
    for number, entry in enumerate(entries):
        shares = {arm: log.curve(f"curriculum/{arm}/share")[1][number] for arm in arms}
        wanted = sum(log.curve(f"curriculum/{arm}/probability")[1][number] for arm in arms)
        assert sum(shares.values()) == pytest.approx(1.0) and wanted == pytest.approx(1.0)
        found = Counter(level for (_, level), _ in drawn(steered, number + 1).items())
        assert {arm.replace("/", ":"): share * PROMPTS for arm, share in shares.items() if share} == pytest.approx(
            found
        )
        assert sum(evidence["groups"] for evidence in entry["shown"].values()) == PROMPTS
        # With two workers four batches are on their way.
        assert (entry["taken"], entry["start"]) == (PROMPTS * (number + 1), PROMPTS * (number + 5))
        assert all(arm["reason"] for arm in entry["arms"].values())


def test_a_resumed_run_draws_the_same_arms(steered: Path, tmp_path: Path) -> None:
    """From the checkpoint of step 2, every prompt that the decisions until then are for: batches 3 to 6."""
    out = tmp_path / "resumed"
    shutil.copytree(steered / "model", out / "model")
    shutil.copytree(steered / "checkpoints" / f"global_step_{SAVED}", out / "checkpoints" / f"global_step_{SAVED}")
    (out / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(str(SAVED))
    assert demo.main(out, steps=STEPS, extra=(*SMALL, "data.dataloader_num_workers=2")) == 0
    for step in range(SAVED + 1, STEPS + 1):
        assert drawn(out, step) == drawn(steered, step), step
    before, after = journal(steered / "checkpoints"), journal(out / "checkpoints")
    assert after[:SAVED] == before[:SAVED] and [entry["step"] for entry in after] == list(range(1, STEPS + 1))

    with pytest.raises(demo.DemoError, match="another curriculum"):
        demo.run_trainer(
            "cpu_demo",
            out,
            [*SMALL, "ssl4rl.curriculum=staged", f"trainer.total_training_steps={STEPS + 1}"],
            STEPS + 1,
        )


def test_dapos_filter_and_the_curriculum_work_together(steered: Path, tmp_path: Path) -> None:
    out = tmp_path / "dapo"
    shutil.copytree(steered / "model", out / "model")
    dapo = (
        "actor_rollout_ref.rollout.agent.agent_loop_manager_class=null",
        "algorithm.filter_groups.enable=true",
        "algorithm.filter_groups.metric=acc",
        "actor_rollout_ref.rollout.n=2",  # most pairs of a model at chance agree
        "data.train_batch_size=8",
        "actor_rollout_ref.actor.ppo_mini_batch_size=8",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=16",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=16",
        "ssl4rl.curriculum={policy: goldilocks, balance: true}",
        "algorithm.norm_adv_by_std_in_grpo=false",
    )
    assert demo.main(out, steps=2, extra=(*SMALL, *dapo)) == 0
    log = RunLog(out)
    evicted = dict(zip(*log.curve("training/filter_groups/evicted_samples"), strict=True))
    assert sum(evicted.values()) > 0, "prompts whose rollouts are all right or all wrong are replaced"
    entries = journal(out / "checkpoints")
    for entry in entries:
        thrown = evicted.get(entry["step"], 0)
        groups = sum(evidence["groups"] for evidence in entry["shown"].values())
        effective = sum(evidence["effective"] for evidence in entry["shown"].values())
        # All groups were seen, the ones thrown away too; those that were trained on have answers of both kinds.
        assert groups == 8 + thrown and effective >= 8
    assert entries[-1]["taken"] >= 8 * len(entries) + sum(evicted.values())

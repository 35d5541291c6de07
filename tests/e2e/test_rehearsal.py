"""Rehearsals of one recipe of each family: verl's trainer on the CPU with the recipes' own settings.

All of them train two steps, validate and save; two go on to resume, merge and evaluate.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from shared_run import left_running, metric
from traps import set_traps, sprung

from ssl4rl_plugin.analysis.runlog import RunLog
from ssl4rl_plugin.demo.rehearsal import K3
from ssl4rl_plugin.demo.rehearsal_settings import CATEGORIES

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

LIMIT = 1500
"""Seconds after which a rehearsal counts as stuck."""
SAME = 5e-5
"""Bound of `K3`: trainer and rollout read prompts, pictures and positions in the same way. With other rotary positions in
one of them it was 4e-4."""
CATEGORY_NAMES = [name for some in CATEGORIES.values() for name in some]
TASKS = ("rotation", "jigsaw", "position", "contrastive")


def rehearsed(out: Path, recipe: str, *overrides: str, until: str = "checkpoint") -> dict[str, Any]:
    """Rehearse a recipe with the command that a user types, and return its JSON."""
    program = str(Path(sys.executable).with_name("ssl4rl"))
    traps, marks = set_traps(out.with_name("traps"), out.with_name("marks")), out.with_name("marks")
    done = subprocess.run(
        [program, "doctor", "--recipe", recipe, "--rehearse", "--until", until, "--out", str(out), "--json", *overrides],
        cwd=traps, capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert sprung(marks) == [], "files of the folder in which the rehearsal was started ran"
    assert done.returncode == 0, f"{done.stdout[-5000:]}\n{done.stderr[-3000:]}"
    found: dict[str, Any] = json.loads(done.stdout)
    assert found == json.loads((out / "rehearsal.json").read_text())
    return found


def check(found: dict[str, Any], sources: set[str], rows: int | None = None) -> RunLog:
    """Two real steps whose rewards differ, a validation of each group, and a checkpoint."""
    out = Path(found["folder"])
    assert found["passed"]
    ran = [phase["name"] for phase in found["phases"] if phase["status"] == "pass"]
    assert ran[:6] == ["compose", "model", "start", "steps", "validation", "checkpoint"]
    assert {"torch", "vllm", "transformers", "verl", "ray"} <= set(found["versions"])
    log = RunLog(out)
    assert set(log.validations) >= {0, 2}, "before the first step, and after the last"
    for step in (1, 2):
        dumped = [json.loads(line) for line in (out / "rollouts" / f"{step}.jsonl").read_text().splitlines()]
        assert len(dumped) == 20, "4 prompts with the recipe's 5 rollouts"
        assert metric(out, "actor/grad_norm")[step] > 0
        assert abs(metric(out, K3)[step]) < SAME
    scores = [json.loads(line)["score"] for step in (1, 2) for line in (out / "rollouts" / f"{step}.jsonl").open()]
    assert len(set(scores)) > 1, "the warm-up taught the answer format, so that some answers are paid"
    validated = {name.split("/acc/")[0].removeprefix("val-core/") for name in log.metrics[2] if "val-core/" in name}
    assert validated >= sources
    shard = out / "checkpoints" / "global_step_2" / "actor" / "model_world_size_1_rank_0.pt"
    assert shard.is_file() or found["phases"][6]["status"] == "pass", "only the newest checkpoints are kept"
    changed = {change["key"] for change in found["changes"]}
    assert {"trainer.device", "data.train_batch_size"} <= changed
    assert not changed & {"data.max_prompt_length", "actor_rollout_ref.rollout.n", "actor_rollout_ref.actor.optim.lr"}
    return log


def check_whole_cycle(found: dict[str, Any]) -> None:
    """The resumed step, the merged model, and answers to the run's validation."""
    out = Path(found["folder"])
    assert [phase["status"] for phase in found["phases"]] == ["pass"] * 9
    assert (out / "checkpoints" / "latest_checkpointed_iteration.txt").read_text() == "3"
    second = [json.loads(line) for line in (out / "metrics-1.jsonl").read_text().splitlines()]
    assert [row["step"] for row in second if "actor/grad_norm" in row["data"]] == [3]
    first = {
        json.loads(json.loads(line)["gts"])["sample"]
        for step in (1, 2)
        for line in (out / "rollouts" / f"{step}.jsonl").open()
    }
    third = {json.loads(json.loads(line)["gts"])["sample"] for line in (out / "rollouts" / "3.jsonl").open()}
    assert len(first) == 8 and len(third) == 4 and not first & third, "the resumed run goes on with the next samples"
    assert list((out / "merged").glob("*.safetensors"))
    results = json.loads((out / "evaluation" / "results.json").read_text())
    assert {group["kind"] for group in results["groups"]} and all(group["questions"] for group in results["groups"])


@pytest.mark.xdist_group("rehearsal 1")
def test_the_3b_recipe_for_images_through_the_whole_cycle(tmp_path: Path) -> None:
    found = rehearsed(tmp_path / "run", "images", until="evaluate")
    log = check(found, {f"ssl4rl/{task}" for task in TASKS})
    assert log.setting("actor_rollout_ref.actor.strategy") == "fsdp2"
    assert metric(tmp_path / "run", "actor/kl_loss"), "the reference model took part"
    check_whole_cycle(found)


@pytest.mark.xdist_group("rehearsal 2")
def test_lora_through_the_whole_cycle(tmp_path: Path) -> None:
    found = rehearsed(tmp_path / "run", "images", "ssl4rl/hardware=gpu_1x24gb", until="evaluate")
    check(found, {f"ssl4rl/{task}" for task in TASKS})
    check_whole_cycle(found)
    adapter = json.loads((tmp_path / "run" / "merged" / "lora_adapter" / "adapter_config.json").read_text())
    assert adapter["r"] == 64


@pytest.mark.xdist_group("rehearsal 1")
def test_qwen3_vl_with_packed_rows_and_dapo(tmp_path: Path) -> None:
    found = rehearsed(tmp_path / "run", "images_qwen3_vl_2b", "ssl4rl/algorithm=dapo")
    log = check(found, {f"ssl4rl/{task}" for task in TASKS})
    assert log.setting("actor_rollout_ref.model.use_remove_padding") is True
    assert log.setting("data.image_patch_size") == 16
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["model_type"] == "qwen3_vl"
    assert log.setting("algorithm.filter_groups.enable") is True
    for step in (1, 2):
        rows = [json.loads(line) for line in (tmp_path / "run" / "rollouts" / f"{step}.jsonl").open()]
        groups: dict[str, set[float]] = {}
        for row in rows:
            groups.setdefault(row["gts"], set()).add(row["score"])
        assert all(len(scores) > 1 for scores in groups.values()), "groups of equal rewards were replaced"


@pytest.mark.xdist_group("rehearsal 2")
def test_videos(tmp_path: Path) -> None:
    tasks = (
        "temporal_jigsaw", "arrow_of_time", "playback_speed", "anomaly_grounding", "inserted_frame", "video_counting",
        "next_clip",
    )  # fmt: skip
    check(rehearsed(tmp_path / "run", "videos"), {f"ssl4rl/{task}" for task in tasks})
    assert max(metric(tmp_path / "run", "prompt_length/max").values()) > 500, "clips as long as in the real run"


@pytest.mark.xdist_group("rehearsal 1")
def test_graphs_with_a_text_model(tmp_path: Path) -> None:
    found = rehearsed(tmp_path / "run", "graph_mixture")
    log = check(found, {"ssl4rl/link_prediction", "ssl4rl/shortest_path", "bench/communities/link_prediction"})
    assert log.setting("actor_rollout_ref.model.use_remove_padding") is True
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["model_type"] == "qwen2"


@pytest.mark.xdist_group("rehearsal 2")
def test_sixteen_tiles_and_a_benchmark(tmp_path: Path) -> None:
    found = rehearsed(tmp_path / "run", "mmbench_jigsaw_4x4")
    check(found, {"ssl4rl/jigsaw", *(f"bench/mmbench/{name}" for name in CATEGORY_NAMES)})
    assert max(metric(tmp_path / "run", "prompt_length/max").values()) > 700, "the tiles have their real size"


@pytest.mark.xdist_group("rehearsal 2")
def test_a_benchmark_of_many_categories(tmp_path: Path) -> None:
    found = rehearsed(tmp_path / "run", "seedbench_rotation")
    log = check(found, {"ssl4rl/rotation", *(f"bench/seedbench/{name}" for name in CATEGORY_NAMES)})
    counts = [log.metrics[2][f"val-aux/bench/seedbench/{name}/questions/mean@1"] for name in CATEGORY_NAMES]
    assert len(counts) == 12 and all(count >= 1 for count in counts)


def test_nothing_is_left_running() -> None:
    assert not left_running()

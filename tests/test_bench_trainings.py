"""The benches of many trainings in tests/bench read what runs wrote, and name what is missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from scipy import stats

from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.data.arms import Arm
from ssl4rl_plugin.data.ground_truth import encode_truth
from ssl4rl_plugin.demo import run as demo
from ssl4rl_plugin.training.curriculum.evidence import Evidence
from ssl4rl_plugin.training.rewards import compute_score
from ssl4rl_plugin.training.settings import parse_arms

sys.path.append(str(Path(__file__).with_name("bench")))

import curriculum
import demo_seeds
import trainings
import transfer

QUESTIONS = 8


def write_validation(run: Path, step: int, right: Sequence[tuple[Arm, int]]) -> None:
    """Write a validation as verl dumps it. `right`: each arm, and how many of its `QUESTIONS` answers are right."""
    lines = []
    for arm, count in right:
        grader = arm.task.grader(arm.level)
        truth, wrong = list(grader.values())[:2]
        for number in range(QUESTIONS):
            answer = grader.render(truth if number < count else wrong)
            gts = encode_truth(arm.task.name, arm.level_name, arm.options, truth, f"val:{number}", "")
            found = compute_score(arm.data_source, f"<answer>{answer}</answer>", gts, answer_format="answer_only")
            lines.append(json.dumps({"input": "?", "output": answer, "gts": gts, "step": step, **found}))
    path = run / "validation" / f"{step}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rng_for(step, "order").sample(lines, len(lines))) + "\n")


def write_journal(run: Path, steps: int, arms: Sequence[Arm]) -> None:
    """The curriculum's journal, and the metrics that its cost is read from."""
    shown = {arm.key: asdict(Evidence(groups=4)) for arm in arms}
    lines = [json.dumps({"curriculum": {}}), *(json.dumps({"step": k + 1, "shown": shown}) for k in range(steps))]
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "curriculum.jsonl").write_text("\n".join(lines) + "\n")
    data = {"curriculum/cost_s": 0.01, "timing_s/step": 2.0}
    (run / "metrics-0.jsonl").write_text(
        "".join(json.dumps({"step": k + 1, "data": data}) + "\n" for k in range(steps))
    )


@pytest.fixture
def arms() -> tuple[Arm, ...]:
    strong = {"task": "altered_patch", "level": "2x2_mask", "options": {"strength": 0.6}}
    return parse_arms(["altered_patch:2x2_mask", strong, "altered_patch:2x2_blur"])


def test_arms_on_the_command_line_are_the_same_arms(arms: tuple[Arm, ...]) -> None:
    from omegaconf import OmegaConf

    ways = curriculum.ways(arms)
    assert list(ways) == [
        "uniform", *curriculum.POLICIES, "2x2_mask alone", "2x2_mask at 0.6 alone",
    ]  # fmt: skip
    given = ways["2x2_mask at 0.6 alone"][1].partition("=")[2]
    read = parse_arms(OmegaConf.to_container(OmegaConf.create(f"tasks: {given}"))["tasks"])
    assert [(arm.key, arm.weight) for arm in read] == [(arm.key, float(k == 1)) for k, arm in enumerate(arms)]


def test_seeds_and_intervals() -> None:
    assert trainings.seeds_of("1-3,8,2") == (1, 2, 3, 8)
    assert trainings.ranges((1, 2, 3, 8)) == "1-3, 8"
    found = trainings.Interval.of([0.1, 0.2, 0.6])
    low, high = stats.t.interval(0.95, 2, 0.3, stats.sem([0.1, 0.2, 0.6]))
    assert (found.mean, found.low, found.high) == pytest.approx((0.3, low, high))
    assert trainings.Interval.of([0.25]).text("+") == "+0.250"


def test_the_curriculum_bench_pairs_by_seed_and_names_what_is_missing(tmp_path: Path, arms: tuple[Arm, ...]) -> None:
    steps = 4
    ways = curriculum.ways(arms)
    planned = [trainings.Training(way, seed, own, steps) for seed in (1, 2) for way, own in ways.items()]
    ends = {"uniform": 4, "goldilocks": 6, "2x2_mask alone": 5}  # right answers at the second arm
    for training in planned:
        if training.way not in ends or (training.way, training.seed) == ("2x2_mask alone", 2):
            continue
        run = training.folder(tmp_path)
        write_validation(run, 0, list(zip(arms, (6, 2, 2), strict=True)))
        write_validation(run, steps, list(zip(arms, (8, ends[training.way] + training.seed, 2), strict=True)))
        write_journal(run, steps, arms)
    made = json.loads(json.dumps(curriculum.collect(tmp_path, planned, arms)))
    assert len(made["runs"]) == 5
    assert trainings.missing_text(made) == (
        "5 of 12 trainings are there. Missing: `goldilocks at 0.4`, seed 1-2; `learning_progress`, seed 1-2; "
        "`2x2_mask at 0.6 alone`, seed 1-2; `2x2_mask alone`, seed 2."
    )
    results = curriculum.Results(made)
    assert results.steps == [0, steps] and results.best_alone() == "2x2_mask alone"
    assert results.skill["uniform"][1][steps] == pytest.approx([1.0, (5 / 8 - 0.25) / 0.75, 0.0])
    last = results.measures()[f"step {steps}"]
    gain, seeds = results.difference(last, "goldilocks", "uniform")
    assert (gain.mean, seeds) == (pytest.approx(2 / 8 / 0.75 / 3), 2)
    assert results.difference(results.area, "goldilocks", "uniform")[0].mean == pytest.approx(gain.mean / 2)
    text = curriculum.report(made)
    assert "| `goldilocks` - `uniform` | 2 | +0.111 [+0.111, +0.111] |" in text
    assert "| `uniform` - `2x2_mask alone` | 1 | -0.056 |" in text
    assert "took 0.50 % of a step (median of 5 trainings)" in text
    curriculum.draw(made, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_without_a_training_the_tables_say_so(tmp_path: Path, arms: tuple[Arm, ...]) -> None:
    planned = [trainings.Training("uniform", 1, (), 4)]
    assert curriculum.report(curriculum.collect(tmp_path, planned, arms)) == (
        "0 of 1 trainings are there. Missing: `uniform`, seed 1."
    )
    assert transfer.report(transfer.collect(tmp_path, planned, arms)).startswith("0 of 1 trainings")


def test_the_matrix_counts_from_the_start_of_each_seed(tmp_path: Path) -> None:
    trained = parse_arms(["rotation", "jigsaw:2x1"])
    arms = (*trained, *parse_arms(["flip:single_vertical"]))
    ways = transfer.ways(trained, arms)
    assert list(ways) == ["mixture", "rotation:pair_90", "jigsaw:2x1"]
    assert "weight: 0" in ways["mixture"][0], "what is only tested is in the validation"
    planned = [trainings.Training(way, seed, own, 3) for seed in (1, 2) for way, own in ways.items()]
    for training in planned:
        if (training.way, training.seed) == ("jigsaw:2x1", 2):
            continue
        run, start = training.folder(tmp_path), (training.seed, 4, 4)
        if training.way == "mixture":
            write_validation(run, 0, list(zip(arms, start, strict=True)))
        more = {"mixture": (1, 2, 0), "rotation:pair_90": (4, 0, 1), "jigsaw:2x1": (0, 4, 0)}[training.way]
        write_validation(run, 3, [(arm, a + b) for arm, a, b in zip(arms, start, more, strict=True)])
    made = json.loads(json.dumps(transfer.collect(tmp_path, planned, arms)))
    assert made["missing"] == [{"way": "jigsaw:2x1", "seed": 2}]
    matrix = transfer.Matrix(made)
    assert matrix.changes["rotation:pair_90"].tolist() == [[0.5, 0.0, 0.125]] * 2
    text = transfer.report(made)
    assert "| `rotation:pair_90` | 2 | **+0.500 [+0.500, +0.500]** | +0.000 [+0.000, +0.000] | +0.125" in text
    assert "| `jigsaw:2x1` | 1 | +0.000 | **+0.500** | +0.000 |" in text
    transfer.draw(made, tmp_path / "matrix.png")
    assert (tmp_path / "matrix.png").stat().st_size > 1000


def write_run(run: Path, seed: int, ends: dict[str, tuple[float, float, float]]) -> None:
    """The summary of a demo. `ends`: task -> accuracy at the end, and the lower ends of its interval and of the change's."""
    tasks = {
        task: {
            "chance": 0.25,
            "before": {"accuracy": 0.25, "low": 0.2, "high": 0.3},
            "after": {"accuracy": accuracy, "low": low, "high": 1.0},
            "change": {"mean": accuracy - 0.25, "low": change, "high": 1.0},
            "validation": {"steps": [0, 4], "accuracy": [0.25, accuracy]},
        }
        for task, (accuracy, low, change) in ends.items()
    }
    run.mkdir()
    parts = {"model": 30.2, "start": 40.0, "training": 300.0}
    content = {"seed": seed, "seconds": 371, "parts": parts, "largest_k3_kl": 2e-5, "tasks": tasks}
    (run / "summary.json").write_text(json.dumps(content))


def test_seeds_of_the_demo_are_counted_against_the_goal(tmp_path: Path) -> None:
    write_run(tmp_path / "cpu_demo-0", 0, {"a": (0.5, 0.38, 0.01), "b": (0.9, 0.8, -0.01)})
    write_run(tmp_path / "cpu_demo-1", 1, {"a": (0.5, 0.37, 0.01), "b": (0.9, 0.8, 0.01)})
    made = demo_seeds.Way("cpu_demo").results(tmp_path, [0, 1, 2])
    text = demo_seeds.report(made)
    assert [demo_seeds.reached(run) for run in made["runs"]] == [True, False], "1.5 x chance is 0.375"
    assert [demo_seeds.risen(run) for run in made["runs"]] == [False, True]
    assert "| 0 | 0.25 [0.20, 0.30] to 0.50 [0.38, 1.00] | 0.25 [0.20, 0.30] to 0.90 [0.80, 1.00] | 2e-05 |" in text
    assert "| 30 + 40 + 300 + 0 + 0 + 0 | 6:11 |" in text
    assert "Missing: `cpu_demo`, seed 2. Of 2, 1 end" in text
    demo_seeds.draw(made, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_the_control_pays_at_random_and_scores_as_always() -> None:
    """Through verl's own loader, with the overrides of the bench."""
    from verl.trainer.ppo.reward import get_custom_reward_fn

    control = demo_seeds.Way("cpu_demo", control=True)
    assert control.name == "cpu_demo-control"
    config = demo.compose("cpu_demo", ["actor_rollout_ref.model.path=x", *control.overrides()])
    reward = get_custom_reward_fn(config)
    (arm,) = parse_arms(["altered_patch"])
    truth, wrong = list(arm.task.grader(arm.level).values())[:2]
    gts = encode_truth(arm.task.name, arm.level_name, arm.options, truth, "val:0", "")
    for answer in (truth, wrong):
        paid = [reward(arm.data_source, f"<answer>{answer}</answer>", gts) for _ in range(64)]
        assert {one["acc"] for one in paid} == {float(answer == truth)}
        assert {one["score"] for one in paid} == {0.0, 1.0}


def test_pages_keep_what_is_around_a_made_part() -> None:
    page = "a\n<!-- x: made -->\nold\n<!-- x: end -->\nb\n"
    once = trainings.replace_between(page, {"x": "new"})
    assert once == "a\n<!-- x: made -->\n\nnew\n\n<!-- x: end -->\nb\n"
    assert trainings.replace_between(once, {"x": "new"}) == once

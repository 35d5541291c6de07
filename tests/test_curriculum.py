"""The curriculum without a trainer: policies, bounds, the schedule, the journal, and what the simulator says of them."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from torch.utils.data import DataLoader

from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.rows import OnlineRows
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.training.curriculum import journal
from ssl4rl_plugin.training.curriculum import schedule as schedule_module
from ssl4rl_plugin.training.curriculum.balance import LIMIT, Balance
from ssl4rl_plugin.training.curriculum.director import CurriculumSettings, Director
from ssl4rl_plugin.training.curriculum.evidence import (
    CurriculumArm,
    Evidence,
    ScoredRollout,
    corrected,
    diversity,
    ladder,
)
from ssl4rl_plugin.training.curriculum.policies import PolicyError, policies
from ssl4rl_plugin.training.curriculum.schedule import BLOCK, Schedule, ScheduleError
from ssl4rl_plugin.training.curriculum.simulator import (
    MIXED,
    SimulatedTask,
    World,
    oracle,
    rollouts_to_target,
    simulate,
)
from ssl4rl_plugin.training.curriculum.step_metrics import figures
from ssl4rl_plugin.training.curriculum_rows import steered
from ssl4rl_plugin.training.settings import Settings, SettingsError, curriculum_arms, parse_arms

ADAPTIVE = ("goldilocks", "learning_progress", "gradient_signal", "diversity_aware", "staged")


def arms(*sizes: int, chance: float = 0.25) -> tuple[CurriculumArm, ...]:
    """Tasks a, b, ... with so many levels each."""
    return ladder(
        [
            CurriculumArm(f"{task}:{level}", f"{task}/{level}", task, level, chance, 1.0)
            for task, size in zip("abcdef", sizes, strict=False)
            for level in range(size)
        ]
    )


def group(right: int, of: int = 8, answers: str | None = None) -> Evidence:
    """A prompt with so many right answers, all wrong ones the same or as given."""
    return Evidence.of_group(
        ScoredRollout(float(k < right), float(k < right), answers[k] if answers else str(k < right), False)
        for k in range(of)
    )


def seen(director: Director, rates: dict[int, float], steps: int = 10, groups: int = 8) -> np.ndarray:
    """Probabilities after some steps in which arms had these accuracies."""
    for _ in range(steps):
        director.observe({arm: group(round(8 * rate)).times(groups) for arm, rate in rates.items()})
    return director.probabilities()


def director(policy: str, infos: tuple[CurriculumArm, ...], **settings: object) -> Director:
    return Director(CurriculumSettings.from_config({"policy": policy, **settings}), infos, rollouts=8, seed=0)


# ---- evidence


def test_what_a_group_shows() -> None:
    mixed = group(2, answers="aabbbccc")
    assert (mixed.groups, mixed.answers, mixed.correct, mixed.effective) == (1, 8, 0.25, 1)
    assert mixed.spread == pytest.approx(math.sqrt(0.25 * 0.75))
    by_hand = -(2 / 8 * math.log(2 / 8) + 2 * 3 / 8 * math.log(3 / 8)) / math.log(8)
    assert mixed.diversity == pytest.approx(by_hand)
    assert (group(8).effective, group(0).effective) == (0, 0)
    assert diversity("aaaa") == 0.0 and diversity("abcd") == pytest.approx(1.0) and diversity("a") == 1.0


def test_rollouts_without_a_usable_reward_are_counted_and_nothing_else() -> None:
    bad = [
        ScoredRollout(math.nan, 1.0, "a", False),
        ScoredRollout(1.0, math.nan, "a", False),
        ScoredRollout(0.0, 0.0, "", True),
    ]
    found = Evidence.of_group([*bad, ScoredRollout(1.0, 1.0, "a", False), ScoredRollout(0.0, 0.0, "b", False)])
    assert (found.unscored, found.answers, found.correct) == (3, 2, 0.5)
    assert Evidence.of_group(bad) == Evidence(unscored=3)
    assert (group(1) + group(3)).correct == pytest.approx(0.5) and group(1).times(3) == group(1) + group(1) + group(1)


def test_accuracy_is_corrected_for_chance() -> None:
    assert corrected([0.25, 0.625, 1.0, 0.1], 0.25).tolist() == [0.0, 0.5, 1.0, 0.0]


def test_rungs_count_a_runs_own_levels() -> None:
    found = curriculum_arms(parse_arms(["altered_patch:3x3_gray", "rotation", "altered_patch:2x2_mask"]))
    assert [(arm.label, arm.rung) for arm in found][::2] == [
        ("altered_patch/3x3_gray", 1),
        ("altered_patch/2x2_mask", 0),
    ]


def test_arms_at_one_level_are_told_apart_by_what_differs() -> None:
    entries = ["rotation:pair_90", {"task": "rotation:pair_90", "options": {"pair": False}}, "position"]
    found = curriculum_arms(parse_arms(entries, {"side": 84}))
    assert [arm.label for arm in found[:2]] == ["rotation/pair_90", "rotation/pair_90 pair=False"]
    assert [arm.rung for arm in found] == [0, 1, 0] and len({arm.key for arm in found}) == 3


# ---- policies


def test_fixed_weights_stay() -> None:
    infos = tuple(replace(arm, weight=weight) for arm, weight in zip(arms(2, 1), (1.0, 3.0, 0.0), strict=True))
    found = seen(director("fixed", infos), {0: 1.0, 1: 0.25})
    assert found.tolist() == [0.25, 0.75, 0.0]


def test_goldilocks_draws_what_is_half_learnt() -> None:
    found = seen(director("goldilocks", arms(3)), {0: 1.0, 1: 0.625, 2: 0.25})
    assert found.argmax() == 1 and found[1] > 0.8


def test_a_lower_target_prefers_the_harder_arm() -> None:
    """Skills 1/3 and 2/3 are equally far from 1/2."""
    rates, infos = {0: 0.75, 1: 0.5}, arms(1, 1)
    half, third = (
        seen(director("goldilocks", infos, revisit=0.0, target=target), rates, steps=20, groups=32)
        for target in (0.5, 1 / 3)
    )
    assert min(half) > 0.2 and third[1] > 0.9


def test_an_arm_at_chance_is_not_half_learnt_even_if_its_raw_accuracy_is() -> None:
    """Two choices: raw 0.5 is chance. The other task stands half way between chance and perfect."""
    infos = arms(1, 1, chance=0.5)
    for policy in ("goldilocks", "gradient_signal", "diversity_aware"):
        found = seen(director(policy, infos, revisit=0.0), {0: 0.5, 1: 0.75})
        assert found[1] > 0.7, policy


def test_nothing_hard_is_tried_before_something_easier_works() -> None:
    for policy in ("goldilocks", "learning_progress", "diversity_aware", "staged"):
        start = director(policy, arms(4)).probabilities()
        assert start[0] == max(start) and start[0] > start[3], policy
        at_chance = seen(director(policy, arms(4)), {0: 0.25})
        assert at_chance[0] == max(at_chance) and at_chance[0] > 1.5 * at_chance[3], policy


def test_all_arms_at_chance_and_all_arms_solved_keep_every_task_going() -> None:
    for policy in ADAPTIVE:
        for rate in (0.25, 1.0):
            found = seen(director(policy, arms(2, 2)), dict.fromkeys(range(4), rate), steps=30)
            tasks = found.reshape(2, 2).sum(axis=1)
            assert found.sum() == pytest.approx(1.0) and tasks.min() > 0.2, (policy, rate, found)


def test_gradient_signal_is_the_share_of_mixed_groups() -> None:
    found = seen(
        director("gradient_signal", arms(1, 1, 1), revisit=0.0), {0: 1.0, 1: 0.625, 2: 0.25}, steps=60, groups=64
    )
    # Chance-corrected 1, 0.5, 0: one arm has signal, and what is left of the others is the fog of the belief.
    assert found[1] > 0.85


def test_learning_progress_follows_change_up_and_down() -> None:
    changing = director("learning_progress", arms(1, 1, 1))
    for step in range(12):
        rates = {0: 0.5, 1: 0.25 + 0.05 * step, 2: 0.9}
        changing.observe({arm: group(round(8 * rate)).times(16) for arm, rate in rates.items()})
    assert changing.probabilities().argmax() == 1
    for step in range(12):
        rates = {0: 0.5, 1: 0.85, 2: 0.9 - 0.05 * step}
        changing.observe({arm: group(round(8 * rate)).times(16) for arm, rate in rates.items()})
    assert changing.probabilities().argmax() == 2, "what is being forgotten comes back"


def test_collapsed_answers_are_worth_less() -> None:
    infos = arms(1, 1)
    aware, blind = director("diversity_aware", infos), director("goldilocks", infos)
    varied, collapsed = group(5, answers="aaaaabcd"), group(5, answers="aaaaaaaa")
    for one in (aware, blind):
        for _ in range(10):
            one.observe({0: varied.times(8), 1: collapsed.times(8)})
    assert aware.probabilities()[1] < blind.probabilities()[1] - 0.1


def test_stages_follow_each_other() -> None:
    staged = director(
        "staged", arms(2, 1), stages=[{"arms": ["a:0"], "until": 0.7}, {"arms": ["a:1", "b:0"]}], revisit=0.0
    )
    assert staged.probabilities().tolist() == [1.0, 0.0, 0.0]
    assert seen(staged, {0: 0.5}).tolist() == [1.0, 0.0, 0.0]
    assert seen(staged, {0: 1.0}).tolist() == pytest.approx([0.2, 0.4, 0.4])


def test_without_stages_every_task_climbs_by_itself() -> None:
    found = seen(director("staged", arms(2, 2), revisit=0.0), {0: 1.0, 2: 0.25})
    assert found.tolist() == pytest.approx([0.1, 0.4, 0.5, 0.0])


def test_what_is_not_drawn_becomes_uncertain_and_returns() -> None:
    forgot = director("goldilocks", arms(1, 1))
    for _ in range(10):
        forgot.observe({0: group(8).times(16), 1: group(6).times(16)})
    before = forgot.probabilities()[0]
    for _ in range(60):
        forgot.observe({1: group(8).times(16)})
    assert forgot.probabilities()[0] > before + 0.3


def test_one_arm_is_always_drawn() -> None:
    for policy in policies.names():
        assert seen(director(policy, arms(1)), {0: 0.5}).tolist() == [1.0]


# ---- bounds


def test_warm_up_floors_ceilings_and_revisiting() -> None:
    infos = arms(2, 2, 1)
    bounded = director("goldilocks", infos, warm_up=2, floors={"a": 0.3}, ceilings={"b": 0.25})
    assert bounded.probabilities().tolist() == pytest.approx([0.25, 0.25, 0.125, 0.125, 0.25])
    for rates in ({0: 1.0, 1: 1.0, 2: 0.625, 3: 0.25, 4: 1.0}, {0: 0.625, 4: 0.25}, {2: 0.625}):
        found = seen(bounded, rates)
        totals = [found[:2].sum(), found[2:4].sum(), found[4:].sum()]
        assert totals[0] >= 0.3 - 1e-9 and totals[1] <= 0.25 + 1e-9 and sum(totals) == pytest.approx(1.0)
        assert found.min() > 0.0
    plain = seen(director("goldilocks", infos, revisit=0.2), {0: 1.0, 1: 1.0, 2: 0.625, 3: 0.25, 4: 1.0})
    assert plain.min() >= 0.2 / 5 - 1e-9


def test_warm_up_draws_by_the_given_weights() -> None:
    infos = tuple(replace(arm, weight=weight) for arm, weight in zip(arms(2), (3.0, 1.0), strict=True))
    warm = director("goldilocks", infos, warm_up=2)
    assert warm.probabilities().tolist() == [0.75, 0.25] and "warm-up" in warm.reasons()[0]
    warm.observe({})
    warm.observe({})
    assert "warm-up" not in warm.reasons()[0]


@pytest.mark.parametrize(
    "section, message",
    [
        ("goldylocks", "did you mean 'goldilocks'"),
        (3, "must be a policy's name"),
        ({"revisit": 0.5}, "must be a policy's name"),
        ({"policy": "goldilocks", "revisit": 2}, "ssl4rl.curriculum.revisit must be less than or equal to 1, got 2"),
        (
            {"policy": "goldilocks", "warm_up": -1},
            "ssl4rl.curriculum.warm_up must be greater than or equal to 0, got -1",
        ),
        ({"policy": "goldilocks", "balance": "yes"}, "ssl4rl.curriculum.balance must be a valid boolean, got 'yes'"),
        ({"policy": "goldilocks", "discount": 1.5}, "discount must be in"),
        ({"policy": "goldilocks", "discount": "a"}, "discount must be a number"),
        ({"policy": "goldilocks", "temperature": 1}, "no option 'temperature'"),
        ({"policy": "goldilocks", "floors": {"x": 0.1}}, "no task 'x'"),
        ({"policy": "goldilocks", "floors": {"a": 0.7, "b": 0.6}}, "cannot all be kept"),
        ({"policy": "goldilocks", "ceilings": {"a": 0.2, "b": 0.2}}, "cannot all be kept"),
        ({"policy": "learning_progress", "width": 0}, "width must be above 0"),
        ({"policy": "staged", "stages": "all"}, "must be a list"),
        ({"policy": "staged", "stages": [{"arms": ["a:9"]}]}, "no arm 'a:9'"),
        ({"policy": "staged", "stages": [{"arms": ["a:0"], "until": 2}]}, "until must be in"),
        ({"policy": "diversity_aware", "floor": 0}, "floor must be in"),
        ({"policy": "goldilocks", "target": 1}, "target must be in"),
    ],
)
def test_bad_settings_are_named(section: object, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        Director(CurriculumSettings.from_config(section), arms(1, 1), rollouts=8, seed=0)


# ---- the schedule


def test_shares_are_kept_in_any_stretch_of_rows() -> None:
    schedule = Schedule(3, seed=5)
    schedule.announce(0, [0.5, 0.3, 0.2])
    drawn = [schedule.draw(row).arm for row in range(BLOCK + 500)]
    for start in range(0, len(drawn) - 64, 97):
        shares = np.bincount(drawn[start : start + 64], minlength=3) / 64
        assert np.abs(shares - [0.5, 0.3, 0.2]).max() < 0.06, "independent draws would scatter by 0.06 at one sigma"


def test_uses_count_every_row_of_an_arm_once_across_decisions() -> None:
    schedule = Schedule(2, seed=1)
    for start, share in ((0, 0.5), (40, 0.9), (40, 0.1), (100, 0.7)):
        schedule.announce(start, [share, 1 - share])
    uses: dict[int, list[int]] = {0: [], 1: []}
    for row in range(200):
        drawn = schedule.draw(row)
        uses[drawn.arm].append(drawn.use)
    assert uses[0] == list(range(len(uses[0]))) and uses[1] == list(range(len(uses[1])))


def test_an_arm_without_a_share_is_not_drawn() -> None:
    schedule = Schedule(3, seed=2)
    schedule.announce(0, [0.0, 1.0, 0.0])
    assert {schedule.draw(row).arm for row in range(100)} == {1}


def test_bad_decisions_are_refused() -> None:
    schedule = Schedule(2, seed=0)
    with pytest.raises(ScheduleError):
        schedule.draw(0)
    for bad in ([0.5, 0.6], [1.0], [-0.5, 1.5], [math.nan, 1.0]):
        with pytest.raises(ValueError, match="not probabilities"):
            schedule.announce(0, bad)
    schedule.announce(10, [0.5, 0.5])
    with pytest.raises(ValueError, match="from row 9"):
        schedule.announce(9, [0.5, 0.5])
    with pytest.raises(ScheduleError):
        schedule.draw(9)
    copy = pickle.loads(pickle.dumps(schedule))
    assert [copy.draw(row) for row in range(10, 30)] == [schedule.draw(row) for row in range(10, 30)]


class Rows:
    """A data set that only says which arm a row was drawn from."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __len__(self) -> int:
        return 400

    def __getitem__(self, row: int) -> int:
        return self.schedule.draw(row).arm


@pytest.mark.parametrize("workers", [0, 2])
def test_decisions_reach_the_loaders_workers_behind_what_they_were_asked_for(workers: int) -> None:
    """A decision after batch k starts behind the batches that workers may have begun, and holds from there on exactly."""
    schedule = Schedule(2, seed=3)
    schedule.announce(0, [1.0, 0.0])
    lag = workers * 2 * 10
    expected = [0] * 400
    drawn: list[int] = []
    for step, batch in enumerate(DataLoader(Rows(schedule), batch_size=10, num_workers=workers), start=1):
        drawn += batch.tolist()
        arm = step % 2
        schedule.announce(step * 10 + lag, np.eye(2)[arm])
        expected[step * 10 + lag :] = [arm] * (400 - step * 10 - lag)
    assert drawn == expected


# ---- the journal


def record(
    path: Path, steps: int, infos: tuple[CurriculumArm, ...]
) -> tuple[journal.Journal, Director, list[np.ndarray]]:
    found = director("learning_progress", infos)
    book = journal.Journal(path, {"seed": 0, "arms": [arm.key for arm in infos]})
    book.start()
    rng = np.random.default_rng(0)
    decisions = []
    for step in range(1, steps + 1):
        shown = {k: group(int(rng.integers(0, 9))).times(4) for k in range(len(infos)) if rng.random() < 0.7}
        found.observe(shown)
        decisions.append(found.probabilities())
        book.append(journal.Entry(step, shown, 16 * step, 16 * step).to_json(infos, decisions[-1], found.reasons()))
    return book, found, decisions


def test_replaying_the_journal_restores_the_state(tmp_path: Path) -> None:
    infos = arms(3, 2)
    book, whole, decisions = record(tmp_path / "run" / journal.NAME, 12, infos)
    with book.path.open("a") as file:
        file.write('{"step": 13, "shown": {"a:0"')  # killed while it wrote
    again = director("learning_progress", infos)
    for number, (entry, line) in enumerate(journal.read(book.path, book.header, infos, last=8)):
        again.observe(entry.shown)
        assert again.probabilities().tolist() == decisions[number].tolist()
        assert json.loads(line)["arms"]["a:0"]["reason"]
    assert again.steps == 8 and entry.taken == 128
    for entry, _ in journal.read(book.path, book.header, infos, last=12):
        if entry.step > 8:
            again.observe(entry.shown)
    assert again.probabilities().tolist() == whole.probabilities().tolist()
    book.copy(tmp_path)
    assert (tmp_path / journal.NAME).read_bytes() == book.path.read_bytes()


def test_a_journal_of_another_run_is_refused(tmp_path: Path) -> None:
    infos = arms(2)
    book, _, _ = record(tmp_path / journal.NAME, 3, infos)
    with pytest.raises(journal.JournalError, match="seed was 0 and is 1"):
        list(journal.read(book.path, {**book.header, "seed": 1}, infos, last=3))
    with pytest.raises(journal.JournalError, match="ends at step 3, and the checkpoint is of step 5"):
        list(journal.read(book.path, book.header, infos, last=5))
    book.path.write_text("no JSON\n")
    with pytest.raises(journal.JournalError, match="is not the journal"):
        list(journal.read(book.path, book.header, infos, last=3))


# ---- figures and balance


def test_figures_of_a_step() -> None:
    infos = arms(2, 1)
    shown = {0: group(2) + group(8), 1: group(4) + group(4) + Evidence(unscored=3)}
    found = figures(infos, shown, np.array([0.5, 0.25, 0.25]))
    assert (
        found["curriculum/a/0/share"] == found["curriculum/a/1/share"] == 0.5 and found["curriculum/b/0/share"] == 0.0
    )
    assert found["curriculum/a/0/accuracy"] == 0.625 and found["curriculum/a/0/corrected"] == pytest.approx(0.5)
    assert found["curriculum/a/0/effective"] == 0.5 and found["curriculum/a/1/effective"] == 1.0
    assert found["curriculum/a/accuracy"] == 0.5625 and found["curriculum/a/level"] == 0.5
    assert found["curriculum/a/0/probability"] == 0.5 and found["curriculum/unscored"] == 3.0
    assert "curriculum/b/accuracy" not in found and "curriculum/b/0/accuracy" not in found
    assert all(math.isfinite(value) for value in found.values())
    assert figures(infos, {}, None) == {
        "curriculum/unscored": 0.0,
        **{f"curriculum/{name}/share": 0.0 for name in ("a/0", "a/1", "b/0", "a", "b")},
    }


def test_balance_makes_the_spread_of_tasks_equal() -> None:
    infos = arms(1, 1, 1)
    balance = Balance(infos)
    assert set(balance.scales().values()) == {1.0}
    wide = Evidence.of_group(ScoredRollout(float(k % 2), 0.0, "", False) for k in range(8))
    narrow = Evidence.of_group(ScoredRollout(0.2 * (k % 2), 0.0, "", False) for k in range(8))
    for _ in range(5):
        balance.observe({0: wide.times(4), 1: narrow.times(4) + group(8).times(4)})
    scales = balance.scales()
    assert scales["a"] * wide.spread == pytest.approx(scales["b"] * narrow.spread)
    assert scales["c"] == 1.0 and all(1 / LIMIT <= scale <= LIMIT for scale in scales.values())


# ---- settings


def run_section(**changes: object) -> dict[str, object]:
    return {
        "seed": 0, "tasks": ["rotation"], "source": {"name": "sample_photos", "max_pixels": 65536},
        "answer_format": "answer_only", "epochs": 1, "val_samples": 1, **changes,
    }  # fmt: skip


def test_with_a_curriculum_a_task_stands_for_all_of_its_levels() -> None:
    plain = Settings.from_config(run_section(tasks=["rotation", "position:quadrants"]))
    every = Settings.from_config(run_section(tasks=["rotation", "position:quadrants"], curriculum="goldilocks"))
    assert plain.curriculum is None and len(plain.arms) == 2
    levels = [arm.level_name for arm in every.arms if arm.task.name == "rotation"]
    assert levels == list(every.arms[0].task.levels) and len(every.arms) == len(levels) + 1
    assert asdict(every.curriculum)["policy"] == "goldilocks"
    with pytest.raises((SettingsError, PolicyError), match="must be a policy's name"):
        Settings.from_config(run_section(curriculum=["goldilocks"]))


def test_online_rows_follow_the_schedule_and_a_resumed_run_keeps_its_curriculum(section: dict) -> None:
    settings = Settings.from_config(
        {**section, "curriculum": "goldilocks", "tasks": ["position"], "options": {"side": 84}}
    )
    own = OnlineRows(SampleStream(settings, load_manifest(settings), "train"))
    alone = steered(own, settings.curriculum, settings.seed)
    start = [alone[index].info["level"] for index in range(12)]
    assert set(start) > {settings.arms[0].level_name}, "without a sampler, what the curriculum starts with"

    decisions = Schedule(len(own.arms), settings.seed)
    decisions.announce(0, np.eye(len(own.arms))[2])
    decisions.announce(6, np.eye(len(own.arms))[0])
    schedule_module.publish(decisions)
    try:
        rows = steered(own, settings.curriculum, settings.seed)
        levels = [rows[index].info["level"] for index in range(12)]
        assert levels == [settings.arms[2].level_name] * 6 + [settings.arms[0].level_name] * 6
        assert [rows[index].info["item"] for index in range(12)] == [alone[index].info["item"] for index in range(12)]
    finally:
        schedule_module.publish(None)
    assert rows.state()["curriculum"]["policy"] == "goldilocks"


# ---- the simulator

SEEDS = range(6)
"""Their interval is a fiftieth of the mean wide; tests/bench/curriculum_simulated.py takes 20."""


@pytest.fixture(scope="module")
def compared() -> dict[str, np.ndarray]:
    """Rollouts until each seed has 90 % of the oracle's final skill, by policy."""
    target = 0.9 * oracle(MIXED, 300).skill[-1]
    return {
        policy: rollouts_to_target(
            [simulate(MIXED, CurriculumSettings(policy), steps, seed) for seed in seeds], target, MIXED
        )
        for policy, steps, seeds in (
            ("fixed", 800, range(3)),
            ("goldilocks", 420, SEEDS),
            ("learning_progress", 420, SEEDS),
        )
    }


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["goldilocks", "learning_progress"])
def test_adaptive_policies_need_at_most_60_percent_of_the_uniform_mixtures_rollouts(
    compared: dict[str, np.ndarray], policy: str
) -> None:
    ratios = compared[policy] / compared["fixed"].min()
    low, high = stats.t.interval(0.95, len(ratios) - 1, ratios.mean(), stats.sem(ratios))
    assert high <= 0.6, f"{ratios.mean():.3f} [{low:.3f}, {high:.3f}]"


@pytest.mark.parametrize("policy", ADAPTIVE)
def test_no_policy_starves_a_task_for_ever(policy: str) -> None:
    run = simulate(MIXED, CurriculumSettings(policy), 120, seed=0)
    task = [arm.task for arm in run.arms]
    for name in set(task):
        drawn = run.shares[:, [k for k, other in enumerate(task) if other == name]].sum(axis=1)
        for start in range(0, 120, 30):
            assert drawn[start : start + 30].sum() > 0, (policy, name, start)


def test_a_forgotten_task_returns() -> None:
    world = World(
        (SimulatedTask("first", (0.0, 2.0)), SimulatedTask("second", (0.0, 2.0, 4.0, 6.0, 8.0), rate=0.0005)),
        transfer=0.0, forgetting=0.03,
    )  # fmt: skip
    run = simulate(world, CurriculumSettings("goldilocks"), 150, seed=0)
    assert run.shares[-50:, :2].sum(axis=1).mean() > 0.2


def test_a_lag_costs_little() -> None:
    late = simulate(MIXED, CurriculumSettings("goldilocks"), 150, seed=0, lag=8).skill[-1]
    assert late > 0.9 * simulate(MIXED, CurriculumSettings("goldilocks"), 150, seed=0).skill[-1]


def test_simulations_repeat() -> None:
    one, other = (simulate(MIXED, CurriculumSettings("goldilocks"), 20, seed=4) for _ in range(2))
    assert one.skill.tolist() == other.skill.tolist()
    assert one.skill.tolist() != simulate(MIXED, CurriculumSettings("goldilocks"), 20, seed=5).skill.tolist()

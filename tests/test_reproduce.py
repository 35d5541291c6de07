"""`ssl4rl/reproduce=paper` gives what docs/paper.md says: the scripts' settings, their reward, and one corruption each."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import itertools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import verl  # noqa: F401  -- loads the plugin
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from pictures import photo

from ssl4rl_plugin.data.ground_truth import encode_truth
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.rows import OnlineRows
from ssl4rl_plugin.data.samples import SampleStream, StreamSample
from ssl4rl_plugin.data_builders.build.builder import build
from ssl4rl_plugin.data_builders.build.planning import make_plan
from ssl4rl_plugin.training import preflight
from ssl4rl_plugin.training.curriculum.director import CurriculumSettings
from ssl4rl_plugin.training.curriculum.schedule import Schedule
from ssl4rl_plugin.training.curriculum_rows import SteeredRows
from ssl4rl_plugin.training.rewards import compute_score
from ssl4rl_plugin.training.settings import Settings, SettingsError
from ssl4rl_plugin.training.stored_rows import StoredRows

pytestmark = pytest.mark.xdist_group("reproduce")  # they share what is composed

DOCS = Path(__file__).parent.parent / "docs"
PAPER = "ssl4rl/reproduce=paper"
MIX = {"tasks": ["rotation", "jigsaw:2x1", "contrastive"], "options": {"side": 84}, "val_samples": 8}


def _make_paper() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_paper", DOCS / "make_paper.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGE = _make_paper()
TABLES = PAGE.settings()["tables"]


def own_part(recipe: str, *overrides: str) -> Any:
    """A recipe's own part of the config."""
    with initialize_config_module("ssl4rl_plugin.recipes", version_base=None):
        return compose(f"recipe/{recipe}", overrides=list(overrides))


# ------------------------------------------------------------------------------------------------- the page


@pytest.mark.slow
def test_the_page_is_that_of_the_recipes() -> None:
    text = PAGE.PAGE.read_text(encoding="utf-8")
    assert PAGE.with_tables(text) == text, "run make gallery"
    assert PAGE.settings()["commit"][:7] in text


KEPT = {
    "data.max_prompt_length",
    "data.filter_overlong_prompts",
    "data.dataloader_num_workers",
    "trainer.max_actor_ckpt_to_keep",
    "actor_rollout_ref.rollout.max_model_len",
    "level.margin",
}
"""Settings that reproduce=paper does not take over; the page says why."""


def test_reproduce_gives_the_scripts_values_where_the_page_says_so() -> None:
    rows = [(table, row) for table in TABLES for row in table["rows"] if "key" in row]
    assert len(rows) > 45
    for table, row in rows:
        recipe = row.get("recipe", table["recipe"])
        found = PAGE.value(PAGE.composed(recipe, PAPER), row["key"])
        assert (found != row["reference"]) == (row["key"] in KEPT), (row["setting"], found)


def test_a_difference_needs_a_reason_and_no_difference_has_none() -> None:
    row = {"setting": "KL", "key": "actor_rollout_ref.actor.kl_loss_coef", "where": "run.sh"}
    with pytest.raises(PAGE.TableError, match="say why"):
        PAGE.cells({**row, "reference": 0.02}, "mmbench_rotation")
    with pytest.raises(PAGE.TableError, match="nothing differs"):
        PAGE.cells({**row, "reference": 0.01, "why": "for fun"}, "mmbench_rotation")
    with pytest.raises(PAGE.TableError, match=r"ssl4rl\.epoch"):
        PAGE.filled("{ssl4rl.epoch}", PAGE.composed("mmbench_rotation"))


RECIPES = [
    f"{benchmark}_{task}"
    for benchmark in ("mmbench", "seedbench")
    for task in (
        *("rotation", "jigsaw", "position", "contrastive", "mixture", "rotation_7b", "rotation_30", "jigsaw_5x5"),
        *("contrastive_strong", "rotation_10pct", "rotation_inductive", "mixture_inductive"),
    )
]


@pytest.mark.parametrize("recipe", [*RECIPES, "images", "imagenet_jigsaw", "caparena_position"])
def test_every_recipe_on_images_takes_it(recipe: str) -> None:
    usual, paper = own_part(recipe), own_part(recipe, PAPER)
    assert paper.ssl4rl.fixed_corruptions and not usual.ssl4rl.fixed_corruptions
    assert (paper.ssl4rl.tasks, paper.ssl4rl.epochs) == (usual.ssl4rl.tasks, usual.ssl4rl.epochs)
    assert paper.trainer.test_freq == (500 if paper.ssl4rl.source.name == "seedbench" else 200)
    section: Any = OmegaConf.to_container(paper.ssl4rl)
    settings = Settings.from_config({**section, "benchmarks": []})
    sides = {arm.task.name: arm.level.side for arm in settings.arms}
    assert sides.pop("contrastive", 224) == 224
    wanted = 448 if "mixture" in recipe or recipe == "images" else 560 if "rotation_30" in recipe else 588
    assert set(sides.values()) <= {wanted}


@pytest.mark.parametrize("recipe", ["mmbench_jigsaw", "seedbench_rotation"])
def test_the_config_passes_verls_validation_and_ours(recipe: str) -> None:
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    config = OmegaConf.merge(PAGE.composed(recipe, PAPER))
    OmegaConf.update(config, "ssl4rl.source.path", "/data/photos")
    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    for part in (config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor):
        omega_conf_to_dataclass(part)
    preflight.check_data_keys(config)
    preflight.check_reward(config, config.ssl4rl.answer_format)
    preflight.check_batches(config)


@pytest.mark.slow
def test_prompts_that_train_fit_into_the_scripts_length(tmp_path: Path) -> None:
    """1,024 tokens with Qwen2.5-VL's tokenizer and processor; 25 tiles take more."""
    import qwen

    from ssl4rl_plugin.training.verl.prompts import prompt_length

    if not qwen.has_vocabulary():
        pytest.skip("dashscope, which ships Qwen's vocabulary, is not installed (make install)")
    for number, size in enumerate([(1024, 1024), (700, 700), (760, 1000)]):
        photo(number, *size).save(tmp_path / f"{number}.jpg", quality=90)
    processor = qwen.processor("qwen2_5_vl")
    longest = {}
    for task in ("rotation", "rotation_45", "rotation_30", "jigsaw_4x4", "position"):
        section: Any = OmegaConf.to_container(own_part(f"mmbench_{task}", PAPER).ssl4rl)
        source = {**section["source"], "name": "folder", "path": str(tmp_path), "val_fraction": 0.0}
        settings = Settings.from_config({**section, "source": source, "benchmarks": []})
        rows = OnlineRows(SampleStream(settings, load_manifest(settings), "train"))
        longest[task] = max(
            prompt_length(rows[k], settings, processor, processor.tokenizer, False).tokens for k in range(4)
        )
    assert max(longest.values()) <= 1024, longest
    assert longest["rotation"] > 950  # pictures of 616 pixels, the next size, would take 43 tokens more each


# ------------------------------------------------------------------------------------------------- the reward


@functools.cache
def reward_kwargs() -> Any:
    kwargs = PAGE.composed("mmbench_rotation", PAPER).reward.custom_reward_function.reward_kwargs
    return OmegaConf.to_container(kwargs, resolve=True)


def reward(task: str, level: str, truth: Any, response: str) -> dict[str, Any]:
    ground_truth = encode_truth(task, level, {}, truth, "train:0")
    return compute_score(f"ssl4rl/{task}", response, ground_truth, {}, **reward_kwargs())


@pytest.mark.parametrize(
    "around", ["<think>a</think> <answer>{}</answer>", "<answer>{}</answer>", "so <answer>{}</answer>!"]
)
def test_a_rotation_pays_1_or_0_whatever_the_form(around: str) -> None:
    assert [reward("rotation", "pair_90", 90, around.format(angle))["score"] for angle in (0, 90, 180, 270)] == [
        0,
        1,
        0,
        0,
    ]
    # At levels with more angles, a near miss is close by similarity, and has no right place.
    assert reward("rotation", "pair_30", 90, around.format(60))["score"] == 0
    assert reward("position", "quadrants", "top-left", around.format("top-right"))["score"] == 0


@pytest.mark.parametrize("level", ["2x1", "2x2", "3x3"])
def test_a_jigsaw_pays_the_share_of_right_places(level: str) -> None:
    rows, cols = map(int, level.split("x"))
    truth = list(range(rows * cols, 0, -1))
    seen = set()
    for order in itertools.islice(itertools.permutations(truth), 400):
        found = reward("jigsaw", level, truth, f"<answer>{','.join(map(str, order))}</answer>")
        right = sum(one == other for one, other in zip(order, truth, strict=True))
        assert found["score"] == right / len(truth)
        assert (found["score"] == 1.0) == (list(order) == truth) == bool(found["acc"])
        seen.add(right)
    assert len(truth) in seen and (level == "2x1" or len(seen) > 2)


@pytest.mark.parametrize(
    "answer", ["1,1,1,1", "3,2,1,4,9,9,9", "3,2,1", "0,2,1,4", "", "3,2,1,4</answer><answer>1,2,3,4"]
)
def test_what_the_scripts_pay_by_mistake_earns_nothing(answer: str) -> None:
    assert reward("jigsaw", "2x2", [3, 2, 1, 4], f"<think>a</think><answer>{answer}</answer>")["score"] == 0


def test_verl_gets_the_same_keys_with_either_reward() -> None:
    truth = encode_truth("jigsaw", "2x2", {}, [3, 2, 1, 4], "train:0")
    usual = compute_score("ssl4rl/jigsaw", "<answer>1,2,3,4</answer>", truth, {})
    paper = reward("jigsaw", "2x2", [3, 2, 1, 4], "<answer>1,2,3,4</answer>")
    assert list(usual) == list(paper)
    assert {key for key in usual if usual[key] != paper[key]} == {"score"}


def test_a_wrong_way_to_pay_is_refused(section: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"ssl4rl\.partial_credit_by must be 'similarity' or 'places', got 'tiles'"):
        Settings.from_config({**section, "partial_credit_by": "tiles"})
    with pytest.raises(SettingsError, match=r"ssl4rl\.fixed_corruptions"):
        Settings.from_config({**section, "fixed_corruptions": "once"})
    truth = encode_truth("rotation", "pair_90", {}, 90, "train:0")
    broken = compute_score("ssl4rl/rotation", "<answer>0</answer>", truth, {}, partial_credit_by="tiles")  # type: ignore[arg-type]
    assert (broken["score"], broken["failed"]) == (0, 1) and "tiles" in broken["error"]


# ------------------------------------------------------------------------------------------------- the corruptions


def stream(section: dict[str, Any], fixed: bool, split: str = "train", **changes: Any) -> SampleStream:
    settings = Settings.from_config({**section, "fixed_corruptions": fixed, **changes})
    return SampleStream(settings, load_manifest(settings), split)


def content(made: StreamSample) -> tuple[Any, ...]:
    """All that the model and the reward see of a sample, without its number."""
    pictures = hashlib.sha256(b"".join(image.tobytes() for image in made.sample.images)).hexdigest()
    truth = {key: value for key, value in json.loads(made.truth_json).items() if key != "sample"}
    return made.item_id, made.prompt, json.dumps(truth), pictures, made.refused


def epochs(found: SampleStream, count: int) -> list[list[tuple[Any, ...]]]:
    items = len(found.items)
    return [[content(found[e * items + k]) for k in range(items)] for e in range(count)]


@pytest.mark.parametrize("changes", [MIX, {"tasks": ["rotation"], "options": {"side": 84}}], ids=["mix", "rotation"])
def test_epochs_repeat_the_samples_in_another_order_if_fixed(section: dict[str, Any], changes: dict[str, Any]) -> None:
    first, second, third = epochs(stream(section, True, **changes, epochs=3), 3)
    assert sorted(first) == sorted(second) == sorted(third)
    assert first != second != third
    fresh = epochs(stream(section, False, **changes, epochs=2), 2)
    assert fresh[0] == first  # the first epoch is the same
    assert not {made[3] for made in fresh[0]} & {made[3] for made in fresh[1]}


def test_an_item_that_replaces_a_refused_one_is_the_same_in_every_epoch(section: dict[str, Any]) -> None:
    """A tight level refuses many items, so that others take their places."""
    # Pictures of 240 to 320 pixels: the smaller ones leave too small a cut-out.
    tight = {"tasks": ["position:3x3"], "options": {"smallest": 0.2}, "epochs": 2}
    first, second = epochs(stream(section, True, **tight), 2)
    replaced = [made for made in first if made[4]]
    assert replaced and sorted(first) == sorted(second)


def test_validation_is_not_affected(section: dict[str, Any]) -> None:
    # More samples than held-out items: some are used twice, with another corruption.
    one, other = (stream(section, fixed, "val", **{**MIX, "val_samples": 30}) for fixed in (True, False))
    assert [content(one[k]) for k in range(len(one))] == [content(other[k]) for k in range(len(other))]


def test_a_curriculum_shows_the_same_sample_of_a_picture_for_each_arm(section: dict[str, Any]) -> None:
    found = stream(section, True, **MIX, epochs=2)
    rows = OnlineRows(found)
    schedule = Schedule(len(rows.arms), seed=0)
    schedule.announce(0, [0.2, 0.3, 0.5])
    steered = SteeredRows(rows, CurriculumSettings.from_config("goldilocks"), schedule)  # type: ignore[arg-type]
    seen: dict[tuple[str, str], set[str]] = {}
    for index in range(len(steered)):
        row = steered[index]
        pictures = hashlib.sha256(b"".join(image.tobytes() for image in row.images)).hexdigest()
        if row.info["refused"] == "[]":
            seen.setdefault((row.info["item"], row.kind), set()).add(pictures)
    assert all(len(pictures) == 1 for pictures in seen.values())
    assert len(seen) < len(steered)  # some were shown twice


def test_a_resumed_run_keeps_them(section: dict[str, Any]) -> None:
    fixed, fresh = (OnlineRows(stream(section, fixed, **MIX)).state() for fixed in (True, False))
    assert fixed == {**fresh, "fixed_corruptions": True} and "fixed_corruptions" not in fresh


def test_builds_hold_them_and_others_are_refused(section: dict[str, Any], tmp_path: Path) -> None:
    folders = {}
    for fixed in (True, False):
        built = {**section, **MIX, "fixed_corruptions": fixed, "epochs": 2}
        manifest = load_manifest(Settings.from_config(built))
        folders[fixed] = tmp_path / str(fixed)
        build(make_plan(built, manifest), manifest, folders[fixed], workers=1)
    rows = StoredRows(folders[True], "train")
    half = len(rows) // 2
    shown = [(row.info["item"], row.prompt, row.images[0].tobytes()) for row in map(rows.__getitem__, range(len(rows)))]
    assert sorted(shown[:half]) == sorted(shown[half:])

    run = {**section, "fixed_corruptions": True}
    preflight.check_built(Settings.from_config(run), folders[True])
    with pytest.raises(
        preflight.PreflightError, match=r"new corruptions in each of 2 epochs.*--set fixed_corruptions=true"
    ):
        preflight.check_built(Settings.from_config(run), folders[False])
    preflight.check_built(Settings.from_config(section), folders[True])  # a folder decides on its samples

"""Every recipe, file or row of the table, composes, passes verl's own validation and ours, and is listed as it is.

Hydra composes each recipe's own part once, which is quick, and the result is laid over verl's defaults. That gives what
`+plugin=ssl4rl recipe=NAME` gives, as one test shows with verl's whole configuration. Recipes that differ in nothing that
verl's validation reads are validated once.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
import verl  # noqa: F401  -- loads the plugin, as verl does for every user
from hydra import compose, initialize_config_dir, initialize_config_module
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from omegaconf import DictConfig, OmegaConf

from ssl4rl_plugin.cli import catalogue
from ssl4rl_plugin.training import preflight
from ssl4rl_plugin.training.prompt_limits import prompt_limits
from ssl4rl_plugin.training.settings import Settings
from ssl4rl_plugin.training.verl import search_path

pytestmark = pytest.mark.xdist_group("recipes")  # they share what is composed

ROOT = Path(__file__).parent.parent / "recipes"
RECIPES = """
caparena_contrastive caparena_jigsaw caparena_position caparena_rotation
cpu_curriculum cpu_demo cpu_learn cpu_one_task cpu_videos
graph_arxiv graph_citeseer graph_cora graph_cpu_demo graph_cpu_learn graph_mixture graph_pubmed graph_wikics
imagenet_contrastive imagenet_jigsaw imagenet_position imagenet_rotation
images images_qwen3_vl_2b images_qwen3_vl_4b images_qwen3_vl_8b images_wide
mmbench_contrastive mmbench_contrastive_7b mmbench_contrastive_inductive mmbench_contrastive_strong
mmbench_jigsaw mmbench_jigsaw_3x3 mmbench_jigsaw_4x4 mmbench_jigsaw_5x5 mmbench_jigsaw_7b mmbench_jigsaw_inductive
mmbench_mixture mmbench_mixture_inductive
mmbench_position mmbench_position_7b mmbench_position_augmented mmbench_position_inductive
mmbench_rotation mmbench_rotation_10pct mmbench_rotation_25pct mmbench_rotation_30 mmbench_rotation_45
mmbench_rotation_50pct mmbench_rotation_7b mmbench_rotation_inductive
rgbd
seedbench_contrastive seedbench_contrastive_7b seedbench_contrastive_inductive seedbench_contrastive_strong
seedbench_jigsaw seedbench_jigsaw_3x3 seedbench_jigsaw_4x4 seedbench_jigsaw_5x5 seedbench_jigsaw_7b
seedbench_jigsaw_inductive seedbench_mixture seedbench_mixture_inductive
seedbench_position seedbench_position_7b seedbench_position_augmented seedbench_position_inductive
seedbench_rotation seedbench_rotation_10pct seedbench_rotation_25pct seedbench_rotation_30 seedbench_rotation_45
seedbench_rotation_50pct seedbench_rotation_7b seedbench_rotation_inductive
videos
""".split()  # noqa: SIM905
HARDWARE = sorted(path.stem for path in (ROOT / "ssl4rl" / "hardware").glob("*.yaml"))
ALGORITHMS = sorted(path.stem for path in (ROOT / "ssl4rl" / "algorithm").glob("*.yaml"))
SOURCE = "ssl4rl.source.path=/data/photos"
MODEL = "actor_rollout_ref.model.path=some/model"


def composed(*overrides: str) -> DictConfig:
    """verl's whole configuration, as its command line composes it."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=list(overrides))


@functools.cache
def own_part(recipe: str, *overrides: str) -> tuple[DictConfig, dict[str, str]]:
    """A recipe's own part of the config, and the choices of the groups, by Hydra."""
    with initialize_config_module("ssl4rl_plugin.recipes", version_base=None):
        config = compose(f"recipe/{recipe}", overrides=list(overrides), return_hydra_config=True)
    choices = {key: value for key, value in config.hydra.runtime.choices.items() if key.startswith("ssl4rl/")}
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return config, choices


@pytest.fixture(scope="module")
def recipes() -> dict[str, tuple[DictConfig, dict[str, str]]]:
    return {name: own_part(name) for name in RECIPES}


@pytest.fixture(scope="module")
def verls() -> DictConfig:
    return composed()


def laid_over(verls: DictConfig, own: DictConfig) -> DictConfig:
    config = OmegaConf.merge(verls)
    OmegaConf.set_struct(config, False)
    config.merge_with(own)
    return config


def validated(config: DictConfig) -> DictConfig:
    """The config, after verl's validation, as main_ppo calls it, and ours of what needs no images."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    for key, value in (override.split("=") for override in (SOURCE, MODEL)):
        OmegaConf.update(config, key, value)
    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    for part in (config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor, config.algorithm):
        omega_conf_to_dataclass(part)
    preflight.check_data_keys(config)
    preflight.check_reward(config, config.ssl4rl.answer_format)
    preflight.check_batches(config)
    return config


def read_by_validation(own: DictConfig) -> str:
    """The part of a recipe that verl's validation reads."""
    content: Any = OmegaConf.to_container(own)
    del content["ssl4rl"], content["trainer"]["experiment_name"]
    content["actor_rollout_ref"].get("model", {}).pop("path", None)
    return json.dumps(content, sort_keys=True)


def test_every_recipe_passes_verls_validation_and_ours(recipes: dict[str, Any], verls: DictConfig) -> None:
    seen = set()
    for name, (own, _) in recipes.items():
        assert own.trainer.experiment_name == name
        assert own.data.custom_cls.name == "SSLDataset"
        assert own.reward.custom_reward_function.path == "pkg://ssl4rl_plugin.training.rewards"
        section: Any = OmegaConf.to_container(own.ssl4rl)
        settings = Settings.from_config({**section, "benchmarks": []})  # every task, level and option exists
        assert (max(getattr(arm.level, "rows", 1) * getattr(arm.level, "cols", 1) for arm in settings.arms)) <= (
            prompt_limits(own.actor_rollout_ref.rollout)["image"]
        )
        if (key := read_by_validation(own)) not in seen:
            seen.add(key)
            validated(laid_over(verls, own))
    assert len(seen) < len(recipes) / 2


@pytest.mark.parametrize("recipe", ["cpu_demo", "mmbench_rotation", "seedbench_jigsaw_5x5", "images_qwen3_vl_2b"])
def test_verls_composition_is_the_recipe_laid_over_verls_defaults(
    recipe: str, recipes: dict[str, Any], verls: DictConfig
) -> None:
    whole = composed("+plugin=ssl4rl", f"recipe={recipe}")
    assert whole == laid_over(verls, recipes[recipe][0])


def test_the_listing_is_what_hydra_composes(recipes: dict[str, Any]) -> None:
    for name, (own, choices) in recipes.items():
        listed, groups = catalogue.composed(name)
        del listed["hydra"]
        assert (listed, groups) == (own, choices), name


@pytest.mark.parametrize("hardware", HARDWARE)
def test_batches_divide_on_every_machine(hardware: str, verls: DictConfig) -> None:
    recipe = "cpu_demo" if hardware.startswith("cpu") else "images"
    config = validated(laid_over(verls, own_part(recipe, f"ssl4rl/hardware={hardware}")[0]))
    OmegaConf.resolve(config)  # as the task runner does
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    gpus = config.trainer.n_gpus_per_node * config.trainer.nnodes
    assert config.data.train_batch_size % actor.ppo_mini_batch_size == 0
    assert actor.ppo_mini_batch_size * rollout.n % (gpus * actor.ppo_micro_batch_size_per_gpu) == 0
    rows = config.data.train_batch_size * rollout.n // gpus
    for part in (rollout, config.actor_rollout_ref.ref):
        assert rows % (part.log_prob_micro_batch_size_per_gpu or 1) == 0
    assert gpus % rollout.tensor_model_parallel_size == 0
    assert config.ssl4rl.gpu_memory == {"cpu": None, "cpu_2x1": None, "gpu_1x24gb": 24}.get(hardware, 80)
    assert (config.actor_rollout_ref.model.lora_rank > 0) == (hardware == "gpu_1x24gb")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_algorithms_are_one_word(algorithm: str, verls: DictConfig) -> None:
    config = validated(laid_over(verls, own_part("mmbench_rotation", f"ssl4rl/algorithm={algorithm}")[0]))
    actor, section = config.actor_rollout_ref.actor, config.algorithm
    assert section.adv_estimator == ("grpo" if algorithm == "dapo" else algorithm)
    assert actor.use_kl_loss == (algorithm == "grpo")
    assert section.use_kl_in_reward == (algorithm in ("rloo", "reinforce_plus_plus"))
    assert section.filter_groups.enable == (algorithm == "dapo")
    if algorithm == "dapo":
        assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.loss_agg_mode) == (0.2, 0.28, "token-mean")
        assert config.reward.reward_manager.name == "dapo"
        assert config.reward.reward_kwargs.max_resp_len == config.data.max_response_length


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        ("qwen2_5_vl", {"text_config": {"num_hidden_layers": 1}, "vision_config": {"depth": 1}}),
        ("qwen3_vl", {"text_config": {"num_hidden_layers": 1}, "vision_config": {"depth": 1}}),
    ],
)
def test_lora_leaves_the_vision_tower_alone(model: str, shape: dict[str, Any]) -> None:
    """Adapters as verl adds them with the recipe's settings, on the real architectures."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForImageTextToText

    settings = own_part("images", "ssl4rl/finetuning=lora")[0].actor_rollout_ref.model
    with torch.device("meta"):
        plain = AutoModelForImageTextToText.from_config(AutoConfig.for_model(model, **shape))
        assert any("visual" in name for name, _ in plain.named_modules())
        adapted = get_peft_model(
            plain,
            LoraConfig(
                r=settings.lora_rank, target_modules=settings.target_modules, exclude_modules=settings.exclude_modules
            ),
        )
    trained = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert trained and all("lora_" in name and "visual" not in name for name in trained)
    parts = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert all(any(part in name for name in trained) for part in parts)


def test_recipes_are_short_and_name_what_they_change() -> None:
    for file in (ROOT / "recipe").glob("*.yaml"):
        text = file.read_text()
        assert text.startswith("# @package _global_\n# ")
        assert file.stem.startswith(("cpu_", "graph_cpu_")) or len(text.splitlines()) < 15, file.stem


def test_every_name_is_kept_and_belongs_to_one_recipe() -> None:
    files = [file.stem for file in (ROOT / "recipe").glob("*.yaml")]
    assert sorted([*files, *search_path.grid_recipes()]) == sorted(RECIPES)
    assert [entry["name"] for entry in catalogue.recipe_entries()] == sorted(RECIPES)


@pytest.mark.parametrize("config", ["recipe/mmbench_rotation", "ssl4rl/source/ogb", "ssl4rl/benchmark/vstar"])
def test_a_users_own_file_wins_over_the_table(config: str, tmp_path: Path) -> None:
    file = tmp_path / f"{config}.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\nmine: true\n")
    with warnings.catch_warnings(), initialize_config_dir(str(tmp_path), version_base=None):
        warnings.simplefilter("error")  # such as Hydra's about a schema of the same name
        assert compose(config) == {"mine": True}
    path = create_config_search_path("pkg://verl.trainer.config")
    path.prepend("command-line", f"file://{tmp_path}", SearchPathQuery(provider="schema"))  # as --config-dir does
    loaded = ConfigRepository(path).load_config(config)
    assert loaded is not None and loaded.config == {"mine": True}


@pytest.fixture
def unread_table() -> Iterator[None]:
    """The table and the names of the sources are read anew, in the test and after it."""
    cached = (search_path._configs, search_path._paper_grid, search_path.grid_recipes)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.mark.usefixtures("unread_table")
def test_a_source_of_another_package_is_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = EntryPoints([EntryPoint("theirs", "nowhere_to_be_found:Theirs", search_path.SOURCES)])
    monkeypatch.setattr(search_path, "entry_points", lambda group: theirs)
    with initialize_config_module("ssl4rl_plugin.recipes", version_base=None):
        config = compose("recipe/images", overrides=["ssl4rl/source=theirs", "ssl4rl/benchmark=theirs"])
    assert config.ssl4rl.source.name == "theirs" and not config.ssl4rl.transductive
    assert config.ssl4rl.benchmarks == [{"name": "theirs", "path": "???"}]


@pytest.mark.usefixtures("unread_table")
def test_a_broken_table_warns_and_leaves_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_path, "_paper_grid", lambda: {"recipes": [{"name": "lost"}], "titles": {}})
    with initialize_config_module("ssl4rl_plugin.recipes", version_base=None):
        with pytest.warns(RuntimeWarning, match=r"could not read recipes/paper_grid\.yaml"):
            assert compose("recipe/cpu_demo").trainer.experiment_name == "cpu_demo"
        with pytest.raises(Exception, match="mmbench_rotation"):
            compose("recipe/mmbench_rotation")


def test_the_papers_grid_is_there_and_every_part_of_it_has_a_twin() -> None:
    entries = {entry["name"]: entry for entry in catalogue.recipe_entries()}
    for benchmark in ("mmbench", "seedbench"):
        for task in ("rotation", "jigsaw", "position", "contrastive", "mixture"):
            entry, twin = entries[f"{benchmark}_{task}"], entries[f"{benchmark}_{task}_inductive"]
            assert entry["transductive"] and entry["source"] == benchmark
            assert not twin["transductive"] and twin["source"] == "imagenet"
            assert entry["tasks"] == twin["tasks"] and entry["benchmarks"] == twin["benchmarks"] == [benchmark]
            assert entry["model"] == twin["model"] == "qwen2_5_vl_3b"
            if task != "mixture":
                assert entries[f"{benchmark}_{task}_7b"]["model"] == "qwen2_5_vl_7b"
    # A recipe that trains on the benchmark it validates on is marked as transductive.
    for entry in entries.values():
        assert entry["transductive"] or entry["source"] not in entry["benchmarks"]
        assert not entry["reproduces"] or entry["reproduces"].startswith("SSL4RL: ")


def test_a_part_of_the_data_makes_as_many_samples_as_all_of_it(recipes: dict[str, Any]) -> None:
    parts = [own.ssl4rl for own, _ in recipes.values() if isinstance(own.ssl4rl.source.train_size, float)]
    assert len(parts) == 6 and all(part.epochs * part.source.train_size == 20 for part in parts)


def test_order_of_precedence_for_any_order_of_arguments() -> None:
    """verl's default < the recipe < the command line."""
    lr = "actor_rollout_ref.actor.optim.lr"
    assert OmegaConf.select(composed(), "algorithm.adv_estimator") == "gae"
    recipe = composed("+plugin=ssl4rl", "recipe=mmbench_rotation", SOURCE)
    assert recipe.algorithm.adv_estimator == "grpo" and OmegaConf.select(recipe, lr) == 1e-6
    for overrides in (
        [f"{lr}=3e-6", "+plugin=ssl4rl", "recipe=mmbench_rotation", SOURCE],
        ["+plugin=ssl4rl", "recipe=mmbench_rotation", SOURCE, f"{lr}=3e-6"],
    ):
        assert OmegaConf.select(composed(*overrides), lr) == 3e-6


@pytest.mark.parametrize("task", ["rotation", "jigsaw", "position", "contrastive"])
def test_the_papers_settings(task: str, verls: DictConfig) -> None:
    """GRPO settings of the paper's runs (arXiv 2510.16416 and its scripts), in verl 0.9's keys."""
    c = laid_over(verls, own_part(f"mmbench_{task}", SOURCE)[0])
    OmegaConf.resolve(c)
    actor, rollout = c.actor_rollout_ref.actor, c.actor_rollout_ref.rollout
    assert list(c.ssl4rl.tasks) == [task] and c.ssl4rl.transductive and c.ssl4rl.epochs == 20
    assert c.ssl4rl.benchmarks == [{"name": "mmbench", "path": "/data/photos"}]
    assert c.actor_rollout_ref.model.path == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert c.actor_rollout_ref.model.enable_gradient_checkpointing
    assert (actor.optim.lr, actor.ppo_mini_batch_size) == (1e-6, 128)
    assert (actor.use_kl_loss, actor.kl_loss_coef, actor.kl_loss_type) == (True, 0.01, "low_var_kl")
    assert actor.entropy_coeff == 0 and not c.algorithm.use_kl_in_reward
    assert (rollout.n, rollout.name, rollout.gpu_memory_utilization) == (5, "vllm", 0.6)
    # The paper's 1,024 tokens do not hold a benchmark's question about a large picture.
    assert (c.data.train_batch_size, c.data.max_prompt_length, c.data.max_response_length) == (512, 2048, 2048)
    assert (c.trainer.n_gpus_per_node, c.trainer.nnodes) == (8, 1)


def test_plain_verl_is_as_before(verls: DictConfig) -> None:
    assert "ssl4rl" not in verls and verls.data.custom_cls.path is None


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(Exception, match="nope") as error:
        composed("+plugin=ssl4rl", "recipe=nope")
    assert all(recipe in str(error.value) for recipe in RECIPES)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(Exception, match="epoch_s"):
        composed("+plugin=ssl4rl", "recipe=mmbench_rotation", SOURCE, "ssl4rl.epoch_s=3")

"""Every recipe composes with verl's own main_ppo config and passes verl's own validation."""

from __future__ import annotations

from pathlib import Path

import pytest
import verl  # noqa: F401  -- loads the plugin, as verl does for every user
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

RECIPES = sorted(path.stem for path in (Path(__file__).parent.parent / "recipes" / "recipe").glob("*.yaml"))
SOURCE = "ssl4rl.source.path=/data/photos"
MODEL = "actor_rollout_ref.model.path=some/model"


def composed(*overrides: str) -> DictConfig:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=list(overrides))


@pytest.mark.parametrize("recipe", RECIPES)
def test_composes_and_passes_verls_validation(recipe: str) -> None:
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    config = composed("+plugin=ssl4rl", f"recipe={recipe}", SOURCE, MODEL)
    OmegaConf.resolve(config)
    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    assert config.data.custom_cls.name == "SSLDataset"
    assert config.reward.custom_reward_function.path == "pkg://ssl4rl_plugin.rewards"
    assert config.data.ssl4rl == config.ssl4rl


def test_order_of_precedence_whatever_the_order_of_arguments() -> None:
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
def test_the_papers_settings(task: str) -> None:
    """GRPO settings of the paper's runs (arXiv 2510.16416 and its scripts), in verl 0.9's keys."""
    c = composed("+plugin=ssl4rl", f"recipe=mmbench_{task}", SOURCE)
    OmegaConf.resolve(c)
    actor, rollout = c.actor_rollout_ref.actor, c.actor_rollout_ref.rollout
    assert list(c.ssl4rl.tasks) == [task] and c.ssl4rl.transductive and c.ssl4rl.epochs == 20
    assert c.actor_rollout_ref.model.path == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert (actor.optim.lr, actor.ppo_mini_batch_size, actor.ppo_micro_batch_size_per_gpu) == (1e-6, 128, 10)
    assert (actor.use_kl_loss, actor.kl_loss_coef, actor.kl_loss_type) == (True, 0.01, "low_var_kl")
    assert actor.entropy_coeff == 0 and not c.algorithm.use_kl_in_reward
    assert (rollout.n, rollout.name, rollout.gpu_memory_utilization) == (5, "vllm", 0.6)
    assert (c.data.train_batch_size, c.data.max_prompt_length, c.data.max_response_length) == (512, 1024, 2048)
    assert (c.trainer.n_gpus_per_node, c.trainer.nnodes) == (8, 1)


def test_plain_verl_is_as_before() -> None:
    config = composed()
    assert "ssl4rl" not in config and config.data.custom_cls.path is None


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(Exception, match="nope") as error:
        composed("+plugin=ssl4rl", "recipe=nope")
    assert all(recipe in str(error.value) for recipe in RECIPES)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(Exception, match="epoch_s"):
        composed("+plugin=ssl4rl", "recipe=mmbench_rotation", SOURCE, "ssl4rl.epoch_s=3")

"""A recipe trains with flash-attn where it is installed, and without it where it is not; nothing is chosen silently."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ssl4rl_plugin.demo.run import compose
from ssl4rl_plugin.training.attention import FLASH, attention_findings, flash_attention_installed

KERNEL = "actor_rollout_ref.model.override_config.attn_implementation"
GPU_RECIPES = ("images", "images_qwen3_vl_2b", "videos", "graph_mixture", "mmbench_jigsaw_4x4")


def settings(config: Any) -> tuple[Any, ...]:
    """Kernel, packing, dynamic micro-batches of update, log-probs and reference."""
    model, actor = config.actor_rollout_ref.model, config.actor_rollout_ref.actor
    dynamic = (
        actor.use_dynamic_bsz,
        config.actor_rollout_ref.rollout.log_prob_use_dynamic_bsz,
        config.actor_rollout_ref.ref.log_prob_use_dynamic_bsz,
    )
    return model.override_config.attn_implementation, model.use_remove_padding, *dynamic


@pytest.fixture
def flash_attn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution flash-attn 2.8.3, as importlib sees it."""
    (tmp_path / "flash_attn").mkdir()
    (tmp_path / "flash_attn" / "__init__.py").write_text("")
    (tmp_path / "flash_attn-2.8.3.dist-info").mkdir()
    (tmp_path / "flash_attn-2.8.3.dist-info" / "METADATA").write_text("Name: flash-attn\nVersion: 2.8.3\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()


@pytest.mark.skipif(flash_attention_installed(), reason="flash-attn is installed here")
@pytest.mark.parametrize("recipe", GPU_RECIPES)
def test_without_flash_attn_rows_are_padded_and_the_run_says_so(recipe: str) -> None:
    config = compose(recipe, [])
    assert settings(config) == ("sdpa", False, False, False, False)
    (note,) = attention_findings(config, here=True)
    assert not note.fatal and "flash-attn is not installed" in str(note)


@pytest.mark.parametrize("recipe", GPU_RECIPES)
def test_with_flash_attn_rows_are_packed(recipe: str, flash_attn: None) -> None:
    config = compose(recipe, [])
    assert settings(config) == (FLASH, True, True, True, True)
    assert attention_findings(config, here=True) == []


def test_the_user_chooses(flash_attn: None) -> None:
    config = compose("images", ["ssl4rl.attention=sdpa"])
    assert settings(config) == ("sdpa", False, False, False, False)
    own = compose("images", [f"{KERNEL}=eager", "actor_rollout_ref.model.use_remove_padding=false"])
    assert settings(own) == ("eager", False, False, False, False)


@pytest.mark.skipif(flash_attention_installed(), reason="flash-attn is installed here")
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ssl4rl.attention=flash_attention_2", "flash-attn is not installed"),
        (f"{KERNEL}=flash_attention_2", "flash-attn is not installed"),
        ("actor_rollout_ref.model.use_remove_padding=true", "packed rows need flash_attention_2"),
    ],
)
def test_what_would_fail_in_the_worker_fails_before(override: str, message: str) -> None:
    (finding,) = attention_findings(compose("images", [override]), here=True)
    assert finding.fatal and message in str(finding)


def test_another_machine_may_have_it() -> None:
    """The driver of a cluster need not have the packages of its nodes."""
    config = compose("images", ["ssl4rl.attention=flash_attention_2"])
    assert attention_findings(config, here=False) == []


def test_an_unknown_choice_is_named() -> None:
    config = compose("images", ["ssl4rl.attention=fast"])
    with pytest.raises(Exception, match="choose one of auto, flash_attention_2, sdpa"):
        settings(config)


@pytest.mark.skipif(flash_attention_installed() or "flash_attn" in sys.modules, reason="flash-attn is installed here")
def test_verls_default_fails_here_and_the_recipes_choice_loads(tmp_path: Path) -> None:
    """The finding itself: from_pretrained as verl's FSDP worker calls it."""
    small = AutoConfig.for_model(
        "qwen2", hidden_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=64, vocab_size=100,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(small).save_pretrained(tmp_path)
    with pytest.raises(ImportError, match="FlashAttention2"):
        AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=FLASH)
    kernel = settings(compose("images", []))[0]
    model = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=kernel)
    assert torch.isfinite(model(torch.ones(1, 4, dtype=torch.long)).logits).all()

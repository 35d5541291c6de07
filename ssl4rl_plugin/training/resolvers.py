"""OmegaConf resolvers of the recipes: values that follow from other settings or from the machine.

    ssl4rl.attention_kernel:${ssl4rl.attention}    flash_attention_2 or sdpa, for override_config.attn_implementation
    ssl4rl.packs_rows:${ssl4rl.attention}          true with flash_attention_2, for use_remove_padding
    ssl4rl.sum:A,B                                 a sum, for max_model_len = prompt + response
    ssl4rl.prompt_tokens:${ssl4rl.benchmarks}      1024 without benchmarks, 2048 with, for data.max_prompt_length

The keys that use them can be set on the command line like any other.
"""

from __future__ import annotations

from omegaconf import OmegaConf

from ssl4rl_plugin.training.attention import attention_kernel, packs_rows
from ssl4rl_plugin.training.prompt_lengths import prompt_tokens


def register() -> None:
    """Register the resolvers with OmegaConf. Safe to call more than once."""
    for name, function in (
        ("ssl4rl.attention_kernel", attention_kernel),
        ("ssl4rl.packs_rows", packs_rows),
        ("ssl4rl.sum", lambda *numbers: sum(numbers)),
        ("ssl4rl.prompt_tokens", prompt_tokens),
    ):
        OmegaConf.register_new_resolver(name, function, replace=True)
